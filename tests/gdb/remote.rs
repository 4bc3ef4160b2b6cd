//! A client of the remote protocol, for what gdb does not do by itself, and what no gdb would do.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::debugger::Guest;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) struct Remote(pub(crate) UnixStream);

fn frame(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", body, format!("#{sum:02x}").as_bytes()].concat()
}

impl Remote {
    /// Attaches, and agrees on what gdb does.
    pub(crate) fn attach(guest: &Guest) -> Self {
        let stream = UnixStream::connect(guest.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut remote = Self(stream);
        let features = remote.ask("qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+");
        assert!(features.contains("hwbreak+") && features.contains("qXfer:features:read+"), "{features}");
        assert_eq!(remote.ask("QStartNoAckMode"), "OK");
        remote.send_raw(b"+");
        remote
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub(crate) fn send(&mut self, body: &str) {
        self.send_raw(&frame(body.as_bytes()));
    }

    /// The next answer, with run lengths expanded; what is not part of a packet is skipped.
    pub(crate) fn answer(&mut self) -> String {
        let mut byte = || {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("hartvm answers");
            byte[0]
        };
        while byte() != b'$' {}
        let mut text = Vec::new();
        loop {
            match byte() {
                b'#' => break,
                b'*' => {
                    let count = usize::from(byte() - 29);
                    let last = *text.last().unwrap();
                    text.extend(std::iter::repeat_n(last, count));
                }
                b'}' => text.push(byte() ^ 0x20),
                other => text.push(other),
            }
        }
        byte();
        byte();
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(crate) fn ask(&mut self, body: &str) -> String {
        self.send(body);
        self.answer()
    }

    /// A register of the selected thread.
    pub(crate) fn register(&mut self, number: usize) -> Option<u64> {
        let text = self.ask(&format!("p{number:x}"));
        (text.len() == 16).then(|| u64::from_str_radix(&text, 16).unwrap().swap_bytes())
    }

    /// Writes a register, if hartvm lets it.
    pub(crate) fn set_register(&mut self, number: usize, value: u64) -> bool {
        self.ask(&format!("P{number:x}={:016x}", value.swap_bytes())) == "OK"
    }

    pub(crate) fn pc(&mut self) -> u64 {
        self.register(32).expect("there is a pc")
    }

    pub(crate) fn select(&mut self, hart: usize) {
        assert_eq!(self.ask(&format!("Hgp1.{:x}", hart + 1)), "OK");
    }

    /// Whether a hart waits for an interrupt, as is said to users.
    pub(crate) fn is_in_wfi(&mut self, hart: usize) -> bool {
        let hex = self.ask(&format!("qThreadExtraInfo,p1.{:x}", hart + 1));
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap() as char;
        (0..hex.len()).step_by(2).map(byte).collect::<String>().contains("in WFI")
    }

    pub(crate) fn memory(&mut self, address: u64, length: usize) -> Option<Vec<u8>> {
        let text = self.ask(&format!("m{address:x},{length:x}"));
        if text.starts_with('E') {
            return None;
        }
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        Some((0..text.len()).step_by(2).map(byte).collect())
    }

    pub(crate) fn u64(&mut self, address: u64) -> u64 {
        u64::from_le_bytes(self.memory(address, 8).expect("there is memory").try_into().unwrap())
    }

    /// The target description.
    pub(crate) fn description(&mut self) -> String {
        let mut text = String::new();
        loop {
            let part = self.ask(&format!("qXfer:features:read:target.xml:{:x},ffb", text.len()));
            text += &part[1..];
            if part.starts_with('l') || part.len() == 1 {
                return text;
            }
        }
    }

    /// Steps a hart over the breakpoint or watchpoint that it stands at, as gdb does: all others hold meanwhile.
    pub(crate) fn step_over(&mut self, hart: usize, point: &str) {
        assert_eq!(self.ask(&format!("z{point}")), "OK");
        assert_eq!(
            self.ask(&format!("vCont;s:p1.{:x}", hart + 1)),
            format!("T05thread:p01.{:02x};", hart + 1)
        );
        assert_eq!(self.ask(&format!("Z{point}")), "OK");
    }

    /// Executes a monitor command.
    pub(crate) fn monitor(&mut self, command: &str) -> String {
        let hex: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.send(&format!("qRcmd,{hex}"));
        let mut text = String::new();
        loop {
            let part = self.answer();
            if part == "OK" {
                return text;
            }
            let hex = part.strip_prefix('O').expect("console output");
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap() as char;
            text.extend((0..hex.len()).step_by(2).map(byte));
        }
    }
}
