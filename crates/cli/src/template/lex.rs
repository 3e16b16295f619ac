//! Template text to tokens. Outside `{{ }}` all is text; inside, words of the little language.

use super::TemplateError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Text(String),
    /// `{{`; what it opens follows.
    Open,
    /// `}}`
    Close,
    /// `.Name`, without the dot; [`Token::Dot`] when alone.
    Field(String),
    Dot,
    /// `$` or `$name`, with the dollar sign.
    Variable(String),
    Word(String),
    /// A string and its spelling in the template.
    Quoted {
        value: String,
        spelling: String,
    },
    Number {
        value: Number,
        spelling: String,
    },
    Declare,
    Assign,
    Pipe,
    Comma,
    OpenParen,
    CloseParen,
    Space,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

/// A token and the byte it starts at.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spanned {
    pub token: Token,
    pub at: usize,
}

/// Line (from 1) and column (from 0) of a byte, as Go's errors give them.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before.len() - line_start)
}

pub(super) fn parse_error(text: &str, at: usize, message: impl std::fmt::Display) -> TemplateError {
    TemplateError(format!("template: :{}: {message}", position(text, at).0))
}

pub(super) fn lex(text: &str) -> Result<Vec<Spanned>, TemplateError> {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new() };
    lexer.run()?;
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Spanned>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn push(&mut self, token: Token, length: usize) {
        self.tokens.push(Spanned { token, at: self.at });
        self.at += length;
    }

    fn error(&self, message: impl std::fmt::Display) -> TemplateError {
        parse_error(self.text, self.at, message)
    }

    fn run(&mut self) -> Result<(), TemplateError> {
        let mut trim_next = false;
        while let Some(open) = self.rest().find("{{") {
            let inside = &self.rest()[open + 2..];
            let trim_before = inside.starts_with("- ") || inside.starts_with("-\n");
            self.text_token(open, trim_next, trim_before);
            self.at += if trim_before { 3 } else { 2 };
            trim_next = if self.rest().trim_start().starts_with("/*") {
                self.comment()?
            } else {
                self.action()?
            };
        }
        self.text_token(self.rest().len(), trim_next, false);
        self.push(Token::End, 0);
        Ok(())
    }

    fn text_token(&mut self, length: usize, trim_start: bool, trim_end: bool) {
        let mut text = &self.rest()[..length];
        if trim_start {
            text = text.trim_ascii_start();
        }
        if trim_end {
            text = text.trim_ascii_end();
        }
        if !text.is_empty() {
            self.tokens.push(Spanned { token: Token::Text(text.to_owned()), at: self.at });
        }
        self.at += length;
    }

    /// Skips `/* ... */}}`; true when the closing delimiter trims.
    fn comment(&mut self) -> Result<bool, TemplateError> {
        let Some(end) = self.rest().find("*/") else { return Err(self.error("unclosed comment")) };
        self.at += end + 2;
        for (close, trims) in [(" -}}", true), ("}}", false)] {
            if self.rest().starts_with(close) {
                self.at += close.len();
                return Ok(trims);
            }
        }
        Err(self.error("comment ends before closing delimiter"))
    }

    /// Reads up to and including `}}`; true when it trims.
    fn action(&mut self) -> Result<bool, TemplateError> {
        self.push(Token::Open, 0);
        let mut depth = 0usize;
        loop {
            let rest = self.rest();
            if rest.starts_with("}}") {
                if depth > 0 {
                    return Err(self.error("unclosed left paren"));
                }
                self.push(Token::Close, 2);
                return Ok(false);
            }
            if rest.trim_ascii_start().starts_with("-}}") && rest.starts_with([' ', '\t', '\n']) {
                self.at += rest.len() - rest.trim_ascii_start().len();
                self.push(Token::Close, 3);
                return Ok(true);
            }
            let Some(first) = rest.chars().next() else {
                return Err(self.error("unclosed action"));
            };
            match first {
                ' ' | '\t' | '\r' | '\n' => {
                    self.push(Token::Space, rest.len() - rest.trim_ascii_start().len());
                }
                '(' => {
                    depth += 1;
                    self.push(Token::OpenParen, 1);
                }
                ')' if depth == 0 => return Err(self.error("unexpected right paren")),
                ')' => {
                    depth -= 1;
                    self.push(Token::CloseParen, 1);
                }
                '|' => self.push(Token::Pipe, 1),
                ',' => self.push(Token::Comma, 1),
                '=' => self.push(Token::Assign, 1),
                ':' if rest.starts_with(":=") => self.push(Token::Declare, 2),
                ':' => return Err(self.error("expected :=")),
                _ => self.operand(first)?,
            }
        }
    }

    fn operand(&mut self, first: char) -> Result<(), TemplateError> {
        let rest = self.rest();
        match first {
            '"' => self.quoted(),
            '`' => self.raw(),
            '\'' => self.character(),
            '$' => {
                let length = 1 + word_length(&rest[1..]);
                self.push(Token::Variable(rest[..length].to_owned()), length);
                Ok(())
            }
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let length = word_length(&rest[1..]);
                if length == 0 {
                    self.push(Token::Dot, 1);
                } else {
                    self.push(Token::Field(rest[1..=length].to_owned()), length + 1);
                }
                Ok(())
            }
            '+' | '-' | '.' | '0'..='9' => self.number(),
            c if c.is_alphabetic() || c == '_' => {
                let length = word_length(rest);
                self.push(Token::Word(rest[..length].to_owned()), length);
                Ok(())
            }
            c => {
                Err(self
                    .error(format!("unexpected bad character U+{:04X} {c:?} in command", c as u32)))
            }
        }
    }

    fn number(&mut self) -> Result<(), TemplateError> {
        let rest = self.rest();
        let length = 1 + rest[1..]
            .find(|c: char| !(c.is_ascii_alphanumeric() || "._+-".contains(c)))
            .unwrap_or(rest.len() - 1);
        let spelling = &rest[..length];
        let value = crate::flags::parse_int(spelling, 64)
            .map(Number::Int)
            .or_else(|_not_whole| spelling.parse::<f64>().map(Number::Float));
        match value {
            Ok(value) => {
                self.push(Token::Number { value, spelling: spelling.to_owned() }, length);
                Ok(())
            }
            Err(_malformed) => Err(self.error(format!("bad number syntax: {spelling:?}"))),
        }
    }

    fn quoted(&mut self) -> Result<(), TemplateError> {
        let rest = self.rest();
        let mut value = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    let spelling = rest[..=at].to_owned();
                    self.push(Token::Quoted { value, spelling }, at + 1);
                    return Ok(());
                }
                '\n' => break,
                '\\' => match chars.next() {
                    Some((_, escaped)) => value.push(self.escape(escaped, &mut chars)?),
                    None => break,
                },
                c => value.push(c),
            }
        }
        Err(self.error("unterminated quoted string"))
    }

    fn escape(
        &self,
        escaped: char,
        chars: &mut impl Iterator<Item = (usize, char)>,
    ) -> Result<char, TemplateError> {
        let invalid = || self.error("invalid syntax");
        let mut hex = |digits: usize| {
            let text: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
            u32::from_str_radix(&text, 16).ok().and_then(char::from_u32).ok_or_else(invalid)
        };
        match escaped {
            'n' => Ok('\n'),
            't' => Ok('\t'),
            'r' => Ok('\r'),
            'a' => Ok('\u{7}'),
            'b' => Ok('\u{8}'),
            'f' => Ok('\u{c}'),
            'v' => Ok('\u{b}'),
            '\\' | '"' | '\'' => Ok(escaped),
            'x' => hex(2),
            'u' => hex(4),
            'U' => hex(8),
            _ => Err(invalid()),
        }
    }

    fn raw(&mut self) -> Result<(), TemplateError> {
        let rest = self.rest();
        let Some(end) = rest[1..].find('`') else {
            return Err(self.error("unterminated raw quoted string"));
        };
        let token =
            Token::Quoted { value: rest[1..=end].to_owned(), spelling: rest[..end + 2].to_owned() };
        self.push(token, end + 2);
        Ok(())
    }

    /// `'a'` is a number: its code point.
    fn character(&mut self) -> Result<(), TemplateError> {
        let rest = self.rest();
        let mut chars = rest.char_indices().skip(1);
        let value = match chars.next() {
            Some((_, '\\')) => match chars.next() {
                Some((_, escaped)) => self.escape(escaped, &mut chars)?,
                None => return Err(self.error("unterminated character constant")),
            },
            Some((_, c)) if c != '\'' && c != '\n' => c,
            _ => return Err(self.error("unterminated character constant")),
        };
        let Some((end, '\'')) = chars.next() else {
            return Err(self.error("unterminated character constant"));
        };
        let token = Token::Number {
            value: Number::Int(i64::from(value as u32)),
            spelling: rest[..=end].to_owned(),
        };
        self.push(token, end + 1);
        Ok(())
    }
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}
