//! Tokens to a tree. Functions and variables must exist already here, as in Go.

use std::fmt;

use super::TemplateError;
use super::functions;
use super::lex::{Number, Spanned, Token, lex, parse_error, position};

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If { pipe: Pipe, then: Vec<Self>, otherwise: Vec<Self> },
    With { pipe: Pipe, then: Vec<Self>, otherwise: Vec<Self> },
    Range { pipe: Pipe, body: Vec<Self>, otherwise: Vec<Self> },
    Break,
    Continue,
}

/// `$x := command | command`.
#[derive(Debug)]
pub(super) struct Pipe {
    pub declares: Vec<String>,
    /// `=` rather than `:=`.
    pub assigns: bool,
    pub commands: Vec<Command>,
}

#[derive(Debug)]
pub(super) struct Command {
    pub operands: Vec<Operand>,
}

/// A word of a command, with the line and column that errors name.
#[derive(Debug)]
pub(super) struct Operand {
    pub kind: OperandKind,
    pub at: (usize, usize),
}

#[derive(Debug)]
pub(super) enum OperandKind {
    Dot,
    Nil,
    Bool(bool),
    Number {
        value: Number,
        spelling: String,
    },
    Text {
        value: String,
        spelling: String,
    },
    /// `.A.B`
    Field(Vec<String>),
    /// `$x.A.B`
    Variable(String, Vec<String>),
    Function(String),
    Pipe(Box<Pipe>),
    /// `(...).A.B`
    Chain(Box<Operand>, Vec<String>),
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let tokens = lex(text)?;
    let mut parser =
        Parser { text, tokens, next: 0, variables: vec!["$".to_owned()], loops: 0, depth: 0 };
    let (nodes, end) = parser.list()?;
    match end {
        ListEnd::OfText => Ok(nodes),
        other => Err(parser.error(format!("unexpected {{{{{other}}}}}"))),
    }
}

/// What ended a list of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListEnd {
    OfText,
    End,
    Else,
    ElseIf,
    ElseWith,
}

impl fmt::Display for ListEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OfText => "EOF",
            Self::End => "end",
            Self::Else | Self::ElseIf | Self::ElseWith => "else",
        })
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Spanned>,
    next: usize,
    /// In scope, innermost last.
    variables: Vec<String>,
    loops: usize,
    /// How many lists, pipelines and branches we are inside of.
    depth: usize,
}

/// Deeper templates would overflow the stack, which Go's grows as needed.
const MAX_DEPTH: usize = 200;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].token
    }

    fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    fn take(&mut self) -> Token {
        let token = self.tokens[self.next].token.clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn skip_space(&mut self) {
        while *self.peek() == Token::Space {
            self.next += 1;
        }
    }

    fn error(&self, message: impl fmt::Display) -> TemplateError {
        parse_error(self.text, self.at(), message)
    }

    fn unexpected(&self, context: &str) -> TemplateError {
        self.error(format!("unexpected {} in {context}", describe(self.peek())))
    }

    /// Parses what is inside of something.
    fn inside<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        self.depth += 1;
        let outcome = parse(self);
        self.depth -= 1;
        outcome
    }

    fn list(&mut self) -> Result<(Vec<Node>, ListEnd), TemplateError> {
        self.inside(Self::nodes)
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, ListEnd), TemplateError> {
        let mut nodes = Vec::new();
        loop {
            match self.take() {
                Token::End => return Ok((nodes, ListEnd::OfText)),
                Token::Text(text) => nodes.push(Node::Text(text)),
                _open => {
                    self.skip_space();
                    if let Token::Word(word) = self.peek().clone() {
                        if let Some(end) = self.end_of_list(&word)? {
                            return Ok((nodes, end));
                        }
                        if let Some(node) = self.control(&word)? {
                            nodes.push(node);
                            continue;
                        }
                    }
                    let pipe = self.pipe("command", &Token::Close)?;
                    nodes.push(Node::Action(pipe));
                }
            }
        }
    }

    /// Consumes `end` and `else ...` actions.
    fn end_of_list(&mut self, word: &str) -> Result<Option<ListEnd>, TemplateError> {
        if word != "end" && word != "else" {
            return Ok(None);
        }
        self.take();
        self.skip_space();
        if word == "else" {
            for (follow, end) in [("if", ListEnd::ElseIf), ("with", ListEnd::ElseWith)] {
                if *self.peek() == Token::Word(follow.to_owned()) {
                    self.take();
                    return Ok(Some(end));
                }
            }
        }
        if self.take() != Token::Close {
            self.next -= 1;
            return Err(self.unexpected(word));
        }
        Ok(Some(if word == "end" { ListEnd::End } else { ListEnd::Else }))
    }

    fn control(&mut self, word: &str) -> Result<Option<Node>, TemplateError> {
        let node = match word {
            "if" | "with" => {
                self.take();
                self.branch(word)?
            }
            "range" => {
                self.take();
                self.range()?
            }
            "break" | "continue" => {
                self.take();
                self.skip_space();
                if self.loops == 0 {
                    return Err(self.error(format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                if self.take() != Token::Close {
                    self.next -= 1;
                    return Err(self.unexpected(&format!("{{{{{word}}}}}")));
                }
                if word == "break" { Node::Break } else { Node::Continue }
            }
            "define" | "template" | "block" => {
                return Err(self.error(format!("{{{{{word}}}}} is not supported in formats")));
            }
            _ => return Ok(None),
        };
        Ok(Some(node))
    }

    /// `if` and `with`, whose `else if` chains nest to the right.
    fn branch(&mut self, word: &str) -> Result<Node, TemplateError> {
        let scope = self.variables.len();
        let pipe = self.pipe(word, &Token::Close)?;
        let (then, end) = self.list()?;
        let otherwise = match (end, word) {
            (ListEnd::End, _) => Vec::new(),
            (ListEnd::ElseIf, "if") | (ListEnd::ElseWith, "with") => {
                vec![self.inside(|parser| parser.branch(word))?]
            }
            (ListEnd::Else, _) => self.otherwise()?,
            (other, _) => return Err(self.error(format!("unexpected {other}"))),
        };
        self.variables.truncate(scope);
        Ok(if word == "if" {
            Node::If { pipe, then, otherwise }
        } else {
            Node::With { pipe, then, otherwise }
        })
    }

    fn otherwise(&mut self) -> Result<Vec<Node>, TemplateError> {
        self.inside(Self::alternative)
    }

    fn alternative(&mut self) -> Result<Vec<Node>, TemplateError> {
        match self.list()? {
            (nodes, ListEnd::End) => Ok(nodes),
            (_, ListEnd::OfText) => Err(self.error("unexpected EOF")),
            (_, other) => Err(self.error(format!("expected end; found {{{{{other}}}}}"))),
        }
    }

    fn range(&mut self) -> Result<Node, TemplateError> {
        let scope = self.variables.len();
        let pipe = self.pipe("range", &Token::Close)?;
        self.loops += 1;
        let (body, end) = self.list()?;
        self.loops -= 1;
        let otherwise = match end {
            ListEnd::End => Vec::new(),
            ListEnd::Else => self.otherwise()?,
            other => return Err(self.error(format!("unexpected {other}"))),
        };
        self.variables.truncate(scope);
        Ok(Node::Range { pipe, body, otherwise })
    }

    fn pipe(&mut self, context: &str, close: &Token) -> Result<Pipe, TemplateError> {
        self.inside(|parser| parser.commands(context, close))
    }

    fn commands(&mut self, context: &str, close: &Token) -> Result<Pipe, TemplateError> {
        self.skip_space();
        let (declares, assigns) = self.declarations(context)?;
        let mut commands = Vec::new();
        loop {
            self.skip_space();
            if self.peek() == close {
                if commands.is_empty() {
                    return Err(self.error(format!("missing value for {context}")));
                }
                self.take();
                break;
            }
            commands.push(self.command(context)?);
            self.skip_space();
            if *self.peek() == Token::Pipe {
                self.take();
                self.skip_space();
                if self.peek() == close {
                    return Err(self.error(format!("missing value for {context}")));
                }
            } else if self.peek() != close {
                return Err(self.unexpected(context));
            }
        }
        self.variables.extend(if assigns { Vec::new() } else { declares.clone() });
        Ok(Pipe { declares, assigns, commands })
    }

    /// `$x :=`, `$x =`, and for ranges `$i, $x :=`.
    fn declarations(&mut self, context: &str) -> Result<(Vec<String>, bool), TemplateError> {
        let start = self.next;
        let mut names = Vec::new();
        while let Token::Variable(name) = self.peek().clone() {
            self.take();
            self.skip_space();
            names.push(name);
            match self.peek() {
                Token::Comma if context == "range" && names.len() < 2 => {
                    self.take();
                    self.skip_space();
                }
                Token::Declare => {
                    self.take();
                    return Ok((names, false));
                }
                Token::Assign => {
                    self.take();
                    return Ok((names, true));
                }
                _ => break,
            }
        }
        self.next = start;
        Ok((Vec::new(), false))
    }

    fn command(&mut self, context: &str) -> Result<Command, TemplateError> {
        let mut operands = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Token::Close | Token::CloseParen | Token::Pipe => break,
                _ => operands.push(self.operand(context)?),
            }
            if !matches!(self.peek(), Token::Space | Token::Close | Token::CloseParen | Token::Pipe)
            {
                return Err(self.unexpected("operand"));
            }
        }
        if operands.is_empty() {
            return Err(self.error("empty command"));
        }
        Ok(Command { operands })
    }

    fn operand(&mut self, context: &str) -> Result<Operand, TemplateError> {
        let start = self.at();
        let mut kind = match self.peek().clone() {
            Token::Dot => OperandKind::Dot,
            Token::Field(name) => OperandKind::Field(vec![name]),
            Token::Variable(name) => {
                if !self.variables.contains(&name) {
                    return Err(self.error(format!("undefined variable {name:?}")));
                }
                OperandKind::Variable(name, Vec::new())
            }
            Token::Quoted { value, spelling } => OperandKind::Text { value, spelling },
            Token::Number { value, spelling } => OperandKind::Number { value, spelling },
            Token::Word(word) => match word.as_str() {
                "true" | "false" => OperandKind::Bool(word == "true"),
                "nil" => OperandKind::Nil,
                _ if functions::exists(&word) => OperandKind::Function(word),
                _ => return Err(self.error(format!("function {word:?} not defined"))),
            },
            Token::OpenParen => {
                self.take();
                let pipe = self.pipe("parenthesized pipeline", &Token::CloseParen)?;
                self.next -= 1;
                OperandKind::Pipe(Box::new(pipe))
            }
            _ => return Err(self.unexpected(context)),
        };
        self.take();
        let mut at = start;
        let mut fields = Vec::new();
        while let Token::Field(name) = self.peek().clone() {
            if fields.is_empty() {
                at = self.at();
            }
            fields.push(name);
            self.take();
        }
        if !fields.is_empty() {
            kind = match kind {
                OperandKind::Field(mut names) => {
                    names.extend(fields);
                    OperandKind::Field(names)
                }
                OperandKind::Variable(name, _) => OperandKind::Variable(name, fields),
                OperandKind::Pipe(_) | OperandKind::Function(_) | OperandKind::Dot => {
                    let inner = Operand { kind, at: position(self.text, start) };
                    OperandKind::Chain(Box::new(inner), fields)
                }
                _ => return Err(self.error("unexpected . after term")),
            };
        }
        Ok(Operand { kind, at: position(self.text, at) })
    }
}

fn describe(token: &Token) -> String {
    match token {
        Token::End => "EOF".to_owned(),
        Token::Close => "\"}}\"".to_owned(),
        Token::Open => "\"{{\"".to_owned(),
        Token::Text(text) => format!("{text:?}"),
        Token::Field(name) => format!("<.{name}>"),
        Token::Dot => "<.>".to_owned(),
        Token::Variable(name) => format!("{name:?}"),
        Token::Word(word) => format!("{word:?}"),
        Token::Quoted { spelling, .. } | Token::Number { spelling, .. } => format!("{spelling:?}"),
        Token::Declare => "\":=\"".to_owned(),
        Token::Assign => "\"=\"".to_owned(),
        Token::Pipe => "\"|\"".to_owned(),
        Token::Comma => "\",\"".to_owned(),
        Token::OpenParen => "\"(\"".to_owned(),
        Token::CloseParen => "\")\"".to_owned(),
        Token::Space => "\" \"".to_owned(),
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.declares.is_empty() {
            let sign = if self.assigns { "=" } else { ":=" };
            write!(f, "{} {sign} ", self.declares.join(", "))?;
        }
        for (at, command) in self.commands.iter().enumerate() {
            if at > 0 {
                f.write_str(" | ")?;
            }
            command.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, operand) in self.operands.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            operand.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = |f: &mut fmt::Formatter<'_>, names: &[String]| {
            names.iter().try_for_each(|name| write!(f, ".{name}"))
        };
        match &self.kind {
            OperandKind::Dot => f.write_str("."),
            OperandKind::Nil => f.write_str("nil"),
            OperandKind::Bool(on) => write!(f, "{on}"),
            OperandKind::Number { spelling, .. } | OperandKind::Text { spelling, .. } => {
                f.write_str(spelling)
            }
            OperandKind::Field(names) => fields(f, names),
            OperandKind::Variable(name, names) => {
                f.write_str(name)?;
                fields(f, names)
            }
            OperandKind::Function(name) => f.write_str(name),
            OperandKind::Pipe(pipe) => write!(f, "({pipe})"),
            OperandKind::Chain(inner, names) => {
                inner.fmt(f)?;
                fields(f, names)
            }
        }
    }
}
