//! Go's text/template, as far as `--format` needs it.
//!
//! [`Template::parse`] reads the text (actions, pipelines, variables, `if`, `range`, `with`),
//! [`Template::execute`] runs it over a [`Value`]. Error texts name line, column and node as Go's
//! do, since people search for them. `define`, `template` and `block` are refused by name.

mod eval;
mod functions;
mod lex;
mod parse;
mod printf;
mod value;

pub(crate) use value::{Nil, Row, Value, from_json};

use parse::Node;

/// A parsed template, to be executed once for each row.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

/// Go's whole sentence, `template: :1: unclosed action`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TemplateError(pub String);

/// Which functions `{{json .}}` and friends are: the real ones, or those of table headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Functions {
    Values,
    /// In headers, functions pass on their argument: `{{upper .Name}}` is headed `NAME`.
    Headers,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        Ok(Self { nodes: parse::parse(text)? })
    }

    /// Executes over `data`, appending to `out`; what was appended before an error stays.
    pub(crate) fn execute(
        &self,
        data: &Value,
        functions: Functions,
        out: &mut String,
    ) -> Result<(), TemplateError> {
        eval::execute(&self.nodes, data, functions, out)
    }

    /// Executes into a new text.
    pub(crate) fn render(&self, data: &Value) -> Result<String, TemplateError> {
        let mut out = String::new();
        self.execute(data, Functions::Values, &mut out).map(|()| out)
    }
}

#[cfg(test)]
mod tests;
