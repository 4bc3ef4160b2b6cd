//! QEMU's way to write several values in one argument: `name,key=value,flag`, with `,,` for a comma in a value.

use super::Refusal;
use crate::commas;

/// The parts of one argument, each of which has to be taken before [`List::finish`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    /// The option it belongs to, for messages: `-drive`.
    option: String,
    parts: Vec<(String, Option<String>)>,
}

impl List {
    /// Takes `text` apart. A first part without `=` is the value of `implied`, if that is named.
    pub(super) fn parse(option: &str, text: &str, implied: Option<&str>) -> Self {
        let mut parts: Vec<(String, Option<String>)> = Vec::new();
        for part in commas::split(text) {
            parts.push(match (part.split_once('='), implied) {
                (Some((key, value)), _) => (key.to_owned(), Some(value.to_owned())),
                (None, Some(implied)) if parts.is_empty() => (implied.to_owned(), Some(part)),
                (None, _) => (part, None),
            });
        }
        Self { option: option.to_owned(), parts }
    }

    /// Takes the value of `key`; of several the last one counts, as in QEMU. A key without a value is `on`.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let mut value = None;
        self.parts.retain(|(name, given)| {
            let is_it = name == key;
            if is_it {
                value = Some(given.clone().unwrap_or_else(|| "on".into()));
            }
            !is_it
        });
        value
    }

    /// Takes every value of `key`, in order.
    pub(super) fn take_all(&mut self, key: &str) -> Vec<String> {
        let parts = std::mem::take(&mut self.parts);
        let (taken, left): (Vec<_>, _) = parts.into_iter().partition(|(name, _)| name == key);
        self.parts = left;
        taken.into_iter().map(|(_, value)| value.unwrap_or_else(|| "on".into())).collect()
    }

    /// Takes a switch: `key`, `key=on`, `key=off`; QEMU also takes yes, true, y and their opposites, and the old `nokey`.
    pub(super) fn switch(&mut self, key: &str) -> Result<Option<bool>, Refusal> {
        if self.take(&format!("no{key}")).is_some() {
            return Ok(Some(false));
        }
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_str() {
            "on" | "yes" | "true" | "y" => Ok(Some(true)),
            "off" | "no" | "false" | "n" => Ok(Some(false)),
            _ => Err(self.bad(key, &value, "on or off")),
        }
    }

    /// Takes a key that must have one of these values if it is there, since then it changes nothing here.
    pub(super) fn expect(&mut self, key: &str, values: &[&str], instead: &str) -> Result<(), Refusal> {
        match self.take(key) {
            Some(value) if !values.contains(&value.as_str()) => Err(self.bad(key, &value, instead)),
            _ => Ok(()),
        }
    }

    /// Takes keys whose value changes nothing here.
    pub(super) fn skip(&mut self, keys: &[&str]) {
        self.parts.retain(|(name, _)| !keys.contains(&name.as_str()));
    }

    /// What is left, in order.
    pub(super) fn rest(&mut self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.parts)
    }

    /// Everything must have been taken by now. `known` says what there is.
    pub(super) fn finish(self, known: &str) -> Result<(), Refusal> {
        match self.parts.first() {
            Some((name, _)) => Err(Refusal::new(
                format!("{}: `{name}` means nothing here", self.option),
                format!("it takes {known}"),
            )),
            None => Ok(()),
        }
    }

    /// The refusal of a value.
    pub(super) fn bad(&self, key: &str, value: &str, instead: &str) -> Refusal {
        Refusal::new(
            format!("{}: {key}={value} is not possible here", self.option),
            format!("want {instead}"),
        )
    }
}

/// A size as QEMU reads it: a number with k, M, G, T or nothing, which is `unit`.
pub(super) fn size(text: &str, unit: u64) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    // A sign is no digit, though numbers may have one elsewhere.
    let number: u64 = digits.parse().ok().filter(|_| !digits.starts_with('+'))?;
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => unit,
        "b" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// A number in decimal, or in hexadecimal with 0x.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> List {
        List::parse("-x", text, Some("file"))
    }

    #[test]
    fn commas_and_implied_keys() {
        let mut parts = list("a,,b,,,,c,id=x,readonly");
        assert_eq!(parts.take("file").as_deref(), Some("a,b,,c"));
        assert_eq!(parts.take("id").as_deref(), Some("x"));
        assert_eq!(parts.switch("readonly").ok(), Some(Some(true)));
        assert!(parts.finish("").is_ok());
        let mut parts = list("id=x,b");
        assert_eq!((parts.take("file"), parts.take("b").as_deref()), (None, Some("on")));
        assert_eq!(list("file=a=b").take("file").as_deref(), Some("a=b"));
        assert!(list("").finish("").is_ok());
        assert_eq!(list("file=,,").take("file").as_deref(), Some(","));
    }

    #[test]
    fn the_last_one_counts_and_switches_have_many_names() {
        assert_eq!(list("a,id=x,id=y").take("id").as_deref(), Some("y"));
        assert_eq!(list("a,k=1,b,k=2").take_all("k"), ["1", "2"]);
        for (text, on) in [("k", true), ("k=on", true), ("k=yes", true), ("k=off", false), ("nok", false)] {
            assert_eq!(List::parse("-x", text, None).switch("k").ok(), Some(Some(on)), "{text}");
        }
        assert!(List::parse("-x", "k=maybe", None).switch("k").is_err());
        assert_eq!(list("a").switch("k").ok(), Some(None));
    }

    #[test]
    fn what_is_left_over_is_named() {
        let error = list("a,warp=9").finish("file").unwrap_err().to_string();
        assert!(error.contains("-x") && error.contains("`file`"), "{error}");
    }

    #[test]
    fn sizes_and_numbers() {
        assert_eq!(size("4G", 1 << 20), Some(4 << 30));
        assert_eq!((size("512", 1 << 20), size("2k", 1)), (Some(512 << 20), Some(2048)));
        assert_eq!(
            (size("+1", 1), size("x", 1), size("1q", 1), size("99999999999999G", 1)),
            (None, None, None, None)
        );
        assert_eq!((number("0x80200000"), number("16"), number("x")), (Some(0x8020_0000), Some(16), None));
    }
}
