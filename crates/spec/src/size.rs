//! Sizes as people write them (`64m`, `1.5GiB`) and as Docker prints them (`1.24MB`, `3.2MiB`).

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid size: '{text}'")]
pub struct SizeError {
    pub text: String,
}

/// Parses a size with binary units, as `docker run -m` does: `b k m g t p`, each also `kb`, `kib`.
pub fn parse_bytes(text: &str) -> Result<i64, SizeError> {
    let error = || SizeError { text: text.to_owned() };
    let split =
        text.rfind(|c: char| c.is_ascii_digit() || c == '.').map(|at| at + 1).ok_or_else(error)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_not_a_number| error())?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(error()),
    };
    if !number.is_finite() || number < 0.0 {
        return Err(error());
    }
    let bytes = number * 1024f64.powi(power);
    if bytes >= 9.2e18 {
        return Err(error());
    }
    Ok(bytes as i64)
}

/// Prints with decimal units and four significant digits, as `docker images` does.
pub fn human(bytes: f64) -> String {
    human_with(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 4)
}

/// Prints with decimal units and three significant digits, as `docker ps -s` does.
pub fn human_3(bytes: f64) -> String {
    human_with(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// Prints with binary units and four significant digits, as `docker stats` does.
pub fn human_binary(bytes: f64) -> String {
    human_with(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

fn human_with(mut value: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// Formats like C's `%.{digits}g` for values from 0 to 1024: no trailing zeros.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = usize::try_from(digits as i32 - 1 - magnitude).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_as_docker_parses_them() {
        for (text, bytes) in [
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("1.5g", 3 << 29),
            ("32", 32),
            ("32b", 32),
            ("2KiB", 2048),
            ("1 k", 1024),
            ("0", 0),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1.2.3k", "9e99p", "1ib", "hello"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_print_as_docker_prints_them() {
        assert_eq!(human(0.0), "0B");
        assert_eq!(human(4_262_345.0), "4.262MB");
        assert_eq!(human(117_000_000.0), "117MB");
        assert_eq!(human_3(1_234_567.0), "1.23MB");
        assert_eq!(human_binary(3_355_443.2), "3.2MiB");
        assert_eq!(human_binary(1023.0), "1023B");
    }
}
