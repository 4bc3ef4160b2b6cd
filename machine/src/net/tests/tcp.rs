use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};

use super::super::wire::{be16, protocol};
use super::guest::*;

/// A server on the loopback, and its address as the guest knows it.
fn server(v6: bool) -> (TcpListener, String) {
    let listener = TcpListener::bind(if v6 { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, if v6 { format!("[fec0::2]:{port}") } else { format!("10.0.2.2:{port}") })
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8 ^ (n >> 8) as u8).collect()
}

#[test]
fn a_conversation_goes_both_ways_and_each_side_finishes_by_itself() {
    for v6 in [false, true] {
        let (listener, address) = server(v6);
        let reply = pattern(300_000);
        let want = reply.clone();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            stream.write_all(&reply).unwrap();
            got
        });
        let mut guest = Guest::new("").offloads();
        let local = if v6 { format!("[{GUEST_V6}]:4000") } else { format!("{GUEST}:4000") };
        let mut connection = Connection::open(&mut guest, &local, &address);
        let question = pattern(200_000);
        connection.write(&mut guest, &question);
        connection.send(&mut guest, FIN | ACK, &[]);
        // The guest has finished; the host has only begun.
        connection.read_until(&mut guest, "the reply", |connection| connection.flags & FIN != 0);
        assert!(connection.data == want);
        assert!(connection.largest > 1460, "no large segments");
        assert_eq!(server.join().unwrap(), question);
        guest.until("the end", |guest| (guest.net.tcp.len() == 0).then_some(()));
        assert_eq!(guest.net.tcp.memory(), 0);
    }
}

#[test]
fn without_offloads_segments_fit_the_link_and_are_summed() {
    let (listener, address) = server(false);
    let mut guest = Guest::new("");
    let mut connection = Connection::open(&mut guest, "10.0.2.15:4000", &address);
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(&pattern(50_000)).unwrap();
    connection.read_until(&mut guest, "data", |connection| connection.data.len() == 50_000);
    assert!(connection.data == pattern(50_000));
    assert_eq!(connection.largest, 1460);
}

#[test]
fn the_host_may_finish_first() {
    let (listener, address) = server(false);
    let mut guest = Guest::new("");
    let mut connection = Connection::open(&mut guest, "10.0.2.15:4000", &address);
    let (mut stream, _) = listener.accept().unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    connection.read_until(&mut guest, "FIN", |connection| connection.flags & FIN != 0);
    connection.write(&mut guest, b"still here");
    connection.send(&mut guest, FIN | ACK, &[]);
    guest.until("the end", |guest| (guest.net.tcp.len() == 0).then_some(()));
    connection.take(&mut guest);
    assert_eq!((connection.flags & RST, connection.acked), (0, connection.seq));
    let mut got = String::new();
    stream.read_to_string(&mut got).unwrap();
    assert_eq!(got, "still here");
}

#[test]
fn a_refused_connection_is_reset() {
    // Where nobody listens, and nobody else can while this socket has the port.
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap().port();
    let mut guest = Guest::new("");
    let mut connection = Connection::new("10.0.2.15:4000", &format!("10.0.2.2:{port}"));
    connection.send(&mut guest, SYN, &[]);
    guest.until("RST", |guest| connection.take(guest).then_some(()));
    assert_eq!(connection.flags, RST | ACK);
    assert_eq!(guest.net.tcp.len(), 0);
}

#[test]
fn a_reset_of_the_hosts_reaches_the_guest_and_one_of_the_guests_the_host() {
    let (listener, address) = server(false);
    let mut guest = Guest::new("");
    let mut connection = Connection::open(&mut guest, "10.0.2.15:4000", &address);
    let (stream, _) = listener.accept().unwrap();
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    guest.until("RST", |guest| {
        connection.take(guest);
        (connection.flags & RST != 0).then_some(())
    });

    let mut connection = Connection::open(&mut guest, "10.0.2.15:4001", &address);
    let (mut stream, _) = listener.accept().unwrap();
    connection.send(&mut guest, RST, &[]);
    guest.turn();
    assert_eq!(stream.read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(guest.net.tcp.len(), 0);
}

#[test]
fn what_cannot_be_reached_is_said_so() {
    let mut guest = Guest::new("");
    Connection::new("10.0.2.15:4000", "10.0.2.77:80").send(&mut guest, SYN, &[]);
    let icmp = guest.expect(protocol::ICMP);
    assert_eq!((icmp.src.to_string().as_str(), &icmp.payload[..2]), ("10.0.2.2", &[3, 1][..]));
    // It quotes the guest's packet: addresses and ports.
    assert_eq!(icmp.payload[8 + 12..8 + 20], [10, 0, 2, 15, 10, 0, 2, 77]);
    assert_eq!((be16(&icmp.payload, 28), be16(&icmp.payload, 30)), (4000, 80));
    // The host's own loopback is not reached by its name.
    for nowhere in ["127.0.0.1:22", "0.0.0.0:22", "255.255.255.255:22", "224.0.0.1:22"] {
        Connection::new("10.0.2.15:4000", nowhere).send(&mut guest, SYN, &[]);
    }
    for nowhere in ["[::1]:22", "[::]:22", "[::ffff:127.0.0.1]:22", "[ff02::1]:22"] {
        Connection::new("[fec0::15]:4000", nowhere).send(&mut guest, SYN, &[]);
    }
    guest.turn();
    assert_eq!((guest.net.tcp.len(), guest.port.frames.len()), (0, 0));
}

#[test]
fn a_restricted_guest_reaches_nothing_but_its_forwards() {
    let (_listener, address) = server(false);
    let mut guest = Guest::new("restrict=on,hostfwd=tcp:127.0.0.1:0-:80");
    let mut connection = Connection::new("10.0.2.15:4000", &address);
    connection.send(&mut guest, SYN, &[]);
    guest.until("RST", |guest| connection.take(guest).then_some(()));
    assert_eq!(connection.flags, RST | ACK);
    Connection::new("10.0.2.15:4000", "192.0.2.1:80").send(&mut guest, SYN, &[]);
    assert_eq!(guest.expect(protocol::ICMP).payload[..2], [3, 13]);
    assert_eq!(guest.net.tcp.len(), 0);
    let (_stream, _) = forwarded(&mut guest, 0);
}

/// Connects to the forward with this number, and answers as the guest.
fn forwarded(guest: &mut Guest, number: usize) -> (TcpStream, Connection) {
    let forward = guest.net.forwards()[number];
    let stream = TcpStream::connect(forward.host).unwrap();
    let (remote, seq) = guest.until("SYN", |guest| {
        let packet = guest.packet()?;
        let bytes = &packet.payload;
        assert_eq!((packet.protocol, bytes[13]), (protocol::TCP, SYN));
        assert_eq!((packet.dst, be16(bytes, 2)), (forward.guest.ip(), forward.guest.port()));
        Some((format!("{}:{}", packet.src, be16(bytes, 0)), super::super::wire::be32(bytes, 4)))
    });
    let mut connection = Connection::new(&forward.guest.to_string(), &remote);
    connection.next = seq.wrapping_add(1);
    connection.send(guest, SYN | ACK, &[]);
    guest.until("ACK", |guest| connection.take(guest).then_some(()));
    assert_eq!(connection.flags, ACK);
    (stream, connection)
}

#[test]
fn a_forwarded_port_leads_into_the_guest() {
    let mut guest = Guest::new("hostfwd=tcp:127.0.0.1:0-:80");
    let (mut stream, mut connection) = forwarded(&mut guest, 0);
    assert_eq!(connection.remote.ip().to_string(), "10.0.2.2");
    assert_eq!(connection.remote.port(), stream.local_addr().unwrap().port());
    stream.write_all(b"question").unwrap();
    connection.read_until(&mut guest, "the question", |connection| connection.data == b"question");
    connection.write(&mut guest, b"answer");
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

#[test]
fn a_guest_that_refuses_a_forwarded_connection_resets_it() {
    let mut guest = Guest::new("hostfwd=tcp:127.0.0.1:0-:80");
    let mut stream = TcpStream::connect(guest.net.forwards()[0].host).unwrap();
    let syn = guest.expect(protocol::TCP);
    let mut connection = Connection::new("10.0.2.15:80", &format!("10.0.2.2:{}", be16(&syn.payload, 0)));
    connection.next = super::super::wire::be32(&syn.payload, 4).wrapping_add(1);
    connection.seq = 0;
    connection.send(&mut guest, RST | ACK, &[]);
    guest.turn();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(guest.net.tcp.len(), 0);
}

#[test]
fn a_client_that_resets_before_the_guest_answers_is_forgotten() {
    let mut guest = Guest::new("hostfwd=tcp:127.0.0.1:0-:80");
    let stream = TcpStream::connect(guest.net.forwards()[0].host).unwrap();
    let syn = guest.expect(protocol::TCP);
    assert_eq!(guest.net.tcp.len(), 1);
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    guest.until("the end of the connection", |guest| {
        guest.turn();
        (guest.net.tcp.len() == 0).then_some(())
    });
    let mut connection = Connection::new("10.0.2.15:80", &format!("10.0.2.2:{}", be16(&syn.payload, 0)));
    connection.next = super::super::wire::be32(&syn.payload, 4).wrapping_add(1);
    connection.send(&mut guest, SYN | ACK, &[]);
    guest.until("RST", |guest| connection.take(guest).then_some(()));
    assert_eq!(connection.flags & RST, RST);
}

#[test]
fn a_guest_that_answers_nothing_is_given_up() {
    let mut guest = Guest::new("hostfwd=tcp:127.0.0.1:0-:80");
    let mut stream = TcpStream::connect(guest.net.forwards()[0].host).unwrap();
    let mut syns = 0;
    guest.until("the end of patience", |guest| {
        guest.now += Duration::from_secs(1);
        while let Some(packet) = guest.packet() {
            assert_eq!((packet.protocol, packet.payload[13]), (protocol::TCP, SYN));
            syns += 1;
        }
        (syns > 0 && guest.net.tcp.len() == 0).then_some(())
    });
    assert!((3..20).contains(&syns), "{syns}");
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_server_that_does_not_read_closes_the_guests_window() {
    let (listener, address) = server(false);
    let mut guest = Guest::new("");
    let mut connection = Connection::open(&mut guest, "10.0.2.15:4000", &address);
    let (mut stream, _) = listener.accept().unwrap();
    let mut sent = Vec::new();
    // As a sender that takes the window at its word.
    loop {
        guest.turn();
        connection.take(&mut guest);
        let open = connection.acked.wrapping_add(connection.peer_window).wrapping_sub(connection.seq);
        if open == 0 {
            break;
        }
        let piece = vec![(sent.len() >> 10) as u8; 1400.min(open as usize)];
        connection.send(&mut guest, ACK, &piece);
        sent.extend_from_slice(&piece);
        assert!(sent.len() < 64 << 20, "nothing ever holds the guest back");
    }
    assert!(guest.net.tcp.memory() <= 4 << 20, "{}", guest.net.tcp.memory());
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    guest.until("a window", |guest| {
        connection.take(guest);
        (connection.peer_window > 100_000).then_some(())
    });
    connection.write(&mut guest, b"the end");
    sent.extend_from_slice(b"the end");
    connection.send(&mut guest, FIN | ACK, &[]);
    guest.turn();
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn a_guest_that_does_not_read_holds_the_server_back() {
    let (listener, address) = server(false);
    let mut guest = Guest::new("").offloads();
    let mut connection = Connection::open(&mut guest, "10.0.2.15:4000", &address);
    let (mut stream, _) = listener.accept().unwrap();
    let data = pattern(24 << 20);
    let want = data.clone();
    let writer = std::thread::spawn(move || stream.write_all(&data).unwrap());
    // The window that was given is filled and then no more comes, whatever the clock says.
    let window = usize::from(connection.window) << SHIFT;
    guest.until("a full window", |guest| {
        connection.take(guest);
        (connection.data.len() == window).then_some(())
    });
    assert!(guest.net.tcp.memory() <= 4 << 20, "{}", guest.net.tcp.memory());
    connection.window = 0;
    connection.send(&mut guest, ACK, &[]);
    let before = connection.segments;
    for _ in 0..30 {
        guest.now += Duration::from_secs(1);
        guest.turn();
        connection.take(&mut guest);
    }
    // What it is probed with may have yet to come from the host.
    guest.until("a probe of the closed window", |guest| {
        guest.now += Duration::from_secs(1);
        connection.take(guest);
        (connection.segments > before).then_some(())
    });
    assert_eq!(connection.data.len(), window);
    connection.window = u16::MAX;
    connection.send(&mut guest, ACK, &[]);
    connection.read_until(&mut guest, "the rest", |connection| connection.flags & FIN != 0);
    assert!(connection.data == want);
    writer.join().unwrap();
}

#[test]
fn what_the_guest_lost_is_sent_again() {
    let (listener, address) = server(false);
    let mut guest = Guest::new("");
    let mut connection = Connection::open(&mut guest, "10.0.2.15:4000", &address);
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(&pattern(10_000)).unwrap();
    guest.until("segments", |guest| (guest.port.frames.len() >= 6).then_some(()));
    // The first is lost; what comes after it makes the guest repeat itself.
    guest.port.frames.remove(0);
    connection.take(&mut guest);
    assert_eq!(connection.data.len(), 0);
    for _ in 0..4 {
        connection.send(&mut guest, ACK, &[]);
    }
    connection.read_until(&mut guest, "all of it", |connection| connection.data.len() == 10_000);

    // All is lost, the end too; only the clock can tell.
    drop(stream);
    guest.until("FIN", |guest| (!guest.port.frames.is_empty()).then_some(()));
    guest.port.frames.clear();
    guest.turn();
    assert!(guest.port.frames.is_empty());
    guest.now += Duration::from_secs(2);
    connection.read_until(&mut guest, "FIN again", |connection| connection.flags & FIN != 0);
    assert!(connection.data == pattern(10_000));
}

#[test]
fn a_guest_that_remembers_an_older_connection_is_told_to_forget_it() {
    let mut guest = Guest::new("hostfwd=tcp:127.0.0.1:0-:80");
    let _stream = TcpStream::connect(guest.net.forwards()[0].host).unwrap();
    let syn = guest.expect(protocol::TCP);
    let mut old = Connection::new("10.0.2.15:80", &format!("10.0.2.2:{}", be16(&syn.payload, 0)));
    old.next = 77_777;
    old.send(&mut guest, ACK, &[]);
    let reset = guest.expect(protocol::TCP);
    assert_eq!((reset.payload[13], super::super::wire::be32(&reset.payload, 4)), (RST, 77_777));
    let again = guest.expect(protocol::TCP);
    assert_eq!((again.payload[13], &again.payload[4..8]), (SYN, &syn.payload[4..8]));
}

#[test]
fn a_guest_that_repeats_its_answer_to_syn_gets_the_data_again() {
    let mut guest = Guest::new("hostfwd=tcp:127.0.0.1:0-:80");
    let (mut stream, mut connection) = forwarded(&mut guest, 0);
    stream.write_all(b"question").unwrap();
    guest.until("the question", |guest| (!guest.port.frames.is_empty()).then_some(()));
    guest.port.frames.clear();
    connection.seq = connection.seq.wrapping_sub(1);
    connection.send(&mut guest, SYN | ACK, &[]);
    connection.read_until(&mut guest, "the question again", |connection| connection.data == b"question");
}

#[test]
fn what_comes_early_or_twice_is_not_passed_on() {
    let (listener, address) = server(false);
    let mut guest = Guest::new("");
    let mut connection = Connection::open(&mut guest, "10.0.2.15:4000", &address);
    let (mut stream, _) = listener.accept().unwrap();
    let start = connection.seq;
    connection.seq = start.wrapping_add(3);
    connection.send(&mut guest, ACK, b"def");
    guest.until("an answer", |guest| connection.take(guest).then_some(()));
    assert_eq!(connection.acked, start);
    connection.seq = start;
    connection.send(&mut guest, ACK, b"abc");
    connection.seq = start;
    connection.send(&mut guest, ACK, b"abcdef");
    connection.send(&mut guest, FIN | ACK, &[]);
    guest.turn();
    let mut got = String::new();
    stream.read_to_string(&mut got).unwrap();
    assert_eq!(got, "abcdef");
}

#[test]
fn a_guest_without_room_loses_nothing() {
    let (listener, address) = server(false);
    let mut guest = Guest::new("");
    let mut connection = Connection::open(&mut guest, "10.0.2.15:4000", &address);
    let (mut stream, _) = listener.accept().unwrap();
    guest.port.room = 1;
    let writer = std::thread::spawn(move || stream.write_all(&pattern(100_000)).unwrap());
    connection.read_until(&mut guest, "all of it", |connection| connection.data.len() == 100_000);
    writer.join().unwrap();
    assert!(connection.data == pattern(100_000));
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_thousand_forwarded_connections_leave_nothing_behind() {
    // In a process of its own, other tests do not open files meanwhile.
    const CHILD: &str = "HARTVM_NET_TEST_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "net::tests::tcp::a_thousand_forwarded_connections_leave_nothing_behind"])
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let mut guest = Guest::new("hostfwd=tcp:127.0.0.1:0-:80");
    let before = open_files();
    for number in 0..1000 {
        let (mut stream, mut connection) = forwarded(&mut guest, 0);
        stream.write_all(b"ping").unwrap();
        connection.read_until(&mut guest, "ping", |connection| connection.data == b"ping");
        match number % 3 {
            0 => {
                connection.send(&mut guest, FIN | ACK, b"pong");
                guest.turn();
                let mut pong = String::new();
                stream.read_to_string(&mut pong).unwrap();
                assert_eq!(pong, "pong");
                drop(stream);
                connection.read_until(&mut guest, "FIN", |connection| connection.flags & FIN != 0);
            }
            1 => {
                drop(stream);
                connection.read_until(&mut guest, "FIN", |connection| connection.flags & FIN != 0);
                connection.send(&mut guest, FIN | ACK, &[]);
            }
            _ => connection.send(&mut guest, RST, &[]),
        }
        guest.until("the end", |guest| (guest.net.tcp.len() == 0).then_some(()));
        guest.port.frames.clear();
    }
    assert_eq!((guest.net.tcp.memory(), open_files()), (0, before));
}

#[test]
fn a_reset_of_the_device_ends_connections_but_not_forwards() {
    let mut guest = Guest::new("hostfwd=tcp:127.0.0.1:0-:80");
    let (mut stream, _) = forwarded(&mut guest, 0);
    guest.net.reset();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(guest.net.tcp.len(), 0);
    let (_stream, _) = forwarded(&mut guest, 0);
}
