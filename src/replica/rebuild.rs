//! What a peer holds of a key, rebuilt from the part it sent and from what it may assume is here.
//! It must never take a guess for a state: the mark of the part decides.

use std::collections::BTreeSet;

use super::hear::Trouble;
use super::quarantine::Fault;
use crate::codec::frame::{HINT_WORDS_MAX, Hint, Mark, Part, Scope};
use crate::codec::{entry_words, state_digest};
use crate::index::{missing, power_sums};
use crate::lattice::VersionVector;
use crate::pattern::{Pattern, ReplicaId};
use crate::planted::{self, Bug};
use crate::sync::{HINT_WORDS_UNASKED, Unclear};

/// Episodes of a state of which each is tried as the one that was retracted: 64 hashes of 64
/// episodes take less than asking again.
const GUESSED_EPISODES_MAX: usize = 64;
/// A word of a hint that was asked for stands for so many entries left out: of the 80 bytes that
/// these take in a whole state it costs 4, and who wants more gets them.
const ENTRIES_PER_HINT_WORD: usize = 4;

/// How much of a hint a part has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Helps {
    None,
    Unasked,
    Asked,
}

/// The part of a state beyond what the receiver knows, all of it where that is not given. It is
/// whole as well where a hint that was asked for would have no more words than one that was not.
pub(super) fn cut(whole: Pattern, known: Option<&VersionVector>, helps: Helps) -> Part {
    let mark = state_digest(&whole).map(Mark::from);
    let all = |state| Part { state, mark, scope: Scope::Whole, hint: None };
    let Some(known) = known else { return all(whole) };
    let state = whole.filtered(|dot| !known.covers(dot));
    if mark.is_none() || helps == Helps::None {
        return Part { state, mark, scope: Scope::Fresh, hint: None };
    }
    let entries = entry_words(&whole.filtered(|dot| known.covers(dot)));
    let words = match helps {
        Helps::Asked => (entries.len() / ENTRIES_PER_HINT_WORD).min(HINT_WORDS_MAX),
        _ => HINT_WORDS_UNASKED.min(entries.len()),
    };
    if words == 0 || helps == Helps::Asked && words <= HINT_WORDS_UNASKED {
        return all(whole);
    }
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let hint = Hint { entries: count, sums: power_sums(&entries, words) };
    Part { state, mark, scope: Scope::Hinted, hint: Some(hint) }
}

/// The sender's whole state, from what it sent and what it may assume is here. `floors` are what we
/// announced of this key, and what the sender did.
pub(super) fn rebuild(
    part: &Part,
    mine: Option<&Pattern>,
    floors: (&VersionVector, &VersionVector),
) -> Result<Result<Pattern, Unclear>, Trouble> {
    let fits = |state: &Pattern| state_digest(state).map(Mark::from) == part.mark;
    if part.scope == Scope::Whole || part.mark.is_none() {
        let honest = fits(&part.state);
        let lie = || Trouble::Entry(Fault::Digest, "a part that does not match its digest");
        return honest.then(|| Ok(part.state.clone())).ok_or_else(lie);
    }
    let assumed = mine.map(|mine| mine.filtered(|dot| floors.0.covers(dot)));
    let clear = assumed.as_ref().is_none_or(Pattern::is_dead);
    let assumed = assumed.unwrap_or_else(|| Pattern::new(part.state.id.clone()));
    // What the sender has not seen it does not hold, unless its context, of which we get no more
    // than what we do not know ourselves, says otherwise.
    let saw = |dot| floors.1.covers(dot) || part.state.context.covers(dot);
    let mut bases = vec![assumed.filtered(saw), assumed];
    bases.dedup();
    let guesses = bases.iter().flat_map(|base| guesses(part, base));
    let singles = bases.iter().flat_map(|base| without_one(likeliest(part, base)));
    let hinted = bases.iter().filter_map(|base| without_missing(part.hint.as_ref()?, base));
    for guess in guesses.chain(hinted).chain(singles) {
        let mut theirs = part.state.clone();
        theirs.overlay(&guess);
        if fits(&theirs) || planted::is(Bug::GuessWithoutDigest) {
            return Ok(Ok(theirs));
        }
    }
    // Entries left out there are known here, and dead: without live ones of ours among them there
    // is nothing to mistake.
    Ok(if clear { Ok(part.state.clone()) } else { Err(unclear(part, &bases[0])) })
}

fn unclear(part: &Part, assumed: &Pattern) -> Unclear {
    let left_out = part.hint.as_ref().map(|hint| hint.entries as usize);
    let is_less = left_out.is_some_and(|entries| entries < assumed.live_dots().count());
    if is_less { Unclear::LessThere } else { Unclear::Open }
}

/// What the sender may hold of the entries it left out, likeliest first.
fn guesses(part: &Part, assumed: &Pattern) -> Vec<Pattern> {
    let nothing = Pattern::new(part.state.id.clone());
    let mut replaced = assumed.clone();
    replace_opinions(part, &mut replaced);
    let mut guesses = vec![likeliest(part, assumed), replaced, assumed.clone(), nothing];
    guesses.dedup();
    guesses
}

/// A fresh opinion has most likely replaced its replica's older one, a fresh description all
/// others.
fn likeliest(part: &Part, assumed: &Pattern) -> Pattern {
    let mut likeliest = assumed.clone();
    replace_opinions(part, &mut likeliest);
    if !part.state.contents.is_empty() {
        likeliest.contents.clear();
    }
    likeliest
}

fn replace_opinions(part: &Part, state: &mut Pattern) {
    let fresh: BTreeSet<ReplicaId> =
        part.state.opinions.iter().map(|voice| voice.opinion.replica).collect();
    state.opinions.retain(|voice| !fresh.contains(&voice.opinion.replica));
}

/// The state less each of its episodes in turn: what is left where one was retracted.
fn without_one(state: Pattern) -> impl Iterator<Item = Pattern> {
    let few = Some(state.episodes.len()).filter(|episodes| *episodes <= GUESSED_EPISODES_MAX);
    (0..few.unwrap_or(0)).map(move |at| {
        let mut rest = state.clone();
        rest.episodes.remove(at);
        rest
    })
}

/// The state less the entries that are gone at the sender, if its hint tells them.
fn without_missing(hint: &Hint, state: &Pattern) -> Option<Pattern> {
    let gone: BTreeSet<usize> = missing(&hint.sums, &entry_words(state))?.into_iter().collect();
    let mut rest = state.clone();
    let mut places = 0..;
    let mut stays = || places.next().is_none_or(|place| !gone.contains(&place));
    rest.episodes.retain(|_| stays());
    rest.opinions.retain(|_| stays());
    rest.contents.retain(|_| stays());
    Some(rest)
}
