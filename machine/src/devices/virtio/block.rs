//! The block device (section 5.2) over a [`Disk`].
//!
//! Each queue has a worker thread. It carries out what the host can do from its memory, straight between guest memory and
//! the disk, which is faster than any hand-over. What has to wait for a device of the host (a read that misses the host's
//! cache, a flush, a discard) goes to the disk's `pool` of threads, and the queue goes on meanwhile. Transfers go in
//! pieces, so that a reset never waits for more than one piece. A host error is the guest's I/O error; hartvm goes on.

mod pool;

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use virtio_bindings::bindings::virtio_blk as abi;

use super::{ActiveQueue, Chain, RingError, Site, VirtioDevice, read_config_bytes};
use crate::disk::{Disk, SECTOR_SIZE};
use pool::Pool;

const DEVICE_ID: u32 = 2;
/// Most queues: more than there are harts serve no purpose, and each is a thread.
pub const MAX_QUEUES: usize = 8;
const QUEUE_SIZES: [u16; MAX_QUEUES] = [256; MAX_QUEUES];

/// Bytes in the request header: type, a reserved word, the first sector.
const HEADER: u32 = 16;
/// Bytes in one segment of a discard or write-zeroes request: sector, count, flags.
const RANGE: u32 = 16;
/// Bytes of the device's name that GET_ID returns.
const ID_BYTES: usize = abi::VIRTIO_BLK_ID_BYTES as usize;

/// Bytes transferred before looking whether somebody waits for the device.
const PIECE: u32 = 4 << 20;
/// Bytes zeroed or discarded before looking; holes are cheap.
const RANGE_PIECE: u64 = 64 << 20;
/// Most sectors in one segment of a discard or write-zeroes request: 2 GiB, as in QEMU.
const MAX_RANGE_SECTORS: u32 = 0x3f_ffff;
/// Most segments in such a request.
const MAX_RANGES: u32 = 64;

/// Where `writeback` stands in configuration space.
const WRITEBACK: usize = 32;
const CONFIG_LEN: usize = 60;

const fn bit(number: u32) -> u64 {
    1 << number
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    features: u64,
    /// The driver wants a write cache (CONFIG_WCE); on after a reset.
    writeback: bool,
}

impl State {
    const RESET: Self = Self { features: 0, writeback: true };

    /// Section 5.2.6.2: whether writes may stay in the host's cache until a FLUSH.
    fn cached(&self) -> bool {
        if self.features & bit(abi::VIRTIO_BLK_F_CONFIG_WCE) != 0 {
            self.writeback
        } else {
            self.features & bit(abi::VIRTIO_BLK_F_FLUSH) != 0
        }
    }
}

/// A virtio disk.
pub struct Block {
    core: Arc<Core>,
    pool: Pool,
}

/// What all threads of a disk share.
struct Core {
    disk: Box<dyn Disk>,
    id: [u8; ID_BYTES],
    /// The driver may discard.
    discard: bool,
    queues: usize,
    state: Mutex<State>,
    /// Host errors that the log has heard of: each kind is worth one line.
    reported: Mutex<Vec<Option<i32>>>,
}

/// What became of a request.
enum Outcome {
    /// Finished, well or not.
    Done,
    /// Cut short, with this much of it done.
    Stopped(u32),
    /// Not begun, or not finished: it would have to wait for the host.
    Waits,
}

/// Cuts a request short.
enum Failure {
    Host(io::Error),
    /// The driver asked for something outside the disk or of a wrong size.
    Refused,
    Unsupported,
    Stopped(u32),
    Waits,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

impl Block {
    /// A device for `disk` with a serial number, of which the guest sees the first 20 bytes
    /// (`/dev/disk/by-id/virtio-SERIAL`). Without `discard` the guest is not offered to give storage back. There are
    /// `queues` request queues, 1 to [`MAX_QUEUES`].
    pub fn new(disk: Box<dyn Disk>, serial: &str, discard: bool, queues: usize) -> Self {
        let mut id = [0; ID_BYTES];
        for (to, from) in id.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        let queues = queues.clamp(1, MAX_QUEUES);
        let (state, reported) = (Mutex::new(State::RESET), Mutex::default());
        let core = Arc::new(Core { disk, id, discard, queues, state, reported });
        Self { pool: Pool::new(Arc::clone(&core)), core }
    }
}

impl Core {
    fn config(&self) -> [u8; CONFIG_LEN] {
        let mut config = [0; CONFIG_LEN];
        let mut put =
            |offset: usize, bytes: &[u8]| config[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, &(self.disk.size() / SECTOR_SIZE).to_le_bytes());
        // seg_max: header and status take a descriptor each.
        put(12, &(u32::from(QUEUE_SIZES[0]) - 2).to_le_bytes());
        put(20, &(SECTOR_SIZE as u32).to_le_bytes());
        // Topology: the least sensible transfer is one block, the best is not known.
        put(26, &1_u16.to_le_bytes());
        put(WRITEBACK, &[u8::from(self.state.lock().writeback)]);
        put(34, &(self.queues as u16).to_le_bytes());
        // discard_sector_alignment: holes are made in 4 KiB.
        for (offset, value) in [(36, MAX_RANGE_SECTORS), (40, MAX_RANGES), (44, 8)] {
            put(offset, &value.to_le_bytes());
        }
        for (offset, value) in [(48, MAX_RANGE_SECTORS), (52, MAX_RANGES)] {
            put(offset, &value.to_le_bytes());
        }
        // write_zeroes_may_unmap
        put(56, &[1]);
        config
    }

    /// Carries out one request; if `patient` is off, only if that needs no waiting for the host.
    fn request(&self, chain: &Chain, queue: &impl Site, patient: bool) -> Result<Outcome, RingError> {
        let mut header = [0; HEADER as usize];
        if chain.read(queue.memory(), 0, &mut header) != header.len() {
            return Err(RingError::Request("its header"));
        }
        let Some(room) = chain.writable_len().checked_sub(1) else {
            return Err(RingError::Request("room for its status"));
        };
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let result = match u32::from_le_bytes([t0, t1, t2, t3]) {
            abi::VIRTIO_BLK_T_IN => self.read(chain, queue, sector, room, patient),
            abi::VIRTIO_BLK_T_OUT if !patient && !self.state.lock().cached() => Err(Failure::Waits),
            abi::VIRTIO_BLK_T_FLUSH | abi::VIRTIO_BLK_T_DISCARD | abi::VIRTIO_BLK_T_WRITE_ZEROES
                if !patient =>
            {
                Err(Failure::Waits)
            }
            abi::VIRTIO_BLK_T_OUT => self.write(chain, queue, sector),
            abi::VIRTIO_BLK_T_FLUSH => self.disk.flush().map_err(Failure::Host),
            abi::VIRTIO_BLK_T_GET_ID => {
                chain.write(queue.memory(), 0, &self.id[..ID_BYTES.min(room as usize)]);
                Ok(())
            }
            abi::VIRTIO_BLK_T_DISCARD if self.discard => self.ranges(chain, queue, true),
            abi::VIRTIO_BLK_T_WRITE_ZEROES => self.ranges(chain, queue, false),
            _ => Err(Failure::Unsupported),
        };
        let status = match result {
            Ok(()) => abi::VIRTIO_BLK_S_OK,
            Err(Failure::Stopped(progress)) => return Ok(Outcome::Stopped(progress)),
            Err(Failure::Waits) => return Ok(Outcome::Waits),
            Err(Failure::Unsupported) => abi::VIRTIO_BLK_S_UNSUPP,
            Err(Failure::Refused) => abi::VIRTIO_BLK_S_IOERR,
            Err(Failure::Host(error)) => {
                self.report(&error);
                abi::VIRTIO_BLK_S_IOERR
            }
        };
        // The last writable byte, wherever that is (section 2.7.4: framing carries no meaning).
        chain.write(queue.memory(), room, &[status as u8]);
        Ok(Outcome::Done)
    }

    /// The byte offset of a transfer of `len` bytes, if it is whole sectors of the disk.
    fn place(&self, sector: u64, len: u64) -> Result<u64, Failure> {
        let offset = sector.checked_mul(SECTOR_SIZE).ok_or(Failure::Refused)?;
        let end = offset.checked_add(len).ok_or(Failure::Refused)?;
        if len.is_multiple_of(SECTOR_SIZE) && end <= self.disk.size() {
            Ok(offset)
        } else {
            Err(Failure::Refused)
        }
    }

    fn read(
        &self,
        chain: &Chain,
        queue: &impl Site,
        sector: u64,
        len: u32,
        patient: bool,
    ) -> Result<(), Failure> {
        let offset = self.place(sector, u64::from(len))?;
        pieces(chain, queue, len, |skip, len| {
            chain.with_writable(queue.memory(), skip, len as usize, |slices| {
                let offset = offset + u64::from(skip);
                if patient {
                    self.disk.read_at(offset, slices)?;
                } else if !self.disk.try_read_at(offset, slices)? {
                    return Err(Failure::Waits);
                }
                Ok(())
            })
        })
    }

    fn write(&self, chain: &Chain, queue: &impl Site, sector: u64) -> Result<(), Failure> {
        let len = chain.readable_len() - HEADER;
        let offset = self.place(sector, u64::from(len))?;
        if self.disk.read_only() {
            return Err(Failure::Refused);
        }
        pieces(chain, queue, len, |skip, len| {
            chain.with_readable(queue.memory(), HEADER + skip, len as usize, |slices| {
                Ok(self.disk.write_at(offset + u64::from(skip), slices)?)
            })
        })?;
        self.write_through()
    }

    /// Discards or zeroes the ranges that the request lists.
    fn ranges(&self, chain: &Chain, queue: &impl Site, discard: bool) -> Result<(), Failure> {
        let len = chain.readable_len() - HEADER;
        let count = len / RANGE;
        if self.disk.read_only() || !len.is_multiple_of(RANGE) || count == 0 || count > MAX_RANGES {
            return Err(Failure::Refused);
        }
        for index in 0..count {
            let mut range = [0; RANGE as usize];
            chain.read(queue.memory(), HEADER + index * RANGE, &mut range);
            let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = range;
            let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
            let unmap = match u32::from_le_bytes(flags) {
                0 => false,
                // The one flag there is, and it means nothing in a discard.
                abi::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP if !discard => true,
                _ => return Err(Failure::Unsupported),
            };
            if sectors > MAX_RANGE_SECTORS {
                return Err(Failure::Refused);
            }
            let mut left = u64::from(sectors) * SECTOR_SIZE;
            let mut offset = self.place(u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]), left)?;
            while left > 0 {
                if queue.stopping() {
                    // Doing the first ranges again does no harm.
                    return Err(Failure::Stopped(0));
                }
                let piece = left.min(RANGE_PIECE);
                if discard {
                    self.disk.discard(offset, piece)?;
                } else {
                    self.disk.write_zeroes(offset, piece, unmap && self.discard)?;
                }
                offset += piece;
                left -= piece;
            }
        }
        self.write_through()
    }

    fn write_through(&self) -> Result<(), Failure> {
        let cached = self.state.lock().cached();
        if cached { Ok(()) } else { self.disk.flush().map_err(Failure::Host) }
    }

    fn report(&self, error: &io::Error) {
        let mut reported = self.reported.lock();
        let kind = error.raw_os_error();
        if !reported.contains(&kind) {
            reported.push(kind);
            log::warn!("virtio-blk: the host refuses a request, the guest sees an I/O error: {error}");
        }
    }
}

/// Transfers `len` bytes in pieces, from where the request was cut short last time.
fn pieces(
    chain: &Chain,
    queue: &impl Site,
    len: u32,
    mut transfer: impl FnMut(u32, u32) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut done = chain.progress();
    while done < len {
        if queue.stopping() {
            return Err(Failure::Stopped(done));
        }
        let piece = PIECE.min(len - done);
        transfer(done, piece)?;
        done += piece;
    }
    Ok(())
}

impl VirtioDevice for Block {
    fn name(&self) -> &'static str {
        "virtio-blk"
    }

    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        let features = bit(abi::VIRTIO_BLK_F_SEG_MAX)
            | bit(abi::VIRTIO_BLK_F_BLK_SIZE)
            | bit(abi::VIRTIO_BLK_F_TOPOLOGY)
            | bit(abi::VIRTIO_BLK_F_FLUSH)
            | bit(abi::VIRTIO_BLK_F_CONFIG_WCE);
        features
            | if self.core.queues > 1 { bit(abi::VIRTIO_BLK_F_MQ) } else { 0 }
            | match (self.core.disk.read_only(), self.core.discard) {
                (true, _) => bit(abi::VIRTIO_BLK_F_RO),
                (false, true) => bit(abi::VIRTIO_BLK_F_DISCARD) | bit(abi::VIRTIO_BLK_F_WRITE_ZEROES),
                (false, false) => bit(abi::VIRTIO_BLK_F_WRITE_ZEROES),
            }
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES[..self.core.queues]
    }

    fn threads(&self) -> usize {
        self.core.queues
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        read_config_bytes(&self.core.config(), offset, data);
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        let mut state = self.core.state.lock();
        if offset == WRITEBACK
            && state.features & bit(abi::VIRTIO_BLK_F_CONFIG_WCE) != 0
            && let Some(value) = data.first()
        {
            state.writeback = value & 1 != 0;
        }
    }

    fn negotiated(&self, features: u64) {
        self.core.state.lock().features = features;
    }

    fn service(&self, _index: usize, queue: &mut ActiveQueue<'_>) -> Result<(), RingError> {
        let mut chain = Chain::default();
        while queue.pop(&mut chain)? {
            match self.core.request(&chain, queue, false)? {
                Outcome::Done => queue.push(&chain, chain.writable_len())?,
                Outcome::Stopped(progress) => queue.retry(progress),
                Outcome::Waits if self.pool.is_ready() => {
                    self.pool.add(queue.defer(std::mem::take(&mut chain)))
                }
                // A host that gives us no thread has this one wait.
                Outcome::Waits => match self.core.request(&chain, queue, true)? {
                    Outcome::Stopped(progress) => queue.retry(progress),
                    Outcome::Done | Outcome::Waits => queue.push(&chain, chain.writable_len())?,
                },
            }
        }
        Ok(())
    }

    fn reset(&self) {
        *self.core.state.lock() = State::RESET;
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
