//! Who of the two may know of removals that the other does not, and what is done where a part does
//! not tell enough. It must never know what a part says.

use super::Session;
use super::bounds::OWED_MAX;
use crate::codec::frame::Scope;
use crate::pattern::{KeyHash, Knowledge};

/// Words of a hint that comes unasked. More are asked for where these do not tell.
pub const HINT_WORDS_UNASKED: usize = 2;

/// Who of the two knows events that the other does not. Of a removal nothing is left but knowledge
/// of it, once knowledge covers it: nobody can tell of which keys it speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lead {
    /// We alone: what differs is likely news of ours.
    Ours,
    /// The peer alone.
    Theirs,
    /// Both, or neither.
    Open,
}

/// What a part that did not tell says all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unclear {
    /// The entries it left out are fewer than ours of that kind: some have gone there.
    LessThere,
    /// Nothing, or that some may have gone here.
    Open,
}

impl Session {
    /// Who leads, by what we know (and have announced, or are about to) and the peer has announced.
    /// O(rows of knowledge) once.
    pub fn lead(&mut self, mine: &Knowledge) -> Lead {
        let Some(theirs) = self.their_knowledge() else { return Lead::Open };
        let (mine, theirs) = (mine.all(), theirs.all());
        let compare = || match (mine.dominates(theirs), theirs.dominates(mine)) {
            (true, false) => Lead::Ours,
            (false, true) => Lead::Theirs,
            _ => Lead::Open,
        };
        let lead = self.lead.unwrap_or_else(compare);
        self.lead = Some(lead);
        lead
    }

    /// A part did not tell what the peer holds. Where we may know of a removal that it does not, it
    /// is shown what we hold; else it is asked for a hint, or a longer one, and then for all. Each
    /// at most once for a key, so that this ends whatever comes.
    pub fn on_unclear(&mut self, key: KeyHash, unclear: Unclear, mine: &Knowledge) {
        let is_ours = unclear == Unclear::Open && self.lead(mine) != Lead::Theirs;
        if is_ours && self.note_offered(key) {
            self.ship(key, Scope::Fresh);
        } else if self.hints_asked.len() < OWED_MAX && self.hints_asked.insert(key) {
            self.ask(key, Scope::Hinted);
        } else {
            self.ask(key, Scope::Whole);
        }
    }

    /// Notes that what we hold of this key is shown, with all that helps to tell it. True iff it is
    /// for the first time.
    pub fn note_offered(&mut self, key: KeyHash) -> bool {
        self.offered.len() < OWED_MAX && self.offered.insert(key)
    }

    /// True iff the part of this key is to have a hint even where it shows something.
    pub fn is_offered(&self, key: KeyHash) -> bool {
        self.offered.contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::codec::frame::{Hello, Standing};
    use crate::lattice::{Actor, Dot, VersionVector};
    use crate::pattern::Digest;
    use crate::sync::{Finder, Start};

    fn knowledge(rows: &[(u64, u64)]) -> Knowledge {
        let dots = rows.iter().map(|(actor, counter)| Dot::new(Actor(*actor), *counter));
        dots.collect::<VersionVector>().into()
    }

    /// A session that has heard what its peer knows.
    fn met(theirs: &Knowledge) -> Session {
        let mut session = Session::new(Start::Await, Finder::Walk);
        let standing = Standing { root: Digest([0; 32]), patterns: 1, knowledge_hash: 0 };
        let rows = u32::try_from(theirs.all().len()).unwrap();
        let hello =
            Hello { standing, shape: None, knowledge_rows: rows, gaps: vec![], thorough: false };
        assert!(session.on_hello(hello));
        assert!(rows == 0 || session.on_knowledge(theirs.all()));
        session.announce(standing, Arc::default());
        session
    }

    #[test]
    fn who_alone_knows_events_that_the_other_does_not_leads() {
        let lead = |mine: &[(u64, u64)], theirs: &[(u64, u64)]| {
            met(&knowledge(theirs)).lead(&knowledge(mine))
        };
        assert_eq!(lead(&[(1, 2)], &[(1, 1)]), Lead::Ours);
        assert_eq!(lead(&[(1, 1)], &[(1, 1), (2, 1)]), Lead::Theirs);
        assert_eq!(lead(&[(1, 2)], &[(1, 1), (2, 1)]), Lead::Open);
        assert_eq!(lead(&[(1, 2)], &[(1, 2)]), Lead::Open);
        // Before the peer has introduced itself nobody does.
        let mut fresh = Session::new(Start::Await, Finder::Walk);
        assert_eq!(fresh.lead(&knowledge(&[(1, 1)])), Lead::Open);
    }

    #[test]
    fn what_does_not_tell_is_answered_by_an_offer_a_question_for_a_hint_and_one_for_all() {
        let (key, ours) = (KeyHash([7; 16]), knowledge(&[(1, 2)]));
        let steps = |theirs: &[(u64, u64)], unclear| {
            let mut session = met(&knowledge(theirs));
            let step = |session: &mut Session| {
                session.on_unclear(key, unclear, &ours);
                (session.ship.pop_first(), session.asks.pop_first())
            };
            [(); 4].map(|()| step(&mut session))
        };
        let offer = (Some((key, Scope::Fresh)), None);
        let [hinted, whole] = [Scope::Hinted, Scope::Whole].map(|it| (None, Some((key, it))));
        assert_eq!(steps(&[(1, 1)], Unclear::Open), [offer, hinted, whole, whole]);
        assert_eq!(steps(&[(2, 1)], Unclear::Open), [offer, hinted, whole, whole]);
        assert_eq!(steps(&[(1, 1)], Unclear::LessThere), [hinted, whole, whole, whole]);
        // Who knows no more than the peer has nothing to offer.
        assert_eq!(steps(&[(1, 2), (2, 1)], Unclear::Open), [hinted, whole, whole, whole]);
    }
}
