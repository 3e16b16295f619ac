//! One line of comma-separated values, with double quotes as RFC 4180 has them.

/// Splits `a,"b,c",d` into its fields.
pub(crate) fn csv(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let field;
        (field, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => plain_field(rest)?,
        };
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

fn plain_field(text: &str) -> Result<(String, &str), String> {
    let end = text.find(',').unwrap_or(text.len());
    match text[..end].find('"') {
        Some(at) => {
            Err(format!("parse error on line 1, column {}: bare \" in non-quoted-field", at + 1))
        }
        None => Ok((text[..end].to_owned(), &text[end..])),
    }
}

fn quoted_field(mut text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    loop {
        let Some(end) = text.find('"') else {
            return Err(
                "parse error on line 1: extraneous or missing \" in quoted-field".to_owned()
            );
        };
        field.push_str(&text[..end]);
        let after = &text[end + 1..];
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                text = more;
            }
            None if after.is_empty() || after.starts_with(',') => return Ok((field, after)),
            None => {
                return Err(
                    "parse error on line 1: extraneous or missing \" in quoted-field".into()
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_protect_commas() {
        let check = |line: &str, expect: &[&str]| assert_eq!(csv(line).unwrap(), expect, "{line}");
        check("a,b", &["a", "b"]);
        check("a", &["a"]);
        check("", &[""]);
        check(r#""a,b",c"#, &["a,b", "c"]);
        check(r#""x ""y""","#, &[r#"x "y""#, ""]);
        assert!(csv(r#"a"b"#).is_err() && csv(r#""ab"#).is_err() && csv(r#""a"b"#).is_err());
    }
}
