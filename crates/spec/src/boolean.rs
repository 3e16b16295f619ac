//! Truth values as Go's `strconv.ParseBool` reads them.

/// Takes `1 t T TRUE true True` and their opposites; else says so in Go's words.
pub fn parse(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn gos_spellings() {
        assert_eq!(super::parse("T"), Ok(true));
        assert_eq!(super::parse("False"), Ok(false));
        let text = "strconv.ParseBool: parsing \"tRUE\": invalid syntax";
        assert_eq!(super::parse("tRUE"), Err(text.to_owned()));
    }
}
