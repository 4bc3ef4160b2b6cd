//! Text as a YAML scalar.

use std::fmt::Write;

/// `text` in double quotes, which any YAML reader takes back to the same text whatever is in it: all that is not plain
/// ASCII is escaped (YAML 1.1 and 1.2, section 5.7).
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        // Writing to a string cannot fail.
        let _ = match (character, u32::from(character)) {
            ('"' | '\\', _) => write!(quoted, "\\{character}"),
            (' '..='~', _) => write!(quoted, "{character}"),
            (_, code @ 0..=0xff) => write!(quoted, "\\x{code:02x}"),
            (_, code @ 0x100..=0xffff) => write!(quoted, "\\u{code:04x}"),
            (_, code) => write!(quoted, "\\U{code:08x}"),
        };
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_inside_the_quotes() {
        assert_eq!(quoted(""), r#""""#);
        assert_eq!(quoted("yes: no # {}"), r#""yes: no # {}""#);
        assert_eq!(quoted("a\"b\\c\n- x\t\0\u{7f}\u{85}"), r#""a\"b\\c\x0a- x\x09\x00\x7f\x85""#);
        assert_eq!(quoted("é€😀\u{2028}"), r#""\xe9\u20ac\U0001f600\u2028""#);
    }
}
