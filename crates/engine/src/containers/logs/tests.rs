//! Reading logs: order, tails, rotation, both formats.

use std::collections::BTreeMap;
use std::path::Path;

use runtime::log::{LogWriter, Stream};
use runtime::spec::{LogFile as Spec, LogSpec};

use super::*;

fn formatter() -> Formatter {
    Formatter {
        tty: true,
        stdout: true,
        stderr: true,
        timestamps: false,
        details: false,
        since: i64::MIN,
        until: i64::MAX,
        stamp: Default::default(),
    }
}

struct Log {
    directory: tempfile::TempDir,
    driver: Driver,
    writer: LogWriter,
}

impl Log {
    fn new(driver: Driver, max_size: Option<u64>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let attrs = BTreeMap::from([("tier".to_owned(), "a b".to_owned())]);
        let path = directory.path().join("log");
        let file = Spec { path, max_size, max_files: 5, compress: false, attrs };
        let spec = match driver {
            Driver::JsonFile => LogSpec::JsonFile(file),
            Driver::Local => LogSpec::Local(file),
        };
        Self { directory, driver, writer: LogWriter::open(&spec).unwrap().unwrap() }
    }

    fn write(&mut self, text: &str, second: i64) {
        let mut scratch = Vec::new();
        let nanos = second * 1_000_000_000;
        self.writer.write(Stream::Stdout, text.as_bytes(), nanos, &mut scratch).unwrap();
    }

    fn set(&self) -> Set {
        Set { path: self.directory.path().join("log"), driver: self.driver }
    }

    async fn read(&self, formatter: Formatter, tail: Option<usize>) -> Vec<u8> {
        let (sender, chunks) = mpsc::channel(WAITING);
        let set = self.set();
        let reader = Reader { set, formatter, tail, output: Vec::new(), sender };
        tokio::spawn(async move { reader.run(None).await.unwrap() });
        collect(chunks).await
    }
}

async fn collect(mut chunks: mpsc::Receiver<Bytes>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        all.extend_from_slice(&chunk);
    }
    all
}

async fn check_text(log: &Log, tail: Option<usize>, expect: &str) {
    let text = log.read(formatter(), tail).await;
    assert_eq!(String::from_utf8(text).unwrap(), expect);
}

fn numbers(range: std::ops::Range<u32>) -> String {
    range.map(|number| format!("line {number}\n")).collect()
}

#[tokio::test]
async fn everything_and_the_tail_are_read() {
    for driver in [Driver::JsonFile, Driver::Local] {
        let mut log = Log::new(driver, None);
        log.write(&numbers(0..5000), 1);
        check_text(&log, None, &numbers(0..5000)).await;
        check_text(&log, Some(0), "").await;
        check_text(&log, Some(3), &numbers(4997..5000)).await;
        check_text(&log, Some(99_999), &numbers(0..5000)).await;
    }
}

#[tokio::test]
async fn rotated_and_compressed_files_are_read_in_order() {
    for driver in [Driver::JsonFile, Driver::Local] {
        let mut log = Log::new(driver, Some(2000));
        for number in 0..60 {
            log.write(&numbers(number..number + 1), 1);
        }
        check_rotated(&log).await;
        // The supervisor compresses all but the newest two at some time.
        for number in 2..5 {
            compress(&log.directory.path().join(format!("log.{number}")));
        }
        check_rotated(&log).await;
    }
}

async fn check_rotated(log: &Log) {
    check_text(log, Some(45), &numbers(15..60)).await;
    check_text(log, Some(1), "line 59\n").await;
    check_text(log, None, &numbers(0..60)).await;
}

fn compress(path: &Path) {
    let Ok(mut from) = std::fs::File::open(path) else { return };
    let to = std::fs::File::create(path.with_added_extension("gz")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(to, flate2::Compression::fast());
    std::io::copy(&mut from, &mut encoder).unwrap();
    encoder.finish().unwrap();
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn lines_are_selected_and_decorated() {
    let mut log = Log::new(Driver::JsonFile, None);
    log.write("one\n", 10);
    log.write("two\n", 20);
    log.write("three", 30);
    log.writer.finish(31_000_000_000, &mut Vec::new()).unwrap();
    let since = Formatter { since: 20_000_000_000, timestamps: true, ..formatter() };
    let text = String::from_utf8(log.read(since, None).await).unwrap();
    assert_eq!(text, "1970-01-01T00:00:20.000000000Z two\n1970-01-01T00:00:31.000000000Z three");
    let until = Formatter { until: 20_000_000_000, details: true, ..formatter() };
    let text = String::from_utf8(log.read(until, None).await).unwrap();
    assert_eq!(text, "tier=a+b one\ntier=a+b two\n");
    let framed = Formatter { tty: false, until: 10_000_000_000, ..formatter() };
    assert_eq!(log.read(framed, None).await, b"\x01\0\0\0\0\0\0\x04one\n");
    let stderr = Formatter { stdout: false, ..formatter() };
    assert_eq!(log.read(stderr, None).await, b"");
}

#[tokio::test]
async fn following_sees_rotations_and_ends_with_the_container() {
    let mut log = Log::new(Driver::JsonFile, Some(500));
    log.write(&numbers(0..3), 1);
    let (sender, chunks) = mpsc::channel(WAITING);
    let reader =
        Reader { set: log.set(), formatter: formatter(), tail: None, output: Vec::new(), sender };
    let (owner, container) = follow_target();
    let lifecycle = container.lifecycle();
    let end = End { begin: 0, lifecycle, until: None, _container: Arc::clone(&container) };
    let reading = tokio::spawn(async move { reader.run(Some(end)).await.unwrap() });
    let collected = tokio::spawn(collect(chunks));
    for number in 3..40 {
        log.write(&numbers(number..number + 1), 1);
        tokio::task::yield_now().await;
    }
    container.tell_waiters(|lifecycle| {
        lifecycle.running = false;
        lifecycle.exits = 1;
    });
    reading.await.unwrap();
    let text = String::from_utf8(collected.await.unwrap()).unwrap();
    // Rotation keeps five files of seven lines: a reader that keeps up loses nothing, and one
    // that does not loses whole files from the middle, never the end.
    assert!(text.starts_with(&numbers(0..3)), "{text}");
    assert!(text.ends_with(&numbers(33..40)), "{text}");
    drop(owner);
}

fn follow_target() -> (mpsc::Receiver<super::super::task::ContainerCommand>, Arc<Container>) {
    let (commands, owner) = mpsc::channel(1);
    let definition = super::super::record::Definition {
        id: spec::Id::from_random([1; 32]),
        name: spec::ContainerName::parse("web").unwrap(),
        created_nanos: 0,
        image_id: String::new(),
        platform: "linux".to_owned(),
        config: Default::default(),
        host_config: Default::default(),
        endpoints: Default::default(),
        mounts: Vec::new(),
        links: Vec::new(),
    };
    let progress = super::super::record::Progress {
        phase: super::super::record::Phase::Running,
        ..Default::default()
    };
    let snapshot = super::super::Snapshot {
        definition: Arc::new(definition),
        progress,
        health: None,
        removing: false,
    };
    (owner, Arc::new(Container::new(snapshot, commands)))
}
