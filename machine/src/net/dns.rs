//! Where the guest's name server leads: to those of the host, as `/etc/resolv.conf` names them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// The port of name servers.
pub(super) const PORT: u16 = 53;
/// How old what is known may be before the file is looked at again.
const FRESH: Duration = Duration::from_secs(1);
/// As many as the host's own resolver uses.
const MAX_SERVERS: usize = 3;

/// The host's name servers.
#[derive(Debug)]
pub(super) struct Resolver {
    file: PathBuf,
    /// Where they listen.
    port: u16,
    servers: Vec<IpAddr>,
    modified: Option<SystemTime>,
    looked: Option<Instant>,
}

impl Resolver {
    pub(super) fn new(file: PathBuf, port: u16) -> Self {
        Self { file, port, servers: Vec::new(), modified: None, looked: None }
    }

    /// Where a query goes that has been asked `tries` times without an answer: to each server in turn.
    pub(super) fn server(&mut self, tries: usize, now: Instant) -> SocketAddr {
        if self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= FRESH) {
            self.looked = Some(now);
            let modified = std::fs::metadata(&self.file).and_then(|metadata| metadata.modified()).ok();
            if modified != self.modified || self.servers.is_empty() {
                self.modified = modified;
                // Without the file, and without servers in it, the host asks itself (resolv.conf(5)).
                self.servers =
                    std::fs::read_to_string(&self.file).map(|text| parse(&text)).unwrap_or_default();
                if self.servers.is_empty() {
                    self.servers.push(Ipv4Addr::LOCALHOST.into());
                }
            }
        }
        SocketAddr::new(self.servers[tries % self.servers.len()], self.port)
    }
}

fn parse(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| -> Option<IpAddr> {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return None;
        }
        words.next()?.parse().ok()
    };
    text.lines().filter_map(address).take(MAX_SERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_found_among_other_things() {
        let text = "# nameserver 1.1.1.1\nsearch example.org\nnameserver 192.0.2.1\n nameserver\t::1 \n\
                    nameserver fe80::1%eth0\nnameserver\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let want: Vec<IpAddr> =
            ["192.0.2.1", "::1", "192.0.2.2"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(parse(text), want);
    }

    #[test]
    fn servers_are_tried_in_turn_and_a_missing_file_means_this_host() {
        let now = Instant::now();
        let mut resolver = Resolver::new("/nonexistent/resolv.conf".into(), PORT);
        assert_eq!(resolver.server(5, now), "127.0.0.1:53".parse().unwrap());
        resolver.servers = parse("nameserver 192.0.2.1\nnameserver 192.0.2.2");
        assert_eq!(resolver.server(0, now), "192.0.2.1:53".parse().unwrap());
        assert_eq!(resolver.server(1, now), "192.0.2.2:53".parse().unwrap());
        assert_eq!(resolver.server(2, now), "192.0.2.1:53".parse().unwrap());
    }
}
