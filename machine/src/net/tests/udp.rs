use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::super::dns::Resolver;
use super::super::wire::{be16, protocol};
use super::guest::*;

fn socket(address: &str) -> (UdpSocket, u16) {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut bytes).unwrap();
    bytes.truncate(len);
    (bytes, from)
}

#[test]
fn datagrams_go_to_the_host_and_answers_come_from_where_they_went() {
    for (bind, host, local) in
        [("127.0.0.1:0", "10.0.2.2", "10.0.2.15:5000"), ("[::1]:0", "[fec0::2]", "[fec0::15]:5000")]
    {
        let (server, port) = socket(bind);
        let mut guest = Guest::new("");
        let remote = format!("{host}:{port}");
        guest.send_udp(local, &remote, b"question");
        let (question, client) = receive(&server);
        assert_eq!(question, b"question");
        server.send_to(b"answer", client).unwrap();
        assert_eq!(guest.expect_udp(), (remote.parse().unwrap(), 5000, b"answer".to_vec()));
        // As TFTP does it: the conversation goes on from another port.
        let (other, other_port) = socket(bind);
        other.send_to(b"elsewhere", client).unwrap();
        let from = format!("{host}:{other_port}").parse().unwrap();
        assert_eq!(guest.expect_udp(), (from, 5000, b"elsewhere".to_vec()));
        assert_eq!(guest.net.udp.len(), 1);
        guest.now += Duration::from_secs(500);
        guest.turn();
        assert_eq!(guest.net.udp.len(), 0, "an unused port is kept for ever");
    }
}

#[test]
fn ports_in_use_are_bounded() {
    let (server, port) = socket("127.0.0.1:0");
    let mut guest = Guest::new("");
    for local in 1..3000 {
        guest.send_udp(&format!("10.0.2.15:{local}"), &format!("10.0.2.2:{port}"), b"x");
    }
    assert!(guest.net.udp.len() <= 1024);
    drop(server);
}

#[test]
fn a_forwarded_port_is_answered_through_the_same_port() {
    let mut guest = Guest::new("hostfwd=udp:127.0.0.1:0-:53,restrict=on");
    let (client, port) = socket("127.0.0.1:0");
    let host = guest.net.forwards()[0].host;
    client.send_to(b"question", host).unwrap();
    let remote: SocketAddr = format!("10.0.2.2:{port}").parse().unwrap();
    assert_eq!(guest.expect_udp(), (remote, 53, b"question".to_vec()));
    guest.send_udp("10.0.2.15:53", &remote.to_string(), b"answer");
    assert_eq!(receive(&client), (b"answer".to_vec(), host));
    assert_eq!(guest.net.udp.len(), 0);
}

#[test]
fn names_are_resolved_by_the_hosts_servers_in_turn() {
    let (server, port) = socket("127.0.0.1:0");
    let (second, _) = socket(&format!("127.0.0.2:{port}"));
    let file = std::env::temp_dir().join(format!("hartvm-resolv-{}", std::process::id()));
    std::fs::write(&file, "nameserver 127.0.0.1\nnameserver 127.0.0.2\n").unwrap();
    let mut guest = Guest::with_resolver("", Resolver::new(file.clone(), port));
    guest.send_udp("10.0.2.15:5000", "10.0.2.3:53", b"who?");
    assert_eq!(receive(&server).0, b"who?");
    guest.send_udp("10.0.2.15:5000", "10.0.2.3:53", b"who?");
    let (query, client) = receive(&second);
    assert_eq!(query, b"who?");
    second.send_to(b"me", client).unwrap();
    let dns = "10.0.2.3:53".parse().unwrap();
    assert_eq!(guest.expect_udp(), (dns, 5000, b"me".to_vec()));
    guest.send_udp("[fec0::15]:5000", "[fec0::3]:53", b"six?");
    let (query, client) = receive(&server);
    assert_eq!(query, b"six?");
    server.send_to(b"me too", client).unwrap();
    let dns = "[fec0::3]:53".parse().unwrap();
    assert_eq!(guest.expect_udp(), (dns, 5000, b"me too".to_vec()));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_closed_port_is_said_to_be_closed() {
    for (bind, host, local) in
        [("127.0.0.1:0", "10.0.2.2", "10.0.2.15:5000"), ("[::1]:0", "[fec0::2]", "[fec0::15]:5000")]
    {
        // Closed to all but one that says nothing, and nobody else can open it.
        let (closed, port) = socket(bind);
        closed.connect(bind.replace(":0", ":9")).unwrap();
        let mut guest = Guest::new("");
        let remote = format!("{host}:{port}");
        guest.send_udp(local, &remote, b"anybody?");
        let (kind, quoted) = if local.starts_with('[') {
            let packet = guest.expect(protocol::ICMPV6);
            (packet.payload[..2].to_vec(), packet.payload[8 + 40..].to_vec())
        } else {
            let packet = guest.expect(protocol::ICMP);
            (packet.payload[..2].to_vec(), packet.payload[8 + 20..].to_vec())
        };
        assert_eq!(kind, if local.starts_with('[') { [1, 4] } else { [3, 3] });
        assert_eq!((be16(&quoted, 0), be16(&quoted, 2), &quoted[8..]), (5000, port, &b"anybody?"[..]));
        // It is no reason to lose the next datagram, to a port that is open.
        let (server, port) = socket(bind);
        guest.send_udp(local, &remote, b"still closed");
        guest.send_udp(local, &format!("{host}:{port}"), b"open");
        assert_eq!(receive(&server).0, b"open");
    }
}
