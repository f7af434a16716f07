//! Golden files: what is written today must be what was written when somebody last looked at it.
//! It must never know what a file is about.

use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Panics where the file does not hold just `now`, naming the first line that differs. With
/// `CONSILIENCE_BLESS=1` the file is rewritten instead; look at the difference before committing.
pub fn assert_golden(file: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let held = fs::read_to_string(&path).unwrap_or_default();
    if held == now {
        return;
    }
    if std::env::var("CONSILIENCE_BLESS").is_ok_and(|value| value == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, now).unwrap();
        return;
    }
    let (old, new) = first_difference(&held, now);
    panic!(
        "{file} does not say what this release does.\n  it says: {old}\n  now:     {new}\n\
         If the change is meant, run again with CONSILIENCE_BLESS=1 and commit the difference."
    );
}

/// The first line that differs, from both sides, cut to what a screen shows.
fn first_difference(held: &str, now: &str) -> (String, String) {
    let (mut old, mut new) = (held.lines(), now.lines());
    loop {
        let pair = (old.next(), new.next());
        if pair.0 != pair.1 || pair.0.is_none() {
            let show = |line: Option<&str>| {
                line.map_or("(nothing)".to_owned(), |line| line.chars().take(160).collect())
            };
            return (show(pair.0), show(pair.1));
        }
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Reads [`hex`].
pub fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

#[test]
fn the_first_line_that_differs_is_shown_and_a_missing_one_is_nothing() {
    assert_eq!(first_difference("a\nb\n", "a\nc\n"), ("b".to_owned(), "c".to_owned()));
    assert_eq!(first_difference("a\n", "a\nc\n").0, "(nothing)");
    assert_eq!(unhex(&hex(&[0, 0x7f, 0xff])), [0, 0x7f, 0xff]);
}
