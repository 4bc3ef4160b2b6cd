//! Compressed clusters: read, never written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use flate2::{Decompress, FlushDecompress, Status};
use parking_lot::Mutex;

use super::corrupt;
use super::header::{Compression, read_up_to};

/// Where the compressed bytes of a cluster are: a byte offset, and how many at most.
pub(super) fn extent(entry: u64, cluster_bits: u32) -> (u64, u64) {
    // The specification's x: the descriptor's low x bits are the offset, what is above counts further sectors.
    let offset_bits = 62 - (cluster_bits - 8);
    let offset = entry & ((1 << offset_bits) - 1);
    let sectors = (entry & ((1 << 62) - 1)) >> offset_bits;
    (offset, (sectors + 1) * 512 - offset % 512)
}

/// Clusters unpacked lately. What a descriptor stands for never changes while the image is open, because compressed
/// clusters are never written.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    clusters: Mutex<VecDeque<(u64, Arc<[u8]>)>>,
}

/// Clusters kept; with the largest clusters 16 MiB.
const KEPT: usize = 8;

impl Unpacked {
    /// The contents of the cluster that `entry` describes.
    pub(super) fn get(
        &self,
        file: &File,
        entry: u64,
        cluster_bits: u32,
        compression: Compression,
    ) -> io::Result<Arc<[u8]>> {
        if let Some((_, bytes)) = self.clusters.lock().iter().find(|(kept, _)| *kept == entry) {
            return Ok(Arc::clone(bytes));
        }
        let (offset, len) = extent(entry, cluster_bits);
        let mut packed = vec![0; len as usize];
        // The last sectors of a file may be missing.
        let len = read_up_to(file, offset, &mut packed)?;
        let bytes: Arc<[u8]> = unpack(&packed[..len], 1 << cluster_bits, compression)?.into();
        let mut clusters = self.clusters.lock();
        clusters.push_front((entry, Arc::clone(&bytes)));
        clusters.truncate(KEPT);
        Ok(bytes)
    }
}

/// Unpacks exactly one cluster; more may follow in `packed`, since only sectors are counted.
fn unpack(packed: &[u8], cluster_size: usize, compression: Compression) -> io::Result<Vec<u8>> {
    let bad = || corrupt("a compressed cluster cannot be unpacked");
    let mut bytes = vec![0; cluster_size];
    match compression {
        Compression::Zlib => {
            let mut inflater = Decompress::new(false);
            let status =
                inflater.decompress(packed, &mut bytes, FlushDecompress::Finish).map_err(|_| bad())?;
            let whole = inflater.total_out() == cluster_size as u64;
            if !whole || !matches!(status, Status::StreamEnd | Status::Ok | Status::BufError) {
                return Err(bad());
            }
        }
        Compression::Zstd => {
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed).map_err(|_| bad())?;
            decoder.read_exact(&mut bytes).map_err(|_| bad())?;
        }
    }
    Ok(bytes)
}
