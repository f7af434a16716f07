//! A row of the fixture that lost a bit is noticed by whoever reads it.

use std::ops::ControlFlow;

use consilience::host::{Host, ReplicaChoice};

use super::{fixture_rows, rows, store};
use crate::golden::hex;
use crate::world::Medium;

#[test]
fn a_row_of_the_fixture_that_lost_a_bit_is_reported_by_its_key_where_it_is_read() {
    let mut reported = 0;
    for (key, value) in fixture_rows().into_iter().filter(|(key, _)| key[0] != b'm') {
        let mut damaged = fixture_rows();
        let mut bad = value.clone();
        bad[value.len() / 2] ^= 0x10;
        damaged.insert(key.clone(), bad);
        let trouble = first_trouble(&store(&damaged));
        // References are read by writes, and the log by those who follow it.
        assert_eq!(trouble.is_none(), b"fl".contains(&key[0]), "row {}", hex(&key));
        if let Some(trouble) = trouble {
            // A long value is named by its key without the number of the chunk, or with it; a
            // record that open itself reads is set aside by the name of its pattern.
            let named = trouble.contains(&hex(&key[..key.len() - 2]));
            assert!(named || trouble == format!("hole {}", hex(&key[5..21])), "{trouble}");
            reported += 1;
        }
    }
    assert!(reported > 40, "only {reported} rows were tried");
}

/// Opens a store and reads all of it; the first complaint, or the hole it left.
fn first_trouble(medium: &Medium) -> Option<String> {
    let host = match Host::open(Box::new(medium.clone()), 99, ReplicaChoice::Keep) {
        Ok(host) => host,
        Err(error) => return Some(error.to_string()),
    };
    if let Some(hole) = rows(medium).keys().find(|key| key[0] == b'h') {
        return Some(format!("hole {}", hex(&hole[5..])));
    }
    for name in host.spaces() {
        let view = host.view(&name).unwrap();
        let mut contents = Vec::new();
        let all = view.for_each(&mut |pattern| {
            contents.extend(pattern.contents.iter().map(|content| content.digest));
            ControlFlow::Continue(())
        });
        let read = contents.iter().map(|digest| view.content(digest).map(drop));
        if let Some(error) = std::iter::once(all).chain(read).find_map(Result::err) {
            return Some(error.to_string());
        }
    }
    None
}
