//! The user's terminal: raw while a guest runs, restored on every way out, and the Ctrl-A keys.

use std::io::IsTerminal;
use std::sync::OnceLock;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The settings to go back to; set once, before the first change.
static ORIGINAL: OnceLock<Termios> = OnceLock::new();

/// Keeps the terminal raw; restores it when dropped.
pub(crate) struct RawTerminal(());

impl RawTerminal {
    /// Puts standard input into raw mode if it is a terminal. Panics and signals restore it as well.
    pub(crate) fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let original = tcgetattr(&stdin).ok()?;
        let mut raw = original.clone();
        raw.make_raw();
        let _ = ORIGINAL.set(original);
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self(()))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Goes back to the settings from before [`RawTerminal::enter`]; harmless when there are none.
pub(crate) fn restore() {
    if let Some(original) = ORIGINAL.get() {
        // Not after draining, which waits for ever where flow control holds the output back.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, original);
    }
}

/// What a key sequence asks of hartvm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Ctrl-A X
    Quit,
    /// Ctrl-A H
    Help,
    /// Ctrl-A T
    SwitchConsole,
}

/// Finds Ctrl-A sequences in the bytes typed.
#[derive(Default)]
pub(crate) struct Keys {
    escaped: bool,
}

const CTRL_A: u8 = 1;

impl Keys {
    /// The bytes for the guest; `act` is called for each sequence.
    pub(crate) fn filter(&mut self, bytes: &[u8], mut act: impl FnMut(Key)) -> Vec<u8> {
        let mut guest = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if !std::mem::take(&mut self.escaped) {
                if byte == CTRL_A {
                    self.escaped = true;
                } else {
                    guest.push(byte);
                }
                continue;
            }
            match byte.to_ascii_lowercase() {
                b'x' => act(Key::Quit),
                b'h' | b'?' => act(Key::Help),
                b't' => act(Key::SwitchConsole),
                b'a' | CTRL_A => guest.push(CTRL_A),
                // Not a command: what was typed goes to the guest as it is.
                _ => guest.extend([CTRL_A, byte]),
            }
        }
        guest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(chunks: &[&[u8]]) -> (Vec<u8>, Vec<Key>) {
        let (mut keys, mut guest, mut acts) = (Keys::default(), Vec::new(), Vec::new());
        for chunk in chunks {
            guest.extend(keys.filter(chunk, |key| acts.push(key)));
        }
        (guest, acts)
    }

    #[test]
    fn plain_bytes_and_ctrl_c_reach_the_guest() {
        assert_eq!(run(&[b"ls\x03\r"]), (b"ls\x03\r".to_vec(), vec![]));
    }

    #[test]
    fn ctrl_a_sequences_are_commands_even_when_split() {
        assert_eq!(run(&[b"a\x01", b"xb", b"\x01H"]), (b"ab".to_vec(), vec![Key::Quit, Key::Help]));
    }

    #[test]
    fn ctrl_a_twice_sends_one_and_unknown_sequences_pass() {
        assert_eq!(run(&[b"\x01\x01\x01z"]), (b"\x01\x01z".to_vec(), vec![]));
    }
}
