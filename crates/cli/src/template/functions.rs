//! The functions: Go's own and the ones docker adds.

use std::cmp::Ordering;
use std::fmt::Write;
use std::rc::Rc;

use super::printf::sprintf;
use super::value::{Nil, Value};

/// Why a call failed, which decides the node that the error names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// An argument of the wrong type.
    Argument { index: usize, message: String },
    /// Too many or too few arguments.
    Count { message: String },
    /// The function itself refused.
    Call { message: String },
}

fn refuse(message: impl Into<String>) -> CallError {
    CallError::Call { message: message.into() }
}

/// Every name with its least and greatest number of arguments.
const FUNCTIONS: &[(&str, usize, usize)] = &[
    ("and", 1, usize::MAX),
    ("eq", 1, usize::MAX),
    ("ge", 2, 2),
    ("gt", 2, 2),
    ("html", 0, usize::MAX),
    ("index", 1, usize::MAX),
    ("join", 2, 2),
    ("js", 0, usize::MAX),
    ("json", 1, 1),
    ("le", 2, 2),
    ("len", 1, 1),
    ("lower", 1, 1),
    ("lt", 2, 2),
    ("ne", 2, 2),
    ("not", 1, 1),
    ("or", 1, usize::MAX),
    ("pad", 3, 3),
    ("print", 0, usize::MAX),
    ("printf", 1, usize::MAX),
    ("println", 0, usize::MAX),
    ("slice", 1, 4),
    ("split", 2, 2),
    ("title", 1, 1),
    ("truncate", 2, 2),
    ("upper", 1, 1),
    ("urlquery", 0, usize::MAX),
];

pub(super) fn exists(name: &str) -> bool {
    FUNCTIONS.iter().any(|(known, _, _)| *known == name)
}

/// In table headers these stand for their argument, so that `{{upper .Name}}` is headed `NAME`.
pub(super) fn passes_headers(name: &str) -> bool {
    ["json", "title", "lower", "upper", "truncate", "split", "join", "pad"].contains(&name)
}

pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, CallError> {
    let (_, least, most) = FUNCTIONS
        .iter()
        .find(|(known, _, _)| *known == name)
        .expect("the parser refuses unknown functions");
    if arguments.len() < *least || arguments.len() > *most {
        let wanted = if most == least { format!("{least}") } else { format!("at least {least}") };
        return Err(CallError::Count {
            message: format!(
                "wrong number of args for {name}: want {wanted} got {}",
                arguments.len()
            ),
        });
    }
    match name {
        // Arguments that decide never get here, so the last one is the answer.
        "and" | "or" => Ok(arguments[arguments.len() - 1].clone()),
        "not" => Ok(Value::Bool(!arguments[0].truth())),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => compare(name, arguments),
        "index" => index(arguments),
        "slice" => slice(arguments),
        "len" => length(&arguments[0]),
        "print" => Ok(Value::text(print(arguments))),
        "println" => Ok(Value::text(println(arguments))),
        "printf" => Ok(Value::text(sprintf(text(arguments, 0)?, &arguments[1..]))),
        "json" => {
            let mut out = String::new();
            arguments[0].json(&mut out);
            Ok(Value::text(out))
        }
        "html" => Ok(Value::text(escape(&print(arguments), html))),
        "js" => Ok(Value::text(escape(&print(arguments), js))),
        "urlquery" => Ok(Value::text(url_query(&print(arguments)))),
        _ => strings(name, arguments),
    }
}

fn strings(name: &str, arguments: &[Value]) -> Result<Value, CallError> {
    match name {
        "lower" => Ok(Value::text(text(arguments, 0)?.to_lowercase())),
        "upper" => Ok(Value::text(text(arguments, 0)?.to_uppercase())),
        "title" => Ok(Value::text(title(text(arguments, 0)?))),
        "split" => {
            let separator = text(arguments, 1)?;
            let parts = text(arguments, 0)?;
            let parts: Vec<Value> = if separator.is_empty() {
                parts.chars().map(|c| Value::text(c.to_string())).collect()
            } else {
                parts.split(separator).map(Value::text).collect()
            };
            Ok(Value::List(Rc::new(parts)))
        }
        "join" => join(arguments),
        "pad" => {
            let inner = text(arguments, 0)?;
            if inner.is_empty() {
                return Ok(Value::text(""));
            }
            let spaces = |index| number(arguments, index).map(|count| " ".repeat(count));
            Ok(Value::text(format!("{}{inner}{}", spaces(1)?, spaces(2)?)))
        }
        _ => {
            let whole = text(arguments, 0)?;
            let keep = number(arguments, 1)?;
            Ok(Value::text(whole.chars().take(keep).collect::<String>()))
        }
    }
}

fn text(arguments: &[Value], index: usize) -> Result<&str, CallError> {
    match &arguments[index] {
        Value::Text(text) => Ok(text),
        other => Err(CallError::Argument {
            index,
            message: format!("expected string; found {}", other.to_text()),
        }),
    }
}

fn number(arguments: &[Value], index: usize) -> Result<usize, CallError> {
    match &arguments[index] {
        Value::Int(number) => Ok(usize::try_from(*number).unwrap_or(0)),
        other => Err(CallError::Argument {
            index,
            message: format!("expected integer; found {}", other.to_text()),
        }),
    }
}

fn join(arguments: &[Value]) -> Result<Value, CallError> {
    let separator = text(arguments, 1)?;
    match &arguments[0] {
        Value::List(list) => {
            let parts: Vec<String> = list.iter().map(Value::to_text).collect();
            Ok(Value::text(parts.join(separator)))
        }
        Value::Nil(_) => Ok(Value::text("")),
        other => Err(CallError::Argument {
            index: 0,
            message: format!("wrong type for value; expected []string; got {}", type_name(other)),
        }),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil(_) => "nil",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        Value::Row(row) => row.type_name(),
    }
}

/// Raises the first letter of every word, like Go's `strings.Title`.
fn title(text: &str) -> String {
    let mut inside = false;
    text.chars()
        .map(|c| {
            let starts = !inside;
            inside = c.is_alphanumeric() || c == '_' || c == '\'';
            if starts { c.to_uppercase().next().unwrap_or(c) } else { c }
        })
        .collect()
}

fn compare(name: &str, arguments: &[Value]) -> Result<Value, CallError> {
    if arguments.len() < 2 {
        return Err(refuse("missing argument for comparison"));
    }
    if name == "eq" {
        for other in &arguments[1..] {
            if equal(&arguments[0], other)? {
                return Ok(Value::Bool(true));
            }
        }
        return Ok(Value::Bool(false));
    }
    let (left, right) = (&arguments[0], &arguments[1]);
    if name == "ne" {
        return equal(left, right).map(|equal| Value::Bool(!equal));
    }
    let order = order(left, right)?;
    Ok(Value::Bool(match name {
        "lt" => order == Ordering::Less,
        "le" => order != Ordering::Greater,
        "gt" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }))
}

fn equal(left: &Value, right: &Value) -> Result<bool, CallError> {
    match (left, right) {
        (Value::Nil(_), Value::Nil(_)) => Ok(true),
        (Value::Nil(_), _) | (_, Value::Nil(_)) => Ok(false),
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        (Value::List(_) | Value::Object(_) | Value::Row(_), _)
        | (_, Value::List(_) | Value::Object(_) | Value::Row(_)) => {
            Err(refuse("non-comparable type"))
        }
        _ => order(left, right).map(|order| order == Ordering::Equal),
    }
}

fn order(left: &Value, right: &Value) -> Result<Ordering, CallError> {
    let float = |number: i64| number as f64;
    let order = match (left, right) {
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Float(left), Value::Float(right)) => left.partial_cmp(right),
        (Value::Int(left), Value::Float(right)) => float(*left).partial_cmp(right),
        (Value::Float(left), Value::Int(right)) => left.partial_cmp(&float(*right)),
        (Value::Bool(_) | Value::List(_) | Value::Object(_) | Value::Nil(_), _) => {
            return Err(refuse("invalid type for comparison"));
        }
        _ => return Err(refuse("incompatible types for comparison")),
    };
    order.ok_or_else(|| refuse("invalid type for comparison"))
}

fn index(arguments: &[Value]) -> Result<Value, CallError> {
    let (start, keys) = arguments.split_first().expect("index has an argument at least");
    keys.iter().try_fold(start.clone(), |value, key| match (&value, key) {
        (Value::List(list), Value::Int(at)) => usize::try_from(*at)
            .ok()
            .and_then(|at| list.get(at).cloned())
            .ok_or_else(|| refuse(format!("index out of range: {at}"))),
        (Value::Nil(Nil::List), Value::Int(at)) => Err(refuse(format!("index out of range: {at}"))),
        (Value::Object(object), Value::Text(name)) => Ok(match object.get(name) {
            Some(member) => member.clone(),
            None if object.is_map => object.zero(),
            None => object.omitted(name).unwrap_or(Value::Nil(Nil::NoValue)),
        }),
        (Value::Nil(Nil::Map), Value::Text(_)) => Ok(Value::Nil(Nil::NoValue)),
        (Value::Nil(_), _) => Err(refuse("index of untyped nil")),
        (Value::List(_), other) => {
            Err(refuse(format!("cannot index slice/array with type {}", type_name(other))))
        }
        (Value::Object(_), other) => {
            Err(refuse(format!("value has type {}; should be string", type_name(other))))
        }
        (Value::Text(text), Value::Int(at)) => usize::try_from(*at)
            .ok()
            .and_then(|at| text.as_bytes().get(at).copied())
            .map(|byte| Value::Int(i64::from(byte)))
            .ok_or_else(|| refuse(format!("index out of range: {at}"))),
        (other, _) => Err(refuse(format!("can't index item of type {}", type_name(other)))),
    })
}

fn slice(arguments: &[Value]) -> Result<Value, CallError> {
    let size = match &arguments[0] {
        Value::Text(text) => text.len(),
        Value::List(list) => list.len(),
        Value::Nil(Nil::List) => 0,
        other => return Err(refuse(format!("can't slice item of type {}", type_name(other)))),
    };
    let bound = |index: usize, default: usize| match arguments.get(index) {
        None => Ok(default),
        Some(Value::Int(at)) => usize::try_from(*at)
            .ok()
            .filter(|at| *at <= size)
            .ok_or_else(|| refuse(format!("index out of range: {at}"))),
        Some(other) => {
            Err(refuse(format!("cannot index slice/array with type {}", type_name(other))))
        }
    };
    let (from, to) = (bound(1, 0)?, bound(2, size)?);
    if from > to {
        return Err(refuse(format!("invalid slice index: {from} > {to}")));
    }
    Ok(match &arguments[0] {
        Value::Text(text) => Value::text(String::from_utf8_lossy(&text.as_bytes()[from..to])),
        Value::List(list) => Value::List(Rc::new(list[from..to].to_vec())),
        other => other.clone(),
    })
}

fn length(value: &Value) -> Result<Value, CallError> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(list) => list.len(),
        Value::Object(object) if object.is_map => object.members.len(),
        Value::Nil(Nil::List | Nil::Map) => 0,
        Value::Nil(_) => return Err(refuse("len of nil pointer")),
        other => return Err(refuse(format!("len of type {}", type_name(other)))),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

/// Go's `Sprint`: a space between operands when neither is text.
fn print(arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut before_is_text = true;
    for (at, argument) in arguments.iter().enumerate() {
        let is_text = matches!(argument, Value::Text(_));
        if at > 0 && !is_text && !before_is_text {
            out.push(' ');
        }
        argument.print(&mut out);
        before_is_text = is_text;
    }
    out
}

fn println(arguments: &[Value]) -> String {
    let parts: Vec<String> = arguments.iter().map(Value::to_text).collect();
    parts.join(" ") + "\n"
}

fn escape(text: &str, one: fn(char) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match one(c) {
            Some(replacement) => out.push_str(replacement),
            None => out.push(c),
        }
    }
    out
}

fn html(c: char) -> Option<&'static str> {
    Some(match c {
        '"' => "&#34;",
        '\'' => "&#39;",
        '&' => "&amp;",
        '<' => "&lt;",
        '>' => "&gt;",
        '\0' => "\u{fffd}",
        _ => return None,
    })
}

fn js(c: char) -> Option<&'static str> {
    Some(match c {
        '\\' => "\\\\",
        '\'' => "\\'",
        '"' => "\\\"",
        '<' => "\\u003C",
        '>' => "\\u003E",
        '&' => "\\u0026",
        '=' => "\\u003D",
        '\n' => "\\u000A",
        '\r' => "\\u000D",
        '\t' => "\\u0009",
        _ => return None,
    })
}

fn url_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => {
                out.push(byte as char);
            }
            byte => write!(out, "%{byte:02X}").expect("writing to a String does not fail"),
        }
    }
    out
}
