//! Words of an instruction: quotes, backslashes and `$variables`.

use std::iter::Peekable;
use std::str::Chars;

use super::ChangeError;

/// Words still with their quotes, which [`expand`] takes off.
#[derive(Debug)]
pub(super) struct Words(Vec<String>);

impl Words {
    /// Splits at blanks outside of quotes.
    pub(super) fn split(text: &str) -> Result<Self, ChangeError> {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut quote = None;
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match (c, quote) {
                (' ' | '\t', None) => {
                    if !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                    continue;
                }
                ('\'' | '"', None) => quote = Some(c),
                (c, Some(open)) if c == open => quote = None,
                ('\\', None | Some('"')) => {
                    word.push(c);
                    word.extend(chars.next());
                    continue;
                }
                _ => {}
            }
            word.push(c);
        }
        if let Some(quote) = quote {
            return Err(ChangeError::OpenQuote { quote: quote_name(quote) });
        }
        if !word.is_empty() {
            words.push(word);
        }
        Ok(Self(words))
    }

    pub(super) fn first(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }

    pub(super) fn iter(&self) -> WordsIter<'_> {
        WordsIter(self.0.iter())
    }
}

#[derive(Debug)]
pub(super) struct WordsIter<'words>(std::slice::Iter<'words, String>);

impl<'words> WordsIter<'words> {
    pub(super) fn as_slice(&self) -> &'words [String] {
        self.0.as_slice()
    }
}

impl<'words> Iterator for WordsIter<'words> {
    type Item = &'words str;

    fn next(&mut self) -> Option<&'words str> {
        self.0.next().map(String::as_str)
    }
}

const fn quote_name(quote: char) -> &'static str {
    if quote == '\'' { "single-quote" } else { "double-quote" }
}

/// Takes off quotes and backslashes and puts in the variables of `env` (`NAME=value`).
pub(super) fn expand(word: &str, env: &[String]) -> Result<String, ChangeError> {
    let mut chars = word.chars().peekable();
    let mut output = String::new();
    let mut quote: Option<char> = None;
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'', None) => quote = Some(c),
            ('"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, Some('\'')) => output.push(c),
            ('\\', Some('"')) => match chars.next() {
                Some(next @ ('"' | '$' | '\\')) => output.push(next),
                Some(next) => output.extend(['\\', next]),
                None => output.push('\\'),
            },
            ('\\', _) => output.extend(chars.next()),
            ('$', _) => output.push_str(&variable(&mut chars, word, env)?),
            (c, _) => output.push(c),
        }
    }
    match quote {
        Some(quote) => Err(ChangeError::OpenQuote { quote: quote_name(quote) }),
        None => Ok(output),
    }
}

/// What follows a dollar: `name`, `{name}`, `{name:-else}` or `{name:+then}`.
fn variable(
    chars: &mut Peekable<Chars<'_>>,
    word: &str,
    env: &[String],
) -> Result<String, ChangeError> {
    let error = |reason| ChangeError::Substitution { word: word.to_owned(), reason };
    if chars.next_if_eq(&'{').is_none() {
        let name = name(chars);
        return Ok(if name.is_empty() {
            "$".to_owned()
        } else {
            value(&name, env).unwrap_or_default()
        });
    }
    let name = name(chars);
    if name.is_empty() {
        return Err(error("bad substitution"));
    }
    let found = value(&name, env);
    match chars.next() {
        Some('}') => Ok(found.unwrap_or_default()),
        Some(':') => {
            let operator = chars.next();
            let other = expand(&until_brace(chars).ok_or_else(|| error("missing }"))?, env)?;
            let found = found.filter(|value| !value.is_empty());
            match operator {
                Some('-') => Ok(found.unwrap_or(other)),
                Some('+') => Ok(found.map_or_else(String::new, |_set| other)),
                _ => Err(error("unsupported modifier in substitution")),
            }
        }
        _ => Err(error("unsupported modifier in substitution")),
    }
}

fn name(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    name
}

/// The text up to the brace that closes this one.
fn until_brace(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut text = String::new();
    let mut depth = 0;
    loop {
        match chars.next()? {
            '}' if depth == 0 => return Some(text),
            c => {
                depth += match c {
                    '{' => 1,
                    '}' => -1,
                    _ => 0,
                };
                text.push(c);
            }
        }
    }
}

fn value(name: &str, env: &[String]) -> Option<String> {
    let value = |entry: &String| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned());
    env.iter().rev().find_map(value)
}
