//! Go's `Sprintf` for the verbs that formats use.

use super::value::Value;

#[derive(Debug, Default)]
struct Spec {
    minus: bool,
    plus: bool,
    zero: bool,
    sharp: bool,
    width: usize,
    precision: Option<usize>,
}

pub(super) fn sprintf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let spec = read_spec(&mut chars, &mut arguments);
        match chars.next() {
            Some('%') => out.push('%'),
            Some(verb) => match arguments.next() {
                Some(value) => pad(&mut out, &spec, &format_one(&spec, verb, value)),
                None => out.push_str(&format!("%!{verb}(MISSING)")),
            },
            None => out.push_str("%!(NOVERB)"),
        }
    }
    let extra: Vec<String> =
        arguments.map(|value| format!("{}={}", type_name(value), value.to_text())).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn read_spec<'a>(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    arguments: &mut impl Iterator<Item = &'a Value>,
) -> Spec {
    let mut spec = Spec::default();
    while let Some(c) = chars.peek() {
        match c {
            '-' => spec.minus = true,
            '+' => spec.plus = true,
            '0' => spec.zero = true,
            '#' => spec.sharp = true,
            ' ' => {}
            _ => break,
        }
        chars.next();
    }
    spec.width = read_number(chars, arguments).unwrap_or_default();
    if chars.peek() == Some(&'.') {
        chars.next();
        spec.precision = Some(read_number(chars, arguments).unwrap_or_default());
    }
    spec
}

/// Digits, or `*` for the next argument.
fn read_number<'a>(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    arguments: &mut impl Iterator<Item = &'a Value>,
) -> Option<usize> {
    if chars.peek() == Some(&'*') {
        chars.next();
        return match arguments.next() {
            Some(Value::Int(number)) => usize::try_from(*number).ok(),
            _ => None,
        };
    }
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        number = Some(number.unwrap_or(0usize).saturating_mul(10).saturating_add(digit as usize));
        chars.next();
    }
    number.map(|number| number.min(4096))
}

fn format_one(spec: &Spec, verb: char, value: &Value) -> String {
    match (verb, value) {
        ('v', Value::Text(text)) if spec.sharp => quote(text),
        ('v', value) => value.to_text(),
        ('s', Value::Text(text)) => cut(spec, text),
        ('s', Value::List(_) | Value::Object(_) | Value::Row(_)) => value.to_text(),
        ('q', Value::Text(text)) => quote(&cut(spec, text)),
        ('q', Value::List(list)) => {
            let parts: Vec<String> = list.iter().map(|item| format_one(spec, verb, item)).collect();
            format!("[{}]", parts.join(" "))
        }
        ('d', Value::Int(number)) => signed(spec, *number, number.unsigned_abs().to_string()),
        ('x', Value::Int(number)) => signed(spec, *number, format!("{:x}", number.unsigned_abs())),
        ('X', Value::Int(number)) => signed(spec, *number, format!("{:X}", number.unsigned_abs())),
        ('o', Value::Int(number)) => signed(spec, *number, format!("{:o}", number.unsigned_abs())),
        ('b', Value::Int(number)) => signed(spec, *number, format!("{:b}", number.unsigned_abs())),
        ('c', Value::Int(number)) => {
            u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string()
        }
        ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('X', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
        ('f' | 'F', Value::Float(number)) => {
            format!("{number:.*}", spec.precision.unwrap_or(6))
        }
        ('g', Value::Float(_)) | ('t', Value::Bool(_)) => value.to_text(),
        ('T', value) => type_name(value).to_owned(),
        (verb, value) => format!("%!{verb}({}={})", type_name(value), value.to_text()),
    }
}

fn cut(spec: &Spec, text: &str) -> String {
    text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect()
}

fn signed(spec: &Spec, number: i64, digits: String) -> String {
    let sign = match number < 0 {
        true => "-",
        false if spec.plus => "+",
        false => "",
    };
    let room = if spec.zero && !spec.minus { spec.width.saturating_sub(sign.len()) } else { 0 };
    format!("{sign}{digits:0>room$}")
}

fn pad(out: &mut String, spec: &Spec, text: &str) {
    let missing = spec.width.saturating_sub(text.chars().count());
    if spec.minus {
        out.push_str(text);
    }
    out.extend(std::iter::repeat_n(' ', missing));
    if !spec.minus {
        out.push_str(text);
    }
}

/// A Go string literal.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil(_) => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        Value::Row(row) => row.type_name(),
    }
}
