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
