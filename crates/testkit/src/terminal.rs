//! A program on a terminal of its own, driven from the other side: what a person at a keyboard
//! sees and types.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// How long a text may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client with a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    /// Kept open, so that the terminal's modes can be read after the program has ended.
    slave: File,
    first_modes: String,
    output: Receiver<Vec<u8>>,
    child: Child,
    seen: String,
}

impl Terminal {
    /// Starts a program on a new terminal of 24 lines and 80 columns, as a shell would: leader of
    /// its session, with the terminal as its controlling one.
    pub fn run(client: &Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a new terminal");
        grantpt(&master).expect("the terminal is ours");
        unlockpt(&master).expect("the terminal is ours");
        let name = ptsname(&master, Vec::new()).expect("terminals have names");
        let slave = File::options().read(true).write(true).open(name.to_string_lossy().as_ref());
        let slave = slave.expect("the other side of the terminal");
        let stream = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(client.get_program()).args(client.get_args());
        for (name, value) in client.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(directory) = client.get_current_dir() {
            command.current_dir(directory);
        }
        let master: File = master.into();
        resize(&master, 24, 80);
        let first_modes = modes(&slave);
        let child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn();
        let output = reader(master.try_clone().expect("a descriptor"));
        let child = child.expect("setsid starts");
        Self { master, slave, first_modes, output, child, seen: String::new() }
    }

    /// Waits until `text` was shown since the last call, and returns what was shown up to its end.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} in {:?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the end; no {text:?} in {:?}", self.seen)
                }
            }
        }
    }

    /// Types.
    pub fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal takes input");
    }

    /// Pulls at the window's corner.
    pub fn resize(&self, rows: u16, columns: u16) {
        resize(&self.master, rows, columns);
    }

    /// All modes of the terminal, to compare.
    pub fn modes(&self) -> String {
        modes(&self.slave)
    }

    /// Those before the program began, which may have changed them by now.
    pub fn first_modes(&self) -> String {
        self.first_modes.clone()
    }

    /// Waits until the program has switched the terminal to raw mode.
    #[track_caller]
    pub fn wait_raw(&self) {
        crate::wait_until("raw mode", || {
            let modes = tcgetattr(&self.slave).expect("a terminal has modes");
            (!modes.local_modes.contains(LocalModes::ICANON)).then_some(())
        });
    }

    /// Waits until what is typed is not shown.
    #[track_caller]
    pub fn wait_silent(&self) {
        crate::wait_until("a silent terminal", || {
            let modes = tcgetattr(&self.slave).expect("a terminal has modes");
            (!modes.local_modes.contains(LocalModes::ECHO)).then_some(())
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the program's end; a signal counts as 128 and its number. Returns what was shown
    /// last, too.
    #[track_caller]
    pub fn end(&mut self) -> (i32, String) {
        use std::os::unix::process::ExitStatusExt;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            // What is left to read must not hold the program up.
            self.read_on();
            if let Some(status) = self.child.try_wait().expect("own child") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end; shown was {:?}", self.seen);
        };
        // Its last words may still be on their way through the thread that reads.
        std::thread::sleep(Duration::from_millis(100));
        self.read_on();
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        (code.unwrap_or(-1), std::mem::take(&mut self.seen))
    }

    fn read_on(&mut self) {
        while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(5)) {
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ended already, unless a test failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn modes(terminal: &File) -> String {
    format!("{:?}", tcgetattr(terminal).expect("a terminal has modes"))
}

fn resize(master: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("a terminal has a size");
}

/// Reads on a thread of its own, which ends with the terminal.
fn reader(mut master: File) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        // The last reader of a terminal gets EIO when everyone is gone.
        while let Ok(length @ 1..) = master.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}
