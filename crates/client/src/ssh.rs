//! Daemons behind ssh: `docker system dial-stdio` on the other machine joins its socket to the
//! standard streams of an `ssh` that we start, one per connection.
//!
//! The user's own `ssh` is what knows keys, agents, jump hosts and passwords; nothing of it is
//! done here. The address comes from the command line, the environment or a context.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

/// How much of what ssh complains about is kept.
const MAX_COMPLAINT: u64 = 16 * 1024;

/// Ctrl-C is for the command that runs over the connection; ssh shares our terminal, so that it
/// can ask for a password, and must not die of it first.
const WRAPPER: &str = "trap '' INT QUIT TSTP; exec ssh \"$@\"";

/// The parts of `ssh://[user@]host[:port][/path/of/socket]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    pub address: String,
    user: String,
    host: String,
    port: String,
    socket: String,
}

impl SshTarget {
    /// Checks an address that begins with `ssh://`; the error is docker's reason.
    pub fn parse(address: &str) -> Result<Self, String> {
        let invalid = |reason: String| Err(format!("invalid SSH URL: {reason}"));
        let rest = address.strip_prefix("ssh://").unwrap_or(address);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, socket) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (user, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') {
            return invalid("plain-text password is not supported".to_owned());
        }
        let (host, port) = split_port(place);
        if host.is_empty() {
            return invalid("hostname is empty".to_owned());
        }
        if !query.is_empty() {
            return invalid(format!("query parameters are not allowed: {query:?}"));
        }
        if host.contains(char::is_whitespace) {
            return Err(format!("parse {address:?}: invalid character \" \" in host name"));
        }
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("parse {address:?}: invalid port \":{port}\" after host"));
        }
        Ok(Self {
            address: address.to_owned(),
            user: user.to_owned(),
            host: host.to_owned(),
            port: port.to_owned(),
            socket: if socket == "/" { String::new() } else { socket.to_owned() },
        })
    }

    /// What `ssh` is called with. The remote side is a shell, so the socket's path is quoted.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["-o".to_owned(), "ConnectTimeout=30".to_owned(), "-T".to_owned()];
        for (flag, value) in [("-l", &self.user), ("-p", &self.port)] {
            if !value.is_empty() {
                arguments.extend([flag.to_owned(), value.clone()]);
            }
        }
        arguments.extend(["--".to_owned(), self.host.clone(), "docker".to_owned()]);
        if !self.socket.is_empty() {
            arguments.extend(["--host".to_owned(), quoted(&format!("unix://{}", self.socket))]);
        }
        arguments.extend(["system".to_owned(), "dial-stdio".to_owned()]);
        arguments
    }
}

/// `host:port`, `[v6]:port`, or either alone.
fn split_port(place: &str) -> (&str, &str) {
    if let Some((host, tail)) = place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, tail.strip_prefix(':').unwrap_or(tail));
    }
    place.split_once(':').unwrap_or((place, ""))
}

/// A word for a shell; plain ones stay as they are.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:@%+=,".contains(&byte);
    if word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A connection to a daemon over ssh.
#[derive(Debug)]
pub struct SshStream {
    /// Closed to tell the daemon that there is no more to come.
    input: Option<ChildStdin>,
    output: ChildStdout,
    ended: Option<oneshot::Receiver<Option<String>>>,
}

impl SshStream {
    /// Starts `ssh`. Whether it reaches anything shows with the first answer, see
    /// [`SshStream::complaint`].
    pub(crate) fn open(target: &SshTarget) -> io::Result<Self> {
        let arguments = target.arguments();
        let mut child = Command::new("/bin/sh")
            .args(["-c", WRAPPER, "ssh"])
            .args(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let missing = || io::Error::other("ssh was started without a pipe");
        let input = child.stdin.take().ok_or_else(missing)?;
        let output = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let (sender, ended) = oneshot::channel();
        // The task ends with ssh, or with the program.
        tokio::spawn(async move {
            let complaint = watch(child, stderr, &arguments).await;
            // Nobody asks when all went well.
            let _not_asked = sender.send(complaint);
        });
        Ok(Self { input: Some(input), output, ended: Some(ended) })
    }

    /// Why ssh ended, for a connection that broke; `None` when it did not fail.
    pub(crate) fn complaint(&mut self) -> Option<oneshot::Receiver<Option<String>>> {
        self.ended.take()
    }
}

async fn watch(mut child: Child, stderr: ChildStderr, arguments: &[String]) -> Option<String> {
    let mut text = Vec::new();
    let mut limited = stderr.take(MAX_COMPLAINT);
    // A pipe that breaks has told all it had.
    let _broken = limited.read_to_end(&mut text).await;
    let mut rest = limited.into_inner();
    let _broken = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    let status = child.wait().await.ok()?;
    if status.success() {
        return None;
    }
    let code =
        status.code().map_or_else(|| status.to_string(), |code| format!("exit status {code}"));
    Some(format!(
        "command [ssh {}] has exited with {code}, make sure the URL is valid, and Docker 18.09 or \
         later is installed on the remote host: stderr={}",
        arguments.join(" "),
        String::from_utf8_lossy(&text).trim_end()
    ))
}

impl AsyncRead for SshStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().output).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().input {
            Some(input) => Pin::new(input).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().input {
            Some(input) => Pin::new(input).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().input = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expect: &str) {
        let got = match SshTarget::parse(address) {
            Ok(target) => target.arguments()[3..].join(" "),
            Err(reason) => reason,
        };
        assert_eq!(got, expect, "{address}");
    }

    #[test]
    fn addresses_become_arguments() {
        check("ssh://h", "-- h docker system dial-stdio");
        check("ssh://h/", "-- h docker system dial-stdio");
        check("ssh://u@h:22", "-l u -p 22 -- h docker system dial-stdio");
        check("ssh://[::1]:33", "-p 33 -- ::1 docker system dial-stdio");
        check("ssh://-oProxyCommand=x", "-- -oProxyCommand=x docker system dial-stdio");
        check("ssh://h/run/x.sock", "-- h docker --host unix:///run/x.sock system dial-stdio");
        check("ssh://h/a;b'c", "-- h docker --host 'unix:///a;b'\\''c' system dial-stdio");
    }

    #[test]
    fn bad_addresses_are_refused_in_dockers_words() {
        check("ssh://", "invalid SSH URL: hostname is empty");
        check("ssh://u:p@h", "invalid SSH URL: plain-text password is not supported");
        check("ssh://h?x=1", "invalid SSH URL: query parameters are not allowed: \"x=1\"");
        check("ssh://h:a", "parse \"ssh://h:a\": invalid port \":a\" after host");
        check("ssh://h a", "parse \"ssh://h a\": invalid character \" \" in host name");
    }
}
