//! Numbers as Go's strconv reads them, with its error texts.

/// Parses a signed number in base 10, or with a prefix 0x, 0o, 0b or 0, that fits `bits` bits.
pub(crate) fn parse_int(text: &str, bits: u32) -> Result<i64, String> {
    let error = |what| format!("strconv.ParseInt: parsing {text:?}: {what}");
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = magnitude(digits).map_err(error)?;
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    let limit = 1i128 << (bits - 1);
    if value < -limit || value >= limit {
        return Err(error("value out of range"));
    }
    i64::try_from(value).map_err(|_too_big| error("value out of range"))
}

/// Parses an unsigned number that fits `bits` bits.
pub(crate) fn parse_uint(text: &str, bits: u32) -> Result<u64, String> {
    let error = |what| format!("strconv.ParseUint: parsing {text:?}: {what}");
    let value = magnitude(text).map_err(error)?;
    if u128::from(value) >= 1u128 << bits {
        return Err(error("value out of range"));
    }
    Ok(value)
}

fn magnitude(text: &str) -> Result<u64, &'static str> {
    let lower = text.to_ascii_lowercase();
    let (digits, base) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (&lower[..], 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return Err("invalid syntax");
    }
    u64::from_str_radix(digits, base).map_err(|_overflow| "value out of range")
}

/// Parses `--cpus` (a decimal or a fraction) into billionths of a CPU.
pub(crate) fn parse_nano_cpus(text: &str) -> Result<i64, String> {
    let error = || format!("failed to parse {text} as a rational number");
    let number = |part: &str| part.parse::<f64>().ok().filter(|value| value.is_finite());
    let value = match text.split_once('/') {
        Some((over, under)) => {
            number(over).zip(number(under)).map(|(over, under)| over / under).ok_or_else(error)?
        }
        None => number(text).ok_or_else(error)?,
    };
    let nanos = value * 1e9;
    if (nanos - nanos.round()).abs() > 1e-6 * nanos.abs().max(1.0) {
        return Err("value is too precise".to_owned());
    }
    Ok(nanos.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_gos() {
        assert_eq!(parse_int("-12", 64), Ok(-12));
        assert_eq!(parse_int("0x10", 64), Ok(16));
        assert_eq!(parse_int("010", 64), Ok(8));
        assert_eq!(parse_int("9223372036854775807", 64), Ok(i64::MAX));
        assert!(parse_int("9223372036854775808", 64).unwrap_err().ends_with("value out of range"));
        assert!(parse_int("", 64).unwrap_err().ends_with("invalid syntax"));
        assert!(parse_int("5x", 64).unwrap_err().ends_with("invalid syntax"));
        assert!(parse_uint("65536", 16).unwrap_err().ends_with("value out of range"));
        assert_eq!(parse_uint("65535", 16), Ok(65535));
    }

    #[test]
    fn cpus_are_exact_billionths() {
        assert_eq!(parse_nano_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(parse_nano_cpus(".1"), Ok(100_000_000));
        assert_eq!(parse_nano_cpus("1/4"), Ok(250_000_000));
        assert_eq!(parse_nano_cpus("0.0000000001"), Err("value is too precise".to_owned()));
        assert!(parse_nano_cpus("x").is_err() && parse_nano_cpus("1.5.2").is_err());
    }
}
