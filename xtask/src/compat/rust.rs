//! Just enough of Rust's tokens to read a table of literals.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Word(String),
    Text(String),
    Mark(char),
}

impl Token {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Splits source text; comments, numbers and whatever else are left out or come as marks.
pub(crate) fn tokens(source: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(after) = character(rest) {
            rest = after;
        } else if first == '"' {
            let (text, after) = string(&rest[1..])?;
            tokens.push(Token::Text(text));
            rest = after;
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Mark(first));
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    Ok(tokens)
}

/// Skips a character literal; a lifetime is none.
fn character(source: &str) -> Option<&str> {
    let inside = source.strip_prefix('\'')?;
    let inside = inside.strip_prefix('\\').unwrap_or(inside);
    let mut characters = inside.chars();
    characters.next()?;
    characters.as_str().strip_prefix('\'')
}

/// Reads a string literal up to its closing quote; a backslash at a line's end joins lines.
fn string(source: &str) -> Result<(String, &str), String> {
    let mut text = String::new();
    let mut rest = source;
    loop {
        let next = rest.chars().next().ok_or("a string that does not end")?;
        let after = &rest[next.len_utf8()..];
        rest = match next {
            '"' => return Ok((text, after)),
            '\\' if after.starts_with('\n') => after.trim_start(),
            '\\' => {
                let escaped = after.chars().next().ok_or("a string that does not end")?;
                text.push(if escaped == 'n' { '\n' } else { escaped });
                &after[escaped.len_utf8()..]
            }
            other => {
                text.push(other);
                after
            }
        };
    }
}

/// The tokens between the brackets of `NAME: ... = &[ ... ];`.
pub(crate) fn table<'a>(tokens: &'a [Token], name: &str) -> Option<&'a [Token]> {
    let named = tokens.windows(2).position(|pair| {
        let is = |token: &Token, word: &str| matches!(token, Token::Word(this) if this == word);
        (is(&pair[0], "static") || is(&pair[0], "const")) && is(&pair[1], name)
    })?;
    let equals = named + tokens[named..].iter().position(|token| *token == Token::Mark('='))?;
    let start = equals + tokens[equals..].iter().position(|token| *token == Token::Mark('['))? + 1;
    let mut depth = 1;
    let end = tokens[start..].iter().position(|token| {
        match token {
            Token::Mark('[') => depth += 1,
            Token::Mark(']') => depth -= 1,
            _ => {}
        }
        depth == 0
    })?;
    Some(&tokens[start..start + end])
}

/// Cuts a table at the commas between its rows.
pub(crate) fn rows(table: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0;
    let rows = table.split(|token| {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        depth == 0 && *token == Token::Mark(',')
    });
    rows.filter(|row| !row.is_empty()).collect()
}

pub(crate) fn texts(row: &[Token]) -> Vec<&str> {
    row.iter().filter_map(Token::text).collect()
}

pub(crate) fn has_word(row: &[Token], word: &str) -> bool {
    row.iter().any(|token| matches!(token, Token::Word(this) if this == word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_found_and_cut() {
        let source = "// \"no\"\nfn f<'a>() { A.push('\"') }\nstatic A: &[(&str, X)] = &[\n (\"a, b\", X::Y), // c\n \
                      f(\"q\\\"\", \"d \\\n     e\").g([1, 2]),\n];\nstatic B: u8 = 1;";
        let tokens = tokens(source).unwrap();
        let rows = rows(table(&tokens, "A").unwrap());
        assert_eq!(rows.len(), 2);
        assert_eq!(texts(rows[0]), ["a, b"]);
        assert!(has_word(rows[0], "Y"));
        assert_eq!(texts(rows[1]), ["q\"", "d e"]);
        assert!(table(&tokens, "C").is_none());
    }
}
