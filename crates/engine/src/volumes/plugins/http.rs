//! One HTTP request to a plugin, with an end: whatever it does, the call returns by the deadline.
//! Blocking; a connection for each request, as there are few of them.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use api_types::plugin::MEDIA_TYPE;
use rustix::io::Errno;

/// No list of volumes is longer.
const ANSWER_MAX: usize = 16 << 20;
const RETRY: Duration = Duration::from_millis(50);

/// Where a plugin listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    /// `host:port`
    Tcp(String),
}

/// Until when a plugin is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// It may be about to be started again.
    connect: Instant,
    answer: Instant,
}

impl Patience {
    fn new(connect: u64, answer: u64) -> Self {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        Self { connect: after(connect), answer: after(answer) }
    }

    /// For lists, which go without those that do not answer.
    pub(crate) fn of_lists() -> Self {
        Self::new(1, 4)
    }

    pub(crate) fn of_questions() -> Self {
        Self::new(2, 10)
    }

    /// For what takes as long as a mount does.
    pub(crate) fn of_work() -> Self {
        Self::new(5, 120)
    }
}

#[derive(Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

trait Stream: Read + Write {
    fn limit(&self, left: Duration) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn limit(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left)).and_then(|()| self.set_write_timeout(Some(left)))
    }
}

impl Stream for TcpStream {
    fn limit(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left)).and_then(|()| self.set_write_timeout(Some(left)))
    }
}

/// Sends one request; the error is what failed, in Go's words.
pub(super) fn post(
    address: &Address,
    path: &str,
    body: &[u8],
    patience: Patience,
) -> Result<Reply, String> {
    let mut stream = connect(address, patience)?;
    let head = format!(
        "POST /{path} HTTP/1.1\r\nHost: plugin.moby.localhost\r\nUser-Agent: boxship\r\n\
         Accept: {MEDIA_TYPE}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body].concat();
    let mut received = Vec::new();
    let mut exchange = || -> io::Result<Option<Reply>> {
        stream.limit(left(patience)?)?;
        stream.write_all(&request)?;
        let mut piece = vec![0; 16 << 10];
        loop {
            stream.limit(left(patience)?)?;
            let count = stream.read(&mut piece)?;
            received.extend_from_slice(&piece[..count]);
            if let Some(reply) = parse(&received, count == 0)? {
                return Ok(Some(reply));
            }
            if count == 0 || received.len() > ANSWER_MAX {
                return Ok(None);
            }
        }
    };
    match exchange() {
        Ok(Some(reply)) => Ok(reply),
        Ok(None) => Err("EOF".to_owned()),
        Err(error) => Err(text(&error)),
    }
}

fn left(patience: Patience) -> io::Result<Duration> {
    let left = patience.answer.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn text(error: &io::Error) -> String {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock, _) => {
            "context deadline exceeded".to_owned()
        }
        (_, Some(errno)) => runtime::protocol::errno_text(errno),
        _ => error.to_string(),
    }
}

fn connect(address: &Address, patience: Patience) -> Result<Box<dyn Stream>, String> {
    loop {
        let error = match attempt(address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let again = matches!(
            Errno::from_io_error(&error),
            Some(Errno::AGAIN | Errno::CONNREFUSED | Errno::NOENT)
        );
        if !again || Instant::now() + RETRY >= patience.connect {
            let (network, place) = match address {
                Address::Unix(path) => ("unix", path.display().to_string()),
                Address::Tcp(place) => ("tcp", place.clone()),
            };
            return Err(format!("dial {network} {place}: connect: {}", text(&error)));
        }
        std::thread::sleep(RETRY);
    }
}

fn attempt(address: &Address, patience: Patience) -> io::Result<Box<dyn Stream>> {
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::from(sys::socket::connect_stream(path)?))),
        Address::Tcp(place) => {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for address in place.to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, left(patience)?) {
                    Ok(stream) => return Ok(Box::new(stream)),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

/// The reply, once it is there to its end.
fn parse(received: &[u8], ended: bool) -> io::Result<Option<Reply>> {
    let invalid = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&received[..end]);
    let body = &received[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1."));
    let status = status.and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let status: u16 = status.ok_or_else(|| invalid("malformed HTTP response"))?;
    let headers: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let header =
        |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
    if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        let body = dechunk(body).map_err(|()| invalid("malformed chunked encoding"))?;
        return Ok(body.map(|body| Reply { status, body }));
    }
    let length = match header("content-length").map(str::parse::<usize>) {
        Some(Ok(length)) => length,
        Some(Err(_)) => return Err(invalid("bad Content-Length")),
        None if ended => body.len(),
        None => return Ok(None),
    };
    Ok(body.get(..length).map(|body| Reply { status, body: body.to_vec() }))
}

/// None as long as the last chunk is missing.
fn dechunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&rest[..end]).map_err(|_not_text| ())?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_not_hex| ())?;
        if size == 0 {
            return Ok(Some(body));
        }
        let start = end + 2;
        let stop = start.checked_add(size).ok_or(())?;
        let Some(chunk) = rest.get(start..stop) else { return Ok(None) };
        body.extend_from_slice(chunk);
        match rest.get(stop..stop + 2) {
            Some(b"\r\n") => rest = &rest[stop + 2..],
            Some(_) => return Err(()),
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_end_where_they_say() {
        let check = |text: &str, ended: bool, expect: Option<&str>| {
            let reply = parse(text.as_bytes(), ended).unwrap();
            let body = reply.map(|reply| String::from_utf8(reply.body).unwrap());
            assert_eq!(body.as_deref(), expect, "{text}");
        };
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", false, None);
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{", false, None);
        check("HTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\n{}more", false, Some("{}"));
        check("HTTP/1.0 200 OK\r\n\r\n{}", false, None);
        check("HTTP/1.0 200 OK\r\n\r\n{}", true, Some("{}"));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{chunked}1\r\n{{\r\n1;x=y\r\n}}\r\n0\r\n\r\n"), false, Some("{}"));
        check(&format!("{chunked}1\r\n{{\r\nA\r\n}}"), false, None);
        assert!(parse(format!("{chunked}zz\r\n").as_bytes(), false).is_err());
        assert!(parse(format!("{chunked}ffffffffffffffff\r\nx").as_bytes(), false).is_err());
        assert!(parse(b"nonsense\r\n\r\n", false).is_err());
    }

    #[test]
    fn who_does_not_answer_is_left_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let soon = || {
            let after = |millis| Instant::now() + Duration::from_millis(millis);
            Patience { connect: after(100), answer: after(200) }
        };
        let ask = || post(&Address::Unix(path.clone()), "x", b"{}", soon()).unwrap_err();
        let dial = format!("dial unix {}: connect: ", path.display());
        assert_eq!(ask(), format!("{dial}no such file or directory"));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(ask(), "context deadline exceeded");
        // A queue that nobody empties, too.
        rustix::net::listen(&listener, 0).unwrap();
        let queued: Vec<_> = (0..8).map(|_| sys::socket::connect_stream(&path)).collect();
        assert!(queued.iter().any(Result::is_err));
        assert_eq!(ask(), format!("{dial}context deadline exceeded"));
        drop(listener);
        assert_eq!(ask(), format!("{dial}connection refused"));
    }
}
