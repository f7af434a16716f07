//! Entries of peers that are refused, each alone: remembered by hash, counted by reason, not asked
//! for again of the peer that has nothing else to say of them.
//! It must never know how an entry is read or joined, nor keep what it refuses.
//!
//! A session that met one is incomplete: the peer's knowledge would speak of what was not taken in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Replica;
use super::hear::{Broken, Trouble};
use crate::codec::frame::{Part, Poison, content_entry_hash, part_hash};
use crate::codec::{content_digest, key_hash};
use crate::disk::Overlay;
use crate::pattern::{Content, Digest, KeyHash, PatternId};
use crate::port::{Peer, SessionId};
use crate::table::TableError;

/// Entries that are remembered in a space; the oldest goes. At about 100 bytes each, and as many
/// once more for what is not asked for, they take 200 KiB.
pub const QUARANTINE_MAX: usize = 1_024;

/// Why an entry is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Its bytes break the grammar or a bound of what a pattern may be.
    Malformed,
    /// It is not what its digest says.
    Digest,
    /// Joined with what is held here, it would break a limit.
    Limit,
    /// Its embedding does not look like those of this space.
    Shape,
}

/// How often entries were refused for each reason, repetitions included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAside {
    /// See [`Fault::Malformed`].
    pub malformed: u64,
    /// See [`Fault::Digest`].
    pub digest: u64,
    /// See [`Fault::Limit`].
    pub limit: u64,
    /// See [`Fault::Shape`].
    pub shape: u64,
}

impl SetAside {
    fn count(&mut self, fault: Fault) {
        *match fault {
            Fault::Malformed => &mut self.malformed,
            Fault::Digest => &mut self.digest,
            Fault::Limit => &mut self.limit,
            Fault::Shape => &mut self.shape,
        } += 1;
    }

    /// All of them.
    pub fn sum(&self) -> u64 {
        self.malformed + self.digest + self.limit + self.shape
    }
}

/// What could be asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Wanted {
    Key(KeyHash),
    Content(Digest),
}

/// The latest rows of what would be many.
#[derive(Clone, Debug)]
pub(super) struct Recent<K, V> {
    rows: BTreeMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<K: Copy + Ord, V> Recent<K, V> {
    /// Remembers a row, in place of the oldest if need be. True iff it is a new one.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        if self.rows.insert(key, value).is_some() {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > QUARANTINE_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.rows.remove(&oldest);
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// What was refused lately, in memory alone: another process judges anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Quarantine {
    entries: Recent<Digest, Fault>,
    /// What a peer had to say of something when its root was this one.
    wanted: Recent<(Peer, Wanted), Digest>,
}

impl Quarantine {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether these bytes are refused for good. Where a limit stood in the way, it depends on what
    /// is held here, and that may have changed.
    fn fault_of(&self, hash: impl FnOnce() -> Digest) -> Option<Fault> {
        if self.entries.len() == 0 {
            return None;
        }
        self.entries.rows.get(&hash()).copied().filter(|fault| *fault != Fault::Limit)
    }

    /// What this peer need not be asked for as long as its root is this one.
    pub(super) fn unwanted_of(
        &self,
        peer: Peer,
        root: Digest,
    ) -> (BTreeSet<KeyHash>, BTreeSet<Digest>) {
        let (mut keys, mut contents) = (BTreeSet::new(), BTreeSet::new());
        let first = (peer, Wanted::Key(KeyHash([0; 16])));
        let of_peer = self.wanted.rows.range(first..).take_while(|((who, _), _)| *who == peer);
        for ((_, wanted), _) in of_peer.filter(|(_, seen)| **seen == root) {
            match wanted {
                Wanted::Key(key) => keys.insert(*key),
                Wanted::Content(digest) => contents.insert(*digest),
            };
        }
        (keys, contents)
    }
}

/// An entry as it is refused.
struct Refused<'e> {
    hash: Digest,
    id: Option<&'e PatternId>,
    wanted: Option<Wanted>,
}

/// What takes in a part of a state.
type Hear = fn(&mut Replica, SessionId, &Part, &mut Overlay<'_>) -> Result<(), Trouble>;

impl Replica {
    /// What could not be read of a frame. Who has not introduced himself is owed no patience.
    pub(super) fn hear_poisons(
        &mut self,
        session: SessionId,
        poisons: &[Poison],
    ) -> Result<(), Trouble> {
        let Some(first) = poisons.first() else { return Ok(()) };
        if self.live(session)?.session.their_knowledge().is_none() {
            return Err(Broken::malformed(first.error.to_string()).into());
        }
        for poison in poisons {
            let key = poison.id.as_ref().map(|id| Wanted::Key(key_hash(self.table.id(), id)));
            let refused = Refused { hash: poison.hash, id: poison.id.as_ref(), wanted: key };
            self.refuse(session, &refused, Fault::Malformed, &poison.error.to_string());
        }
        Ok(())
    }

    /// Takes in a part, or sets just that aside.
    pub(super) fn hear_alone(
        &mut self,
        session: SessionId,
        part: &Part,
        rows: &mut Overlay<'_>,
        hear: Hear,
    ) -> Result<(), Trouble> {
        let id = &part.state.id;
        let refused = |replica: &Self, hash: Digest| Refused {
            hash,
            id: Some(id),
            wanted: Some(Wanted::Key(key_hash(replica.table.id(), id))),
        };
        if let Some(fault) = self.quarantine.fault_of(|| part_hash(part)) {
            let refused = refused(self, part_hash(part));
            self.refuse(session, &refused, fault, "it was refused before");
            return Ok(());
        }
        match hear(self, session, part, rows) {
            Err(Trouble::Entry(fault, rule)) => {
                let refused = refused(self, part_hash(part));
                self.refuse(session, &refused, fault, rule);
                Ok(())
            }
            Err(Trouble::Table(TableError::Limit { rule, .. })) => {
                let refused = refused(self, part_hash(part));
                self.refuse(session, &refused, Fault::Limit, rule);
                Ok(())
            }
            other => other,
        }
    }

    /// Content of a peer has another shape than that of the space.
    pub(super) fn refuse_content(&mut self, session: SessionId, content: &Content, rule: &str) {
        let wanted = Some(Wanted::Content(content_digest(content)));
        let refused = Refused { hash: content_entry_hash(content), id: None, wanted };
        self.refuse(session, &refused, Fault::Shape, rule);
    }

    /// A peer holds nothing of a key, and to note that would break a limit.
    pub(super) fn refuse_gone(&mut self, session: SessionId, key: KeyHash, rule: &str) {
        let hash = Digest(*blake3::hash(&key.0).as_bytes());
        let refused = Refused { hash, id: None, wanted: Some(Wanted::Key(key)) };
        self.refuse(session, &refused, Fault::Limit, rule);
    }

    fn refuse(&mut self, session: SessionId, refused: &Refused<'_>, fault: Fault, rule: &str) {
        let space = self.table.id();
        self.counts.set_aside.count(fault);
        let is_new = self.quarantine.entries.insert(refused.hash, fault);
        let Some(live) = self.sessions.get_mut(&session) else { return };
        live.session.mark_incomplete();
        live.report.set_aside += 1;
        if let (Some(wanted), Some(hello)) = (refused.wanted, live.session.their_hello()) {
            self.quarantine.wanted.insert((live.peer, wanted), hello.standing.root);
        }
        if is_new {
            let id = refused.id.map(ToString::to_string);
            let (peer, hash) = (live.peer.0, refused.hash);
            tracing::warn!(%space, peer, pattern = id, %hash, ?fault, rule, "set an entry aside");
        }
    }

    /// An entry of a rumor is refused. The verdict is not decided here.
    pub(super) fn refuse_rumored(&mut self, peer: Peer, hash: Digest, fault: Fault, rule: &str) {
        self.counts.set_aside.count(fault);
        if self.quarantine.entries.insert(hash, fault) {
            let space = self.table.id();
            tracing::warn!(%space, peer = peer.0, %hash, ?fault, rule, "set an event aside");
        }
    }

    /// What the peer of a session has said badly is not asked for again while its root is the same.
    pub(super) fn pass_over_refused(&mut self, session: SessionId) {
        let Some(live) = self.sessions.get_mut(&session) else { return };
        let Some(hello) = live.session.their_hello() else { return };
        let (keys, contents) = self.quarantine.unwanted_of(live.peer, hello.standing.root);
        live.session.pass_over(keys, contents);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_1024_are_remembered_and_those_of_another_root_are_asked_for_again() {
        let digest = |at: usize| Digest(*blake3::hash(&at.to_be_bytes()).as_bytes());
        let mut quarantine = Quarantine::default();
        assert_eq!(quarantine.fault_of(|| unreachable!("nothing is hashed in vain")), None);
        for at in 0..=QUARANTINE_MAX {
            assert!(quarantine.entries.insert(digest(at), Fault::Digest));
        }
        assert!(!quarantine.entries.insert(digest(QUARANTINE_MAX), Fault::Digest));
        assert_eq!(quarantine.len(), QUARANTINE_MAX);
        assert_eq!(quarantine.fault_of(|| digest(0)), None);
        assert_eq!(quarantine.fault_of(|| digest(1)), Some(Fault::Digest));
        quarantine.entries.insert(digest(1), Fault::Limit);
        assert_eq!(quarantine.fault_of(|| digest(1)), None);
        let (key, content, root) = (KeyHash([7; 16]), digest(7), digest(8));
        quarantine.wanted.insert((Peer(1), Wanted::Key(key)), root);
        quarantine.wanted.insert((Peer(1), Wanted::Content(content)), root);
        quarantine.wanted.insert((Peer(2), Wanted::Key(KeyHash([8; 16]))), root);
        let unwanted = (BTreeSet::from([key]), BTreeSet::from([content]));
        assert_eq!(quarantine.unwanted_of(Peer(1), root), unwanted);
        assert_eq!(quarantine.unwanted_of(Peer(1), digest(9)), Default::default());
    }
}
