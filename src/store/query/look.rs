//! Questions about patterns: root, list, get, digests, verify.
//! It must never change anything.

use std::io::Write;
use std::ops::ControlFlow;

use super::rows::{DigestRow, GetRow, ListRow, VerifyRow, put};
use super::{Fault, Verdict};
use crate::codec::state_digest;
use crate::pattern::{PatternId, SpaceId};
use crate::store::PatternStore;
use crate::store::space::{PatternView, live_ids};

/// Ids shown where a prefix fits several or none.
const CLOSE_IDS_MAX: usize = 3;

pub(super) fn root(
    store: &PatternStore,
    space: &SpaceId,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let root = store.view_or_refuse(space, |view| Ok(view.root()))?;
    writeln!(out, "{root}")?;
    Ok(Verdict::Yes)
}

pub(super) fn list(
    store: &PatternStore,
    space: &SpaceId,
    glob: Option<&str>,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    for id in store.view_or_refuse(space, live_ids)? {
        if glob.is_some_and(|glob| !matches_glob(glob, id.as_str())) {
            continue;
        }
        // Removed since: not there to be listed.
        let Some(view) = read(store, space, &id)? else { continue };
        put(out, &ListRow::new(&view))?;
    }
    Ok(Verdict::Yes)
}

pub(super) fn get(
    store: &PatternStore,
    space: &SpaceId,
    ids: &[String],
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    for name in ids {
        put(out, &GetRow::new(&named(store, space, name)?))?;
    }
    Ok(Verdict::Yes)
}

/// The pattern of this id, or else the one whose id starts so.
pub(super) fn named(
    store: &PatternStore,
    space: &SpaceId,
    name: &str,
) -> Result<PatternView, Fault> {
    match read(store, space, &PatternId::new(name)?)? {
        Some(view) => Ok(view),
        None => resolve(store, space, name),
    }
}

fn read(
    store: &PatternStore,
    space: &SpaceId,
    id: &PatternId,
) -> Result<Option<PatternView>, Fault> {
    let read = store.view_or_refuse(space, |view| match view.get(id)? {
        Some(pattern) => PatternView::read(view, &pattern).map(Some),
        None => Ok(None),
    });
    Ok(read?)
}

/// The one pattern whose id starts with `prefix`.
fn resolve(store: &PatternStore, space: &SpaceId, prefix: &str) -> Result<PatternView, Fault> {
    let mut ids = store.view_or_refuse(space, live_ids)?;
    let starts = ids.iter().filter(|id| id.as_str().starts_with(prefix));
    let fitting: Vec<&PatternId> = starts.take(CLOSE_IDS_MAX + 1).collect();
    if let [only] = fitting[..]
        && let Some(view) = read(store, space, only)?
    {
        return Ok(view);
    }
    if !fitting.is_empty() {
        let names = joined(fitting.into_iter().take(CLOSE_IDS_MAX));
        let message = format!(
            "choose a pattern: several start with {prefix:?} in space {space}: {names}, …; \
             give more of the id"
        );
        return Err(Fault::NotFound(message));
    }
    ids.sort_by_cached_key(|id| std::cmp::Reverse(shared_bytes(id.as_str(), prefix)));
    let message = if ids.is_empty() {
        format!("find pattern {prefix:?}: space {space} holds no patterns")
    } else {
        let names = joined(ids.iter().take(CLOSE_IDS_MAX));
        format!("find a pattern that starts with {prefix:?} in space {space}; closest ids: {names}")
    };
    Err(Fault::NotFound(message))
}

fn joined<'i>(ids: impl Iterator<Item = &'i PatternId>) -> String {
    ids.map(PatternId::as_str).collect::<Vec<_>>().join(", ")
}

fn shared_bytes(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

pub(super) fn digests(
    store: &PatternStore,
    space: &SpaceId,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let rows = store.view_or_refuse(space, |view| {
        let mut rows = Vec::new();
        view.for_each(&mut |pattern| {
            if let Some(digest) = state_digest(pattern) {
                rows.push((pattern.id.clone(), digest));
            }
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    });
    let mut rows = rows?;
    rows.sort();
    for (id, digest) in rows {
        put(out, &DigestRow { pattern: id.as_str(), digest: digest.to_string() })?;
    }
    Ok(Verdict::Yes)
}

pub(super) fn verify(
    store: &PatternStore,
    space: Option<&str>,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let spaces = match space {
        Some(space) => vec![SpaceId::new(space)?],
        None => store.spaces(),
    };
    let mut verdict = Verdict::Yes;
    for space in spaces {
        let report = store.verify(&space)?;
        if !report.is_sound() {
            verdict = Verdict::No;
        }
        let row = VerifyRow {
            space: report.space.as_str(),
            sound: report.is_sound(),
            records: report.records,
            patterns: report.patterns,
            contents: report.contents,
            wants: report.wants,
            holes: report.holes,
            root: report.root.to_string(),
            recomputed: report.recomputed.to_string(),
            damaged: report.damaged,
            findings: &report.findings,
        };
        put(out, &row)?;
    }
    Ok(verdict)
}

/// `*` fits any text, `?` any one character. O(|glob| · |text|) at worst, without recursion.
fn matches_glob(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if g < glob.len() && glob[g] == '*' {
            star = Some((g, t));
            g += 1;
        } else if g < glob.len() && (glob[g] == '?' || glob[g] == text[t]) {
            g += 1;
            t += 1;
        } else if let Some((star_g, star_t)) = star {
            star = Some((star_g, star_t + 1));
            g = star_g + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_fits_with_stars_and_question_marks_only() {
        let fits = [("*", ""), ("a*", "abc"), ("*c", "abc"), ("a?c", "aéc"), ("a*b*c", "aXbYbZc")];
        for (glob, text) in fits {
            assert!(matches_glob(glob, text), "{glob} {text}");
        }
        for (glob, text) in [("", "a"), ("a", "ab"), ("a?c", "ac"), ("*b", "abc"), ("[a]", "a")] {
            assert!(!matches_glob(glob, text), "{glob} {text}");
        }
    }
}
