//! GRUB's script language: from text to commands (the GRUB manual, "Writing full configuration files directly").

use std::rc::Rc;

/// Blocks within blocks, at most.
const MAX_NESTING: usize = 64;

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// As it is. Quoted text is a word even if it is empty.
    Text(String),
    /// The value of a variable; one that is not in quotes is split at white space.
    Variable { name: String, quoted: bool },
}

/// What becomes no, one or several arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) pieces: Vec<Piece>,
    /// Whether any of it was quoted, so that it is no keyword.
    quoted: bool,
}

impl Word {
    fn keyword(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Text(text)] if !self.quoted => Some(text),
            _ => None,
        }
    }
}

pub(super) type Block = Rc<Vec<Command>>;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// A name and its arguments.
    Simple(Vec<Word>),
    If {
        branches: Vec<(Block, Block)>,
        otherwise: Block,
    },
    While {
        condition: Block,
        body: Block,
        until: bool,
    },
    For {
        name: String,
        words: Vec<Word>,
        body: Block,
    },
    Function {
        name: String,
        body: Block,
    },
    Menu {
        words: Vec<Word>,
        body: Block,
        submenu: bool,
    },
    Not(Box<Command>),
    /// The second if the first succeeds (`and`), or if it fails.
    Then {
        first: Box<Command>,
        and: bool,
        second: Box<Command>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(Word),
    /// A line end or `;`.
    End,
    Open,
    Close,
    And,
    Or,
}

/// What is wrong with a text, and in which line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct SyntaxError {
    line: usize,
    what: &'static str,
}

struct Lexer<'a> {
    text: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Lexer<'_> {
    fn bump(&mut self) -> Option<char> {
        let c = self.text.next();
        self.line += usize::from(c == Some('\n'));
        c
    }

    fn error<T>(&self, what: &'static str) -> Result<T, SyntaxError> {
        Err(SyntaxError { line: self.line, what })
    }

    fn token(&mut self) -> Result<Option<Token>, SyntaxError> {
        loop {
            let Some(&c) = self.text.peek() else { return Ok(None) };
            match c {
                '#' => {
                    while self.text.peek().is_some_and(|&c| c != '\n') {
                        self.bump();
                    }
                }
                '\n' | ';' => {
                    self.bump();
                    return Ok(Some(Token::End));
                }
                '&' | '|' => {
                    self.bump();
                    if self.text.peek() == Some(&c) {
                        self.bump();
                        return Ok(Some(if c == '&' { Token::And } else { Token::Or }));
                    }
                    return self.error("a single `&` or `|` means nothing here");
                }
                c if c.is_whitespace() => {
                    self.bump();
                }
                _ => return self.word().map(Some),
            }
        }
    }

    fn word(&mut self) -> Result<Token, SyntaxError> {
        let mut word = Word::default();
        let mut text = String::new();
        let mut has_text = false;
        let flush = |word: &mut Word, text: &mut String, has: &mut bool| {
            if std::mem::take(has) {
                word.pieces.push(Piece::Text(std::mem::take(text)));
            }
        };
        while let Some(&c) = self.text.peek() {
            match c {
                '\n' | ';' | '&' | '|' => break,
                c if c.is_whitespace() => break,
                '\\' => {
                    self.bump();
                    match self.bump() {
                        Some('\n') | None => {}
                        Some(c) => {
                            text.push(c);
                            (has_text, word.quoted) = (true, true);
                        }
                    }
                }
                '\'' => {
                    self.bump();
                    (has_text, word.quoted) = (true, true);
                    loop {
                        match self.bump() {
                            Some('\'') => break,
                            Some(c) => text.push(c),
                            None => return self.error("a quote has no end"),
                        }
                    }
                }
                '"' => {
                    self.bump();
                    (has_text, word.quoted) = (true, true);
                    loop {
                        match self.bump() {
                            Some('"') => break,
                            Some('\\') => match self.bump() {
                                Some('\n') => {}
                                Some(c @ ('"' | '\\' | '$')) => text.push(c),
                                Some(c) => text.extend(['\\', c]),
                                None => return self.error("a quote has no end"),
                            },
                            Some('$') => match self.variable()? {
                                Some(name) => {
                                    flush(&mut word, &mut text, &mut has_text);
                                    word.pieces.push(Piece::Variable { name, quoted: true });
                                }
                                None => {
                                    text.push('$');
                                    has_text = true;
                                }
                            },
                            Some(c) => {
                                text.push(c);
                                has_text = true;
                            }
                            None => return self.error("a quote has no end"),
                        }
                    }
                }
                '$' => {
                    self.bump();
                    match self.variable()? {
                        Some(name) => {
                            flush(&mut word, &mut text, &mut has_text);
                            word.pieces.push(Piece::Variable { name, quoted: false });
                        }
                        None => {
                            text.push('$');
                            has_text = true;
                        }
                    }
                }
                c => {
                    self.bump();
                    text.push(c);
                    has_text = true;
                }
            }
        }
        flush(&mut word, &mut text, &mut has_text);
        Ok(match word.keyword() {
            Some("{") => Token::Open,
            Some("}") => Token::Close,
            _ => Token::Word(word),
        })
    }

    /// The name after a `$`; `None` if there is none, so that the `$` is itself.
    fn variable(&mut self) -> Result<Option<String>, SyntaxError> {
        let mut name = String::new();
        match self.text.peek() {
            Some('{') => {
                self.bump();
                loop {
                    match self.bump() {
                        Some('}') => break,
                        Some('\n') | None => return self.error("`${` has no end"),
                        Some(c) => name.push(c),
                    }
                }
            }
            Some(&c @ ('?' | '#' | '@' | '*' | '0'..='9')) => {
                self.bump();
                name.push(c);
            }
            _ => {
                while let Some(&c) = self.text.peek().filter(|c| c.is_ascii_alphanumeric() || **c == '_') {
                    self.bump();
                    name.push(c);
                }
            }
        }
        Ok((!name.is_empty()).then_some(name))
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    next: Option<Token>,
    nesting: usize,
}

/// Parses a whole file.
pub(super) fn parse(text: &str) -> Result<Block, SyntaxError> {
    let mut parser =
        Parser { lexer: Lexer { text: text.chars().peekable(), line: 1 }, next: None, nesting: 0 };
    parser.advance()?;
    let block = parser.block(&[])?;
    match parser.next {
        None => Ok(block),
        Some(_) => parser.lexer.error("a word that ends a block has none to end"),
    }
}

/// Words that end a list of commands, and so cannot start one.
const ENDS: [&str; 6] = ["then", "elif", "else", "fi", "do", "done"];

impl Parser<'_> {
    fn advance(&mut self) -> Result<Option<Token>, SyntaxError> {
        let next = self.lexer.token()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    fn keyword(&self) -> Option<&str> {
        match &self.next {
            Some(Token::Word(word)) => word.keyword(),
            _ => None,
        }
    }

    fn skip_ends(&mut self) -> Result<(), SyntaxError> {
        while self.next == Some(Token::End) {
            self.advance()?;
        }
        Ok(())
    }

    fn expect(&mut self, keyword: &'static str, missing: &'static str) -> Result<(), SyntaxError> {
        self.skip_ends()?;
        if self.keyword() == Some(keyword) {
            self.advance()?;
            return Ok(());
        }
        self.lexer.error(missing)
    }

    /// Commands up to `}`, the end of the text, or one of [`ENDS`] that must be in `until`; that is left there.
    fn block(&mut self, until: &[&str]) -> Result<Block, SyntaxError> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return self.lexer.error("blocks are nested too deeply");
        }
        let mut commands = Vec::new();
        loop {
            self.skip_ends()?;
            match &self.next {
                None | Some(Token::Close) => break,
                Some(Token::Word(_)) => {}
                Some(_) => return self.lexer.error("a command was expected"),
            }
            if self.keyword().is_some_and(|word| ENDS.contains(&word)) {
                if self.keyword().is_some_and(|word| until.contains(&word)) {
                    break;
                }
                return self.lexer.error("a word that ends a block has none to end");
            }
            commands.push(self.chain()?);
        }
        self.nesting -= 1;
        Ok(Rc::new(commands))
    }

    fn braces(&mut self) -> Result<Block, SyntaxError> {
        if self.next != Some(Token::Open) {
            return self.lexer.error("`{` is missing");
        }
        self.advance()?;
        let block = self.block(&[])?;
        if self.next != Some(Token::Close) {
            return self.lexer.error("`}` is missing");
        }
        self.advance()?;
        Ok(block)
    }

    fn chain(&mut self) -> Result<Command, SyntaxError> {
        let mut first = self.command()?;
        let mut length = 0;
        while let Some(and) = match self.next {
            Some(Token::And) => Some(true),
            Some(Token::Or) => Some(false),
            _ => None,
        } {
            length += 1;
            if length > MAX_NESTING {
                return self.lexer.error("too many commands in a row");
            }
            self.advance()?;
            self.skip_ends()?;
            let second = Box::new(self.command()?);
            first = Command::Then { first: Box::new(first), and, second };
        }
        Ok(first)
    }

    fn command(&mut self) -> Result<Command, SyntaxError> {
        match self.keyword() {
            Some("if") => self.conditional(),
            Some(keyword @ ("while" | "until")) => {
                let until = keyword == "until";
                self.advance()?;
                let condition = self.block(&["do"])?;
                self.expect("do", "`do` is missing")?;
                let body = self.block(&["done"])?;
                self.expect("done", "`done` is missing")?;
                Ok(Command::While { condition, body, until })
            }
            Some("for") => {
                self.advance()?;
                let name = self.name()?;
                self.expect("in", "`in` is missing")?;
                let words = self.words()?;
                self.expect("do", "`do` is missing")?;
                let body = self.block(&["done"])?;
                self.expect("done", "`done` is missing")?;
                Ok(Command::For { name, words, body })
            }
            Some("function") => {
                self.advance()?;
                let name = self.name()?;
                self.skip_ends()?;
                Ok(Command::Function { name, body: self.braces()? })
            }
            Some(keyword @ ("menuentry" | "submenu")) => {
                let submenu = keyword == "submenu";
                self.advance()?;
                let words = self.words()?;
                Ok(Command::Menu { words, body: self.braces()?, submenu })
            }
            Some("!") => {
                self.advance()?;
                self.nesting += 1;
                if self.nesting > MAX_NESTING {
                    return self.lexer.error("blocks are nested too deeply");
                }
                let command = self.command()?;
                self.nesting -= 1;
                Ok(Command::Not(Box::new(command)))
            }
            _ => {
                let words = self.words()?;
                if words.is_empty() {
                    return self.lexer.error("a command was expected");
                }
                Ok(Command::Simple(words))
            }
        }
    }

    fn conditional(&mut self) -> Result<Command, SyntaxError> {
        let mut branches = Vec::new();
        loop {
            // `if` or `elif`.
            self.advance()?;
            let condition = self.block(&["then"])?;
            self.expect("then", "`then` is missing")?;
            let body = self.block(&["elif", "else", "fi"])?;
            branches.push((condition, body));
            if self.keyword() != Some("elif") {
                break;
            }
        }
        let mut otherwise = Block::default();
        if self.keyword() == Some("else") {
            self.advance()?;
            otherwise = self.block(&["fi"])?;
        }
        self.expect("fi", "`fi` is missing")?;
        Ok(Command::If { branches, otherwise })
    }

    fn name(&mut self) -> Result<String, SyntaxError> {
        match self.keyword().map(str::to_owned) {
            Some(name) => {
                self.advance()?;
                Ok(name)
            }
            None => self.lexer.error("a name was expected"),
        }
    }

    fn words(&mut self) -> Result<Vec<Word>, SyntaxError> {
        let mut words = Vec::new();
        while let Some(Token::Word(_)) = self.next {
            if let Some(Token::Word(word)) = self.advance()? {
                words.push(word);
            }
        }
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<Piece>> {
        let block = parse(text).unwrap();
        match block.as_slice() {
            [Command::Simple(words)] => words.iter().map(|word| word.pieces.clone()).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.into())
    }

    fn variable(name: &str, quoted: bool) -> Piece {
        Piece::Variable { name: name.into(), quoted }
    }

    #[test]
    fn words_have_quotes_and_variables() {
        assert_eq!(
            words("set a=${b}'c $d'\"e ${f} \\$g\" \\  # comment"),
            [
                vec![text("set")],
                vec![text("a="), variable("b", false), text("c $de "), variable("f", true), text(" $g")],
                vec![text(" ")]
            ]
        );
        assert_eq!(words("a '' $"), [vec![text("a")], vec![text("")], vec![text("$")]]);
        assert_eq!(words("a \\\n b"), [vec![text("a")], vec![], vec![text("b")]]);
    }

    #[test]
    fn structures_nest() {
        let block = parse(
            "if [ a ]; then b; elif ! c; then\nd\nelse e || f; fi\nfunction g {\nh\n}\n\
             menuentry 'i' --id j {\n linux k\n}\nfor l in m n; do o; done; while p; do q; done",
        )
        .unwrap();
        assert_eq!(block.len(), 5);
        assert!(
            matches!(&block[0], Command::If { branches, otherwise } if branches.len() == 2 && otherwise.len() == 1)
        );
        assert!(matches!(&block[1], Command::Function { name, .. } if name == "g"));
        assert!(matches!(&block[2], Command::Menu { words, submenu: false, .. } if words.len() == 3));
        assert!(matches!(&block[3], Command::For { words, .. } if words.len() == 2));
        assert!(matches!(&block[4], Command::While { until: false, .. }));
    }

    #[test]
    fn mistakes_name_their_line() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(error("a\nif b; then c"), "line 2: `fi` is missing");
        assert_eq!(error("\nmenuentry x {\n"), "line 3: `}` is missing");
        assert_eq!(error("fi"), "line 1: a word that ends a block has none to end");
        assert_eq!(error("}"), "line 1: a word that ends a block has none to end");
        assert_eq!(error("'a"), "line 1: a quote has no end");
        assert!(error(&"menuentry a {\n".repeat(1000)).contains("nested too deeply"));
        assert!(error(&"! ".repeat(1000)).contains("nested too deeply"));
        assert!(error(&"a && ".repeat(1000)).contains("in a row"));
    }
}
