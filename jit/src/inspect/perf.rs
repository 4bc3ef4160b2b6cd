//! Tells Linux's profiler `perf` what generated code is, in either of the two ways it knows.
//!
//! A *map* is a list of addresses and names, which serves `perf report` as it is. It cannot say that an address has another
//! meaning later on. A *jitdump* has the code too, and times: `perf inject --jit` makes files of it that `perf annotate`
//! can show (tools/perf/Documentation/jitdump-specification.txt in Linux).

#![allow(unsafe_code, reason = "maps the first page of a file, which is how perf learns of it")]

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use parking_lot::Mutex;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::time::{ClockId, clock_gettime};

/// How perf is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerfFormat {
    /// `/tmp/perf-PID.map`.
    Map,
    /// `jit-PID.dump`, in `$JITDUMPDIR` or the current directory.
    Jitdump,
}

/// Bytes of the file that are mapped: a page of any host.
const MAPPED: usize = 4096;

const MAGIC: u32 = 0x4A69_5444;
const VERSION: u32 = 1;
const HEADER_SIZE: u32 = 40;
const CODE_LOAD: u32 = 0;
const CODE_LOAD_SIZE: u32 = 56;
/// EM_X86_64 or EM_AARCH64.
const MACHINE: u32 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// The file that perf reads. Every record is handed to the host at once, so what was written outlives hartvm however it ends.
pub struct Perf {
    path: PathBuf,
    format: PerfFormat,
    inner: Mutex<Inner>,
    /// Address of the mapping.
    marker: Option<usize>,
}

struct Inner {
    /// `None` after an error.
    file: Option<File>,
    /// Records written.
    records: u64,
}

impl Perf {
    pub(crate) fn create(format: PerfFormat) -> Result<Self, (PathBuf, io::Error)> {
        let pid = std::process::id();
        let path = match format {
            PerfFormat::Map => PathBuf::from(format!("/tmp/perf-{pid}.map")),
            PerfFormat::Jitdump => {
                let name = format!("jit-{pid}.dump");
                std::env::var_os("JITDUMPDIR")
                    .map_or_else(|| name.clone().into(), |dir| PathBuf::from(dir).join(&name))
            }
        };
        Self::create_at(path.clone(), format).map_err(|error| (path, error))
    }

    fn create_at(path: PathBuf, format: PerfFormat) -> io::Result<Self> {
        // A file of an earlier process with this number goes away; a link that somebody put there is not followed.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let mut marker = None;
        if format == PerfFormat::Jitdump {
            file.write_all(&header())?;
            // SAFETY: a new mapping at an address that the kernel chooses. Nothing reads it; perf takes note of it.
            let page = unsafe {
                let prot = ProtFlags::READ | ProtFlags::EXEC;
                mmap(std::ptr::null_mut(), MAPPED, prot, MapFlags::PRIVATE, &file, 0)
            };
            marker = Some(page?.expose_provenance());
        }
        Ok(Self { path, format, inner: Mutex::new(Inner { file: Some(file), records: 0 }), marker })
    }

    /// Says what the code at a host address is. The first error is reported, and ends the file.
    pub fn code(&self, address: u64, code: &[u8], name: impl std::fmt::Display) {
        let mut inner = self.inner.lock();
        let Inner { file, records } = &mut *inner;
        let Some(open) = file else { return };
        let record = match self.format {
            PerfFormat::Map => {
                let mut line = String::new();
                let _ = writeln!(line, "{address:x} {:x} {name}", code.len());
                line.into_bytes()
            }
            PerfFormat::Jitdump => code_load(address, code, &name.to_string(), *records),
        };
        match open.write_all(&record) {
            Ok(()) => *records += 1,
            Err(error) => {
                log::error!("--perf: cannot write {}: {error}; it ends here", self.path.display());
                *file = None;
            }
        }
    }
}

impl Drop for Perf {
    fn drop(&mut self) {
        if let Some(address) = self.marker {
            // SAFETY: mapped by `create_at`, and nothing refers to it.
            let _ = unsafe { munmap(std::ptr::with_exposed_provenance_mut(address), MAPPED) };
        }
    }
}

/// Nanoseconds of the clock that `perf record -k mono` uses.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn header() -> Vec<u8> {
    let mut header = Vec::new();
    for word in [MAGIC, VERSION, HEADER_SIZE, MACHINE, 0, std::process::id()] {
        header.extend(word.to_ne_bytes());
    }
    for word in [now(), 0] {
        header.extend(word.to_ne_bytes());
    }
    header
}

fn code_load(address: u64, code: &[u8], name: &str, index: u64) -> Vec<u8> {
    let size = CODE_LOAD_SIZE as usize + name.len() + 1 + code.len();
    let mut record = Vec::with_capacity(size);
    let pid = std::process::id();
    let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
    for word in [CODE_LOAD, size as u32] {
        record.extend(word.to_ne_bytes());
    }
    record.extend(now().to_ne_bytes());
    for word in [pid, thread] {
        record.extend(word.to_ne_bytes());
    }
    for word in [address, address, code.len() as u64, index] {
        record.extend(word.to_ne_bytes());
    }
    record.extend(name.as_bytes());
    record.push(0);
    record.extend(code);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: PerfFormat) -> Vec<u8> {
        let name = format!("hartvm-perf-{}-{format:?}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let perf = Perf::create_at(path.clone(), format).expect("a file");
        perf.code(0x1000, &[0x90, 0xc3], "one");
        perf.code(0x2000, &[0xc3], "two");
        let bytes = std::fs::read(&path).expect("the file");
        std::fs::remove_file(&path).expect("the file is there");
        bytes
    }

    #[test]
    fn a_map_has_a_line_for_each() {
        assert_eq!(written(PerfFormat::Map), b"1000 2 one\n2000 1 two\n");
    }

    #[test]
    fn a_jitdump_has_a_header_and_records_with_the_code() {
        let bytes = written(PerfFormat::Jitdump);
        let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        assert_eq!([0, 4, 8, 20].map(u32_at), [MAGIC, 1, 40, std::process::id()]);
        let first = 40;
        assert_eq!((u32_at(first), u32_at(first + 4)), (CODE_LOAD, 56 + 4 + 2));
        assert!(u64_at(first + 8) >= u64_at(24));
        assert_eq!([24, 32, 40, 48].map(|at| u64_at(first + at)), [0x1000, 0x1000, 2, 0]);
        assert_eq!(&bytes[first + 56..first + 62], b"one\0\x90\xc3");
        let second = first + 62;
        assert_eq!((u64_at(second + 48), bytes.len()), (1, second + 56 + 4 + 1));
    }
}
