//! Salvage: whatever page, file or moment is hit, no readable row is lost and no damaged file.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Rows with keys of several families and lengths, the longest beyond those of the tables, whose
/// values occur nowhere else in the files.
fn some_rows(count: u32) -> Rows {
    let mut rows = Rows::new();
    for number in 0..count {
        let hash = blake3::hash(&number.to_be_bytes());
        let key = match number % 3 {
            0 => [&b"b\0\0\0\x01"[..], hash.as_bytes(), &[0, 0]].concat(),
            1 => [&b"r\0\0\0\x01"[..], &hash.as_bytes()[..16], &number.to_be_bytes()].concat(),
            // Only the last bytes tell these apart.
            _ => [&[b'x'; 120][..], &number.to_be_bytes()].concat(),
        };
        rows.insert(key, hash.as_bytes().repeat(8));
    }
    rows
}

/// A closed store of these rows, compacted, and of so many bytes after them that they are not in
/// the last segment: the engine reads that anew whenever it opens, and goes no further than the
/// first damage.
fn stored(rows: &mut Rows) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = open(dir.path());
    let mut batch = Batch::default();
    rows.iter().for_each(|(key, value)| batch.put(key.as_slice(), value.as_slice()));
    disk.commit(&batch).unwrap();
    disk.flush().unwrap();
    let prepared = disk.prepare_compaction().unwrap();
    disk.finish_compaction(prepared).unwrap();
    drop(disk);
    // Without the engine's background thread, which may move pages to the end.
    let home = Home { dir: dir.path().to_owned() };
    let open = || Engine::open(&home, &home.path_of(2), 1 << 20, Use::Reading).unwrap();
    let engine = open();
    for number in 0..400_u32 {
        let hash = blake3::hash(&[&number.to_be_bytes()[..], b"filler"].concat());
        let (key, value) = (format!("z{number:04}").into_bytes(), hash.as_bytes().repeat(128));
        engine.db().insert(&key, value.as_slice()).unwrap();
        rows.insert(key, value);
    }
    live::set(&engine, rows.iter().map(|(key, row)| row_bytes(key, row)).sum()).unwrap();
    drop(engine);
    (0..2).for_each(|_| drop(open()));
    // The engine lets go a while after its handle does, and may write until then.
    let db = File::open(home.path_of(2).join("db")).unwrap();
    fs4::FileExt::lock(&db).unwrap();
    dir
}

/// Spoils every place of a file where the value of one of these rows stands.
fn spoil<'v>(db: &Path, values: impl Iterator<Item = &'v Vec<u8>>) {
    let mut bytes = fs::read(db).unwrap();
    for value in values {
        let found: Vec<usize> = bytes
            .windows(value.len())
            .enumerate()
            .filter(|(_, at)| at == value)
            .map(|(at, _)| at)
            .collect();
        assert!(!found.is_empty(), "a value is not in the file");
        found.into_iter().for_each(|at| bytes[at + 3] ^= 0x10);
    }
    fs::write(db, bytes).unwrap();
}

/// The rows that the engine gives one by one, whatever pages lie between them.
fn one_by_one(dir: &Path, rows: &Rows) -> Rows {
    let home = Home { dir: dir.to_owned() };
    let engine = Engine::open(&home, &home.generation().unwrap(), 1 << 20, Use::Reading).unwrap();
    let read = |key: &Vec<u8>| guarded("read", || engine.db().get(key)).ok().flatten().is_some();
    rows.iter().filter(|(key, _)| read(key)).map(|(key, row)| (key.clone(), row.clone())).collect()
}

fn rows_in(dir: &Path) -> Rows {
    let disk = open(dir);
    let mut rows = Rows::new();
    disk.scan(&[], None, &mut |key, value| {
        rows.insert(key.to_vec(), value.to_vec());
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(disk.bytes_live(), rows.iter().map(|(key, row)| row_bytes(key, row)).sum::<u64>());
    rows
}

fn salvage(dir: &Path) -> Salvage {
    SledDisk::salvage(dir, 1 << 20).unwrap()
}

#[test]
fn every_row_outside_the_damaged_pages_survives_and_the_gaps_are_named() {
    let mut rows = some_rows(1_500);
    let whole = stored(&mut rows);
    let values: Vec<&Vec<u8>> = rows.values().collect();
    // One page; the first and the last; some with whole pages between; many; a third of all.
    let cases: [Vec<usize>; 5] = [
        vec![700],
        vec![0, 1_499],
        vec![300, 335, 370, 520, 760, 790, 1_010, 1_050, 1_300],
        (0..20).map(|n| n * 70 + 7).collect(),
        (400..900).step_by(45).collect(),
    ];
    for damaged in cases {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("store");
        copy(whole.path(), &dir);
        spoil(&dir.join("gen-2/db"), damaged.iter().map(|at| values[*at]));
        let readable = one_by_one(&dir, &rows);
        let lost = rows.len() - readable.len();
        assert!(lost >= damaged.len() && lost <= damaged.len() * 20, "{lost} of {damaged:?}");
        let done = salvage(&dir);
        let found = rows_in(&dir);
        let skipped = readable.keys().filter(|key| !found.contains_key(*key)).count();
        println!("{} pages spoiled: {lost} rows lost, {skipped} of the others", damaged.len());
        assert!(found == readable, "{skipped} readable rows were skipped over");
        assert_eq!(done.rows, readable.len() as u64);
        for key in rows.keys() {
            let is_in = |(from, until): &&(Vec<u8>, Vec<u8>)| from <= key && key < until;
            let gaps = done.lost.iter().filter(is_in).count();
            assert_eq!(gaps, usize::from(!readable.contains_key(key)), "{key:?} in {gaps} gaps");
        }
        assert_eq!(names(&dir).iter().filter(|name| name.contains('-')).count(), 2);
        assert!(dir.join("gen-3/db").is_file() && dir.join("damaged-2/db").is_file());
    }
}

#[test]
fn a_sound_store_is_not_touched() {
    let dir = hundred_rows();
    drop(open(dir.path()));
    assert_eq!(salvage(dir.path()), Salvage { rows: 100, ..Salvage::default() });
    assert_hundred_rows(&open(dir.path()));
    assert!(dir.path().join("gen-1").exists() && !dir.path().join("damaged-1").exists());
}

#[test]
fn files_the_engine_cannot_open_or_that_are_gone_leave_an_empty_store_and_are_kept() {
    for (file, bytes) in [("db", &b""[..]), ("conf", b"segment_size: 1\n")] {
        let dir = hundred_rows();
        drop(open(dir.path()));
        fs::write(dir.path().join("gen-1").join(file), bytes).unwrap();
        let done = salvage(dir.path());
        assert_eq!(done.lost, []);
        let disk = open(dir.path());
        if file == "conf" {
            // It is derived: the rows are all there.
            assert_hundred_rows(&disk);
        } else {
            assert_eq!(keys(&disk, &[], None), [[0; 0]; 0]);
            assert!(dir.path().join("damaged-1/db").exists(), "{done:?}");
        }
    }
    let dir = hundred_rows();
    fs::remove_dir_all(dir.path().join("gen-1")).unwrap();
    salvage(dir.path());
    assert_eq!(keys(&open(dir.path()), &[], None), [[0; 0]; 0]);
}

/// A second generation of some of the rows only, as a compaction that is cut short leaves it.
fn half_a_copy(dir: &Path, generation: u64) {
    let home = Home { dir: dir.to_owned() };
    let path = home.path_of(generation);
    fs::create_dir(&path).unwrap();
    let engine = Engine::open(&home, &path, 1 << 20, Use::Writing).unwrap();
    super::super::compaction::write_densely(&engine, &live::hidden_rows(0)).unwrap();
    super::super::compaction::write_densely(&engine, &[(vec![7], vec![7])]).unwrap();
}

#[test]
fn without_current_a_half_made_copy_is_not_taken_for_the_store() {
    let dir = hundred_rows();
    half_a_copy(dir.path(), 2);
    fs::write(dir.path().join("CURRENT"), b"").unwrap();
    let done = salvage(dir.path());
    assert_eq!((done.rows, done.mended.len()), (100, 1), "{done:?}");
    assert_hundred_rows(&open(dir.path()));
    // Nor beside a store that was moved to, nor is the generation from before the move.
    let mut disk = open(dir.path());
    let old = dir.path().join("old");
    copy(&dir.path().join("gen-1"), &old);
    let prepared = disk.prepare_compaction().unwrap();
    disk.finish_compaction(prepared).unwrap();
    put(&mut disk, &[200], b"since").unwrap();
    disk.flush().unwrap();
    drop(disk);
    fs::rename(&old, dir.path().join("gen-1")).unwrap();
    half_a_copy(dir.path(), 3);
    fs::remove_file(dir.path().join("CURRENT")).unwrap();
    salvage(dir.path());
    assert_eq!(open(dir.path()).get(&[200]).unwrap().as_deref(), Some(&b"since"[..]));
}

#[test]
fn no_flipped_bit_of_current_puts_another_generation_in_use() {
    let dir = hundred_rows();
    let current = dir.path().join("CURRENT");
    let bytes = fs::read(&current).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&current, flipped).unwrap();
        let home = Home { dir: dir.path().to_owned() };
        assert!(home.current().is_err(), "bit {bit}");
    }
}

#[test]
fn a_salvage_cut_short_keeps_the_damaged_files_and_can_be_repeated() {
    let mut rows = some_rows(1_500);
    let whole = stored(&mut rows);
    for step in ["after the copy of a salvage", "CURRENT.new", "after the move of a salvage"] {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("store");
        copy(whole.path(), &dir);
        spoil(&dir.join("gen-2/db"), rows.values().skip(700).take(1));
        let readable = one_by_one(&dir, &rows);
        CRASH_AT.set(Some(step));
        let crash = catch_unwind(AssertUnwindSafe(|| salvage(&dir)));
        CRASH_AT.set(None);
        assert!(crash.is_err(), "{step} was not reached");
        // Whoever comes first: the next open, which may be refused, or a repetition.
        drop(SledDisk::open(&dir, OpenMode::MustExist));
        salvage(&dir);
        assert!(rows_in(&dir) == readable, "{step}");
        let kept = names(&dir).into_iter().filter(|name| name.contains('-')).collect::<Vec<_>>();
        assert_eq!(kept.len(), 2, "{step}: {kept:?}");
        let damaged = fs::read(dir.join("damaged-2/db")).unwrap();
        assert!(damaged.len() > 10_000, "{step}");
    }
}

#[test]
fn a_salvaged_copy_that_reads_otherwise_than_it_was_written_is_never_moved_to() {
    let mut rows = some_rows(1_500);
    let dir = stored(&mut rows);
    spoil(&dir.path().join("gen-2/db"), rows.values().skip(700).take(1));
    let readable = one_by_one(dir.path(), &rows);
    let copied = dir.path().join("gen-3/db");
    let survivor = readable.values().next().unwrap().clone();
    DO_AT.set(Some((
        "after the copy of a salvage",
        Box::new(move || spoil(&copied, std::iter::once(&survivor))),
    )));
    let refused = SledDisk::salvage(dir.path(), 1 << 20);
    assert!(refused.is_err(), "{refused:?}");
    assert!(!dir.path().join("gen-3").exists() && !dir.path().join("damaged-2").exists());
    salvage(dir.path());
    assert!(rows_in(dir.path()) == readable);
}

/// FORMAT with a bit flipped where it names the format, in place.
fn spoil_format(dir: &Path) {
    let path = dir.join("FORMAT");
    let mut bytes = fs::read(&path).unwrap();
    bytes[25] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(refusal(dir, OpenMode::Create), OpenError::Damaged { .. }));
}

#[test]
fn a_copy_with_a_damaged_format_is_still_a_copy_and_a_store_that_can_prove_it_is_none() {
    let outer = tempfile::tempdir().unwrap();
    let (original, copied) = (outer.path().join("original"), outer.path().join("copied"));
    drop(open(&original));
    copy(&original, &copied);
    for dir in [&original, &copied] {
        spoil_format(dir);
        salvage(dir);
    }
    assert!(!open(&original).was_copied());
    let mut disk = open(&copied);
    assert!(disk.was_copied(), "nothing says that it is the original");
    disk.flush().unwrap();
    drop(disk);
    assert!(!open(&copied).was_copied());
    fs::remove_file(original.join("FORMAT")).unwrap();
    salvage(&original);
    assert!(open(&original).was_copied(), "nothing says that it is the original");
}
