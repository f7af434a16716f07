//! Each guard of the sled disk, shown to hold on real directories.
//! It must never know a path outside its own temporary directories.

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use super::super::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use super::engine::snapshots;
use super::*;

mod compaction;
mod salvage;

thread_local! {
    /// Every path that `sync_path` made durable on this thread.
    pub(super) static SYNCED: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
    /// The step of a compaction at which this thread crashes.
    static CRASH_AT: Cell<Option<&'static str>> = const { Cell::new(None) };
    /// What happens once at a step on this thread.
    static DO_AT: RefCell<Option<(&'static str, Act)>> = const { RefCell::new(None) };
}

type Act = Box<dyn FnOnce()>;

/// Unwinds past everything, as a crash would stop it, or acts, where a test asked for it.
pub(super) fn stop_here(step: &str) {
    let due = DO_AT.with_borrow_mut(|at| at.take_if(|(at, _)| *at == step));
    if let Some((_, act)) = due {
        act();
    }
    if CRASH_AT.get() == Some(step) {
        std::panic::resume_unwind(Box::new(step.to_owned()));
    }
}

fn open(dir: &Path) -> SledDisk {
    SledDisk::open_with_cache(dir, OpenMode::Create, 1 << 20).unwrap()
}

fn refusal(dir: &Path, mode: OpenMode) -> OpenError {
    match SledDisk::open(dir, mode) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

fn put(disk: &mut SledDisk, key: &[u8], value: &[u8]) -> Result<(), DiskError> {
    let mut batch = Batch::default();
    batch.put(key, value);
    disk.commit(&batch)
}

/// A closed store with the durable rows 0..100, each holding its own number.
fn hundred_rows() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = open(dir.path());
    for row in 0..100_u8 {
        put(&mut disk, &[row], &[row]).unwrap();
    }
    disk.flush().unwrap();
    dir
}

fn keys(disk: &SledDisk, prefix: &[u8], after: Option<&[u8]>) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut visit = |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        std::ops::ControlFlow::Continue(())
    };
    disk.scan(prefix, after, &mut visit).unwrap();
    keys
}

fn assert_hundred_rows(disk: &SledDisk) {
    assert!(keys(disk, &[], None).iter().map(Vec::as_slice).eq((0..100_u8).map(|row| [row])));
    for row in 0..100_u8 {
        assert_eq!(disk.get(&[row]).unwrap().as_deref(), Some(&[row][..]));
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

#[test]
fn flushed_rows_survive_a_reopen_and_are_scanned_in_order() {
    let dir = hundred_rows();
    let mut disk = open(dir.path());
    assert_hundred_rows(&disk);
    assert!(disk.bytes_on_disk() > 0);
    put(&mut disk, &[7, 1], b"x").unwrap();
    put(&mut disk, &[7, 2], b"x").unwrap();
    assert_eq!(keys(&disk, &[7], Some(&[7])), [[7, 1], [7, 2]]);
    assert_eq!(keys(&disk, &[7], Some(&[7, 1])), [[7, 2]]);
    let mut batch = Batch::default();
    batch.delete([7]);
    disk.commit(&batch).unwrap();
    assert_eq!(keys(&disk, &[7], Some(&[3])), [[7, 1], [7, 2]]);
}

#[test]
fn what_the_files_take_is_known_without_listing_them() {
    let dir = hundred_rows();
    drop(open(dir.path()));
    let mut disk = open(dir.path());
    let (here, away) = (dir.path().join("gen-1"), dir.path().join("away"));
    for round in 0..20_u8 {
        for row in 0..100_u8 {
            put(&mut disk, &[row], &[round; VALUE_BYTES_MAX]).unwrap();
        }
        disk.flush().unwrap();
    }
    let lengths = names(&here).into_iter().map(|name| fs::metadata(here.join(name)).unwrap());
    let listed: u64 = lengths.filter(fs::Metadata::is_file).map(|file| file.len()).sum();
    assert!(listed > 1 << 20, "{listed}");
    fs::rename(&here, &away).unwrap();
    let known = disk.bytes_on_disk();
    fs::rename(&away, &here).unwrap();
    assert_eq!(known, listed);
}

#[test]
fn creation_syncs_the_engine_files_and_every_directory_up_to_the_parent() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("a").join("b");
    SYNCED.take();
    drop(open(&dir));
    let synced = SYNCED.take();
    let files = ["", "gen-1", "gen-1/conf", "gen-1/db", "gen-1/blobs", "..", "../.."];
    for expected in files.map(|name| dir.join(name)) {
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let is_synced = synced.iter().any(|path| inode(path) == inode(&expected));
        assert!(is_synced, "{} was not synced", expected.display());
    }
}

#[test]
fn every_flush_syncs_the_database_file_itself_and_its_failure_hides_what_was_not_synced() {
    let dir = hundred_rows();
    let mut disk = open(dir.path());
    let path = dir.path().join("gen-1/db");
    assert_eq!(
        disk.engine().unwrap().db_file.metadata().unwrap().ino(),
        fs::metadata(path).unwrap().ino()
    );
    // The null device refuses to sync: the same error path as a failing disk.
    disk.engine.as_mut().unwrap().db_file = File::open("/dev/null").unwrap();
    put(&mut disk, &[1], b"new").unwrap();
    put(&mut disk, &[1], b"newer").unwrap();
    put(&mut disk, &[200], b"new").unwrap();
    let mut batch = Batch::default();
    batch.delete([2]);
    disk.commit(&batch).unwrap();
    assert_eq!(disk.get(&[1]).unwrap().as_deref(), Some(&b"newer"[..]));
    assert!(matches!(disk.flush(), Err(DiskError::Io { what: "sync", .. })));
    assert_hundred_rows(&disk);
    assert!(matches!(put(&mut disk, &[3], b"new"), Err(DiskError::Poisoned)));
    assert!(matches!(disk.flush(), Err(DiskError::Poisoned)));
    assert_hundred_rows(&disk);
}

/// Run again by itself under a file size limit, in the directory that `FULL_DIR` names.
#[test]
fn a_full_disk_loses_no_acknowledged_row_and_shows_no_other() {
    let outer = tempfile::tempdir().unwrap();
    let Ok(dir) = std::env::var("FULL_DIR") else {
        let script = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" --exact \"$1\" --nocapture";
        let this_test = thread::current().name().unwrap().to_owned();
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .arg(this_test)
            .env("FULL_DIR", outer.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let acked = text.split("acked ").nth(1).and_then(|rest| rest.split('.').next());
        let acked: u32 = acked.unwrap().parse().unwrap();
        let disk = open(outer.path());
        let rows = u32::try_from(keys(&disk, b"row", None).len()).unwrap();
        assert!(rows >= acked && acked > 0);
        assert_eq!(disk.get(b"last").unwrap().unwrap(), rows.to_be_bytes(), "torn batch");
        return;
    };
    let mut disk = open(Path::new(&dir));
    let (mut acked, mut committed) = (0_u32, 0_u32);
    loop {
        let mut batch = Batch::default();
        batch.put(*b"last", (committed + 1).to_be_bytes());
        batch.put(format!("row{committed:08}"), vec![7; VALUE_BYTES_MAX]);
        committed += 1;
        let mut outcome = disk.commit(&batch);
        // Eight commits a flush, so that some are in memory only when the disk is full.
        if outcome.is_ok() && committed % 8 == 0 {
            outcome = disk.flush();
            acked = if outcome.is_ok() { committed } else { acked };
        }
        if outcome.is_err() {
            break;
        }
    }
    assert_eq!(disk.get(b"last").unwrap().unwrap(), acked.to_be_bytes());
    assert!(disk.get(b"row00000000").unwrap().is_some());
    for row in 0..committed {
        // A row may be refused, because its page waits to be split; it may never be wrong.
        let found = disk.get(format!("row{row:08}").as_bytes());
        assert!(found.is_err() || found.unwrap().is_some() == (row < acked));
    }
    let mut seen = 0;
    let scan = disk.scan(b"row", None, &mut |_, _| {
        seen += 1;
        std::ops::ControlFlow::Continue(())
    });
    assert!(seen == acked || scan.is_err() && seen < acked);
    assert!(matches!(disk.flush(), Err(DiskError::Poisoned)));
    println!("acked {acked}.");
}

#[test]
fn the_largest_rows_leave_the_blob_directory_empty_and_larger_ones_are_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = open(dir.path());
    for chunk in 0..64_u32 {
        let mut batch = Batch::default();
        for row in 0..100_u32 {
            let name = blake3::hash(&(chunk * 100 + row).to_be_bytes());
            let mut key = vec![0; KEY_BYTES_MAX];
            name.as_bytes().iter().cycle().zip(&mut key).for_each(|(byte, to)| *to = *byte);
            batch.put(key, vec![1; if chunk < 8 { VALUE_BYTES_MAX } else { 1 }]);
        }
        disk.commit(&batch).unwrap();
    }
    disk.flush().unwrap();
    assert_eq!(names(&dir.path().join("gen-1/blobs")), [""; 0]);
    let mut batch = Batch::default();
    batch.put(*b"a", *b"1");
    batch.put(*b"b", vec![1; VALUE_BYTES_MAX + 1]);
    assert!(matches!(disk.commit(&batch), Err(DiskError::ValueTooLarge { .. })));
    assert_eq!(disk.get(b"a").unwrap(), None);
    put(&mut disk, b"a", b"1").unwrap();
}

#[test]
fn an_unfinished_snapshot_does_not_block_opening() {
    let dir = hundred_rows();
    drop(open(dir.path()));
    let leftover = dir.path().join("gen-1/snap.0000000000000001.generating");
    fs::write(&leftover, b"").unwrap();
    assert_hundred_rows(&open(dir.path()));
    assert!(!leftover.exists());
}

#[test]
fn a_damaged_snapshot_is_set_aside_and_loses_nothing() {
    let dir = hundred_rows();
    drop(open(dir.path()));
    let generation = dir.path().join("gen-1");
    let damaged = snapshots(&generation).unwrap();
    assert!(!damaged.is_empty());
    for file in &damaged {
        fs::write(file, b"short").unwrap();
    }
    assert_hundred_rows(&open(dir.path()));
    assert!(names(&generation).iter().any(|name| name.starts_with("aside.snap.")));
}

#[test]
fn a_second_open_is_refused_and_names_the_holder() {
    let dir = hundred_rows();
    let _first = open(dir.path());
    let error = refusal(dir.path(), OpenMode::Create);
    let me = std::process::id();
    assert!(matches!(error, OpenError::Locked { holder: Some(pid), .. } if pid == me));
    assert!(error.to_string().contains(&format!("process {me}")));
}

#[test]
fn a_store_of_another_format_or_engine_is_refused_and_left_untouched() {
    for lines in ["format 2\nengine sled-0.34", "format 1\nengine other-9"] {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("consilience-store\n{lines}\ninstance 1:1\n").repeat(2);
        fs::write(dir.path().join("FORMAT"), &text).unwrap();
        let error = refusal(dir.path(), OpenMode::Create);
        assert!(matches!(error, OpenError::OtherFormat { .. }), "{error}");
        assert_eq!(names(dir.path()), ["FORMAT"]);
        assert_eq!(fs::read_to_string(dir.path().join("FORMAT")).unwrap(), text);
    }
}

#[test]
fn a_directory_of_something_else_is_refused_and_left_untouched() {
    for (name, bytes) in [("notes", &b""[..]), ("FORMAT", b"mine\n"), ("FORMAT", b"\xff")] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), bytes).unwrap();
        let error = refusal(dir.path(), OpenMode::Create);
        assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
        assert_eq!(names(dir.path()), [name]);
    }
}

#[test]
fn without_leave_to_create_nothing_is_made() {
    let outer = tempfile::tempdir().unwrap();
    for dir in [outer.path().join("missing"), outer.path().to_owned()] {
        let error = refusal(&dir, OpenMode::MustExist);
        assert!(matches!(error, OpenError::NoStore { .. }), "{error}");
    }
    assert_eq!(names(outer.path()), [""; 0]);
}

#[test]
fn a_creation_cut_short_at_any_file_is_completed() {
    for (made, conf) in [(1, None), (2, None), (3, None), (3, Some("segment_size: 1\n"))] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("LOCK"), b"").unwrap();
        if made > 1 {
            fs::create_dir(dir.path().join("gen-1")).unwrap();
        }
        if made > 2 {
            fs::write(dir.path().join("CURRENT.new"), b"ge").unwrap();
            fs::write(dir.path().join("FORMAT.new"), b"cons").unwrap();
        }
        if let Some(torn) = conf {
            fs::write(dir.path().join("gen-1/conf"), torn).unwrap();
        }
        put(&mut open(dir.path()), b"a", b"1").unwrap();
        assert!(SledDisk::open(dir.path(), OpenMode::MustExist).is_ok());
        assert_eq!(dir.path().join("gen-1.aside").exists(), conf.is_some());
    }
}

#[test]
fn a_store_that_lost_its_database_is_damaged_and_not_empty() {
    for lost in ["CURRENT", "gen-1/db"] {
        let dir = hundred_rows();
        fs::remove_file(dir.path().join(lost)).unwrap();
        let error = refusal(dir.path(), OpenMode::Create);
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
}

#[test]
fn a_copied_store_is_noticed_until_its_first_flush_and_a_moved_one_never() {
    let outer = tempfile::tempdir().unwrap();
    let (here, moved) = (outer.path().join("here"), outer.path().join("moved"));
    assert!(!open(&here).was_copied());
    fs::rename(&here, &moved).unwrap();
    assert!(!open(&moved).was_copied());
    copy(&moved, &here);
    assert!(open(&here).was_copied());
    let mut again = open(&here);
    assert!(again.was_copied(), "nothing was flushed, so the copy is still unsettled");
    again.flush().unwrap();
    assert!(again.was_copied());
    drop(again);
    assert!(!open(&here).was_copied());
}

#[test]
fn a_panic_of_the_engine_becomes_an_error() {
    let outcome = guarded("read", || -> sled::Result<()> { panic!("broken {}", "page") });
    let error = outcome.unwrap_err();
    assert!(matches!(&error, DiskError::Panicked { detail, .. } if detail == "broken page"));
}
