//! Runs a tree over a value.

use std::rc::Rc;

use super::functions::{self, CallError};
use super::lex::Number;
use super::parse::{Command, Node, Operand, OperandKind, Pipe};
use super::value::{Nil, Value};
use super::{Functions, TemplateError};

/// How a list of nodes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

type Outcome<T> = Result<T, TemplateError>;

pub(super) fn execute(
    nodes: &[Node],
    data: &Value,
    functions: Functions,
    out: &mut String,
) -> Outcome<()> {
    let variables = vec![("$".to_owned(), data.clone())];
    let mut run = Run { functions, out, variables };
    run.list(nodes, data).map(|_flow| ())
}

struct Run<'a> {
    functions: Functions,
    out: &'a mut String,
    /// In scope, innermost last.
    variables: Vec<(String, Value)>,
}

impl Run<'_> {
    fn list(&mut self, nodes: &[Node], dot: &Value) -> Outcome<Flow> {
        for node in nodes {
            match self.node(node, dot)? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Outcome<Flow> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.declares.is_empty() {
                    value.print(self.out);
                }
            }
            Node::If { pipe, then, otherwise } => {
                return self.branch(pipe, then, otherwise, dot, false);
            }
            Node::With { pipe, then, otherwise } => {
                return self.branch(pipe, then, otherwise, dot, true);
            }
            Node::Range { pipe, body, otherwise } => return self.range(pipe, body, otherwise, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn branch(
        &mut self,
        pipe: &Pipe,
        then: &[Node],
        otherwise: &[Node],
        dot: &Value,
        moves_dot: bool,
    ) -> Outcome<Flow> {
        let scope = self.variables.len();
        let value = self.pipe(pipe, dot)?;
        let flow = match (value.truth(), moves_dot) {
            (true, true) => self.list(then, &value),
            (true, false) => self.list(then, dot),
            (false, _) => self.list(otherwise, dot),
        };
        self.variables.truncate(scope);
        flow
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Outcome<Flow> {
        let scope = self.variables.len();
        let value = self.commands(pipe, dot)?;
        let items = items(&value).ok_or_else(|| {
            at(
                &pipe.commands[0].operands[0],
                pipe,
                format!("range can't iterate over {}", value.to_text()),
            )
        })?;
        if items.is_empty() {
            return self.list(otherwise, dot);
        }
        for (key, item) in items {
            match pipe.declares.as_slice() {
                [] => {}
                [only] => self.bind(pipe, only, item.clone()),
                [first, second, ..] => {
                    self.bind(pipe, first, key);
                    self.bind(pipe, second, item.clone());
                }
            }
            let flow = self.list(body, &item);
            self.variables.truncate(scope);
            match flow? {
                Flow::Break => break,
                Flow::Next | Flow::Continue => {}
            }
        }
        Ok(Flow::Next)
    }

    fn bind(&mut self, pipe: &Pipe, name: &str, value: Value) {
        if pipe.assigns
            && let Some((_, slot)) =
                self.variables.iter_mut().rev().find(|(known, _)| known == name)
        {
            *slot = value;
            return;
        }
        self.variables.push((name.to_owned(), value));
    }

    /// Evaluates a pipeline and binds what it declares.
    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Outcome<Value> {
        let value = self.commands(pipe, dot)?;
        for name in &pipe.declares {
            self.bind(pipe, name, value.clone());
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &Pipe, dot: &Value) -> Outcome<Value> {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.expect("the parser refuses empty pipelines"))
    }

    fn command(&mut self, command: &Command, dot: &Value, piped: Option<Value>) -> Outcome<Value> {
        let (first, rest) =
            command.operands.split_first().expect("the parser refuses empty commands");
        match &first.kind {
            OperandKind::Function(name) => self.call(first, name, rest, command, dot, piped),
            _ if rest.is_empty() && piped.is_none() => self.operand(first, dot),
            OperandKind::Field(names) => self.method(first, names, rest, dot, piped),
            OperandKind::Nil => Err(at(first, first, "nil is not a command")),
            _ => Err(at(first, first, format!("can't give argument to non-function {first}"))),
        }
    }

    fn call(
        &mut self,
        operand: &Operand,
        name: &str,
        rest: &[Operand],
        command: &Command,
        dot: &Value,
        piped: Option<Value>,
    ) -> Outcome<Value> {
        if self.functions == Functions::Headers && functions::passes_headers(name) {
            return match (rest.first(), piped) {
                (_, Some(piped)) => Ok(piped),
                (Some(argument), None) => self.operand(argument, dot),
                (None, None) => Ok(Value::text("")),
            };
        }
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        // `and` and `or` stop at the first argument that decides.
        let decides = |value: &Value| match name {
            "and" => !value.truth(),
            "or" => value.truth(),
            _ => false,
        };
        for argument in rest {
            let value = self.operand(argument, dot)?;
            if decides(&value) {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(piped);
        functions::call(name, &arguments).map_err(|error| match error {
            CallError::Argument { index, message } => match rest.get(index) {
                Some(argument) => at(argument, argument, message),
                None => at(operand, name, message),
            },
            CallError::Count { message } => at(operand, name, message),
            CallError::Call { message } => {
                at(operand, command, format!("error calling {name}: {message}"))
            }
        })
    }

    /// `.Label "x"`: the last name is a method, which only rows have.
    fn method(
        &mut self,
        operand: &Operand,
        names: &[String],
        rest: &[Operand],
        dot: &Value,
        piped: Option<Value>,
    ) -> Outcome<Value> {
        let (last, path) = names.split_last().expect("a field has a name");
        let owner = self.fields(operand, dot.clone(), path)?;
        let mut arguments = Vec::new();
        for argument in rest {
            arguments.push(self.operand(argument, dot)?);
        }
        arguments.extend(piped);
        let result = match &owner {
            Value::Row(row) => row.call(last, &arguments),
            _ => None,
        };
        result.ok_or_else(|| {
            at(operand, operand, format!("{last} has arguments but cannot be invoked as function"))
        })
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Outcome<Value> {
        Ok(match &operand.kind {
            OperandKind::Dot => dot.clone(),
            OperandKind::Nil => Value::Nil(Nil::Pointer),
            OperandKind::Bool(on) => Value::Bool(*on),
            OperandKind::Number { value: Number::Int(number), .. } => Value::Int(*number),
            OperandKind::Number { value: Number::Float(number), .. } => Value::Float(*number),
            OperandKind::Text { value, .. } => Value::text(value.as_str()),
            OperandKind::Field(names) => return self.fields(operand, dot.clone(), names),
            OperandKind::Variable(name, names) => {
                let (_, value) = self
                    .variables
                    .iter()
                    .rev()
                    .find(|(known, _)| known == name)
                    .expect("the parser refuses unknown variables");
                let value = value.clone();
                return self.fields(operand, value, names);
            }
            OperandKind::Function(name) => {
                let alone = Command { operands: Vec::new() };
                return self.call(operand, name, &[], &alone, dot, None);
            }
            OperandKind::Pipe(pipe) => return self.pipe(pipe, dot),
            OperandKind::Chain(inner, names) => {
                let value = self.operand(inner, dot)?;
                return self.fields(operand, value, names);
            }
        })
    }

    fn fields(&self, operand: &Operand, start: Value, names: &[String]) -> Outcome<Value> {
        names.iter().try_fold(start, |value, name| {
            field(&value, name).map_err(|message| at(operand, operand, message))
        })
    }
}

fn field(value: &Value, name: &str) -> Result<Value, String> {
    match value {
        Value::Object(object) => match object.field(name) {
            Some(value) => Ok(value.clone()),
            None if object.is_map => Ok(Value::Nil(Nil::NoValue)),
            None => object.omitted(name).ok_or_else(|| match go_type(&object.name) {
                Some(kind) => format!("can't evaluate field {name} in type {kind}"),
                None => format!("map has no entry for key {name:?}"),
            }),
        },
        Value::Row(row) => row
            .member(name)
            .ok_or_else(|| format!("can't evaluate field {name} in type {}", row.type_name())),
        Value::Nil(Nil::NoValue | Nil::Map) => Ok(Value::Nil(Nil::NoValue)),
        Value::Nil(Nil::Absent) => Err(format!("map has no entry for key {name:?}")),
        Value::Nil(_) => Err(format!("nil data; no entry for key {name:?}")),
        _ => Err(format!("can't evaluate field {name} in type interface {{}}")),
    }
}

/// What Go calls documents that docker decodes before a template sees them; the others are maps.
fn go_type(document: &str) -> Option<&'static str> {
    Some(match document {
        "event" => "*events.Message",
        "info" => "system.dockerInfo",
        "version" => "system.versionInfo",
        "volume" => "volume.Volume",
        "context" => "context.contextWithTLSListing",
        _ => return None,
    })
}

/// What `range` visits: keys and items; `None` for what cannot be visited.
fn items(value: &Value) -> Option<Vec<(Value, Value)>> {
    let index = |at: usize| Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
    match value {
        Value::Nil(_) => Some(Vec::new()),
        Value::List(list) => {
            Some(list.iter().enumerate().map(|(at, item)| (index(at), item.clone())).collect())
        }
        Value::Object(object) => Some(
            object
                .sorted()
                .into_iter()
                .map(|(name, item)| (Value::Text(Rc::clone(name)), item.clone()))
                .collect(),
        ),
        Value::Int(count) => Some((0..*count).map(|at| (Value::Int(at), Value::Int(at))).collect()),
        _ => None,
    }
}

/// Go's error: position, template name (ours have none), the node (20 characters of it), what.
fn at(
    operand: &Operand,
    node: impl std::fmt::Display,
    message: impl std::fmt::Display,
) -> TemplateError {
    let (line, column) = operand.at;
    let mut node = node.to_string();
    if node.len() > 20 {
        node = format!("{}...", node.chars().take(20).collect::<String>());
    }
    TemplateError(format!("template: :{line}:{column}: executing \"\" at <{node}>: {message}"))
}
