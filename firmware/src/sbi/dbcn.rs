//! DBCN, EID 0x4442434E (SBI 3.0, chapter 12).

use sbi_spec::dbcn::*;

use super::{Answer, Arguments, Platform, SbiError, shared_memory, success};

/// Bytes that one call moves at most; the rest is a partial write or read, which the specification allows. It bounds how
/// long a hart is away.
const MAX_BYTES: u64 = 64 << 10;

pub(super) fn call(platform: &mut dyn Platform, fid: u32, arguments: Arguments) -> Answer {
    let [first, low, high, ..] = arguments;
    match fid as usize {
        CONSOLE_WRITE => write(platform, first, low, high),
        CONSOLE_READ => read(platform, first, low, high),
        CONSOLE_WRITE_BYTE => {
            platform.console_write(&[first as u8]).ok_or(SbiError::Failed)?;
            success(0)
        }
        _ => Err(SbiError::NotSupported),
    }
}

fn write(platform: &mut dyn Platform, length: u64, low: u64, high: u64) -> Answer {
    let address = shared_memory(platform, low, high, length).ok_or(SbiError::InvalidParam)?;
    let length = length.min(MAX_BYTES);
    let mut written = 0;
    let mut buffer = [0; 1024];
    while written < length {
        let chunk = &mut buffer[..(length - written).min(1024) as usize];
        if !platform.read_memory(address + written, chunk) {
            return Err(SbiError::InvalidParam);
        }
        match platform.console_write(chunk) {
            Some(count @ 1..) => written += count as u64,
            None if written == 0 => return Err(SbiError::Failed),
            Some(0) | None => break,
        }
    }
    success(written)
}

fn read(platform: &mut dyn Platform, length: u64, low: u64, high: u64) -> Answer {
    let address = shared_memory(platform, low, high, length).ok_or(SbiError::InvalidParam)?;
    let length = length.min(MAX_BYTES);
    let mut done = 0;
    let mut buffer = [0; 1024];
    while done < length {
        let wanted = (length - done).min(1024) as usize;
        let count = platform.console_read(&mut buffer[..wanted]);
        if !platform.write_memory(address + done, &buffer[..count]) {
            return Err(SbiError::InvalidParam);
        }
        done += count as u64;
        if count < wanted {
            break;
        }
    }
    success(done)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, RAM, RAM_SIZE};

    const DBCN: u64 = 0x4442434E;

    #[test]
    fn write_takes_bytes_from_physical_memory() {
        let mut fake = Fake::default();
        fake.ram[0x10..0x15].copy_from_slice(b"hello");
        assert_eq!(fake.call(DBCN, 0, &[5, RAM + 0x10, 0]), (0, 5));
        assert_eq!(fake.output, b"hello");
    }

    #[test]
    fn long_writes_are_not_reordered() {
        let mut fake = Fake::default();
        for (index, byte) in fake.ram.iter_mut().enumerate() {
            *byte = (index % 251) as u8;
        }
        assert_eq!(fake.call(DBCN, 0, &[RAM_SIZE, RAM, 0]), (0, RAM_SIZE));
        assert_eq!(fake.output, fake.ram);
    }

    #[test]
    fn partial_console_writes_are_continued() {
        let mut fake = Fake { console_room: Some(3), ..Fake::default() };
        fake.ram[..8].copy_from_slice(b"12345678");
        assert_eq!(fake.call(DBCN, 0, &[8, RAM, 0]), (0, 8));
        assert_eq!(fake.output, b"12345678");
    }

    #[test]
    fn bad_ranges_are_invalid_parameters() {
        let mut fake = Fake { input: b"x".to_vec(), ..Fake::default() };
        for fid in [0, 1] {
            assert_eq!(fake.call(DBCN, fid, &[1, 0x1000, 0]), (-3, 0), "not RAM");
            assert_eq!(fake.call(DBCN, fid, &[2, RAM + RAM_SIZE - 1, 0]), (-3, 0), "reaches past RAM");
            assert_eq!(fake.call(DBCN, fid, &[u64::MAX, RAM, 0]), (-3, 0), "wraps");
            assert_eq!(fake.call(DBCN, fid, &[1, RAM, 1]), (-3, 0), "beyond 64 bits");
        }
        assert!(fake.output.is_empty());
        assert_eq!(fake.input, b"x", "nothing was taken from the console");
    }

    #[test]
    fn read_stores_what_there_is() {
        let mut fake = Fake { input: b"abc".to_vec(), ..Fake::default() };
        assert_eq!(fake.call(DBCN, 1, &[2, RAM, 0]), (0, 2));
        assert_eq!(fake.ram[..3], *b"ab\0");
        assert_eq!(fake.call(DBCN, 1, &[10, RAM, 0]), (0, 1));
        assert_eq!(fake.call(DBCN, 1, &[10, RAM, 0]), (0, 0));
        assert_eq!(fake.ram[..3], *b"cb\0");
    }

    #[test]
    fn write_byte_has_value_zero() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(DBCN, 2, &[0x1_41]), (0, 0));
        assert_eq!(fake.output, b"A");
    }

    #[test]
    fn broken_console_fails() {
        let mut fake = Fake { console_broken: true, ..Fake::default() };
        assert_eq!(fake.call(DBCN, 0, &[1, RAM, 0]), (-1, 0));
        assert_eq!(fake.call(DBCN, 2, &[65]), (-1, 0));
    }
}
