//! The verbs about beliefs as a person meets them, over the dump of two nodes that learned alone.
//!
//! `two_nodes.jsonl` was dumped once by a store that had loaded the dumps of both; it is read,
//! never written, so actors and replicas in it stay what they were.

use std::fmt::Write as _;
use std::path::Path;

use crate::cli::consilience;
use crate::golden::assert_golden;

const COMMANDS: [&str; 16] = [
    "beliefs --format table",
    "beliefs rain-w --format table",
    "beliefs --format json",
    "beliefs --counts --format json",
    "beliefs --by-similarity --format table",
    "beliefs --jaccard 0.61 --format table",
    "conflicts --format table",
    "conflicts --format json",
    "conflicts tea --format table",
    "conflicts walks --format table",
    "conflicts rain",
    "conflicts market --format json",
    "history market --format table",
    "history walks --format json",
    "history nothing",
    "conflicts --cosine 1.5",
];

#[test]
fn the_verbs_about_beliefs_say_what_they_said_when_somebody_last_looked() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/beliefs");
    let mut transcript = String::new();
    for line in COMMANDS {
        let mut command = consilience();
        command.current_dir(&here).args(["--store", "two_nodes.jsonl"]).args(line.split(' '));
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        writeln!(transcript, "$ consilience {line}").unwrap();
        transcript += &text(&output.stdout);
        text(&output.stderr).lines().for_each(|line| writeln!(transcript, "! {line}").unwrap());
        let code = output.status.code().unwrap();
        writeln!(transcript, "= {code}\n").unwrap();
    }
    assert_golden("tests/golden/beliefs.txt", &transcript);
}
