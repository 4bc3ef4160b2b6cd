//! Packets that no debugger would send.

use std::time::{Duration, Instant};

use crate::debugger::{ENGINES, Guest};
use crate::guests::spinner;
use crate::harness::RAM;
use crate::harness::random::Random;
use crate::remote::Remote;
use crate::support::LIMIT;

/// Bytes of guest memory that no packet here names on purpose.
const GUARDED: std::ops::Range<u64> = RAM + 0x10_0000..RAM + 0x10_4000;
/// Where well-formed writes go.
const SCRATCH: u64 = RAM + 0x8000;

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// A number as a debugger might write it, or not.
    fn number(&mut self) -> String {
        match self.below(9) {
            0 => "0".into(),
            1 => "ffffffffffffffff".into(),
            2 => format!("{:x}", self.next()),
            3 => "-1".into(),
            4 => String::new(),
            5 => "10000000000000000".into(),
            6 => format!("x{:x}", self.next() & 0xff),
            7 => format!("{:x}", self.below(300)),
            _ => format!("{:x}", RAM + self.next() % 0x8000),
        }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// What the packets are made from. None of them asks to end the session, the machine or its state.
const HEADS: &[&str] = &[
    "?",
    "g",
    "G",
    "m",
    "M",
    "X",
    "p",
    "P",
    "Hg",
    "Hc",
    "Z0,",
    "Z1,",
    "Z2,",
    "Z3,",
    "Z4,",
    "z0,",
    "z1,",
    "z2,",
    "z3,",
    "z4,",
    "Z9,",
    "vCont?",
    "vCont;s:",
    "vCont;r",
    "vCont;x:",
    "vCont",
    "qSupported:",
    "qXfer:features:read:",
    "qXfer:features:read:target.xml:",
    "qXfer:memory-map:read::",
    "qXfer:auxv:read::",
    "qThreadExtraInfo,",
    "qfThreadInfo",
    "qsThreadInfo",
    "qAttached",
    "qRcmd,",
    "qC",
    "T",
    "QStartNoAckMode",
    "vFile:open:",
    "vAttach;",
    "vRun;",
    "qOffsets",
    "qSymbol::",
    "!",
    "R",
    "i",
    "b",
    "QTinit",
    "qTStatus",
    "jThreadsInfo",
    "vMustReplyEmpty",
    "qTfV",
    "x",
    "qRegisterInfo",
    "QCatchSyscalls:1",
    "bs",
    "bc",
    "vFlashErase:",
    "s",
    "S05",
];

fn packet(random: &mut Random) -> Vec<u8> {
    let mut body = random.pick(HEADS).as_bytes().to_vec();
    for _ in 0..random.below(4) {
        body.extend(random.number().into_bytes());
        body.extend(random.pick(&[",", ":", ";", "=", ".", "p", "#", "$", "}", "*", ""]).as_bytes());
    }
    if random.below(4) == 0 {
        let length = random.below(40);
        body.extend(random.bytes(length));
    }
    if random.below(200) == 0 {
        let length = random.below(40_000);
        body.extend(std::iter::repeat_n(b'0' + random.below(10) as u8, length));
    }
    if random.below(8) == 0 && !body.is_empty() {
        let place = random.below(body.len());
        body[place] ^= 1 << random.below(8);
    }
    // The bytes that would frame it otherwise; a flip or random bytes must not make an order to end things out of it either.
    body.retain(|byte| !matches!(byte, b'#' | b'$'));
    if ends_something(&body) {
        body.clear();
    }
    let sum = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let sum = if random.below(10) == 0 { random.next() as u8 } else { sum };
    let mut packet = [b"$", &body[..], format!("#{sum:02x}").as_bytes()].concat();
    match random.below(20) {
        0 => packet.truncate(random.below(packet.len())),
        1 => packet.insert(0, b'-'),
        2 => packet.insert(0, 3),
        3 => {
            let length = random.below(8);
            packet.extend(random.bytes(length));
        }
        _ => {}
    }
    packet
}

/// Whether a packet may end the session or the machine, or write the memory that is guarded, as it should.
fn ends_something(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_lowercase();
    let reset: String = "reset".bytes().map(|byte| format!("{byte:02x}")).collect();
    let writes = text.starts_with(['m', 'x']) && text.contains("8010");
    text.starts_with(['k', 'd', 'c']) || text.starts_with("vkill") || text.contains(&reset) || writes
}

#[test]
fn malformed_packets_harm_nothing() {
    let seconds = std::env::var("HARTVM_GDB_FUZZ_SECONDS")
        .map_or(5.0, |text| text.parse().expect("a number of seconds"));
    let seed = std::env::var("HARTVM_GDB_FUZZ_SEED").map_or(1, |text| text.parse().expect("a seed"));
    println!("HARTVM_GDB_FUZZ_SEED={seed}");
    for engine in ENGINES {
        let guest = Guest::waiting(&spinner(), engine, &["--cpus", "2"]);
        let mut remote = Remote::attach(&guest);
        let pattern: Vec<u8> = (GUARDED.start..GUARDED.end).map(|address| (address / 3) as u8).collect();
        for (index, part) in pattern.chunks(1024).enumerate() {
            let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
            let address = GUARDED.start + 1024 * index as u64;
            assert_eq!(remote.ask(&format!("M{address:x},{:x}:{hex}", part.len())), "OK");
        }
        let mut random = Random(seed | 1);
        let end = Instant::now() + Duration::from_secs_f64(seconds / ENGINES.len() as f64);
        let mut round = 0u64;
        while Instant::now() < end {
            for _ in 0..20 {
                let packet = packet(&mut random);
                remote.send_raw(&packet);
            }
            round += 1;
            synchronise(&mut remote, &mut random, || format!("seed {seed}, round {round}"));
            if round.is_multiple_of(16) {
                check(&mut remote, &pattern, seed, round);
            }
        }
        check(&mut remote, &pattern, seed, round);
        println!("{engine}: {} packets", 20 * round);
        assert_eq!(remote.ask("D;1"), "OK");
        // Registers and code of the guest may be anything by now, by packets that were right. A reset makes that good.
        let mut remote = Remote::attach(&guest);
        assert!(remote.monitor("reset").contains("at its first instruction"));
        let spin = spinner().address("spin");
        assert_eq!(remote.ask(&format!("Z0,{spin:x},4")), "OK");
        assert_eq!(remote.ask("vCont;c"), "T05thread:p01.01;swbreak:;");
        assert_eq!(remote.pc(), spin);
        remote.send("k");
        assert_eq!(guest.finish().code(), 0);
    }
}

/// Has a well-formed write and read answered, whatever came before: the guest may run, and a packet may be unfinished.
fn synchronise(remote: &mut Remote, random: &mut Random, context: impl Fn() -> String) {
    remote.send_raw(b"\x03$#00\x03");
    let limit = Instant::now() + LIMIT;
    let mut exchange = |tries: Option<u32>, patience| {
        let text = format!("{:016x}", random.next() | 1);
        for _ in 0..tries.unwrap_or(u32::MAX) {
            // Hart 0, whatever thread was chosen; an interrupt, in case a packet before it has set the guest going.
            remote.send_raw(b"\x03");
            remote.send("Hgp1.1");
            remote.send(&format!("M{SCRATCH:x},8:{text}"));
            remote.send(&format!("m{SCRATCH:x},8"));
            loop {
                match next(remote, patience) {
                    Some(answer) if answer == text => return,
                    Some(_) => {}
                    None => break,
                }
            }
            assert!(Instant::now() < limit, "{}: hartvm does not answer", context());
        }
        panic!("{}: hartvm does not answer", context());
    };
    exchange(None, Duration::from_millis(200));
    // There may be answers left of several tries. Those of this one come last, and it is in step with hartvm.
    exchange(Some(1), LIMIT);
}

fn check(remote: &mut Remote, pattern: &[u8], seed: u64, round: u64) {
    for (index, part) in pattern.chunks(1024).enumerate() {
        let address = GUARDED.start + 1024 * index as u64;
        let found = remote.memory(address, part.len());
        assert!(
            found.as_deref() == Some(part),
            "seed {seed}, round {round}: memory at {address:#x} has changed"
        );
    }
}

/// An answer, if one comes before there has been silence for as long as `patience`.
fn next(remote: &mut Remote, patience: Duration) -> Option<String> {
    use std::io::Read;

    let mut byte = [0];
    remote.0.set_read_timeout(Some(patience)).unwrap();
    let mut text = Vec::new();
    let mut inside = false;
    let answer = loop {
        match remote.0.read(&mut byte) {
            Ok(1) => {}
            Ok(_) => panic!("hartvm has closed the connection"),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break None,
        }
        match byte[0] {
            b'$' => (inside, text) = (true, Vec::new()),
            b'#' if inside => break Some(expand(&text)),
            other => text.push(other),
        }
    };
    remote.0.set_read_timeout(Some(LIMIT)).unwrap();
    answer
}

/// Undoes the run lengths.
fn expand(text: &[u8]) -> String {
    let mut out: Vec<u8> = Vec::new();
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, out.last().copied()) {
            (b'*', Some(last)) => {
                let count = bytes.next().map_or(0, |count| count.saturating_sub(29));
                out.extend(std::iter::repeat_n(last, count.into()));
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
