//! The command `test`, also spelled `[`.

use crate::fs::Stat;

/// Whether the expression holds; one that makes no sense does not. `stat` tells what is at a path.
pub(super) fn holds(words: &[String], stat: &dyn Fn(&str) -> Option<Stat>) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut test = Test { words: &words, stat, depth: 0 };
    test.either().is_some_and(|holds| holds && test.words.is_empty())
}

/// Parentheses and negations within each other.
const MAX_DEPTH: u32 = 50;

struct Test<'a> {
    words: &'a [&'a str],
    stat: &'a dyn Fn(&str) -> Option<Stat>,
    depth: u32,
}

impl<'a> Test<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    /// `A -o B`
    fn either(&mut self) -> Option<bool> {
        let mut holds = self.both()?;
        while self.words.first() == Some(&"-o") {
            self.next();
            holds |= self.both()?;
        }
        Some(holds)
    }

    /// `A -a B`
    fn both(&mut self) -> Option<bool> {
        let mut holds = self.one()?;
        while self.words.first() == Some(&"-a") {
            self.next();
            holds &= self.one()?;
        }
        Some(holds)
    }

    fn one(&mut self) -> Option<bool> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let holds = self.primary();
        self.depth -= 1;
        holds
    }

    fn primary(&mut self) -> Option<bool> {
        // An operator between two words is that even if the first looks like another operator.
        if let [left, operator, right, ..] = *self.words
            && let Some(holds) = compare(left, operator, right)
        {
            self.words = &self.words[3..];
            return Some(holds);
        }
        let Some(first) = self.next() else { return Some(false) };
        match first {
            "!" => return self.one().map(|holds| !holds),
            "(" => {
                let holds = self.either()?;
                return (self.next() == Some(")")).then_some(holds);
            }
            "-n" | "-z" | "-d" | "-e" | "-f" | "-s" if !self.words.is_empty() => {}
            _ => return Some(!first.is_empty()),
        }
        let operand = self.next()?;
        let stat = || (self.stat)(operand);
        Some(match first {
            "-n" => !operand.is_empty(),
            "-z" => operand.is_empty(),
            "-d" => stat() == Some(Stat::Directory),
            "-e" => stat().is_some(),
            "-f" => matches!(stat(), Some(Stat::File(_))),
            _ => matches!(stat(), Some(Stat::File(1..))),
        })
    }
}

/// A comparison; `None` if the operator is none.
fn compare(left: &str, operator: &str, right: &str) -> Option<bool> {
    // Numbers are what their text starts with, else 0.
    let number = |text: &str| -> i64 {
        let end = text.char_indices().find(|&(at, c)| !(c.is_ascii_digit() || at == 0 && c == '-'));
        text[..end.map_or(text.len(), |(at, _)| at)].parse().unwrap_or(0)
    };
    let (a, b) = (number(left), number(right));
    Some(match operator {
        "=" | "==" => left == right,
        "!=" => left != right,
        "<" => left < right,
        ">" => left > right,
        "<=" => left <= right,
        ">=" => left >= right,
        "-eq" => a == b,
        "-ne" => a != b,
        "-lt" => a < b,
        "-le" => a <= b,
        "-gt" => a > b,
        "-ge" => a >= b,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(expression: &str) -> bool {
        let words: Vec<String> = expression.split(' ').map(|word| word.replace('_', "")).collect();
        holds(&words, &|path| match path {
            "/d" => Some(Stat::Directory),
            "/f" => Some(Stat::File(3)),
            "/empty" => Some(Stat::File(0)),
            _ => None,
        })
    }

    #[test]
    fn expressions_hold() {
        for expression in [
            "a",
            "a = a",
            "x != y",
            "-n a",
            "-z _",
            "2 -lt 10",
            "-e /d",
            "-d /d",
            "-f /f",
            "-s /f",
            "! -s /empty",
            "! _",
            "a = a -a b = b",
            "a = b -o b = b",
            "( a = b -o a ) -a c",
            "! = !",
            "-z = -z",
            "! a = b",
            "-z _ -a -f /f",
            "12a -eq 12",
        ] {
            assert!(test(expression), "{expression}");
        }
    }

    #[test]
    fn expressions_do_not_hold() {
        for expression in [
            "_",
            "a = b",
            "-n _",
            "10 -lt 2",
            "-e /x",
            "-f /d",
            "-d /f",
            "! a",
            "a = a -a b = c",
            "( a",
            "a b",
            "a = a b",
            "_ = a",
        ] {
            assert!(!test(expression), "{expression}");
        }
        assert!(!test(&"( ".repeat(1000)));
        assert!(!test(&"! ".repeat(1001)));
    }
}
