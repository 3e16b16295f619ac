//! `docker top`. The usual `-ef` is read from `/proc` here; for other arguments the host's `ps`
//! runs, as in Docker, and its rows are picked by process id.

use std::collections::{HashMap, HashSet};
use std::process::Command;

use api_types::container::TopResponse;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use runtime::protocol::{Reply, Request};

use super::{Containers, run_blocking};
use crate::errors::{ContainerError, Error, Result};
use crate::supervisor::SupervisorError;

const TITLES: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

impl Containers {
    pub async fn top(&self, reference: &str, ps_args: &str) -> Result<TopResponse> {
        let container = self.shared.registry.find(reference)?;
        let snapshot = container.snapshot();
        snapshot.check_alive()?;
        let request = Request::Pids { id: container.id.clone() };
        let pids = match self.shared.supervisor().request(request, Vec::new()).await? {
            (Reply::Pids(pids), _) => pids,
            _ => return Err(SupervisorError::Confused.into()),
        };
        let top = match ps_args.trim() {
            "" | "-ef" => full_list(&pids),
            args => {
                let args = args.to_owned();
                run_blocking(move || from_ps(&args, &pids)).await?
            }
        };
        snapshot.emit(&self.shared.events, "top", []);
        Ok(top)
    }
}

fn full_list(pids: &[u32]) -> TopResponse {
    let machine = Machine::look();
    let processes = pids.iter().filter_map(|pid| machine.row(*pid)).collect();
    TopResponse { processes, titles: TITLES.map(str::to_owned).into() }
}

/// What is the same for all rows.
struct Machine {
    users: HashMap<u32, String>,
    /// Seconds since the epoch.
    boot: i64,
    now: i64,
    ticks: i64,
    zone: TimeZone,
}

impl Machine {
    fn look() -> Self {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok());
        Self {
            users: users(&passwd),
            boot: boot.unwrap_or_default(),
            now: Timestamp::now().as_second(),
            ticks: rustix::param::clock_ticks_per_second() as i64,
            zone: TimeZone::system(),
        }
    }

    /// `None` when the process is gone by now.
    fn row(&self, pid: u32) -> Option<Vec<String>> {
        let file = |name| std::fs::read(format!("/proc/{pid}/{name}")).ok();
        let stat = String::from_utf8_lossy(&file("stat")?).into_owned();
        let status = String::from_utf8_lossy(&file("status")?).into_owned();
        let process = Process::parse(&stat)?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        let uid: u32 = uid.split_whitespace().nth(1)?.parse().ok()?;
        let seconds = process.cpu_ticks / self.ticks;
        let start = self.boot + process.start_ticks / self.ticks;
        let age = (self.now - start).max(1);
        Some(vec![
            self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
            pid.to_string(),
            process.parent.to_string(),
            (seconds * 100 / age).min(99).to_string(),
            self.start_text(start),
            terminal(process.terminal),
            format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
            command(&file("cmdline")?, process.name),
        ])
    }

    /// The time of day, or the date when it is more than a day ago.
    fn start_text(&self, start: i64) -> String {
        let Ok(time) = Timestamp::from_second(start) else { return "?".to_owned() };
        let time = time.to_zoned(self.zone.clone());
        if self.now - start < 86_400 {
            time.strftime("%H:%M").to_string()
        } else {
            time.strftime("%b%d").to_string()
        }
    }
}

fn users(passwd: &str) -> HashMap<u32, String> {
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    // The first line for a number counts.
    passwd.lines().rev().filter_map(user).collect()
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Process<'a> {
    name: &'a str,
    parent: u32,
    terminal: i32,
    cpu_ticks: i64,
    start_ticks: i64,
}

impl<'a> Process<'a> {
    fn parse(stat: &'a str) -> Option<Self> {
        let (open, close) = (stat.find('(')?, stat.rfind(')')?);
        let fields: Vec<&str> = stat.get(close + 1..)?.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<i64>().ok();
        Some(Self {
            name: stat.get(open + 1..close)?,
            parent: fields.get(1)?.parse().ok()?,
            terminal: fields.get(4)?.parse().ok()?,
            cpu_ticks: number(11)? + number(12)?,
            start_ticks: number(19)?,
        })
    }
}

/// The name of a terminal by its device number.
fn terminal(number: i32) -> String {
    let number = number as u32;
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        _ => "?".to_owned(),
    }
}

fn command(cmdline: &[u8], name: &str) -> String {
    let words: Vec<_> = cmdline
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let text = words.join(" ");
    match text.trim_end() {
        "" => format!("[{name}]"),
        text => text.to_owned(),
    }
}

fn from_ps(args: &str, pids: &[u32]) -> Result<TopResponse> {
    let mut ps = Command::new("ps");
    ps.args(args.split_whitespace()).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    let output = crate::reaper::shielded(|| ps.output()).map_err(Error::io("run ps"))?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ContainerError::Ps { output }.into());
    }
    pick(args, &String::from_utf8_lossy(&output.stdout), pids)
}

/// The rows of our processes; the last column takes the rest of a line.
fn pick(args: &str, text: &str, pids: &[u32]) -> Result<TopResponse> {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let column = titles.iter().position(|title| title == "PID");
    let column = column.ok_or_else(|| ContainerError::PsWithoutPid { args: args.to_owned() })?;
    let ours: HashSet<u32> = pids.iter().copied().collect();
    let rows = lines.filter_map(|line| {
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if words.len() > titles.len() {
            let rest = words.split_off(titles.len() - 1).join(" ");
            words.push(rest);
        }
        let pid = words.get(column)?.parse().ok()?;
        ours.contains(&pid).then_some(words)
    });
    Ok(TopResponse { processes: rows.collect(), titles })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let stat = "42 (a) b (c) S 1 42 42 34817 42 4194304 1 0 0 0 7 5 0 0 20 0 1 0 900 0 0";
        let process = Process::parse(stat).unwrap();
        let expect = Process {
            name: "a) b (c",
            parent: 1,
            terminal: 34817,
            cpu_ticks: 12,
            start_ticks: 900,
        };
        assert_eq!(process, expect);
        assert_eq!((terminal(34817), terminal(0)), ("pts/1".to_owned(), "?".to_owned()));
    }

    #[test]
    fn our_own_row_can_be_read() {
        let row = Machine::look().row(std::process::id()).unwrap();
        assert_eq!(row[1], std::process::id().to_string());
        assert_eq!(row.len(), TITLES.len());
    }

    #[test]
    fn rows_of_ps_are_picked_by_process_id() {
        let text = "  PID USER     COMMAND\n    1 root     /sbin/init\n   42 me       sh -c a b\n";
        let top = pick("-o pid,user,args", text, &[42]).unwrap();
        assert_eq!(top.titles, ["PID", "USER", "COMMAND"]);
        assert_eq!(top.processes, [["42", "me", "sh -c a b"]]);
        let error = pick("-o user", "USER\nroot\n", &[42]).unwrap_err();
        assert_eq!(error.to_string(), "ps args \"-o user\" must include a PID column");
    }
}
