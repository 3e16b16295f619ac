//! A daemon that answers pings, notes what is to be created, and refuses to create it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What was asked for: the query of the path, and the body.
pub(crate) type Request = (String, serde_json::Value);

pub(crate) struct Recorder {
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Recorder {
    /// Serves until the test's process ends.
    pub(crate) fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { requests }
    }

    /// The requests since the last call.
    pub(crate) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

fn serve(stream: UnixStream, requests: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some((path, body)) = read_request(&mut reader) {
        let answer = if path.starts_with("/_ping") {
            "HTTP/1.1 200 OK\r\nApi-Version: 1.50\r\nOstype: linux\r\nContent-Length: 0\r\n\r\n"
                .to_owned()
        } else {
            requests.lock().unwrap().push((query(&path), normal(&body)));
            let (status, message) = answer(&path, &body);
            format!(
                "HTTP/1.1 {status}\r\nApi-Version: 1.50\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{message}",
                message.len()
            )
        };
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Logs in whoever has the right password; refuses all else.
fn answer(path: &str, body: &[u8]) -> (&'static str, &'static str) {
    if path.contains("/images/search") {
        return ("501 Not Implemented", r#"{"message":"searching a registry is not supported"}"#);
    }
    if path.contains("/containers/json") {
        return ("200 OK", r#"[{"Id":"1","Names":["/web"],"Image":"busybox"}]"#);
    }
    if path.contains("/images/json") {
        return ("200 OK", r#"[{"Id":"sha256:1","RepoTags":["busybox:latest","busybox:lab"]}]"#);
    }
    if !path.ends_with("/auth") {
        return ("409 Conflict", r#"{"message":"recorded"}"#);
    }
    match normal(body)["password"].as_str() {
        Some("good") => ("200 OK", r#"{"Status":"Login Succeeded","IdentityToken":""}"#),
        Some("token") => ("200 OK", r#"{"Status":"Login Succeeded","IdentityToken":"TOK"}"#),
        Some("down") => ("500 Internal Server Error", r#"{"message":"registry is down"}"#),
        _ => ("401 Unauthorized", r#"{"message":"unauthorized: bad credentials"}"#),
    }
}

/// The path (with credentials and our own headers behind it, where there are any) and the body.
fn read_request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
        let lower = line.to_ascii_lowercase();
        if lower.starts_with("x-registry-auth:") || lower.starts_with("x-meta-") {
            headers.push(line.trim_start_matches(|c| c != ':').trim().to_owned());
        }
    }
    headers.sort_unstable();
    for header in headers {
        path.push_str(if path.contains('?') { "&" } else { "?" });
        path.push_str(&header);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}

fn query(path: &str) -> String {
    path.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default()
}

/// Docker sends the environment and bind mounts in the order of a Go map, which is none.
fn normal(body: &[u8]) -> serde_json::Value {
    let mut body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    for list in ["/Env", "/HostConfig/Binds"] {
        if let Some(list) = body.pointer_mut(list).and_then(serde_json::Value::as_array_mut) {
            list.sort_by_key(ToString::to_string);
        }
    }
    body
}
