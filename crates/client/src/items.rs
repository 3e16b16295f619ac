//! The items of a JSON array one after the other: a list of hundreds takes the memory of one.

use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::response::drop_nulls;
use crate::{Error, Result};

/// Reads each item when it is asked for; ends behind the first error.
#[derive(Debug)]
pub struct Items<T> {
    json: Bytes,
    at: usize,
    ended: bool,
    item: PhantomData<T>,
}

impl<T: DeserializeOwned> Items<T> {
    /// `json` is an array, or `null`, which Go writes for an empty one.
    pub(crate) fn new(json: Bytes) -> Self {
        Self { json, at: 0, ended: false, item: PhantomData }
    }

    /// The next byte that is no white space.
    fn next_byte(&mut self) -> Option<u8> {
        let blank = self.json.get(self.at..)?.iter().take_while(|byte| byte.is_ascii_whitespace());
        self.at += blank.count();
        let byte = self.json.get(self.at).copied();
        self.at += 1;
        byte
    }

    fn read<U: DeserializeOwned>(&self) -> Option<serde_json::Result<(U, usize)>> {
        let rest = &self.json[self.at..];
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<U>();
        let value = values.next()?;
        Some(value.map(|value| (value, self.at + values.byte_offset())))
    }

    /// An item with `null` where its type has no room for that is read without it.
    fn item(&mut self) -> Result<T> {
        if let Some(Ok((item, end))) = self.read() {
            self.at = end;
            return Ok(item);
        }
        let decode = |source| Error::Decode { source };
        let read = self.read::<serde_json::Value>();
        let (mut document, end) =
            read.ok_or_else(|| malformed("unexpected end of JSON input"))?.map_err(decode)?;
        self.at = end;
        drop_nulls(&mut document);
        serde_json::from_value(document).map_err(decode)
    }
}

impl<T: DeserializeOwned> Iterator for Items<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let first = self.at == 0;
        if self.ended {
            return None;
        }
        let item = match (first, self.next_byte()) {
            (true, Some(b'[')) if self.json[self.at..].trim_ascii_start().starts_with(b"]") => None,
            (true, Some(b'[')) | (false, Some(b',')) => Some(self.item()),
            (true, Some(b'n')) if self.json.trim_ascii() == b"null" => None,
            (false, Some(b']')) => None,
            _ => Some(Err(malformed("the answer is not a JSON array"))),
        };
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

fn malformed(what: &str) -> Error {
    Error::Decode { source: serde::de::Error::custom(what) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default)]
    struct Thing {
        name: String,
        list: Vec<u8>,
    }

    /// The names, or the error behind some of them.
    fn names(json: &str) -> String {
        let items = Items::<Thing>::new(Bytes::copy_from_slice(json.as_bytes()));
        let name = |item: Result<Thing>| item.map_or_else(|_| "error".to_owned(), |item| item.name);
        items.map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn items_come_one_by_one() {
        assert_eq!(names(r#"[{"name":"a"},{"name":"b","list":[1,2]}]"#), "a b");
        assert_eq!(names(" [ {\"name\":\"a\"} ,\n{\"name\":\"]\"} ]\n"), "a ]");
        for empty in ["[]", " [ ]\n", "null"] {
            assert_eq!(names(empty), "");
        }
    }

    #[test]
    fn nulls_are_no_errors_and_the_rest_is() {
        assert_eq!(names(r#"[{"name":null,"list":null},{"name":"b"}]"#), " b");
        assert_eq!(names(r#"[{"name":"a"},{"name":1},{"name":"c"}]"#), "a error");
        for broken in ["", "{}", "[1]", "[", "[{\"name\":\"a", "[,]", "nothing"] {
            assert_eq!(names(broken), "error", "{broken}");
        }
        for broken in [r#"[{"name":"a"}"#, r#"[{"name":"a"} {"name":"b"}]"#, r#"[{"name":"a"},]"#] {
            assert_eq!(names(broken), "a error", "{broken}");
        }
    }
}
