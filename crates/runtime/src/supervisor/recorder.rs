//! Output from a container's pipes into its log, with no byte lost or logged twice when the
//! supervisor is killed between the two.
//!
//! A chunk is not read but spliced into a spool file, whose size the kernel moves together with
//! the pipe's; only then it is logged. A journal says up to where the spools are logged and where
//! the log then ended:
//!
//! ```text
//! <container>/journal        u64 inode, birth and size of the log, u64 done of each spool
//! <container>/stdout.spool   bytes taken from the pipe; logged up to "done"
//! <container>/stderr.spool
//! ```
//!
//! ```text
//! 1 splice    pipe -> end of spool
//! 2 log       append the records of the chunk
//! 3 journal   done = all but the unfinished line; size of the log
//! 4 when a spool is done and not small: cut it to nothing, journal done = 0
//! ```
//!
//! After a crash anything logged since the journal was written is taken back, and the spools are
//! logged from "done" on ([`Recorder::recover`]). A crash within 4 leaves "done" beyond the
//! spool's end, which means 0. Writes this small are not torn by a kill; a crash of the machine
//! ends the containers too. Files appear with the first output: a quiet container has none.
//!
//! When the spool's filesystem is full, output is read without it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

use super::streams::CHUNK;
use crate::log::{FileIdentity, LogWriter, Position, Stream, Unfinished};
use crate::spec::LogSpec;

/// A spool that is done is kept until it has this size: cutting it costs two system calls.
const SPOOL_KEPT: u64 = 4 << 10;

#[derive(Debug)]
pub(super) struct Recorder {
    log: LogWriter,
    /// None for a terminal, whose output nobody can read again, and after an error.
    journal: Option<Journal>,
}

#[derive(Debug)]
struct Journal {
    directory: PathBuf,
    file: Option<File>,
    spools: [Spool; 2],
}

#[derive(Debug, Default)]
struct Spool {
    file: Option<File>,
    /// Logged up to here.
    done: u64,
    end: u64,
}

impl Recorder {
    /// Opens the log; `None` when nothing is to be logged.
    pub(super) fn open(spec: &LogSpec, directory: &Path, tty: bool) -> io::Result<Option<Self>> {
        let Some(log) = LogWriter::open(spec)? else { return Ok(None) };
        let directory = directory.to_owned();
        let spools = [Spool::default(), Spool::default()];
        let journal = (!tty).then_some(Journal { directory, file: None, spools });
        Ok(Some(Self { log, journal }))
    }

    /// Takes one chunk from `end` into `buffer` and logs it; 0 is the end of the output.
    pub(super) fn read(
        &mut self,
        stream: Stream,
        end: &OwnedFd,
        buffer: &mut [u8],
        scratch: &mut Vec<u8>,
    ) -> Result<usize, Errno> {
        let Some(journal) = &mut self.journal else {
            let read = rustix::io::read(end, &mut *buffer)?;
            self.log(stream, &buffer[..read], scratch);
            return Ok(read);
        };
        let taken = match journal.file {
            // Without a journal, a spool would not be believed.
            None => journal.write(self.log.position()),
            Some(_) => Ok(()),
        }
        .and_then(|()| journal.take(stream, end, buffer));
        match taken {
            Ok(0) => return Ok(0),
            Ok(taken) => {
                self.log(stream, &buffer[..taken], scratch);
                self.settle();
                return Ok(taken);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Errno::AGAIN),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(Errno::INTR),
            Err(error) => self.give_up(&error),
        }
        Err(Errno::INTR)
    }

    /// Logs an unfinished line.
    pub(super) fn finish(&mut self, scratch: &mut Vec<u8>) {
        report(self.log.finish(super::now_nanos(), scratch));
        self.settle();
    }

    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.log.reopen()?;
        self.settle();
        Ok(())
    }

    pub(super) fn unfinished(&self) -> Unfinished {
        self.log.unfinished()
    }

    /// Takes over from a program that handed its unfinished lines over.
    pub(super) fn resume(&mut self, unfinished: Unfinished) {
        self.log.restore(unfinished);
        let opened = self.journal.as_mut().map(Journal::open).transpose();
        if let Err(error) = opened {
            self.give_up(&error);
        }
    }

    /// Logs what a killed supervisor had taken from the pipes and not logged.
    pub(super) fn recover(&mut self, scratch: &mut Vec<u8>) {
        if let Err(error) = self.try_recover(scratch) {
            self.give_up(&error);
        }
    }

    fn try_recover(&mut self, scratch: &mut Vec<u8>) -> io::Result<()> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let Some(position) = journal.open()? else { return Ok(()) };
        let [stdout, stderr] = [journal.pending(Stream::Stdout)?, journal.pending(Stream::Stderr)?];
        if !stdout.is_empty() || !stderr.is_empty() {
            self.log.rewind(position)?;
            self.log(Stream::Stdout, &stdout, scratch);
            self.log(Stream::Stderr, &stderr, scratch);
        }
        self.settle();
        Ok(())
    }

    fn log(&mut self, stream: Stream, bytes: &[u8], scratch: &mut Vec<u8>) {
        report(self.log.write(stream, bytes, super::now_nanos(), scratch));
    }

    /// Writes down what is logged.
    fn settle(&mut self) {
        if let Some(journal) = &mut self.journal {
            let unlogged = [Stream::Stdout, Stream::Stderr].map(|stream| self.log.unlogged(stream));
            if let Err(error) = journal.settle(self.log.position(), unlogged) {
                self.give_up(&error);
            }
        }
        report(self.log.compress_rotated());
    }

    /// Goes on without a journal. It must not be believed any more.
    fn give_up(&mut self, error: &io::Error) {
        if let Some(journal) = self.journal.take() {
            let path = journal.directory.join("journal");
            super::note(format_args!("{}: {error}; output is read without it", path.display()));
            if journal.file.is_some()
                && let Err(error) = std::fs::remove_file(&path)
            {
                super::note(format_args!("remove {}: {error}", path.display()));
            }
        }
    }
}

impl Journal {
    /// Moves a chunk from the pipe to its spool and reads it from there.
    fn take(&mut self, stream: Stream, end: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
        let path = self.spool_path(stream);
        let spool = &mut self.spools[index(stream)];
        let file = match &mut spool.file {
            Some(file) => file,
            none => none.insert(open(&path)?),
        };
        let mut at = spool.end;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let length = buffer.len().min(CHUNK);
        let taken = splice(end.as_fd(), None, &*file, Some(&mut at), length, flags)?;
        file.read_exact_at(&mut buffer[..taken], spool.end)?;
        spool.end += taken as u64;
        Ok(taken)
    }

    fn settle(&mut self, position: Position, unlogged: [usize; 2]) -> io::Result<()> {
        for (spool, unlogged) in self.spools.iter_mut().zip(unlogged) {
            spool.done = spool.end - (unlogged as u64).min(spool.end);
        }
        self.write(position)?;
        let mut cut = false;
        for spool in &mut self.spools {
            if let Some(file) = &spool.file
                && spool.done == spool.end
                && spool.end >= SPOOL_KEPT
            {
                file.set_len(0)?;
                (spool.done, spool.end) = (0, 0);
                cut = true;
            }
        }
        if cut { self.write(position) } else { Ok(()) }
    }

    fn write(&mut self, position: Position) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open(&self.directory.join("journal"))?),
        };
        let [stdout, stderr] = &self.spools;
        let Position { file: identity, size } = position;
        let words = [identity.inode, identity.born, size, stdout.done, stderr.done];
        file.write_all_at(words.map(u64::to_le_bytes).as_flattened(), 0)
    }

    /// Opens what another supervisor left; `None` when it left no journal: then it took nothing.
    fn open(&mut self) -> io::Result<Option<Position>> {
        let path = self.directory.join("journal");
        let mut bytes = [0; 40];
        let position = match File::options().read(true).write(true).open(&path) {
            Ok(file) => {
                file.read_exact_at(&mut bytes, 0)?;
                self.file = Some(file);
                let word = |at: usize| u64::from_le_bytes(bytes.as_chunks().0[at]);
                self.spools[0].done = word(3);
                self.spools[1].done = word(4);
                let file = FileIdentity { inode: word(0), born: word(1) };
                Some(Position { file, size: word(2) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        for stream in [Stream::Stdout, Stream::Stderr] {
            let path = self.spool_path(stream);
            if path.exists() {
                let file = open(&path)?;
                let spool = &mut self.spools[index(stream)];
                spool.end = file.metadata()?.len();
                if spool.done > spool.end {
                    spool.done = 0;
                }
                spool.file = Some(file);
            }
        }
        Ok(position)
    }

    fn pending(&self, stream: Stream) -> io::Result<Vec<u8>> {
        let Spool { file: Some(file), done, end } = &self.spools[index(stream)] else {
            return Ok(Vec::new());
        };
        let mut bytes = vec![0; (end - done) as usize];
        file.read_exact_at(&mut bytes, *done)?;
        Ok(bytes)
    }

    fn spool_path(&self, stream: Stream) -> PathBuf {
        self.directory.join(format!("{}.spool", stream.name()))
    }
}

const fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// A container goes on when its log cannot be written; the machine's owner hears of it here.
fn report(result: io::Result<()>) {
    if let Err(error) = result {
        super::note(format_args!("write a container's log: {error}"));
    }
}
