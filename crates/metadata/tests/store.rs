//! The store as its users see it, crashes and damage included.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};

use metadata::{DamagedRecord, Schema, Store, StoreError, Table, WriteTxn};

const NAMES: Table<String> = Table::new("names");
const NUMBERS: Table<u32> = Table::new("numbers");

fn put(store: &Store, key: &str, value: &str) -> Result<(), StoreError> {
    let (key, value) = (key.to_owned(), value.to_owned());
    store.write(move |txn| NAMES.put(txn, &key, &value))
}

fn keys(store: &Store) -> Vec<String> {
    store.scan(NAMES).unwrap().into_iter().map(|(key, _)| key).collect()
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.redb");
    let store = Store::open(&path).unwrap();
    put(&store, "a", "1").unwrap();
    store.write_relaxed(|txn| NAMES.put(txn, "b", &"2".to_owned())).unwrap();
    assert_eq!(store.get(NAMES, "b").unwrap().unwrap(), "2");
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(keys(&store), ["a", "b"]);
    let removed = store.write(|txn| -> Result<(), StoreError> {
        NAMES.remove(txn, "a");
        Ok(())
    });
    removed.unwrap();
    assert_eq!(keys(&store), ["b"]);
}

#[test]
fn a_failing_closure_leaves_nothing_and_spares_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("m")).unwrap();
    let failed = store.write(|txn| {
        NAMES.put(txn, "lost", &String::new())?;
        Err::<(), _>(StoreError::Closed)
    });
    assert!(matches!(failed, Err(StoreError::Closed)));
    let panicked = store.write(|_txn| -> Result<(), StoreError> { panic!("on purpose") });
    assert!(matches!(panicked, Err(StoreError::Panicked)));
    put(&store, "kept", "").unwrap();
    assert_eq!(keys(&store), ["kept"]);
}

#[test]
fn a_transaction_sees_its_own_changes_and_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("m")).unwrap();
    put(&store, "x/1", "").unwrap();
    put(&store, "y", "").unwrap();
    store
        .write(|txn| -> Result<_, StoreError> {
            NAMES.put(txn, "x/2", &String::new())?;
            NAMES.remove(txn, "x/1");
            let seen: Vec<_> =
                NAMES.scan_prefix(txn, "x/")?.into_iter().map(|(key, _)| key).collect();
            assert_eq!(seen, ["x/2"]);
            Ok(())
        })
        .unwrap();
    assert_eq!(keys(&store), ["x/2", "y"]);
}

#[test]
fn parallel_writers_all_get_their_answer_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("m")).unwrap();
    let start = Arc::new(Barrier::new(50));
    let threads: Vec<_> = (0..50)
        .map(|_| {
            let (store, start) = (store.clone(), Arc::clone(&start));
            std::thread::spawn(move || {
                start.wait();
                store
                    .write(|txn| -> Result<_, StoreError> {
                        let value = NUMBERS.get(txn, "n")?.unwrap_or_default();
                        NUMBERS.put(txn, "n", &(value + 1))
                    })
                    .unwrap();
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(store.get(NUMBERS, "n").unwrap(), Some(50));
}

#[test]
fn callbacks_come_after_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("m")).unwrap();
    let (sender, receiver) = channel();
    let reader = store.clone();
    store.write_then(
        |txn| NUMBERS.put(txn, "n", &7),
        move |result: Result<(), StoreError>| {
            result.unwrap();
            sender.send(reader.get(NUMBERS, "n").unwrap()).unwrap();
        },
    );
    // The callback holds the last handle: the writer thread then closes the store itself.
    drop(store);
    assert_eq!(receiver.recv().unwrap(), Some(7));
}

#[test]
fn a_record_that_does_not_parse_is_quarantined_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let store = Store::open(&path).unwrap();
    put(&store, "good", "1").unwrap();
    store.write(|txn| Table::<u32>::new("names").put(txn, "bad", &5)).unwrap();
    let raw = metadata::View::bytes(&store.begin_read().unwrap(), "names", "bad").unwrap();
    store.adopt(NAMES).unwrap();
    let expect = DamagedRecord {
        table: "names".to_owned(),
        key: "bad".to_owned(),
        reason: "invalid type: integer `5`, expected a string at line 1 column 1".to_owned(),
        bytes: raw.unwrap(),
    };
    assert_eq!(keys(&store), ["good"]);
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.damaged().unwrap(), std::slice::from_ref(&expect));
    store.forget_damaged(&expect).unwrap();
    assert_eq!(store.damaged().unwrap(), []);
}

#[test]
fn a_damaged_file_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.redb");
    std::fs::write(&path, b"not a store").unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.set_aside(), Some(&*dir.path().join("metadata.redb.damaged-1")));
    put(&store, "a", "1").unwrap();
    drop(store);
    assert_eq!(Store::open(&path).unwrap().set_aside(), None);
}

/// A file that redb had begun to make when the power went has its length, and no content.
#[test]
fn a_file_cut_off_while_it_was_made_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.redb");
    let names = || {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    std::fs::write(dir.path().join("metadata.redb.new"), [0; 4096]).unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.set_aside(), None);
    assert_eq!(names(), ["metadata.redb", "metadata.redb.reserve"]);
    put(&store, "a", "1").unwrap();
    drop(store);
    assert_eq!(keys(&Store::open(&path).unwrap()), ["a"]);
}

/// Flips bytes all over a small store: opening never fails, and never shows a wrong value.
#[test]
fn flipped_bytes_never_stop_the_store_nor_change_a_value() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let store = Store::open(&path).unwrap();
    for number in 0..20 {
        put(&store, &format!("key-{number}"), &format!("value-{number}")).unwrap();
    }
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    for (case, at) in used.iter().step_by(used.len() / 40 + 1).enumerate() {
        let place = dir.path().join(format!("case-{case}"));
        let mut bad = good.clone();
        bad[*at] ^= 0x11;
        std::fs::write(&place, &bad).unwrap();
        let store = Store::open(&place).unwrap();
        store.adopt(NAMES).unwrap();
        for (key, value) in store.scan(NAMES).unwrap() {
            assert_eq!(value.replace("value", "key"), key, "byte {at}");
        }
        put(&store, "still", "works").unwrap();
    }
}

#[test]
fn a_second_daemon_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let _first = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Locked { .. })));
}

fn to_two(txn: &mut WriteTxn<'_>) -> Result<(), StoreError> {
    NAMES.put(txn, "migrated", &"yes".to_owned())
}

#[test]
fn migrations_run_once_after_a_backup_and_newer_stores_are_left_alone() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let counted: &[metadata::Migration] = &[|txn| {
        RUNS.fetch_add(1, Ordering::Relaxed);
        to_two(txn)
    }];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    put(&Store::open(&path).unwrap(), "old", "1").unwrap();
    for _ in 0..2 {
        let store = Store::open_schema(&path, Schema { migrations: counted }).unwrap();
        assert_eq!(keys(&store), ["migrated", "old"]);
    }
    assert_eq!(RUNS.load(Ordering::Relaxed), 1);
    assert!(Path::new(&format!("{}.schema-1", path.display())).exists());
    let refused = Store::open(&path);
    assert!(matches!(refused, Err(StoreError::Newer { found: 2, known: 1, .. })));
}
