//! What the user can ask of a disk: `FILE[,option…]`.

use std::path::PathBuf;
use std::str::FromStr;

/// Most bytes in a serial number (section 5.2.6.1 of the virtio specification).
pub const SERIAL_BYTES: usize = 20;

/// A kind of image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The sectors as they are.
    Raw,
    /// QEMU's format, version 2 or 3.
    Qcow2,
}

impl Format {
    /// As it is written in options and headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    /// The format of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Raw, Self::Qcow2].into_iter().find(|format| format.name() == name)
    }
}

/// What the user asked of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// The image file or block device.
    pub path: PathBuf,
    /// Refuse guest writes, and open the file for reading only.
    pub read_only: bool,
    /// Keep guest writes in a temporary file that vanishes with the process; the image is opened for reading only.
    pub snapshot: bool,
    /// The format, if it is not to be found out.
    pub format: Option<Format>,
    /// A qcow2 image over `path` that takes the guest's writes; made if it does not exist.
    pub overlay: Option<PathBuf>,
    /// The serial number, at most [`SERIAL_BYTES`].
    pub serial: Option<String>,
    /// Whether the guest may give storage back to the host.
    pub discard: bool,
}

/// Why a `FILE[,option…]` argument was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseDiskError {
    /// Nothing before the first single comma.
    #[error("the disk argument names no file; write FILE[,readonly][,snapshot][,format=raw|qcow2]…")]
    NoFile,
    /// An option that does not exist.
    #[error(
        "unknown disk option `{0}`; valid options are readonly[=on|off], snapshot[=on|off], format=raw|qcow2, \
         overlay=FILE, serial=TEXT and discard=unmap|ignore (a comma inside a file name is written `,,`)"
    )]
    UnknownOption(String),
    /// An option that exists, with a value that does not.
    #[error("disk option `{option}` cannot be `{value}`; it takes {valid}")]
    BadValue {
        /// The option's name.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        valid: &'static str,
    },
    /// Two options that exclude each other.
    #[error("disk options `{0}` and `{1}` exclude each other; leave one out")]
    Exclusive(&'static str, &'static str),
}

impl DiskOptions {
    /// A writable image at `path`, of a format that is found out.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read_only: false,
            snapshot: false,
            format: None,
            overlay: None,
            serial: None,
            discard: true,
        }
    }

    /// Reads `FILE[,readonly][,snapshot][,format=…][,overlay=…][,serial=…][,discard=…]`. As in QEMU, `,,` is a comma that
    /// belongs to a name.
    pub fn parse(text: &str) -> Result<Self, ParseDiskError> {
        let mut words = split(text).into_iter();
        let file = words.next().unwrap_or_default();
        if file.is_empty() {
            return Err(ParseDiskError::NoFile);
        }
        let mut options = Self::new(file);
        for word in words {
            let (name, value) = word.split_once('=').map_or((&word[..], None), |(n, v)| (n, Some(v)));
            let given = value.unwrap_or_default();
            let bad = |option, valid| ParseDiskError::BadValue { option, value: given.to_owned(), valid };
            match name {
                "readonly" => options.read_only = switch(value).ok_or(bad("readonly", "on or off"))?,
                "snapshot" => options.snapshot = switch(value).ok_or(bad("snapshot", "on or off"))?,
                "format" => options.format = Some(Format::named(given).ok_or(bad("format", "raw or qcow2"))?),
                "overlay" if given.is_empty() => return Err(bad("overlay", "the name of a file")),
                "overlay" => options.overlay = Some(given.into()),
                "serial" if given.is_empty() || given.len() > SERIAL_BYTES => {
                    return Err(bad("serial", "1 to 20 bytes"));
                }
                "serial" => options.serial = Some(given.to_owned()),
                "discard" => {
                    options.discard = match given {
                        "unmap" | "on" => true,
                        "ignore" | "off" => false,
                        _ => return Err(bad("discard", "unmap or ignore")),
                    }
                }
                _ => return Err(ParseDiskError::UnknownOption(word)),
            }
        }
        options.check()?;
        Ok(options)
    }

    /// Refuses options that exclude each other.
    pub fn check(&self) -> Result<(), ParseDiskError> {
        let overlay = self.overlay.is_some();
        for (option, on) in [("readonly", self.read_only), ("snapshot", self.snapshot)] {
            if overlay && on {
                return Err(ParseDiskError::Exclusive("overlay", option));
            }
        }
        Ok(())
    }
}

impl FromStr for DiskOptions {
    type Err = ParseDiskError;

    fn from_str(text: &str) -> Result<Self, ParseDiskError> {
        Self::parse(text)
    }
}

/// Splits at single commas; of doubled ones, one stays.
fn split(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char == ',' && chars.next_if_eq(&',').is_none() {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(char);
        }
    }
    words
}

fn switch(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("on") => Some(true),
        Some("off") => Some(false),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn options_follow_the_file_name() {
        let options = DiskOptions::parse("a.img,readonly,snapshot=on").unwrap();
        assert_eq!(options.path, Path::new("a.img"));
        assert!(options.read_only && options.snapshot && options.format.is_none());
        assert!(!DiskOptions::parse("a,readonly=off").unwrap().read_only);
        assert_eq!(DiskOptions::parse("a,format=raw").unwrap().format, Some(Format::Raw));
        let options = DiskOptions::parse("a,serial=S 1,discard=ignore,overlay=b,,c,format=qcow2").unwrap();
        assert_eq!((options.serial.as_deref(), options.discard), (Some("S 1"), false));
        assert_eq!(
            (options.overlay.as_deref(), options.format),
            (Some(Path::new("b,c")), Some(Format::Qcow2))
        );
        assert!(DiskOptions::parse("a,discard=unmap").unwrap().discard);
    }

    #[test]
    fn doubled_commas_belong_to_the_file_name() {
        assert_eq!(DiskOptions::parse("a,,b").unwrap().path, Path::new("a,b"));
        let options = DiskOptions::parse("x,,,readonly").unwrap();
        assert_eq!(options.path, Path::new("x,"));
        assert!(options.read_only);
        assert_eq!(DiskOptions::parse("a,,,,b,snapshot").unwrap().path, Path::new("a,,b"));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(DiskOptions::parse(""), Err(ParseDiskError::NoFile));
        assert_eq!(DiskOptions::parse(",readonly"), Err(ParseDiskError::NoFile));
        let text = DiskOptions::parse("a,ro").unwrap_err().to_string();
        assert!(text.contains("`ro`") && text.contains("readonly") && text.contains("snapshot"), "{text}");
        assert!(DiskOptions::parse("a,readonly=maybe").unwrap_err().to_string().contains("on or off"));
        assert!(DiskOptions::parse("a,format=vmdk").unwrap_err().to_string().contains("qcow2"));
        assert!(
            DiskOptions::parse("a,serial=123456789012345678901")
                .unwrap_err()
                .to_string()
                .contains("20 bytes")
        );
        assert!(DiskOptions::parse("a,discard").unwrap_err().to_string().contains("unmap or ignore"));
        assert!(DiskOptions::parse("a,overlay=").unwrap_err().to_string().contains("name of a file"));
        for both in ["a,overlay=b,readonly", "a,snapshot,overlay=b"] {
            assert!(matches!(DiskOptions::parse(both), Err(ParseDiskError::Exclusive("overlay", _))));
        }
        assert!(matches!(DiskOptions::parse("a,"), Err(ParseDiskError::UnknownOption(_))));
    }
}
