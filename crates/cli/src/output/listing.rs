//! Lists by template: `table`, `table TEMPLATE`, `json`, `TEMPLATE`.
//!
//! A list is a slice of [`Column`]s over rows of one type. The columns are what templates may name;
//! `json` prints them in the order of the slice, which is by name.

use std::fmt::Write;
use std::rc::Rc;

use crate::failure::{Failure, Outcome};
use crate::output::layout;
use crate::template::{Functions, Row, Template, Value};

/// One member of a row: its name in templates, its header in tables, and how to get it.
#[derive(Debug)]
pub(crate) struct Column<T: 'static> {
    pub name: &'static str,
    pub header: &'static str,
    pub value: fn(&T) -> Value,
}

/// How to show rows of one type.
#[derive(Debug)]
pub(crate) struct Listing<T: 'static> {
    /// What Go calls the row's type in errors.
    pub type_name: &'static str,
    pub columns: &'static [Column<T>],
    /// `{{.Label "x"}}`, where rows have labels.
    pub label: Option<fn(&T, &str) -> String>,
}

#[derive(Debug)]
struct ListedRow<T: 'static> {
    listing: &'static Listing<T>,
    item: T,
}

#[derive(Debug)]
struct HeaderRow<T: 'static>(&'static Listing<T>);

impl<T: std::fmt::Debug + 'static> Row for ListedRow<T> {
    fn type_name(&self) -> &'static str {
        self.listing.type_name
    }

    fn members(&self) -> Vec<&'static str> {
        self.listing.columns.iter().map(|column| column.name).collect()
    }

    fn member(&self, name: &str) -> Option<Value> {
        let column = self.listing.columns.iter().find(|column| column.name == name)?;
        Some((column.value)(&self.item))
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Option<Value> {
        match (name, self.listing.label, arguments) {
            ("Label", Some(label), [Value::Text(key)]) => Some(Value::text(label(&self.item, key))),
            _ => None,
        }
    }
}

impl<T: std::fmt::Debug + 'static> Row for HeaderRow<T> {
    fn type_name(&self) -> &'static str {
        "formatter.SubHeaderContext"
    }

    fn members(&self) -> Vec<&'static str> {
        self.0.columns.iter().map(|column| column.name).collect()
    }

    /// Names without a header print as an unknown map key does.
    fn member(&self, name: &str) -> Option<Value> {
        let column = self.0.columns.iter().find(|column| column.name == name);
        Some(column.map_or_else(|| Value::text("<no value>"), |column| Value::text(column.header)))
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Option<Value> {
        match (name, arguments) {
            ("Label", [Value::Text(key)]) => Some(Value::text(label_header(key))),
            _ => None,
        }
    }
}

/// `com.example.my-label` is headed `my label`.
fn label_header(key: &str) -> String {
    key.rsplit('.').next().unwrap_or(key).replace(['-', '_'], " ")
}

/// Turns `table` alone into the default columns.
pub(crate) fn header_default<'a>(format: &'a str, default: &'a str) -> &'a str {
    if format.is_empty() || format == "table" { default } else { format }
}

impl<T: std::fmt::Debug + 'static> Listing<T> {
    /// A row as a value, for a template of a larger thing.
    pub(crate) fn value(&'static self, item: T) -> Value {
        Value::Row(Rc::new(ListedRow { listing: self, item }))
    }

    /// Renders all rows.
    pub(crate) fn render(
        &'static self,
        format: &str,
        rows: impl IntoIterator<Item = T>,
    ) -> Outcome<String> {
        let (is_table, text) = match format {
            "json" => (false, "{{json .}}".to_owned()),
            _ => match format.strip_prefix("table") {
                Some(columns) => (true, unescape(columns.trim_matches(' '))),
                None => (false, unescape(format)),
            },
        };
        let template = Template::parse(&text)
            .map_err(|error| Failure::new(format!("template parsing error: {error}")))?;
        let mut body = String::new();
        for item in rows {
            template.execute(&self.value(item), Functions::Values, &mut body)?;
            body.push('\n');
        }
        if !is_table {
            return Ok(body);
        }
        let mut table = String::new();
        template.execute(&Value::Row(Rc::new(HeaderRow(self))), Functions::Headers, &mut table)?;
        write!(table, "\n{body}").expect("writing to a String does not fail");
        Ok(layout(&table))
    }
}

/// Shells pass `\t` and `\n` as two characters; docker replaces them everywhere in the format.
fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    static PAIRS: Listing<(&'static str, i64)> = Listing {
        type_name: "*test.Pair",
        columns: &[
            Column { name: "Name", header: "NAME", value: |pair| Value::text(pair.0) },
            Column { name: "Size", header: "SIZE", value: |pair| Value::Int(pair.1) },
        ],
        label: Some(|pair, key| format!("{}.{key}", pair.0)),
    };

    fn check(format: &str, expect: &str) {
        let got = match PAIRS.render(format, [("a", 1), ("b>", 22)]) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect, "{format}");
    }

    #[test]
    fn formats_are_tables_json_or_templates() {
        check("table {{.Name}}\\t{{.Size}}", "NAME      SIZE\na         1\nb>        22\n");
        check("{{.Size}}", "1\n22\n");
        check("json", "{\"Name\":\"a\",\"Size\":1}\n{\"Name\":\"b\\u003e\",\"Size\":22}\n");
        check(
            "table {{upper .Name}} {{.Label \"x.my-key\"}}",
            "NAME my key\nA a.x.my-key\nB> b>.x.my-key\n",
        );
        check(
            "{{.Foo}}",
            "template parsing error: template: :1:2: executing \"\" at <.Foo>: can't evaluate \
             field Foo in type *test.Pair",
        );
        check("{{.ID", "template parsing error: template: :1: unclosed action");
    }
}
