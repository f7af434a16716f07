//! What a space of a store holds, causes included, read the way anybody can: through a dump.

use consilience::codec::dump::{Header, Line, decode_line};
use consilience::pattern::{Pattern, SpaceId};
use consilience::store::{DumpMode, PatternStore};

pub struct Held {
    pub header: Header,
    /// In id order.
    pub patterns: Vec<Pattern>,
}

impl Held {
    pub fn read(store: &PatternStore, space: &SpaceId) -> Self {
        Self::parse(&dump(store, space))
    }

    pub fn parse(dump: &[u8]) -> Self {
        let (mut header, mut patterns) = (None, Vec::new());
        for (line, number) in dump.split(|byte| *byte == b'\n').zip(1..) {
            match (!line.is_empty()).then(|| decode_line(line, number).unwrap()) {
                Some(Line::Header(first)) => header = Some(first),
                Some(Line::Pattern(line)) => patterns.push(line.pattern),
                Some(Line::End(_)) | None => {}
            }
        }
        Self { header: header.unwrap(), patterns }
    }
}

/// A whole space as the lines another store can load.
pub fn dump(store: &PatternStore, space: &SpaceId) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.dump(space, DumpMode::State, &mut bytes).unwrap();
    bytes
}
