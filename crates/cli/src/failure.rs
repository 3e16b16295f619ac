//! How a command ends when it does not end well: a text for stderr and an exit code.

use std::io;

use crate::output;

/// The code of a program killed by SIGPIPE, which is how docker ends when its reader goes away.
const BROKEN_PIPE: u8 = 141;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// `text` goes to stderr as it is.
    #[error("{text}")]
    Message { text: String, code: u8 },
    /// All has been said already.
    #[error("exit {0}")]
    Silent(u8),
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Our own output failed.
    #[error("write: {0}")]
    Output(#[from] io::Error),
}

pub(crate) type Outcome<T = u8> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::Message { text: text.into(), code: 1 }
    }

    pub(crate) fn with_code(text: impl Into<String>, code: u8) -> Self {
        Self::Message { text: text.into(), code }
    }

    /// Several failures, one a line; nothing when there are none.
    pub(crate) fn all(failures: &[Self]) -> Outcome {
        if failures.is_empty() {
            return Ok(0);
        }
        let lines: Vec<String> = failures.iter().map(ToString::to_string).collect();
        Err(Self::new(lines.join("\n")))
    }

    /// The same failure, introduced as `docker: ...` with a pointer to the help: how `run` and
    /// `create` report what went wrong before the container ran.
    pub(crate) fn of_run(self, program: &str, command: &str, code: u8) -> Self {
        match self {
            Self::Message { text, .. } => {
                Self::with_code(pointing_to_help(program, command, &text), code)
            }
            Self::Client(error) => {
                Self::with_code(pointing_to_help(program, command, &error.to_string()), code)
            }
            other => other,
        }
    }

    /// Prints the text and returns the code.
    pub(crate) fn report(self) -> u8 {
        let (text, code) = match self {
            Self::Silent(code) => (String::new(), code),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                (String::new(), BROKEN_PIPE)
            }
            Self::Message { text, code } => (text, code),
            other => (other.to_string(), 1),
        };
        if !text.is_empty() {
            output::complain(&text);
        }
        code
    }
}

fn pointing_to_help(program: &str, command: &str, text: &str) -> String {
    format!("{program}: {text}\n\nRun '{program} {command} --help' for more information")
}

impl From<crate::template::TemplateError> for Failure {
    fn from(error: crate::template::TemplateError) -> Self {
        Self::new(format!("template parsing error: {error}"))
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}
