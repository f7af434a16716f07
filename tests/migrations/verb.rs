//! The verb `migrate` on stopped stores: of this format, of one without a step, and damaged.

use std::path::Path;

use consilience::disk::sled::SledDisk;
use consilience::disk::{Batch, Disk, OpenMode};
use serde_json::Value;

use super::format0::{FORMAT_ROW, number};
use super::{fixture_rows, rows};
use crate::cli::{ok, run};

/// A store of the fixture's rows, its format row replaced or taken away.
fn stopped(dir: &Path, format: Option<&[u8]>) {
    let mut batch = Batch::default();
    fixture_rows().into_iter().for_each(|(key, value)| batch.put(key, value));
    match format {
        Some(row) => batch.put(FORMAT_ROW, row),
        None => batch.delete(FORMAT_ROW),
    }
    let mut disk = SledDisk::open(dir, OpenMode::Create).unwrap();
    disk.commit(&batch).unwrap();
    disk.flush().unwrap();
}

#[test]
fn migrate_says_that_there_is_nothing_to_do_or_why_it_cannot_be_done() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for args in [&["migrate", "--plan"][..], &["migrate"]] {
        if !at("current").exists() {
            stopped(&at("current"), Some(&number(1)));
        }
        assert_eq!(ok(&at("current"), args), b"");
        let said = String::from_utf8(run(&at("current"), args).stderr).unwrap();
        assert!(said.contains("of format 1, which this release writes"), "{said}");
    }
    let status: Value = serde_json::from_slice(&ok(&at("current"), &["status"])).unwrap();
    assert_eq!(status["spaces"].as_array().unwrap().len(), 5);

    let cases: [(&str, Option<&[u8]>, i32, &str); 4] = [
        ("older", Some(&number(0)), 12, "no step from it"),
        ("newer", Some(&number(2)), 12, "reads up to 1"),
        ("damaged", Some(&[1, 0, 0, 0]), 1, "is damaged; run repair"),
        ("lost", None, 1, "is gone"),
    ];
    for (name, format, code, reason) in cases {
        stopped(&at(name), format);
        for args in [&["migrate", "--plan"][..], &["migrate"], &["status"]] {
            let output = run(&at(name), args);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{name} {args:?}: {said}");
            assert!(said.contains("failed to open") && said.contains(reason), "{said}");
            assert_eq!(output.stdout, b"");
        }
        let mut expected = fixture_rows();
        expected.remove(FORMAT_ROW);
        expected.extend(format.map(|row| (FORMAT_ROW.to_vec(), row.to_vec())));
        let disk = SledDisk::open(&at(name), OpenMode::MustExist).unwrap();
        assert!(rows(&disk) == expected, "the {name} store has changed");
    }
    assert_eq!(run(&at("nothing"), &["migrate", "--plan"]).status.code(), Some(10));
}
