//! `cargo xtask bench [NAME=unix:///path.sock ...]`: the same work against several engines,
//! interleaved round by round, so that the noise of the machine hits all of them. Prints medians
//! and the ratio to the first engine named. Without arguments it starts the release binary in
//! namespaces of its own and measures that alone.
//!
//! Quote the ratio of one run, never an absolute time.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::{Daemon, Socket};

const ROUNDS: usize = 15;

type Measured = Result<f64, String>;

struct Engine {
    name: String,
    socket: std::path::PathBuf,
}

struct Row {
    name: &'static str,
    unit: &'static str,
    rounds: usize,
    measure: fn(&Engine) -> Measured,
}

const ROWS: &[Row] = &[
    Row {
        name: "create+start+wait+delete, no network",
        unit: "ms",
        rounds: ROUNDS,
        measure: |engine| cycle(engine, "none"),
    },
    Row {
        name: "create+start+wait+delete, bridge",
        unit: "ms",
        rounds: ROUNDS,
        measure: |engine| cycle(engine, "bridge"),
    },
    Row { name: "exec true", unit: "ms", rounds: ROUNDS, measure: exec },
    Row {
        name: "50 created and started in parallel, bridge",
        unit: "ms",
        rounds: 3,
        measure: parallel,
    },
    Row { name: "stop, TERM handled", unit: "ms", rounds: 5, measure: stop },
    Row {
        name: "1,000,000 log lines written",
        unit: "ms",
        rounds: 2,
        measure: |engine| logs(engine).map(|(write, _)| write),
    },
    Row {
        name: "1,000,000 log lines read back",
        unit: "ms",
        rounds: 2,
        measure: |engine| logs(engine).map(|(_, read)| read),
    },
];

pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let mut own = None;
    let engines = if args.is_empty() {
        let binary = crate::root().join("target/release/boxship");
        let daemon = Daemon::start(&binary.display().to_string());
        let engine = Engine { name: "boxship".to_owned(), socket: daemon.socket_path() };
        own = Some(daemon);
        vec![engine]
    } else {
        args.iter().map(|arg| engine(arg)).collect::<Result<_, _>>()?
    };
    header(&engines);
    for row in ROWS {
        print_row(row, &engines);
    }
    if let Some(daemon) = own {
        daemon.finish();
    }
    Ok(())
}

fn engine(arg: &str) -> Result<Engine, String> {
    let (name, socket) =
        arg.split_once("=unix://").ok_or_else(|| format!("{arg:?}: wants NAME=unix:///path"))?;
    Ok(Engine { name: name.to_owned(), socket: Path::new(socket).to_owned() })
}

fn header(engines: &[Engine]) {
    let names: Vec<_> = engines.iter().map(|engine| format!("{:>12}", engine.name)).collect();
    println!("{:<46} {}   ratio to {}", "median", names.join(" "), engines[0].name);
}

fn print_row(row: &Row, engines: &[Engine]) {
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); engines.len()];
    let mut failures = vec![String::new(); engines.len()];
    for _ in 0..row.rounds {
        for (at, engine) in engines.iter().enumerate() {
            match (row.measure)(engine) {
                Ok(value) => samples[at].push(value),
                Err(text) => failures[at] = text,
            }
        }
    }
    let medians: Vec<_> = samples.iter_mut().map(|values| median(values)).collect();
    let cells: Vec<_> = medians
        .iter()
        .map(|value| {
            value.map_or_else(
                || format!("{:>12}", "-"),
                |value| format!("{value:>9.1} {}", row.unit),
            )
        })
        .collect();
    let ratios: Vec<_> = medians[1..]
        .iter()
        .map(|value| match (value, medians[0]) {
            (Some(value), Some(first)) if first > 0.0 => format!("{:.3}", value / first),
            _ => "-".to_owned(),
        })
        .collect();
    println!("{:<46} {}   {}", row.name, cells.join(" "), ratios.join(" "));
    for (engine, text) in engines.iter().zip(&failures).filter(|(_, text)| !text.is_empty()) {
        println!("  {}: {text}", engine.name);
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// One connection with the calls a benchmark needs; any unexpected status is an error.
struct Api(Socket);

impl Api {
    fn connect(engine: &Engine) -> Result<Self, String> {
        Socket::connect(&engine.socket).map(Self).map_err(|error| error.to_string())
    }

    fn call(&mut self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("Content-Type", "application/json")];
        let path = format!("/v1.41{path}");
        let response = self
            .0
            .request(method, &path, &headers, text.as_bytes())
            .map_err(|error| format!("{method} {path}: {error}"))?;
        if response.status >= 400 {
            return Err(format!("{method} {path}: {} {}", response.status, response.text()));
        }
        Ok(serde_json::from_slice(&response.body).unwrap_or(Value::Null))
    }

    fn create(&mut self, command: &[&str], network: &str) -> Result<String, String> {
        let body = json!({"Image": "busybox:latest", "Cmd": command, "HostConfig": {"NetworkMode": network}});
        let answer = self.call("POST", "/containers/create", &body)?;
        Ok(answer["Id"].as_str().unwrap_or_default().to_owned())
    }

    fn post(&mut self, id: &str, verb: &str) -> Result<Value, String> {
        self.call("POST", &format!("/containers/{id}/{verb}"), &Value::Null)
    }

    fn remove(&mut self, id: &str) -> Result<(), String> {
        self.call("DELETE", &format!("/containers/{id}?force=1"), &Value::Null).map(drop)
    }
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

fn cycle(engine: &Engine, network: &str) -> Measured {
    let mut api = Api::connect(engine)?;
    let begun = Instant::now();
    let id = api.create(&["true"], network)?;
    api.post(&id, "start")?;
    api.post(&id, "wait")?;
    api.remove(&id)?;
    Ok(milliseconds(begun))
}

fn exec(engine: &Engine) -> Measured {
    let mut api = Api::connect(engine)?;
    let id = api.create(&["sleep", "1000"], "none")?;
    api.post(&id, "start")?;
    let begun = Instant::now();
    let body = json!({"Cmd": ["true"], "AttachStdout": true});
    let exec = api.call("POST", &format!("/containers/{id}/exec"), &body)?;
    let exec = exec["Id"].as_str().unwrap_or_default().to_owned();
    // The answer ends when the command does; it takes the connection with it.
    let mut stream = Api::connect(engine)?;
    stream.call("POST", &format!("/exec/{exec}/start"), &json!({"Detach": false}))?;
    let spent = milliseconds(begun);
    api.remove(&id)?;
    Ok(spent)
}

fn parallel(engine: &Engine) -> Measured {
    let begun = Instant::now();
    let ids: Vec<Result<String, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..50)
            .map(|_| {
                scope.spawn(|| {
                    let mut api = Api::connect(engine)?;
                    let id = api.create(&["sleep", "1000"], "bridge")?;
                    api.post(&id, "start")?;
                    Ok(id)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_panic| Err("panic".to_owned())))
            .collect()
    });
    let spent = milliseconds(begun);
    let mut api = Api::connect(engine)?;
    let mut failure = None;
    for id in ids {
        match id {
            Ok(id) => api.remove(&id)?,
            Err(text) => failure = Some(text),
        }
    }
    failure.map_or(Ok(spent), Err)
}

fn stop(engine: &Engine) -> Measured {
    let mut api = Api::connect(engine)?;
    let script = "trap 'exit 0' TERM; echo ready; while :; do sleep 1000 & wait; done";
    let id = api.create(&["sh", "-c", script], "bridge")?;
    api.post(&id, "start")?;
    loop {
        let path = format!("/v1.41/containers/{id}/logs?stdout=1");
        let response = api.0.get(&path).map_err(|error| error.to_string())?;
        if response.text().contains("ready") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let begun = Instant::now();
    api.post(&id, "stop")?;
    let spent = milliseconds(begun);
    api.remove(&id)?;
    Ok(spent)
}

fn logs(engine: &Engine) -> Result<(f64, f64), String> {
    let mut api = Api::connect(engine)?;
    let id = api.create(&["seq", "1000000"], "none")?;
    let begun = Instant::now();
    api.post(&id, "start")?;
    api.post(&id, "wait")?;
    let write = milliseconds(begun);
    let begun = Instant::now();
    let path = format!("/v1.41/containers/{id}/logs?stdout=1");
    let response = api.0.get(&path).map_err(|error| error.to_string())?;
    let read = milliseconds(begun);
    let lines = response.body.iter().filter(|byte| **byte == b'\n').count();
    api.remove(&id)?;
    if lines < 1_000_000 {
        return Err(format!("{lines} of 1,000,000 lines came back"));
    }
    Ok((write, read))
}
