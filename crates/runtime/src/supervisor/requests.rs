//! The daemon's requests. Those that start something are answered later, all others at once.

use std::fs;
use std::os::fd::OwnedFd;

use serde::Deserialize;
use spec::Id;

use super::start::{Asked, failed, resize};
use super::state::StdinMode;
use super::{Phase, Run, Supervisor};
use crate::protocol::{
    AttachOptions, Envelope, Event, Failure, Reply, Request, Running, Stats, VERSION,
};
use crate::resolver::Sockets;

/// A reply with its descriptors.
type Answer = Result<(Reply, Vec<OwnedFd>), Failure>;

const DONE: Answer = Ok((Reply::Done, Vec::new()));

impl Supervisor {
    pub(super) fn on_message(&mut self, client: u32, json: &[u8], fds: Vec<OwnedFd>) {
        let envelope = match serde_json::from_slice::<Envelope>(json) {
            Ok(envelope) => envelope,
            Err(error) => return self.refuse_unreadable(client, json, &error),
        };
        let Envelope { sequence, request } = envelope;
        let greeting = matches!(request, Request::Hello { .. });
        // An older or newer daemon may only ask for a program that it can talk to.
        let replacing = matches!(request, Request::ReExec { .. });
        let answer = if greeting || replacing || self.clients.is_daemon(client) {
            self.on_request(client, sequence, request, fds)
        } else {
            Some(Err(Failure::Invalid { text: "the first request must be hello".to_owned() }))
        };
        if let Some(answer) = answer {
            self.clients.reply(client, sequence, answer, &mut self.poller);
        }
    }

    fn refuse_unreadable(&mut self, client: u32, json: &[u8], error: &serde_json::Error) {
        #[derive(Deserialize)]
        struct Numbered {
            sequence: u64,
        }
        let Ok(Numbered { sequence }) = serde_json::from_slice(json) else {
            super::note(format_args!("unreadable request: {error}"));
            return self.clients.drop_client(client, &mut self.poller);
        };
        let failure = Failure::Invalid { text: format!("unreadable request: {error}") };
        self.clients.reply(client, sequence, Err(failure), &mut self.poller);
    }

    /// `None` when the answer comes later.
    fn on_request(
        &mut self,
        client: u32,
        sequence: u64,
        request: Request,
        mut fds: Vec<OwnedFd>,
    ) -> Option<Answer> {
        let started = match request {
            Request::Start { spec, attach, keeps } => {
                let kept = if keeps { fds.pop() } else { None };
                paired(attach, fds).and_then(|attach| {
                    self.start(spec, Asked { client, sequence, attach, kept }, 0)
                })
            }
            Request::Exec { spec, attach } => {
                paired(attach.into_iter().collect(), fds).and_then(|attach| {
                    self.exec(&spec, Asked { client, sequence, attach, kept: None })
                })
            }
            Request::Hello { version, exits_seen } => {
                return self.hello(client, sequence, version, exits_seen);
            }
            Request::ReExec { path } => return Some(Err(self.re_exec(client, sequence, &path))),
            other => return Some(self.answer(other, fds)),
        };
        started.err().map(Err)
    }

    fn answer(&mut self, request: Request, mut fds: Vec<OwnedFd>) -> Answer {
        match request {
            Request::Signal { id, signal } => self.signal(&id, signal),
            Request::KillAll { id } => done(self.container(&id)?.1.cgroup.kill_all()),
            Request::Pause { id } => self.set_paused(&id, true),
            Request::Resume { id } => self.set_paused(&id, false),
            Request::Update { id, resources } => {
                done(self.container(&id)?.1.cgroup.update(&resources))
            }
            Request::Resize { id, columns, rows } => self.resize(&id, columns, rows),
            Request::Attach { id, options } => self.attach(&id, options, fds),
            Request::Keep { id } => {
                let (key, _) = self.container(&id)?;
                if let Some(run) = self.runs.get_mut(&key) {
                    run.kept = fds.pop();
                }
                DONE
            }
            Request::Resolver { id } => self.resolver(&id),
            Request::KeepResolver { id } => {
                let (key, _) = self.container(&id)?;
                if let Some(run) = self.runs.get_mut(&key) {
                    run.resolver = Sockets::from_descriptors(fds);
                }
                DONE
            }
            Request::Note { id, network } => self.note_network(&id, network),
            Request::CloseStdin { id } => self.close_stdin(&id),
            Request::Stats { id } => {
                Ok((Reply::Stats(Box::new(stats(self.container(&id)?.1)?)), Vec::new()))
            }
            Request::Pids { id } => {
                Ok((Reply::Pids(self.container(&id)?.1.cgroup.pids()?), Vec::new()))
            }
            Request::List => Ok((Reply::List(self.list()), Vec::new())),
            Request::ReopenLog { id } => self.reopen_log(&id),
            Request::Stop => self.stop(),
            Request::Hello { .. }
            | Request::Start { .. }
            | Request::Exec { .. }
            | Request::ReExec { .. } => unreachable!("on_request takes these"),
        }
    }

    fn hello(
        &mut self,
        client: u32,
        sequence: u64,
        version: u32,
        exits_seen: u64,
    ) -> Option<Answer> {
        if version != VERSION {
            return Some(Err(Failure::Version { ours: VERSION, theirs: version }));
        }
        if let Err(error) = self.exit_log.compact(exits_seen) {
            super::note(format_args!("compact the exit log: {error}"));
        }
        self.clients.greet(client, &mut self.poller);
        let reply = Reply::Hello { version: VERSION, pid: std::process::id() };
        self.clients.reply(client, sequence, Ok((reply, Vec::new())), &mut self.poller);
        match self.exit_log.read_from(exits_seen) {
            Ok(exits) => {
                for exit in exits {
                    self.clients.tell(Event::Exited(exit), &mut self.poller);
                }
            }
            Err(error) => super::note(format_args!("read the exit log: {error}")),
        }
        None
    }

    /// The container with this id, which runs; an exec has no cgroup of its own.
    fn container(&self, id: &Id) -> Result<(u32, &Run), Failure> {
        let (key, run) = self.running(id)?;
        if run.saved.container.is_some() { Err(Failure::NotFound) } else { Ok((key, run)) }
    }

    fn signal(&self, id: &Id, signal: i32) -> Answer {
        let (_, run) = self.running(id)?;
        if let (Some(runtime), None) = (&run.saved.oci_runtime, &run.saved.container) {
            return done(self.call(runtime, &run.saved).kill(id, signal));
        }
        let pidfd = run.pidfd.as_ref().ok_or(Failure::NotRunning)?;
        match sys::pidfd::send_signal(pidfd, signal) {
            Ok(()) => DONE,
            Err(rustix::io::Errno::SRCH) => Err(Failure::NotRunning),
            Err(errno) => Err(failed(|| format!("send signal {signal}"))(errno.into())),
        }
    }

    fn set_paused(&mut self, id: &Id, paused: bool) -> Answer {
        let (key, run) = self.container(id)?;
        if paused {
            run.cgroup.freeze()?;
        } else {
            run.cgroup.thaw()?;
        }
        let directory = run.saved.directory(&self.config.exec_root);
        if let Some(run) = self.runs.get_mut(&key) {
            run.saved.paused = paused;
            run.saved
                .write(&directory)
                .map_err(failed(|| format!("write {}/state.json", directory.display())))?;
        }
        DONE
    }

    /// A process without a terminal has no size; that is no error, as with containerd.
    fn resize(&mut self, id: &Id, columns: u16, rows: u16) -> Answer {
        let key = *self.by_id.get(id).ok_or(Failure::NotFound)?;
        let run = self.runs.get_mut(&key).ok_or(Failure::NotFound)?;
        match (&run.streams.ends.stdout, &mut run.phase) {
            (Some(master), _) if run.saved.tty => done(resize(master, columns, rows)),
            (None, Phase::Starting(starting)) => {
                starting.size = Some((columns, rows));
                DONE
            }
            (None, Phase::Oci(start)) => {
                start.size = Some((columns, rows));
                DONE
            }
            _ => DONE,
        }
    }

    fn attach(&mut self, id: &Id, options: AttachOptions, fds: Vec<OwnedFd>) -> Answer {
        let (key, run) = self.running(id)?;
        let stdin = options.stdin && run.saved.stdin != StdinMode::Null;
        let options = AttachOptions { stdin, ..options };
        let attach = paired(vec![options], fds)?;
        self.with_streams(key, |streams, io| {
            for (options, socket) in attach {
                streams.attach(socket, options, Vec::new());
            }
            streams.watch_clients(io);
        });
        Ok((Reply::Attached, Vec::new()))
    }

    fn note_network(&mut self, id: &Id, network: String) -> Answer {
        let (key, _) = self.container(id)?;
        if let Some(run) = self.runs.get_mut(&key) {
            run.saved.network = network;
            let directory = run.saved.directory(&self.config.exec_root);
            run.saved.write(&directory).map_err(failed(|| "write state.json".to_owned()))?;
        }
        DONE
    }

    fn resolver(&self, id: &Id) -> Answer {
        let (_, run) = self.container(id)?;
        let sockets = run.resolver.as_ref().ok_or(Failure::NotFound)?.try_clone();
        let sockets = sockets.map_err(failed(|| "duplicate the resolver's sockets".to_owned()))?;
        Ok((Reply::Done, sockets.into_descriptors().into()))
    }

    fn close_stdin(&mut self, id: &Id) -> Answer {
        let (key, run) = self.running(id)?;
        match run.saved.stdin {
            StdinMode::Kept => {
                let text = "stdin of this process stays open (stdin_once is off)".to_owned();
                Err(Failure::Invalid { text })
            }
            StdinMode::Null => DONE,
            StdinMode::Once => {
                // The end of a terminal's input is a character, not a closed descriptor.
                if !run.saved.tty {
                    self.with_streams(key, super::Streams::close_stdin);
                }
                DONE
            }
        }
    }

    fn reopen_log(&mut self, id: &Id) -> Answer {
        let (key, _) = self.container(id)?;
        self.with_streams(key, |streams, _io| streams.reopen_log())
            .unwrap_or(Ok(()))
            .map_err(failed(|| "reopen the log".to_owned()))?;
        DONE
    }

    fn list(&self) -> Vec<Running> {
        let running = self.runs.values().filter(|run| matches!(run.phase, Phase::Running));
        running
            .map(|Run { saved, .. }| Running {
                id: saved.id.clone(),
                container: saved.container.clone(),
                generation: saved.generation,
                pid: saved.pid,
                started_at_nanos: saved.started_at_nanos,
                paused: saved.paused,
                network: saved.network.clone(),
            })
            .collect()
    }

    fn stop(&mut self) -> Answer {
        if !self.by_id.is_empty() {
            return Err(Failure::Busy);
        }
        self.stopping = true;
        DONE
    }
}

fn done(result: Result<(), Failure>) -> Answer {
    result.map(|()| (Reply::Done, Vec::new()))
}

/// Gives each attachment its socket.
fn paired(
    options: Vec<AttachOptions>,
    fds: Vec<OwnedFd>,
) -> Result<Vec<(AttachOptions, OwnedFd)>, Failure> {
    if options.len() != fds.len() {
        let text = format!("{} attachments with {} descriptors", options.len(), fds.len());
        return Err(Failure::Invalid { text });
    }
    Ok(options.into_iter().zip(fds).collect())
}

fn stats(run: &Run) -> Result<Stats, Failure> {
    let mut stats = run.cgroup.stats()?;
    if run.saved.own_network {
        let path = format!("/proc/{}/net/dev", run.saved.pid);
        let table = fs::read_to_string(path)
            .map_err(failed(|| "read the container's /proc/net/dev".to_owned()))?;
        stats.networks = table.lines().filter_map(parse_device).collect();
    }
    Ok(stats)
}

/// One line of `/proc/net/dev`; `None` for the two of the heading and for `lo`.
fn parse_device(line: &str) -> Option<(String, [u64; 4], [u64; 4])> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> =
        numbers.split_whitespace().map_while(|text| text.parse().ok()).collect();
    let receive = numbers.get(..4)?.try_into().ok()?;
    let transmit = numbers.get(8..12)?.try_into().ok()?;
    let name = name.trim();
    (name != "lo").then(|| (name.to_owned(), receive, transmit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_devices() {
        let check = |line, expect: Option<(&str, [u64; 4], [u64; 4])>| {
            let expect =
                expect.map(|(name, receive, transmit)| (name.to_owned(), receive, transmit));
            assert_eq!(parse_device(line), expect);
        };
        check("Inter-|   Receive                      |  Transmit", None);
        check(" face |bytes    packets errs drop fifo frame compressed multicast|bytes", None);
        check("    lo: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0", None);
        let line = "  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0";
        check(line, Some(("eth0", [1, 2, 3, 4], [5, 6, 7, 8])));
    }
}
