//! Progress on a terminal: [`Meter`] for what we count ourselves, and here
//! the JSON lines that pull, push, load and import answer with, shown as docker shows them: one
//! line a layer on a terminal, plain lines elsewhere.

mod meter;

use std::collections::HashMap;

use api_types::image::{Progress, ProgressDetail};
use client::Response;

use crate::failure::{Failure, Outcome};
use crate::output;
use crate::terminal::{self, Sink};

pub(crate) use meter::{Meter, while_waiting};

/// Wider terminals get a bar beside the numbers.
const BAR_FROM: u16 = 110;

/// Shows the whole stream; an error in it is the failure of the command.
pub(crate) async fn show(response: Response, sink: Sink) -> Outcome<()> {
    let terminal = match sink {
        Sink::Stdout => terminal::stdout_is_terminal(),
        Sink::Stderr => rustix::termios::isatty(rustix::stdio::stderr()),
    };
    let mut screen = Screen { terminal, width: terminal::size().1, lines: HashMap::new() };
    each(response, |progress| {
        let text = screen.line(&progress)?;
        if !text.is_empty() {
            match sink {
                Sink::Stdout => output::print(&text)?,
                Sink::Stderr => output::write_all(rustix::stdio::stderr(), text.as_bytes())?,
            }
        }
        Ok(())
    })
    .await
}

/// Reads the stream for its errors only.
pub(crate) async fn drain(response: Response) -> Outcome<()> {
    each(response, |progress| check(&progress)).await
}

async fn each(
    mut response: Response,
    mut visit: impl FnMut(Progress) -> Outcome<()>,
) -> Outcome<()> {
    let mut pending: Vec<u8> = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        pending.extend_from_slice(&chunk);
        let mut documents = serde_json::Deserializer::from_slice(&pending).into_iter::<Progress>();
        let mut taken = 0;
        for document in documents.by_ref() {
            match document {
                Ok(progress) => visit(progress)?,
                Err(error) if error.is_eof() => break,
                Err(source) => return Err(client::Error::Decode { source }.into()),
            }
        }
        taken += documents.byte_offset();
        pending.drain(..taken);
    }
    Ok(())
}

fn check(progress: &Progress) -> Outcome<()> {
    let detail = progress.error_detail.as_ref().map(|detail| detail.message.clone());
    match detail.or_else(|| progress.error.clone()) {
        Some(message) => Err(Failure::new(message)),
        None => Ok(()),
    }
}

struct Screen {
    terminal: bool,
    width: u16,
    /// Which line of the current block a layer has.
    lines: HashMap<String, usize>,
}

impl Screen {
    /// What to write for one message, cursor movements included.
    fn line(&mut self, progress: &Progress) -> Outcome<String> {
        check(progress)?;
        let bar = progress.progress_detail.as_ref().map(|detail| self.bar(detail));
        let moving = bar.is_some() || progress.progress.is_some();
        let id = progress.id.as_deref().unwrap_or_default();
        let mut out = String::new();
        let mut up = 0;
        if !id.is_empty() && moving {
            let count = self.lines.len();
            let line = *self.lines.entry(id.to_owned()).or_insert_with(|| {
                if self.terminal {
                    out.push('\n');
                }
                count
            });
            up = self.lines.len() - line;
            if self.terminal {
                out.push_str(&format!("\u{1b}[{up}A"));
            }
        } else {
            self.lines.clear();
        }
        let Some(text) = self.text(progress, bar) else { return Ok(String::new()) };
        out.push_str(&text);
        if self.terminal && up > 0 {
            out.push_str(&format!("\u{1b}[{up}B"));
        }
        Ok(out)
    }

    fn text(&self, progress: &Progress, bar: Option<String>) -> Option<String> {
        let mut out = String::new();
        let mut end = "";
        if let Some(bar) = &bar {
            if self.terminal && progress.stream.is_none() {
                out.push_str("\u{1b}[2K\r");
                end = "\r";
            } else if !bar.is_empty() {
                return None;
            }
        }
        if let Some(id) = progress.id.as_deref().filter(|id| !id.is_empty()) {
            out.push_str(&format!("{id}: "));
        }
        let status = progress.status.as_deref().unwrap_or_default();
        match (&bar, &progress.stream) {
            (Some(bar), _) if self.terminal => out.push_str(&format!("{status} {bar}{end}")),
            (_, Some(stream)) => out.push_str(&format!("{stream}{end}")),
            _ if status.is_empty() && progress.aux.is_some() => return None,
            _ => out.push_str(&format!("{status}{end}\n")),
        }
        Some(out)
    }

    fn bar(&self, detail: &ProgressDetail) -> String {
        let current = detail.current.unwrap_or_default();
        let total = detail.total.unwrap_or_default();
        if current <= 0 && total <= 0 {
            return String::new();
        }
        let size = |bytes: i64| spec::size::human(bytes as f64);
        if total <= 0 {
            return format!("{:>8}", size(current));
        }
        let done = usize::try_from(current * 50 / total).unwrap_or(0).min(50);
        let numbers = if current > total {
            format!("{:>8}", size(current))
        } else {
            format!("{:>8}/{}", size(current), size(total))
        };
        if self.width <= BAR_FROM {
            return numbers;
        }
        format!("[{}>{}] {numbers}", "=".repeat(done), " ".repeat(50 - done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show_all(terminal: bool, lines: &str) -> String {
        let mut screen = Screen { terminal, width: 120, lines: HashMap::new() };
        lines
            .lines()
            .map(|line| match screen.line(&serde_json::from_str(line).unwrap()) {
                Ok(text) => text,
                Err(error) => format!("!{error}"),
            })
            .collect()
    }

    #[test]
    fn without_a_terminal_only_states_are_shown() {
        let lines = r#"{"status":"Pulling from library/x","id":"latest"}
{"status":"Pulling fs layer","progressDetail":{},"id":"a"}
{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"a"}
{"stream":"Loaded image: x\n"}
{"errorDetail":{"message":"no space"},"error":"no space"}"#;
        assert_eq!(
            show_all(false, lines),
            "latest: Pulling from library/x\na: Pulling fs layer\nLoaded image: x\n!no space"
        );
    }

    #[test]
    fn on_a_terminal_every_layer_keeps_its_line() {
        let lines = r#"{"status":"Pulling","progressDetail":{},"id":"a"}
{"status":"Pulling","progressDetail":{},"id":"b"}
{"status":"Got","progressDetail":{"current":500,"total":1000},"id":"a"}"#;
        let bar = format!("[{}>{}]", "=".repeat(25), " ".repeat(25));
        assert_eq!(
            show_all(true, lines),
            format!(
                "\n\u{1b}[1A\u{1b}[2K\ra: Pulling \r\u{1b}[1B\n\u{1b}[1A\u{1b}[2K\rb: Pulling \
                 \r\u{1b}[1B\u{1b}[2A\u{1b}[2K\ra: Got {bar}     500B/1kB\r\u{1b}[2B"
            )
        );
    }
}
