//! A whole input judged before anything of it is applied: order, roots, shapes, the end line.
//! It must never change a store.

use std::collections::BTreeMap;

use super::super::PatternStore;
use super::super::lines::Lines;
use super::{LoadError, is_named};
use crate::codec::dump::{
    DumpError, DumpMode, End, Header, Line, PatternLine, decode_line, decode_observation,
};
use crate::codec::{key_hash, state_digest};
use crate::index::Index;
use crate::pattern::{Digest, Encoding, PatternId, Shape, SpaceId};

/// What a space without embeddings takes at its first write.
const NO_SHAPE: Shape = Shape::of_any_dimension(Encoding::F32);

/// One dump as far as it has been read.
struct Checking {
    header: Header,
    /// What embeddings must look like, by the header.
    shape: Option<Shape>,
    index: Index,
    lines: u64,
    last: Option<PatternId>,
}

/// Judges one or more dumps, one after the other.
pub(super) fn check_dumps(
    store: &PatternStore,
    only: Option<&SpaceId>,
    lines: &mut Lines<'_>,
) -> Result<(), LoadError> {
    let mut dump: Option<Checking> = None;
    let mut number = 0;
    while let Some(line) = lines.next()? {
        number = line.number;
        let decoded = match decode_line(line.bytes, number) {
            Err(_) if !line.is_whole => {
                let last = dump.as_ref().and_then(Checking::last_id);
                return Err(LoadError::Truncated { line: number, last });
            }
            decoded => decoded?,
        };
        match (decoded, &mut dump) {
            (Line::Header(header), None) => dump = Some(begin(store, only, header, number)?),
            (Line::Pattern(line), Some(dump)) => dump.pattern(&line, number)?,
            (Line::End(end), Some(open)) => {
                open.end(&end, number)?;
                dump = None;
            }
            (Line::Header(_), Some(open)) => {
                let last = open.last_id();
                return Err(LoadError::Truncated { line: number - 1, last });
            }
            (_, None) => return Err(order(number, "a dump begins with a header line")),
        }
    }
    match dump {
        Some(open) => Err(LoadError::Truncated { line: number, last: open.last_id() }),
        None if number == 0 => Err(order(1, "the input is empty; a dump begins with a header")),
        None => Ok(()),
    }
}

fn begin(
    store: &PatternStore,
    only: Option<&SpaceId>,
    header: Header,
    line: u64,
) -> Result<Checking, LoadError> {
    if header.mode == DumpMode::Values {
        return Err(LoadError::ValuesOnly { line });
    }
    if let Some(wanted) = only.filter(|only| **only != header.space) {
        let (found, wanted) = (header.space, wanted.clone());
        return Err(LoadError::OtherSpace { found, wanted });
    }
    if let (Some(held), Some(brought)) = (store.shape(&header.space), header.shape)
        && held.agree(brought).is_none()
    {
        let rule = format!("its embeddings are {brought}; space {} holds {held}", header.space);
        return Err(order(line, &rule));
    }
    let shape = header.shape;
    Ok(Checking { header, shape, index: Index::new(), lines: 0, last: None })
}

impl Checking {
    fn last_id(&self) -> Option<String> {
        self.last.as_ref().map(|id| id.as_str().to_owned())
    }

    fn pattern(&mut self, line: &PatternLine, number: u64) -> Result<(), LoadError> {
        let id = &line.pattern.id;
        if self.last.as_ref().is_some_and(|last| last >= id) {
            return Err(order(number, &format!("pattern {:?} is out of order", id.as_str())));
        }
        if !is_named(line) {
            return Err(order(number, "it carries content that the pattern does not name"));
        }
        for content in &line.contents {
            let found = content.shape();
            if self.shape != Some(found) {
                return Err(LoadError::Shape {
                    line: number,
                    pattern: id.as_str().to_owned(),
                    space: self.header.space.clone(),
                    found,
                    expected: self.shape.unwrap_or(NO_SHAPE),
                });
            }
        }
        let digest = state_digest(&line.pattern);
        if digest.is_none() && line.pattern.context.is_empty() {
            return Err(order(number, "it says nothing: no entries and no context"));
        }
        self.index.set(key_hash(&self.header.space, id), digest);
        self.lines += 1;
        self.last = Some(id.clone());
        Ok(())
    }

    fn end(&mut self, end: &End, number: u64) -> Result<(), LoadError> {
        if end.patterns != self.lines {
            let rule = format!("it counts {} patterns; {} came", end.patterns, self.lines);
            return Err(order(number, &rule));
        }
        self.index.refresh();
        let root: Digest = self.index.root();
        if root != end.root || root != self.header.root {
            let rule = format!("its patterns have the root {root}, not the one it names");
            return Err(order(number, &rule));
        }
        if self.index.len() != self.header.patterns {
            return Err(order(number, "its header counts another number of live patterns"));
        }
        Ok(())
    }
}

/// Judges plain observation lines.
pub(super) fn check_observations(
    store: &PatternStore,
    default: &SpaceId,
    lines: &mut Lines<'_>,
) -> Result<(), LoadError> {
    let mut shapes: BTreeMap<SpaceId, Shape> = BTreeMap::new();
    while let Some(line) = lines.next()? {
        if line.bytes.trim_ascii().is_empty() {
            continue;
        }
        let (space, observation) = decode_observation(line.bytes, line.number)?;
        let Some(content) = &observation.content else { continue };
        let space = space.unwrap_or_else(|| default.clone());
        let held =
            shapes.entry(space.clone()).or_insert_with(|| store.shape(&space).unwrap_or(NO_SHAPE));
        let pattern = observation.id.as_str();
        // As the store will encode it: what it cannot hold is refused before anything is written.
        let content = content.recoded(held.encoding).map_err(|error| DumpError::Invalid {
            line: line.number,
            pattern: Some(pattern.to_owned()),
            reason: error.to_string(),
        })?;
        let (found, expected) = (content.shape(), *held);
        *held = expected.agree(found).ok_or_else(|| LoadError::Shape {
            line: line.number,
            pattern: pattern.to_owned(),
            space,
            found,
            expected,
        })?;
    }
    Ok(())
}

fn order(line: u64, rule: &str) -> LoadError {
    LoadError::Order { line, rule: rule.to_owned() }
}
