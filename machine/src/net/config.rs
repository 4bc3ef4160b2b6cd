//! What the user asked of the network: `none`, or `user` with its options, spelled as QEMU spells them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::wire::Mac;

/// The guest's address, unless a forward names another.
pub const GUEST_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The host as the guest sees it: its gateway, and its way to what listens on the host's loopback.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server as the guest sees it.
pub const DNS_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// Bits of the network's part of these addresses.
pub(super) const PREFIX_V4: u8 = 24;

/// The host as the guest sees it.
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
/// The name server as the guest sees it.
pub const DNS_V6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 3);
/// The router's own address on the link.
pub(super) const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
/// Bits of the network's part of these addresses.
pub(super) const PREFIX_V6: u8 = 64;

/// Whether an address belongs to the guest's own network.
pub(super) fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => (address.to_bits() ^ HOST_V4.to_bits()) >> (32 - u32::from(PREFIX_V4)) == 0,
        IpAddr::V6(address) => {
            (address.to_bits() ^ HOST_V6.to_bits()) >> (128 - u32::from(PREFIX_V6)) == 0
                || address.is_unicast_link_local()
        }
    }
}

/// A transport protocol that can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the host that leads into the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Forward {
    /// Which protocol.
    pub protocol: Protocol,
    /// Where the host listens; port 0 lets the host choose.
    pub host: SocketAddr,
    /// Where it leads.
    pub guest: SocketAddr,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}", self.protocol, self.host, self.guest)
    }
}

/// A user network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserOptions {
    /// Ports of the host that lead into the guest.
    pub forwards: Vec<Forward>,
    /// The guest reaches neither the host nor anything beyond it; forwards still work.
    pub restrict: bool,
    /// No IPv6 on the guest's network.
    pub ipv4_only: bool,
    /// The hardware address of the guest's device; there is one by default.
    pub mac: Option<Mac>,
}

/// What the guest is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetOptions {
    /// There is no network device.
    None,
    /// A network inside this process that needs no rights on the host.
    User(UserOptions),
}

/// The options there are, for messages.
const VALID: &str = "hostfwd=tcp|udp:[ADDR]:PORT-[GUESTADDR]:PORT, restrict=on|off, ipv6=on|off and \
                     mac=52:54:00:12:34:56";

/// Why a `--net` argument was refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseNetError {
    /// Neither `user` nor `none`.
    #[error("unknown kind of network `{0}`; want user[,OPTION...] or none")]
    UnknownKind(String),
    /// `none` with options.
    #[error("`none` takes no options, but `{0}` was given")]
    OptionOfNone(String),
    /// An option that does not exist.
    #[error("unknown option `{0}`; valid options of `user` are {VALID}")]
    UnknownOption(String),
    /// An option that exists, with a value that does not.
    #[error("option `{option}` cannot be `{value}`; want on or off")]
    NotASwitch {
        /// Its name.
        option: String,
        /// What was given.
        value: String,
    },
    /// A hardware address that cannot be a device's.
    #[error("`{0}` is no address of a network device; want one such as mac=52:54:00:12:34:56")]
    Mac(String),
    /// A forward that cannot be read.
    #[error(
        "forward `{text}`: {what}; want tcp|udp:[ADDR]:PORT-[GUESTADDR]:PORT, such as hostfwd=tcp::2222-:22 or \
         hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80 (IPv6 addresses in brackets)"
    )]
    Forward {
        /// The value.
        text: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The same port of the host twice.
    #[error("two forwards listen on {0}; want a port of the host for each")]
    Duplicate(String),
}

impl FromStr for NetOptions {
    type Err = ParseNetError;

    fn from_str(text: &str) -> Result<Self, ParseNetError> {
        let mut parts = text.split(',');
        match parts.next() {
            Some("none") => match parts.next() {
                None => Ok(Self::None),
                Some(option) => Err(ParseNetError::OptionOfNone(option.into())),
            },
            Some("user") => {
                let mut options = UserOptions::default();
                for part in parts {
                    options.set(part)?;
                }
                Ok(Self::User(options))
            }
            kind => Err(ParseNetError::UnknownKind(kind.unwrap_or_default().into())),
        }
    }
}

impl UserOptions {
    /// Takes one `NAME=VALUE`.
    ///
    /// # Errors
    /// When there is no such option, or it cannot have that value.
    pub fn set(&mut self, text: &str) -> Result<(), ParseNetError> {
        let (name, value) = text.split_once('=').unwrap_or((text, "on"));
        let switch = || match value {
            "on" | "yes" | "y" => Ok(true),
            "off" | "no" | "n" => Ok(false),
            _ => Err(ParseNetError::NotASwitch { option: name.into(), value: value.into() }),
        };
        match name {
            "restrict" => self.restrict = switch()?,
            "ipv6" => self.ipv4_only = !switch()?,
            "mac" => self.mac = Some(mac(value).ok_or_else(|| ParseNetError::Mac(value.into()))?),
            "hostfwd" => {
                let forward: Forward = value.parse()?;
                let taken = |other: &Forward| {
                    (other.protocol, other.host) == (forward.protocol, forward.host)
                        && forward.host.port() != 0
                };
                if self.forwards.iter().any(taken) {
                    return Err(ParseNetError::Duplicate(format!("{} {}", forward.protocol, forward.host)));
                }
                self.forwards.push(forward);
            }
            _ => return Err(ParseNetError::UnknownOption(text.into())),
        }
        Ok(())
    }
}

impl FromStr for Forward {
    type Err = ParseNetError;

    fn from_str(text: &str) -> Result<Self, ParseNetError> {
        let bad = |what| ParseNetError::Forward { text: text.into(), what };
        let (protocol, rest) = text.split_once(':').ok_or(bad("it names no protocol"))?;
        let protocol = match protocol {
            // As in QEMU, where no protocol means TCP.
            "tcp" | "" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(bad("the protocol is neither tcp nor udp")),
        };
        let (host, guest) = rest.split_once('-').ok_or(bad("there is no `-` before the guest's side"))?;
        let (host, host_port) = end(host).ok_or(bad("the host's side is not [ADDR]:PORT"))?;
        let (guest, guest_port) = end(guest).ok_or(bad("the guest's side is not [GUESTADDR]:PORT"))?;
        if guest_port == 0 {
            return Err(bad("the guest has no port 0"));
        }
        let guest = guest.unwrap_or(GUEST_V4.into());
        if guest.is_unspecified() || guest.is_loopback() || guest.is_multicast() {
            return Err(bad("the guest cannot be reached at that address"));
        }
        Ok(Self {
            protocol,
            host: SocketAddr::new(host.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), host_port),
            guest: SocketAddr::new(guest, guest_port),
        })
    }
}

/// Six bytes in hexadecimal, of one device and not of a group of them.
fn mac(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+'))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(bytes)
}

/// `[ADDR]:PORT`, where the brackets around an IPv6 address stand for themselves.
fn end(text: &str) -> Option<(Option<IpAddr>, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    if address.is_empty() {
        return Some((None, port));
    }
    let address = match address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => IpAddr::V6(v6.parse().ok()?),
        None if address == "localhost" => Ipv4Addr::LOCALHOST.into(),
        None => IpAddr::V4(address.parse().ok()?),
    };
    Some((Some(address), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NetOptions, ParseNetError> {
        text.parse()
    }

    #[test]
    fn hardware_addresses() {
        let given = |text: &str| match parse(&format!("user,mac={text}")) {
            Ok(NetOptions::User(options)) => options.mac,
            Ok(NetOptions::None) => None,
            Err(error) => {
                assert!(error.to_string().contains("52:54:00"), "{error}");
                None
            }
        };
        assert_eq!(given("52:54:00:Ab:cd:0e"), Some([0x52, 0x54, 0, 0xab, 0xcd, 0x0e]));
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "53:54:00:12:34:56",
            "52:54:0:12:34:56",
            "52:54:+1:12:34:56",
            "00:00:00:00:00:00",
        ] {
            assert_eq!(given(text), None, "{text}");
        }
    }

    fn forwards(text: &str) -> Vec<String> {
        match parse(text) {
            Ok(NetOptions::User(options)) => options.forwards.iter().map(ToString::to_string).collect(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn plain_kinds_are_understood() {
        assert_eq!(parse("none"), Ok(NetOptions::None));
        assert_eq!(parse("user"), Ok(NetOptions::User(UserOptions::default())));
        let restricted = UserOptions { restrict: true, ipv4_only: true, ..UserOptions::default() };
        assert_eq!(parse("user,restrict=on,ipv6=off"), Ok(NetOptions::User(restricted)));
        assert_eq!(parse("user,restrict=no"), parse("user"));
    }

    #[test]
    fn forwards_have_defaults_for_both_addresses() {
        assert_eq!(forwards("user,hostfwd=tcp::2222-:22"), ["tcp:0.0.0.0:2222-10.0.2.15:22"]);
        assert_eq!(
            forwards("user,hostfwd=tcp:127.0.0.1:0-10.0.2.16:80,hostfwd=udp:[::1]:53-[fec0::15]:5353"),
            ["tcp:127.0.0.1:0-10.0.2.16:80", "udp:[::1]:53-[fec0::15]:5353"]
        );
    }

    #[test]
    fn the_same_port_is_forwarded_once() {
        assert!(matches!(
            parse("user,hostfwd=tcp::22-:22,hostfwd=tcp::22-:23"),
            Err(ParseNetError::Duplicate(_))
        ));
        assert_eq!(forwards("user,hostfwd=tcp::22-:22,hostfwd=udp::22-:22").len(), 2);
        assert_eq!(forwards("user,hostfwd=tcp::0-:22,hostfwd=tcp::0-:22").len(), 2);
    }

    #[test]
    fn mistakes_are_named() {
        for text in ["", "tap", "user=on", "usr"] {
            assert!(matches!(parse(text), Err(ParseNetError::UnknownKind(_))), "{text}");
        }
        assert!(matches!(parse("none,restrict=on"), Err(ParseNetError::OptionOfNone(_))));
        for text in ["user,", "user,smb=/tmp", "user,hostfwd"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(matches!(parse("user,restrict=maybe"), Err(ParseNetError::NotASwitch { .. })));
        for text in [
            "",
            "tcp",
            "tcp:",
            "tcp:22",
            "tcp::22",
            "tcp::22-",
            "tcp::22-22",
            "sctp::1-:2",
            "tcp::x-:2",
            "tcp::65536-:2",
            "tcp::2-:0",
            "tcp:::1:2-:3",
            "tcp::2-127.0.0.1:3",
            "tcp:host:2-:3",
        ] {
            assert!(
                matches!(parse(&format!("user,hostfwd={text}")), Err(ParseNetError::Forward { .. })),
                "{text}"
            );
        }
    }
}
