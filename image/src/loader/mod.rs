//! Configurations of boot loaders, each read as the loader itself reads it.

pub(crate) mod extlinux;
pub(crate) mod grub;
pub(crate) mod systemd_boot;

use crate::volumes::Place;

/// Most bytes of a configuration file.
pub(crate) const MAX_CONFIG: u64 = 1 << 20;

/// Most entries that are taken from a disk.
pub(crate) const MAX_ENTRIES: usize = 1000;

/// What a loader would start for one line of its menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The line, after those of the menus it is in.
    pub(crate) titles: Vec<String>,
    /// The name by which configurations refer to it.
    pub(crate) id: Option<String>,
    pub(crate) kernel: Place,
    pub(crate) initrds: Vec<Place>,
    pub(crate) devicetree: Option<Place>,
    pub(crate) options: String,
}

/// What a configuration says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// In the order of the menu.
    pub(crate) entries: Vec<Candidate>,
    /// Index of the one that is started if nobody chooses.
    pub(crate) default: usize,
    /// What there is that cannot be started, and why.
    pub(crate) problems: Vec<String>,
}

/// Whether `text` matches a pattern with `*` and `?`.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut retry) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            retry = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|&c| c == '?' || c == text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star, from)) = retry {
            // The star takes one more character.
            (p, t) = (star + 1, from + 1);
            retry = Some((star, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Texts with mistakes, for tests.
#[cfg(test)]
pub(crate) mod mistakes {
    /// Calls `check` with ten thousand variants of `text`: words and lines left out, repeated, exchanged, and pieces that
    /// mean something put in.
    pub(crate) fn ten_thousand(text: &str, pieces: &[&str], check: &mut dyn FnMut(&str)) {
        let mut state = 3_u64;
        let mut below = |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % limit.max(1)
        };
        let words: Vec<&str> = text.split_inclusive(|c: char| c.is_whitespace() || c == ';').collect();
        for _ in 0..10_000 {
            let mut words = words.clone();
            for _ in 0..=below(4) {
                let at = below(words.len());
                match below(5) {
                    0 => drop(words.remove(at)),
                    1 => words.insert(at, words[below(words.len())]),
                    2 => words[at] = pieces[below(pieces.len())],
                    3 => words.insert(at, pieces[below(pieces.len())]),
                    _ => {
                        let end = (at + below(40)).min(words.len());
                        let part = words[at..end].to_vec();
                        words.splice(at..at, part);
                    }
                }
            }
            let mut text = words.concat();
            if below(4) == 0 {
                let cut = (0..=below(text.len())).rev().find(|&at| text.is_char_boundary(at));
                text.truncate(cut.unwrap_or(0));
            }
            check(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text) in
            [("*", ""), ("a*c", "abbc"), ("?b*", "abc"), ("abc", "abc"), ("*-1*", "x-0-1.conf")]
        {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", ""), ("a*c", "abb"), ("?", ""), ("abc", "abcd")] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }
}
