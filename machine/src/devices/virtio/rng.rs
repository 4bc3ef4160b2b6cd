//! The entropy device (section 5.4): fills buffers with the host's random bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{ActiveQueue, Chain, RingError, VirtioDevice};

const DEVICE_ID: u32 = 4;
const QUEUE_SIZES: [u16; 1] = [256];

/// Most bytes given to one request; a driver that wants more asks again.
const MAX_REQUEST: usize = 64 * 1024;

/// A virtio entropy device.
pub struct Rng {
    source: File,
}

impl Rng {
    /// A device fed by the host's random number generator.
    ///
    /// # Errors
    /// When `/dev/urandom` cannot be opened.
    pub fn new() -> io::Result<Self> {
        Self::from_file(Path::new("/dev/urandom"))
    }

    /// A device fed by any file that reads without end.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        Ok(Self { source: File::open(path)? })
    }
}

impl VirtioDevice for Rng {
    fn name(&self) -> &'static str {
        "virtio-rng"
    }

    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _offset: usize, _data: &mut [u8]) {}

    fn service(&self, _index: usize, queue: &mut ActiveQueue<'_>) -> Result<(), RingError> {
        let mut chain = Chain::default();
        let mut bytes = [0; 4096];
        while queue.pop(&mut chain)? {
            let wanted = (chain.writable_len() as usize).min(MAX_REQUEST);
            if wanted == 0 {
                return Err(RingError::Request("room for random bytes"));
            }
            let mut done = 0;
            while done < wanted {
                let piece = bytes.len().min(wanted - done);
                if let Err(error) = (&self.source).read_exact(&mut bytes[..piece]) {
                    log::warn!("virtio-rng: the host gives no random bytes: {error}");
                    break;
                }
                done += chain.write(queue.memory(), done as u32, &bytes[..piece]);
            }
            queue.push(&chain, done as u32)?;
        }
        Ok(())
    }

    fn reset(&self) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::devices::virtio::mmio::Version;
    use crate::devices::virtio::testing::*;

    #[test]
    fn buffers_are_filled_up_to_a_bound() {
        let mut driver = Driver::new(Version::Modern, Arc::new(Rng::new().unwrap()));
        assert_eq!(driver.get(8), 4);
        driver.init(VERSION_1, 1);
        driver.submit(0, &[(DATA, 5000, WRITE)]);
        assert_eq!(driver.complete(0), (0, 5000));
        let bytes = driver.bytes(DATA, 5064);
        assert!(bytes[..32] != [0; 32] && bytes[4968..5000] != [0; 32], "2 in 2^256 that this is chance");
        assert!(bytes[..32] != bytes[4096..4128]);
        assert_eq!(bytes[5000..], [0; 64]);
        driver.submit(0, &[(DATA, 1 << 20, WRITE)]);
        assert_eq!(driver.complete(0), (0, MAX_REQUEST as u32));
    }

    #[test]
    fn a_source_that_ends_gives_less_and_a_readable_buffer_is_an_error() {
        let mut driver =
            Driver::new(Version::Modern, Arc::new(Rng::from_file(Path::new("/dev/null")).unwrap()));
        driver.init(VERSION_1, 1);
        driver.submit(0, &[(DATA, 64, WRITE)]);
        assert_eq!(driver.complete(0), (0, 0));
        driver.submit(0, &[(DATA, 64, 0)]);
        wait_for("NEEDS_RESET", || driver.get(0x70) & 0x40 != 0);
    }
}
