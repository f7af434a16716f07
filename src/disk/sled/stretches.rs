//! Rows of files that are damaged in places: those that can be read, and the gaps between them.
//! It must never know what becomes of either.
//!
//! A page of the engine is readable as a whole or not at all, and only it knows where a page ends.
//! So a gap is probed key by key, as numbers: first where it begins and ends, then further and
//! further from both ends, then evenly. A readable page in a gap is found if it is at least as wide
//! as its distance from either end, or a 256th of the gap; what is found splits the gap.

use std::collections::VecDeque;
use std::io;
use std::ops::Bound;

use super::super::{DiskError, KEY_BYTES_MAX, RESERVED};
use super::engine::{Engine, guarded};

/// Gaps that are searched; the rest counts as unreadable. 20,000 x 2,000 probes of 50 us each are
/// half an hour.
const SEARCHES_MAX: usize = 20_000;
/// Even probes of one gap.
const EVEN_PROBES: usize = 256;
/// Bytes below the longer end of a gap at which keys are still told apart.
const FINER_BYTES: usize = 2;

/// From a key up to another, which is not in it.
pub(super) type Stretch = (Vec<u8>, Vec<u8>);
type VisitRow<'v> = dyn FnMut(&[u8], &[u8]) -> Result<(), DiskError> + 'v;

/// Beyond every key.
fn end() -> Vec<u8> {
    vec![0xff; KEY_BYTES_MAX + 1]
}

/// What lies ahead of a walk.
enum Ahead {
    Rows(Stretch),
    Gap(Stretch),
}

/// How many rows there are, if every one can be read.
pub(super) fn count_whole(engine: &Engine) -> Result<Option<u64>, DiskError> {
    let mut count = 0;
    let gap = read_rows(engine, &(Vec::new(), end()), &mut |key, _| {
        count += u64::from(!key.starts_with(RESERVED));
        Ok(())
    })?;
    Ok(gap.is_none().then_some(count))
}

/// Visits every row that can be read, in key order, and returns the gaps. An error is the
/// visitor's, or the device's: what it does not give now it may give later.
pub(super) fn each_readable(
    engine: &Engine,
    visit: &mut VisitRow<'_>,
) -> Result<Vec<Stretch>, DiskError> {
    let mut gaps = Vec::new();
    let mut searches = 0;
    let mut ahead = vec![Ahead::Rows((Vec::new(), end()))];
    while let Some(next) = ahead.pop() {
        match next {
            Ahead::Rows(stretch) => {
                let gap = read_rows(engine, &stretch, visit)?;
                ahead.extend(gap.map(|from| Ahead::Gap((from, stretch.1))));
            }
            Ahead::Gap(gap) if searches == SEARCHES_MAX => gaps.push(gap),
            Ahead::Gap(gap) => {
                searches += 1;
                let (from, until) = gap;
                match (Gap { engine, from: &from, until: &until }).search()? {
                    Some(row) => {
                        ahead.push(Ahead::Rows((row.clone(), until)));
                        ahead.push(Ahead::Gap((from, row)));
                    }
                    None => gaps.push((from, until)),
                }
            }
        }
    }
    Ok(gaps)
}

/// Visits rows until the engine gives up, and returns from where on it did.
fn read_rows(
    engine: &Engine,
    (from, until): &Stretch,
    visit: &mut VisitRow<'_>,
) -> Result<Option<Vec<u8>>, DiskError> {
    let mut gap = from.clone();
    let bounds = from.as_slice()..until.as_slice();
    let mut rows = guarded("scan", || Ok(engine.db().range::<&[u8], _>(bounds)))?;
    loop {
        match readable(guarded("scan", || rows.next().transpose()))? {
            Some(Some((key, value))) => {
                gap = [&key[..], &[0]].concat();
                visit(&key, &value)?;
            }
            Some(None) => return Ok(None),
            None => return Ok(Some(gap)),
        }
    }
}

/// `None` for damage.
fn readable<T>(outcome: Result<T, DiskError>) -> Result<Option<T>, DiskError> {
    match outcome {
        Ok(read) => Ok(Some(read)),
        // The engine reads beyond the end of a file that was cut short.
        Err(DiskError::Io { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(None)
        }
        Err(error @ DiskError::Io { .. }) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Keys among which the engine could not read some row.
struct Gap<'g> {
    engine: &'g Engine,
    from: &'g [u8],
    until: &'g [u8],
}

/// What a probe of one key finds.
enum Probe {
    /// Its page cannot be read.
    Damaged,
    /// Its page can be read, and the readable stretch around it holds no row of the gap.
    Empty,
    /// The first row of the stretch around it.
    Row(Vec<u8>),
}

impl Gap<'_> {
    /// The first row of some readable stretch, if one is found.
    fn search(&self) -> Result<Option<Vec<u8>>, DiskError> {
        let until_bytes = if self.until == end() { 0 } else { self.until.len() };
        let bytes = self.from.len().max(until_bytes) + FINER_BYTES;
        let whole = (padded(self.from, bytes), padded(self.until, bytes));
        let (mut low, mut high) = whole.clone();
        if let Some(row) = self.edge(&mut low, &high, Way::Up)? {
            return Ok(Some(row));
        }
        if let Some(row) = self.edge(&mut high, &low, Way::Down)? {
            return Ok(Some(row));
        }
        for (start, other, way) in [(&low, &high, Way::Up), (&high, &low, Way::Down)] {
            for key in further_and_further(start, other, way) {
                if let Probe::Row(row) = self.probe(&key)? {
                    return Ok(Some(row));
                }
            }
        }
        match self.search_evenly((low, high))? {
            // The ends may have been moved over a page narrower than a step.
            None => self.search_evenly(whole),
            row => Ok(row),
        }
    }

    /// Moves one end of the gap over what can be read but holds no row of it.
    fn edge(
        &self,
        near: &mut Vec<u8>,
        other: &[u8],
        way: Way,
    ) -> Result<Option<Vec<u8>>, DiskError> {
        let start = near.clone();
        let mut damaged = None;
        for key in std::iter::once(start.clone()).chain(further_and_further(&start, other, way)) {
            match self.probe(&key)? {
                Probe::Row(row) => return Ok(Some(row)),
                Probe::Empty => *near = key,
                Probe::Damaged => {
                    damaged = Some(key);
                    break;
                }
            }
        }
        let Some(mut damaged) = damaged else {
            *near = start;
            return Ok(None);
        };
        loop {
            let middle = halfway(near, &damaged);
            if middle == *near || middle == damaged {
                *near = damaged;
                return Ok(None);
            }
            match self.probe(&middle)? {
                Probe::Row(row) => return Ok(Some(row)),
                Probe::Empty => *near = middle,
                Probe::Damaged => damaged = middle,
            }
        }
    }

    fn search_evenly(&self, within: Stretch) -> Result<Option<Vec<u8>>, DiskError> {
        let mut between = VecDeque::from([within]);
        for _ in 0..EVEN_PROBES {
            let Some((low, high)) = between.pop_front() else { break };
            let middle = halfway(&low, &high);
            if middle <= low {
                continue;
            }
            if let Probe::Row(row) = self.probe(&middle)? {
                return Ok(Some(row));
            }
            between.extend([(low, middle.clone()), (middle, high)]);
        }
        Ok(None)
    }

    fn probe(&self, key: &[u8]) -> Result<Probe, DiskError> {
        let (db, key) = (self.engine.db(), key.clamp(self.from, self.until));
        if readable(guarded("probe", || db.get(key)))?.is_none() {
            return Ok(Probe::Damaged);
        }
        let before = (Bound::Included(self.from), Bound::Included(key));
        let mut rows = guarded("probe", || Ok(db.range::<&[u8], _>(before)))?;
        let mut first = None;
        while let Some(Some((row, _))) =
            readable(guarded("probe", || rows.next_back().transpose()))?
        {
            first = Some(row);
        }
        if first.is_none() {
            let mut rows = guarded("probe", || Ok(db.range(key..self.until)))?;
            let row = readable(guarded("probe", || rows.next().transpose()))?;
            first = row.flatten().map(|(row, _)| row);
        }
        let first = first.filter(|row| (self.from..self.until).contains(&&row[..]));
        Ok(first.map_or(Probe::Empty, |row| Probe::Row(row.to_vec())))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// Keys at 1, 2, 4, ... from `start` on the way to `other`.
fn further_and_further(start: &[u8], other: &[u8], way: Way) -> impl Iterator<Item = Vec<u8>> {
    let is_between = move |key: &Vec<u8>| match way {
        Way::Up => key.as_slice() < other,
        Way::Down => key.as_slice() > other,
    };
    let places = (0..start.len()).rev().flat_map(|place| (0..8).map(move |bit| (place, 1 << bit)));
    places.map_while(move |(place, step)| moved(start, place, step, way)).take_while(is_between)
}

/// The number of as many bytes that begins, or is, `key`.
fn padded(key: &[u8], bytes: usize) -> Vec<u8> {
    let mut padded = key[..key.len().min(bytes)].to_vec();
    padded.resize(bytes, 0);
    padded
}

/// `key` and a step at one of its places; none where that leaves its length.
fn moved(key: &[u8], place: usize, step: u8, way: Way) -> Option<Vec<u8>> {
    let mut moved = key.to_vec();
    let mut step = step;
    for byte in moved[..=place].iter_mut().rev() {
        let (sum, is_carried) = match way {
            Way::Up => byte.overflowing_add(step),
            Way::Down => byte.overflowing_sub(step),
        };
        *byte = sum;
        step = u8::from(is_carried);
    }
    (step == 0).then_some(moved)
}

/// The number between two of one length, rounded down.
fn halfway(one: &[u8], other: &[u8]) -> Vec<u8> {
    // One bit more than the bytes have: the sum first, then its half from the left.
    let mut sum = vec![0; one.len()];
    let mut carry = 0;
    for (at, digit) in sum.iter_mut().enumerate().rev() {
        let both = u16::from(one[at]) + u16::from(other[at]) + carry;
        *digit = both & 0xff;
        carry = both >> 8;
    }
    let mut half = Vec::with_capacity(sum.len());
    for digit in sum {
        let whole = carry << 8 | digit;
        half.extend_from_slice(&(whole >> 1).to_be_bytes()[1..]);
        carry = whole & 1;
    }
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_reckoned_with_as_numbers_of_their_length() {
        let number = |key: Vec<u8>| u32::from_be_bytes(key.try_into().unwrap());
        let numbers = [0, 1, 255, 256, 0x00ff_ffff, 0x1234_5678, u32::MAX - 1, u32::MAX];
        for one in numbers {
            for other in numbers {
                let middle = number(halfway(&one.to_be_bytes(), &other.to_be_bytes()));
                assert_eq!(middle, u32::midpoint(one, other));
                let up = further_and_further(&one.to_be_bytes(), &other.to_be_bytes(), Way::Up)
                    .map(number)
                    .collect::<Vec<_>>();
                let steps = (0..32).map_while(|bit| one.checked_add(1 << bit));
                assert_eq!(up, steps.take_while(|key| *key < other).collect::<Vec<_>>());
                let down = further_and_further(&one.to_be_bytes(), &other.to_be_bytes(), Way::Down)
                    .map(number)
                    .collect::<Vec<_>>();
                let steps = (0..32).map_while(|bit| one.checked_sub(1 << bit));
                assert_eq!(down, steps.take_while(|key| *key > other).collect::<Vec<_>>());
            }
        }
    }
}
