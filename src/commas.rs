//! Lists in one argument: parts with commas between them, and `,,` for a comma inside a part.

/// The parts of `text`. A comma at the end begins no further part, and no text has no parts.
pub(crate) fn split(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character != ',' {
            part.push(character);
        } else if characters.next_if_eq(&',').is_some() {
            part.push(',');
        } else {
            parts.push(std::mem::take(&mut part));
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// A part that [`split`] takes back to `text`.
pub(crate) fn doubled(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        assert_eq!(split("a,b=c"), ["a", "b=c"]);
        assert_eq!(split("a,,b,,,,c,d"), ["a,b,,c", "d"]);
        assert_eq!(split("a,,,b"), ["a,", "b"]);
        assert_eq!((split(""), split(",a")), (vec![], vec![String::new(), "a".into()]));
        assert_eq!(split("a,"), ["a"]);
        assert_eq!(split(&doubled("a,b,,")), ["a,b,,"]);
    }
}
