//! Compaction and the count of live bytes, shown to lose nothing wherever they are cut short.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::super::{RowSum, Rows};
use super::super::compaction::{check_copy, open_copy};
use super::*;

fn rows_of(disk: &SledDisk) -> Rows {
    let mut sum = RowSum::default();
    disk.scan(&[], None, &mut |key, value| {
        sum.add(key, value);
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    sum.rows()
}

fn compact(disk: &mut SledDisk) -> Compacted {
    let prepared = disk.prepare_compaction().unwrap();
    assert_eq!(prepared.rows, rows_of(disk));
    disk.finish_compaction(prepared).unwrap()
}

/// A pseudo-random number; the same sequence for the same seed.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    *state >> 33
}

/// Keys as the tables make them, and the length of each value: a register of 0.3 to 0.8 KiB, a
/// content of 3.1 KiB and a digest of 49 bytes for each of `patterns`.
fn table_rows(patterns: u64) -> Vec<(Vec<u8>, usize)> {
    let mut state = 7;
    let mut rows = Vec::new();
    for pattern in 0..patterns {
        let hash = blake3::hash(&pattern.to_be_bytes());
        let key = |family: u8, bytes: usize| {
            [&[family, 0, 0, 0, 1], &hash.as_bytes()[..bytes], &[0, 0]].concat()
        };
        let register = 300 + usize::try_from(draw(&mut state) % 500).unwrap();
        rows.extend([(key(b'r', 16), register), (key(b'b', 32), 3_100), (key(b'd', 16), 49)]);
    }
    rows
}

/// Writes every row once more, in random order, a hundred patterns to a batch.
fn overwrite(disk: &mut SledDisk, rows: &[(Vec<u8>, usize)], state: &mut u64) {
    let mut order: Vec<usize> = (0..rows.len() / 3).collect();
    for last in (1..order.len()).rev() {
        let other = usize::try_from(draw(state)).unwrap() % (last + 1);
        order.swap(last, other);
    }
    for group in order.chunks(100) {
        let mut batch = Batch::default();
        for (key, bytes) in group.iter().flat_map(|pattern| &rows[3 * pattern..3 * pattern + 3]) {
            let mut value = vec![0; *bytes];
            for part in value.chunks_mut(4) {
                part.copy_from_slice(&draw(state).to_le_bytes()[..part.len()]);
            }
            batch.put(key.as_slice(), value);
        }
        disk.commit(&batch).unwrap();
        disk.flush().unwrap();
    }
}

/// In hundredths, so that it can be printed and compared without floating point.
fn ratio_percent(disk: &SledDisk) -> u64 {
    disk.bytes_on_disk() * 100 / disk.bytes_live()
}

#[test]
fn ten_overwrites_take_at_most_four_times_the_live_bytes_and_a_compaction_at_most_1_6_times() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = open(dir.path());
    // 15 MB: with half of it, whole segments and the timing of the engine's housekeeping show.
    let rows = table_rows(4_000);
    let mut state = 1;
    for _ in 0..=10 {
        overwrite(&mut disk, &rows, &mut state);
    }
    let before = ratio_percent(&disk);
    println!("after ten overwrites: {before} %");
    assert!(before <= 400, "{before} %");
    let held = rows_of(&disk);
    compact(&mut disk);
    let dense = ratio_percent(&disk);
    drop(disk);
    let disk = open(dir.path());
    let reopened = ratio_percent(&disk);
    println!("after a compaction: {dense} %, reopened: {reopened} %");
    assert!(dense <= 160 && reopened <= 160, "{dense} % and {reopened} %");
    assert_eq!(rows_of(&disk), held);
}

#[test]
fn a_compacted_store_holds_the_same_rows_and_goes_on() {
    let dir = hundred_rows();
    let mut disk = open(dir.path());
    for generation in 2..5 {
        let compacted = compact(&mut disk);
        assert_eq!(compacted.rows, 100);
        assert_hundred_rows(&disk);
        assert_eq!(disk.home.generations().unwrap(), [generation]);
        put(&mut disk, &[7], b"other").unwrap();
        put(&mut disk, &[7], &[7]).unwrap();
        disk.flush().unwrap();
        drop(disk);
        disk = open(dir.path());
        assert_hundred_rows(&disk);
    }
}

#[test]
fn a_copy_is_synced_like_a_new_store_before_it_is_moved_to() {
    let dir = hundred_rows();
    let disk = open(dir.path());
    SYNCED.take();
    disk.prepare_compaction().unwrap();
    let synced = SYNCED.take();
    for name in ["", "gen-2", "gen-2/conf", "gen-2/db", "gen-2/blobs"] {
        let expected = fs::metadata(dir.path().join(name)).unwrap().ino();
        let is_synced = synced.iter().any(|path| fs::metadata(path).unwrap().ino() == expected);
        assert!(is_synced, "{name} was not synced");
    }
}

#[test]
fn a_compaction_is_refused_while_rows_wait_for_a_flush_or_came_since() {
    let dir = hundred_rows();
    let mut disk = open(dir.path());
    let early = disk.prepare_compaction().unwrap();
    put(&mut disk, &[200], b"new").unwrap();
    assert!(matches!(disk.prepare_compaction(), Err(DiskError::Outrun)));
    disk.flush().unwrap();
    assert!(matches!(disk.finish_compaction(early.clone()), Err(DiskError::Outrun)));
    assert_eq!(disk.home.generations().unwrap(), [1]);
    compact(&mut disk);
    assert!(matches!(disk.finish_compaction(early), Err(DiskError::Outrun)));
    assert_eq!(disk.get(&[200]).unwrap().as_deref(), Some(&b"new"[..]));
    put(&mut disk, &[201], b"newer").unwrap();
    disk.flush().unwrap();
}

#[test]
fn a_compaction_cut_short_at_any_step_loses_no_row_and_leaves_one_generation() {
    let steps = [
        "after the copy",
        "after the sync",
        "CURRENT.new",
        "before the deletion",
        "after the switch",
    ];
    for step in steps {
        let dir = hundred_rows();
        let mut disk = open(dir.path());
        CRASH_AT.set(Some(step));
        let crash = catch_unwind(AssertUnwindSafe(|| {
            let prepared = disk.prepare_compaction().unwrap();
            disk.finish_compaction(prepared).unwrap();
        }));
        CRASH_AT.set(None);
        assert!(crash.is_err(), "{step} was not reached");
        drop(disk);
        let left = names(dir.path());
        let both = left.contains(&"gen-1".to_owned()) && left.contains(&"gen-2".to_owned());
        assert_eq!(both, step != "after the switch", "{step}: {left:?}");
        assert_eq!(left.contains(&"CURRENT.new".to_owned()), step == "CURRENT.new");
        let mut disk = open(dir.path());
        assert_hundred_rows(&disk);
        assert_eq!(disk.home.generations().unwrap().len(), 1, "{step}");
        compact(&mut disk);
        assert_hundred_rows(&disk);
    }
}

#[test]
fn half_a_copy_is_swept_away_at_the_next_open_and_what_was_set_aside_is_not() {
    let dir = hundred_rows();
    for name in ["gen-2", "gen-17", "gen-1.aside", "damaged-1", "gen-007"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("db"), b"half").unwrap();
    }
    assert_hundred_rows(&open(dir.path()));
    let kept =
        names(dir.path()).into_iter().filter(|name| name.contains('-') || name.contains('.'));
    assert_eq!(kept.collect::<Vec<_>>(), ["damaged-1", "gen-007", "gen-1", "gen-1.aside"]);
}

#[test]
fn a_failed_copy_leaves_a_healthy_store() {
    let dir = hundred_rows();
    let mut disk = open(dir.path());
    // A file where the copy's directory belongs: it can be neither made nor deleted as one.
    fs::write(dir.path().join("gen-2"), b"").unwrap();
    assert!(matches!(
        disk.prepare_compaction(),
        Err(DiskError::Io { .. } | DiskError::Damaged { .. })
    ));
    assert_eq!(disk.failure(), None);
    put(&mut disk, &[200], b"new").unwrap();
    disk.flush().unwrap();
    // And a copy that can no longer be opened when it is to be moved to.
    fs::remove_file(dir.path().join("gen-2")).unwrap();
    let prepared = disk.prepare_compaction().unwrap();
    fs::write(dir.path().join("gen-2/db"), b"torn").unwrap();
    fs::write(dir.path().join("gen-2/conf"), b"torn").unwrap();
    assert!(disk.finish_compaction(prepared).is_err());
    assert_eq!((disk.failure(), disk.home.generations().unwrap()), (None, vec![1]));
    put(&mut disk, &[201], b"newer").unwrap();
    disk.flush().unwrap();
    drop(disk);
    assert_eq!(keys(&open(dir.path()), &[200], None).len(), 1);
}

#[test]
fn a_copy_that_might_not_fit_is_refused_and_leaves_a_healthy_store() {
    let dir = hundred_rows();
    let mut disk = open(dir.path());
    let counted = disk.bytes_live;
    // It fits as it is; with what it may take while it is made, it does not.
    disk.bytes_live = fs4::available_space(dir.path()).unwrap() / 10 * 9;
    for _ in 0..2 {
        let refused = disk.prepare_compaction();
        let kind = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
        assert!(matches!(&refused, Err(DiskError::Io { source, .. }) if kind(source)));
        assert_eq!((disk.failure(), disk.home.generations().unwrap()), (None, vec![1]));
    }
    disk.bytes_live = counted;
    put(&mut disk, &[200], b"new").unwrap();
    disk.flush().unwrap();
    compact(&mut disk);
    assert_eq!(disk.get(&[200]).unwrap().as_deref(), Some(&b"new"[..]));
}

#[test]
fn a_damaged_copy_is_never_moved_to() {
    let dir = hundred_rows();
    let disk = open(dir.path());
    let path = dir.path().join("gen-2");
    fs::create_dir(&path).unwrap();
    let rows = disk.copy_rows(&path).unwrap();
    {
        let copy = open_copy(&disk.home, &path).unwrap();
        copy.db().insert([7], b"wrong").unwrap();
    }
    let checked = check_copy(&disk.home, &path, rows);
    assert!(matches!(checked, Err(DiskError::Damaged { .. })));
}

#[test]
fn live_bytes_are_exact_through_overwrites_deletions_failures_and_reopens() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = open(dir.path());
    let mut state = 3;
    for round in 0..60_u32 {
        let mut batch = Batch::default();
        for _ in 0..20 {
            let key = [draw(&mut state).to_le_bytes()[0] % 64];
            match draw(&mut state) % 3 {
                0 => batch.delete(key),
                _ => batch.put(key, vec![1; usize::try_from(draw(&mut state) % 500).unwrap()]),
            }
        }
        disk.commit(&batch).unwrap();
        assert_eq!(disk.bytes_live(), rows_of(&disk).bytes);
        if round % 2 == 0 {
            disk.flush().unwrap();
        }
        if round % 20 == 0 {
            drop(disk);
            disk = open(dir.path());
            assert_eq!(disk.bytes_live(), rows_of(&disk).bytes);
        }
    }
    disk.flush().unwrap();
    let durable = disk.bytes_live();
    put(&mut disk, b"more", b"more").unwrap();
    disk.engine.as_mut().unwrap().db_file = File::open("/dev/null").unwrap();
    assert!(disk.flush().is_err());
    assert_eq!((disk.bytes_live(), rows_of(&disk).bytes), (durable, durable));
}

#[test]
fn a_store_of_a_release_without_the_count_is_counted_once() {
    let dir = hundred_rows();
    let disk = open(dir.path());
    let counted = disk.bytes_live();
    assert_eq!(counted, 200);
    for (key, _) in live::hidden_rows(0) {
        disk.engine().unwrap().db().remove(key).unwrap();
    }
    drop(disk);
    for _ in 0..2 {
        let disk = open(dir.path());
        assert_eq!(disk.bytes_live(), counted);
        assert_eq!(live::read(disk.engine().unwrap()).unwrap(), Some(counted));
    }
}

#[test]
fn the_rows_of_the_disk_itself_are_neither_seen_nor_written() {
    let dir = hundred_rows();
    let mut disk = open(dir.path());
    assert_eq!(disk.get(RESERVED).unwrap(), None);
    assert_eq!(keys(&disk, RESERVED, None), [[0_u8; 0]; 0]);
    assert!(matches!(put(&mut disk, b"\0disk", b"1"), Err(DiskError::KeyReserved)));
    assert!(matches!(put(&mut disk, b"\0disk more", b"1"), Err(DiskError::KeyReserved)));
    assert_hundred_rows(&disk);
}
