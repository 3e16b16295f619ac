//! Values of settings: from the command line's text and from `daemon.json`, to one JSON form.

use serde_json::{Map, Value, json};
use spec::size::parse_bytes;

use super::directives::Kind;

/// Reads what was given to one flag, all its occurrences. The error is the reason alone.
pub(crate) fn from_flag(kind: Kind, given: &[String]) -> Result<Value, Invalid> {
    let last = given.last().map_or("", String::as_str);
    let one = |result: Result<Value, String>| {
        result.map_err(|reason| Invalid { value: last.to_owned(), reason })
    };
    match kind {
        Kind::Switch => one(spec::boolean::parse(last).map(Value::from)),
        Kind::Text => Ok(last.into()),
        Kind::Integer => one(integer(last)),
        Kind::Size => one(parse_bytes(last).map(Value::from).map_err(|error| error.to_string())),
        Kind::List => Ok(given.iter().cloned().collect()),
        Kind::Map => each(given, pair).map(object),
        Kind::Ulimits => each(given, ulimit).map(object),
        Kind::Runtimes => each(given, runtime).map(object),
        Kind::Pools => each(given, pool).map(Value::from),
    }
}

/// The part of a flag that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) value: String,
    pub(crate) reason: String,
}

fn each<T>(given: &[String], parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Invalid> {
    let parse =
        |text: &String| parse(text).map_err(|reason| Invalid { value: text.clone(), reason });
    given.iter().map(parse).collect()
}

fn object(pairs: Vec<(String, Value)>) -> Value {
    pairs.into_iter().collect::<Map<_, _>>().into()
}

fn integer(text: &str) -> Result<Value, String> {
    let number: Result<i64, _> = text.parse();
    number.map(Value::from).map_err(|error| {
        let reason = match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
                "value out of range"
            }
            _ => "invalid syntax",
        };
        format!("strconv.ParseInt: parsing {text:?}: {reason}")
    })
}

fn pair(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    Ok((key.to_owned(), value.into()))
}

/// `nofile=1024` or `nofile=1024:2048`, soft first.
fn ulimit(text: &str) -> Result<(String, Value), String> {
    let error = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').ok_or_else(error)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_not_a_number| error());
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard >= 0 && (soft < 0 || soft > hard) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok((name.to_owned(), json!({"Name": name, "Soft": soft, "Hard": hard})))
}

fn runtime(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), json!({"path": path, "runtimeArgs": []})))
        }
        _ => Err(format!("invalid runtime argument: {text}")),
    }
}

fn pool(text: &str) -> Result<Value, String> {
    let mut pool = Map::new();
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key {
            "base" => pool.insert(key.to_owned(), value.into()),
            "size" => pool.insert(key.to_owned(), integer(value)?),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        };
    }
    Ok(pool.into())
}

/// Checks a value of the file; the error names what Go would have expected.
pub(crate) fn check_file(kind: Kind, path: &str, value: Value) -> Result<Value, String> {
    let wanted = |value: &Value, wanted: &str| {
        let found = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if wanted == "int" => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        format!("json: cannot unmarshal {found} into Go struct field {path} of type {wanted}")
    };
    let is = |right: bool, name: &str| if right { Ok(()) } else { Err(wanted(&value, name)) };
    match kind {
        Kind::Switch => is(value.is_boolean(), "bool")?,
        Kind::Text => is(value.is_string(), "string")?,
        Kind::Integer => is(value.is_i64(), "int")?,
        Kind::Size => match &value {
            Value::String(text) => {
                return parse_bytes(text).map(Value::from).map_err(|error| error.to_string());
            }
            other => is(other.is_i64(), "int64")?,
        },
        Kind::List => {
            is(value.is_array(), "[]string")?;
            members(&value, path, Kind::Text)?;
        }
        Kind::Map => {
            is(value.is_object(), "map[string]string")?;
            members(&value, path, Kind::Text)?;
        }
        Kind::Pools => is(value.is_array(), "[]*ipamutils.NetworkToSplit")?,
        Kind::Ulimits => is(value.is_object(), "map[string]*container.Ulimit")?,
        Kind::Runtimes => is(value.is_object(), "map[string]system.Runtime")?,
    }
    Ok(value)
}

fn members(value: &Value, path: &str, kind: Kind) -> Result<(), String> {
    match value {
        Value::Array(list) => {
            for member in list {
                check_file(kind, path, member.clone())?;
            }
        }
        Value::Object(map) => {
            for (key, member) in map {
                check_file(kind, &format!("{path}.{key}"), member.clone())?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Prints a value as Go's `%v` does, for dockerd's message about a conflict.
pub(crate) fn go_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            format!("[{}]", list.iter().map(go_text).collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{key}:{}", go_text(value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_values() {
        let check = |kind, given: &[&str], expect: Result<Value, &str>| {
            let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
            let seen = from_flag(kind, &given).map_err(|invalid| invalid.reason);
            assert_eq!(seen, expect.map_err(str::to_owned), "{given:?}");
        };
        check(Kind::Switch, &["false"], Ok(json!(false)));
        check(
            Kind::Switch,
            &["maybe"],
            Err("strconv.ParseBool: parsing \"maybe\": invalid syntax"),
        );
        check(Kind::Integer, &["5", "7"], Ok(json!(7)));
        check(Kind::Integer, &["x"], Err("strconv.ParseInt: parsing \"x\": invalid syntax"));
        check(Kind::Size, &["1m"], Ok(json!(1 << 20)));
        check(Kind::List, &["a", "b"], Ok(json!(["a", "b"])));
        check(Kind::Map, &["max-size=1m", "a=b=c"], Ok(json!({"max-size": "1m", "a": "b=c"})));
        check(
            Kind::Ulimits,
            &["nofile=1:2"],
            Ok(json!({"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}})),
        );
        check(Kind::Ulimits, &["nofile"], Err("invalid ulimit argument: nofile"));
        check(
            Kind::Pools,
            &["base=10.0.0.0/8,size=24"],
            Ok(json!([{"base": "10.0.0.0/8", "size": 24}])),
        );
        check(
            Kind::Runtimes,
            &["crun=/usr/bin/crun"],
            Ok(json!({"crun": {"path": "/usr/bin/crun", "runtimeArgs": []}})),
        );
    }

    #[test]
    fn the_files_values_are_checked() {
        let check = |kind, value: Value, expect: &str| {
            let error = check_file(kind, "Config.x", value).unwrap_err();
            assert_eq!(error, format!("json: cannot unmarshal {expect}"));
        };
        check(Kind::Switch, json!("x"), "string into Go struct field Config.x of type bool");
        check(
            Kind::Map,
            json!({"max-size": 5}),
            "number into Go struct field Config.x.max-size of type string",
        );
        check(Kind::List, json!([1]), "number into Go struct field Config.x of type string");
        assert_eq!(check_file(Kind::Size, "", json!("2k")), Ok(json!(2048)));
    }

    #[test]
    fn values_print_as_gos() {
        assert_eq!(go_text(&json!(["x=y", "z"])), "[x=y z]");
        assert_eq!(go_text(&json!({"a": "b"})), "map[a:b]");
        assert_eq!(go_text(&json!(true)), "true");
    }
}
