//! `hartvm ssh`: the host's ssh program, with the address of a running guest.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, anyhow};
use machine::net::Protocol;

use crate::Usage;
use crate::cli::SshArgs;
use crate::instance::Guest;

/// The port of ssh in the guest.
const SSH: u16 = 22;

const FORWARD: &str =
    "start it with a forwarded port, such as\n  hartvm run … --net user,hostfwd=tcp:127.0.0.1:2222-:22";

/// Replaces this process by ssh.
pub(crate) fn ssh(args: &SshArgs) -> Result<u8> {
    let address = choose(&Guest::all(), args.guest.as_deref()).map_err(Usage)?;
    let mut command = Command::new("ssh");
    // Each disk image has its own host key, and the same port leads to another one tomorrow.
    for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"] {
        command.args(["-o", option]);
    }
    command.args(["-p", &address.port().to_string()]);
    if let Some(login) = &args.login {
        command.args(["-l", login]);
    }
    if let Some(identity) = &args.identity {
        command.arg("-i").arg(identity);
    }
    command.arg(address.ip().to_string()).args(&args.command);
    let error = command.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        return Err(anyhow!("there is no program `ssh` on this host; install it (Debian: openssh-client)"));
    }
    Err(anyhow!("cannot start ssh: {error}"))
}

/// Where a guest listens for ssh on this host.
fn address(guest: &Guest) -> Option<SocketAddr> {
    let ssh = guest
        .forwards
        .iter()
        .find(|forward| (forward.protocol, forward.guest.port()) == (Protocol::Tcp, SSH))?;
    Some(reachable(ssh.host))
}

/// A port that listens on all addresses is reached on the loopback.
fn reachable(host: SocketAddr) -> SocketAddr {
    let ip = match host.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, host.port())
}

/// The address of the guest that is meant.
fn choose(guests: &[Guest], wanted: Option<&str>) -> Result<SocketAddr, String> {
    let list = || guests.iter().map(Guest::label).collect::<Vec<_>>().join(", ");
    if let Some(port) = wanted.and_then(|wanted| wanted.parse::<u16>().ok()) {
        let forwards = guests.iter().flat_map(|guest| &guest.forwards);
        let known = forwards
            .filter(|forward| forward.protocol == Protocol::Tcp)
            .find(|forward| forward.host.port() == port);
        return Ok(known.map_or(SocketAddr::from(([127, 0, 0, 1], port)), |forward| reachable(forward.host)));
    }
    if let Some(name) = wanted {
        let guest = guests.iter().find(|guest| guest.name.as_deref() == Some(name));
        let guest = guest.ok_or_else(|| match guests {
            [] => format!("no guest runs; {FORWARD} --name {name}"),
            _ => format!("no guest named {name} runs; there are: {}", list()),
        })?;
        return address(guest).ok_or_else(|| format!("nothing leads to port {SSH} of {name}; {FORWARD}"));
    }
    let with_ssh: Vec<(&Guest, SocketAddr)> =
        guests.iter().filter_map(|guest| Some((guest, address(guest)?))).collect();
    match with_ssh[..] {
        [(_, address)] => Ok(address),
        [] if guests.is_empty() => Err(format!("no guest runs; {FORWARD}")),
        [] => Err(format!("nothing leads to port {SSH} of a guest that runs; {FORWARD}")),
        _ => {
            let choices: Vec<String> = with_ssh
                .iter()
                .map(|(guest, address)| format!("{} (port {})", guest.label(), address.port()))
                .collect();
            Err(format!("several guests run; name one by its name or port: {}", choices.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(pid: u32, name: Option<&str>, forwards: &[&str]) -> Guest {
        let forwards = forwards.iter().map(|text| text.parse().unwrap()).collect();
        Guest { pid, name: name.map(Into::into), forwards }
    }

    #[test]
    fn the_only_guest_with_ssh_is_meant_if_none_is_named() {
        let one = guest(1, Some("one"), &["udp::22-:22", "tcp::80-:80", "tcp::2222-:22"]);
        let deaf = guest(2, Some("deaf"), &["tcp::8080-:80"]);
        assert_eq!(choose(&[deaf.clone(), one.clone()], None).unwrap().to_string(), "127.0.0.1:2222");
        assert!(choose(&[], None).unwrap_err().contains("no guest runs"));
        assert!(choose(&[deaf], None).unwrap_err().contains("hostfwd=tcp"));
        let two = guest(3, None, &["tcp:127.0.0.2:2223-:22"]);
        let error = choose(&[one, two], None).unwrap_err();
        assert!(error.contains("one (port 2222), process 3 (port 2223)"), "{error}");
    }

    #[test]
    fn names_and_ports_choose() {
        let guests = [
            guest(1, Some("one"), &["tcp::2222-:22"]),
            guest(2, Some("two"), &["tcp:127.0.0.2:2223-:22"]),
            guest(3, Some("deaf"), &[]),
        ];
        assert_eq!(choose(&guests, Some("two")).unwrap().to_string(), "127.0.0.2:2223");
        assert_eq!(choose(&guests, Some("2223")).unwrap().to_string(), "127.0.0.2:2223");
        assert_eq!(choose(&guests, Some("2022")).unwrap().to_string(), "127.0.0.1:2022");
        assert!(choose(&guests, Some("three")).unwrap_err().contains("there are: one, two, deaf"));
        assert!(choose(&guests, Some("deaf")).unwrap_err().contains("port 22 of deaf"));
    }
}
