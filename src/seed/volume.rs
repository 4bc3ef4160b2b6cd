//! A file system for a few small files, made in memory: FAT, which every Linux reads, with a label.

use std::io::{self, Cursor, Write};

/// Bytes of the smallest volume that is made.
const SMALLEST: usize = 1 << 20;

/// A volume named `label` (at most 11 ASCII characters) with these files in its root directory.
///
/// # Errors
/// When the files do not fit, which volumes made for them do not let happen.
pub(super) fn fat(label: &str, files: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    let content: usize = files.iter().map(|(_, bytes)| bytes.len().next_multiple_of(4096)).sum();
    let mut volume = Cursor::new(vec![0; (SMALLEST + content + content / 64).next_multiple_of(1 << 16)]);
    let mut name = [b' '; 11];
    name.iter_mut().zip(label.bytes()).for_each(|(to, from)| *to = from);
    let options = fatfs::FormatVolumeOptions::new().volume_label(name);
    fatfs::format_volume(&mut volume, options)?;
    {
        let system = fatfs::FileSystem::new(&mut volume, fatfs::FsOptions::new())?;
        for (name, bytes) in files {
            let mut file = system.root_dir().create_file(name)?;
            file.write_all(bytes)?;
            file.flush()?;
        }
        system.unmount()?;
    }
    Ok(volume.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn files_are_read_back() {
        for size in [0, 1, 4096, 5000, 3 << 20, 40 << 20] {
            let bytes: Vec<u8> = (0..size).map(|n| (n / 7) as u8).collect();
            let volume = fat("CIDATA", &[("user-data", &bytes), ("meta-data", b"x")]).unwrap();
            assert!(volume.len().is_multiple_of(512));
            let system = fatfs::FileSystem::new(Cursor::new(volume), fatfs::FsOptions::new()).unwrap();
            assert_eq!(system.volume_label(), "CIDATA");
            assert_eq!(system.read_volume_label_from_root_dir().unwrap().as_deref(), Some("CIDATA"));
            let mut back = Vec::new();
            system.root_dir().open_file("user-data").unwrap().read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{size} bytes");
        }
    }
}
