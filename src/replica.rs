//! One space at one node: patterns, index, knowledge, rumors and sessions under one step function.
//! It must never know a clock, a thread or a socket; time and chance are handed in.

mod exchange;
mod forks;
mod hear;
mod knowledge;
mod local;
mod merge;
mod quarantine;
mod rebuild;
mod rumors;
mod search;
mod speak;
mod worth;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use crate::codec::knowledge_hash;
use crate::disk::Overlay;
use crate::index::Index;
use crate::lattice::{Actor, VersionVector};
use crate::pattern::{
    Content, Digest, KeyHash, Knowledge, Pattern, PatternId, ReplicaId, Shape, SpaceId, WriteReport,
};
use crate::port::{NetOutput, Peer, SessionId, SpaceTag};
use crate::sync::{Chance, Millis, Outcome, Peers};
use crate::table::{Audited, DigestRow, Finding, Sum, Table, TableError};
use exchange::Live;
pub use forks::Fork;
use forks::Forks;
use quarantine::Quarantine;
pub use quarantine::{Fault, QUARANTINE_MAX, SetAside};
pub use rumors::RUMOR_DELAY_MS;
pub use worth::{BARREN_BYTES_MAX, BARREN_BYTES_PER_PATTERN, barren_bytes_max};

/// How a session went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionReport {
    /// The space.
    pub space: SpaceId,
    /// The stream.
    pub session: SessionId,
    /// The other end.
    pub peer: Peer,
    /// How it ended; `None` where it broke.
    pub outcome: Option<Outcome>,
    /// Turns taken by both sides.
    pub turns: u32,
    /// Frame bytes received and sent.
    pub bytes: (u64, u64),
    /// Parts received and sent.
    pub parts: (u64, u64),
    /// Contents received and sent.
    pub contents: (u64, u64),
    /// Entries of the peer that were set aside.
    pub set_aside: u64,
}

/// What a step asks for; nothing of it may happen before the step's writes are durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// For the network.
    Net(NetOutput),
    /// A session is over.
    Ended(SessionReport),
    /// One event was told in two ways. All that is correct still ends equal.
    Forked(Fork),
}

/// What the rows of a space are held against when they are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// The account that was written with them.
    Account,
    /// Nothing: they were staged a moment ago, and the account is written with the batch.
    Staged,
}

/// States from a dump: one side of a session, without a peer.
#[derive(Clone, Debug, Default)]
pub struct Absorb {
    /// Whole states.
    pub states: Vec<Pattern>,
    /// Content they name.
    pub contents: Vec<Content>,
    /// What is known where they come from, whatever the key.
    pub floor: VersionVector,
    /// Set with the last of a verified whole, so that its knowledge may be taken over: the
    /// [`View::life`] from before the first. What came since may have been lost in another.
    pub complete: Option<u64>,
}

/// Sizes and open ends of a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Live patterns.
    pub patterns: u64,
    /// Records that still carry a context, dead ones included.
    pub contexts: u64,
    /// Keys with removals beyond the knowledge vector.
    pub residue: u64,
    /// Contents referred to and missing.
    pub wants: u64,
    /// Keys lost to damage, and not asked for since.
    pub holes: u64,
    /// Sessions open.
    pub sessions: u64,
    /// Sessions that ended, and how many of them broke.
    pub sessions_ended: u64,
    /// Of those, the broken ones.
    pub sessions_broken: u64,
    /// Times another claimed events of our own actor.
    pub actor_claims: u64,
    /// Sessions after which roots differed without a reason.
    pub divergences: u64,
    /// Sessions that were ended, for too many bytes of theirs brought nothing new.
    pub barren: u64,
    /// Sessions that were ended, for unfinished messages took too much in all.
    pub crowded_out: u64,
    /// Sessions that were refused after one of those.
    pub barred: u64,
    /// Events that were told in two ways, the latest 1,024 once each.
    pub forks: u64,
    /// Entries of peers that were refused, each alone.
    pub set_aside: SetAside,
    /// Of those, how many different ones are remembered.
    pub quarantined: u64,
    /// Frame bytes received.
    pub bytes_in: u64,
    /// Frame bytes sent.
    pub bytes_out: u64,
    /// Parts received in sessions that have ended.
    pub parts_in: u64,
    /// Parts sent in sessions that have ended.
    pub parts_out: u64,
}

/// One space under one step function.
#[derive(Debug)]
pub struct Replica {
    table: Table,
    me: ReplicaId,
    tag: Option<SpaceTag>,
    index: Index,
    /// What is fully incorporated, our own events included.
    knowledge: Knowledge,
    /// The sum over its rows.
    sum: Sum,
    actor: Option<Actor>,
    counter: u64,
    /// Our previous event on each key, exact, for this incarnation only.
    previous: BTreeMap<KeyHash, u64>,
    /// Contexts no live entry shows, per key; what lies beyond knowledge is the residue.
    silent: BTreeMap<KeyHash, VersionVector>,
    /// Keys whose record carries a context.
    contexts: BTreeSet<KeyHash>,
    /// How many of them are still to be looked at, for something may be forgotten now.
    sweep_due: usize,
    sequence: u64,
    /// The seed of this opening: nothing that was stored since has been lost to damage.
    life: u64,
    /// Changes of live parts since open.
    changes: u64,
    /// Changes of any kind, and contents that came, since open.
    news: u64,
    chance: Chance,
    peers: Peers,
    thorough: BTreeSet<Peer>,
    /// Peers with whom a search by sketch has not found all: the next one walks.
    walkers: BTreeSet<Peer>,
    sessions: BTreeMap<SessionId, Live>,
    /// The session whose frame is being applied.
    hearing: Option<SessionId>,
    next_session: u64,
    outbox: rumors::Outbox,
    quarantine: Quarantine,
    forks: Forks,
    counts: Counts,
}

impl Replica {
    /// Reads a space: its digest rows and knowledge, and the few records with a context.
    /// O(patterns) rows, no pattern decoded otherwise. Records that are damaged are set aside; more
    /// gaps than can be announced are given up.
    pub fn open(
        table: Table,
        me: ReplicaId,
        seed: u64,
        trust: Trust,
        rows: &mut Overlay<'_>,
    ) -> Result<Self, TableError> {
        let account = table.account(rows)?;
        let mut replica = Self::empty(table, me, seed);
        replica.sequence = account.map_or(0, |account| account.sequence);
        replica.read_knowledge(rows)?;
        let digests = replica.table.digests(rows)?;
        for (key, row) in &digests {
            replica.index.set(*key, row.digest);
        }
        replica.index.refresh();
        if trust == Trust::Account {
            replica.check_account(account)?;
        }
        for (key, row) in digests {
            replica.note_row(key, row, rows)?;
        }
        if replica.knowledge.is_beyond_limits() {
            replica.give_up_gaps(rows)?;
        }
        replica.sweep_again();
        // Few rows, read so that damage in them is met here and not in the middle of a session.
        replica.table.wants(rows, None, usize::MAX)?;
        Ok(replica)
    }

    fn empty(table: Table, me: ReplicaId, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        Self {
            knowledge: Knowledge::new(),
            sum: Sum::default(),
            sequence: 0,
            me,
            tag: None,
            index: Index::new(),
            actor: None,
            counter: 0,
            previous: BTreeMap::new(),
            silent: BTreeMap::new(),
            contexts: BTreeSet::new(),
            sweep_due: 0,
            life: seed,
            changes: 0,
            news: 0,
            peers: Peers::new(chance.draw()),
            // Session ids must not repeat across replicas of one host: the host spaces them out.
            next_session: chance.draw() >> 1 & !0xffff_ffff,
            chance,
            thorough: BTreeSet::new(),
            walkers: BTreeSet::new(),
            sessions: BTreeMap::new(),
            hearing: None,
            outbox: rumors::Outbox::default(),
            quarantine: Quarantine::default(),
            forks: Forks::default(),
            counts: Counts::default(),
            table,
        }
    }

    fn note_row(
        &mut self,
        key: KeyHash,
        row: DigestRow,
        rows: &mut Overlay<'_>,
    ) -> Result<(), TableError> {
        if !row.has_context {
            return Ok(());
        }
        match self.table.load(rows, key) {
            Ok(pattern) => pattern.iter().for_each(|pattern| self.note_context(key, pattern)),
            Err(TableError::Damaged { lost: Some(lost), .. }) => self.set_aside(rows, lost)?,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The space.
    pub fn id(&self) -> &SpaceId {
        self.table.id()
    }

    /// Under which tag the space travels, once the network has said so.
    pub fn tag(&self) -> Option<SpaceTag> {
        self.tag
    }

    /// What the rows are.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The peer table, for status.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The root, its marked nodes rehashed once for all who ask next.
    pub fn fresh_root(&mut self) -> Digest {
        self.index.refresh();
        self.index.root()
    }

    /// Time passes: fresh events are pushed, due sessions opened, some contexts forgotten.
    pub fn tick(
        &mut self,
        now: Millis,
        rows: &mut Overlay<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), TableError> {
        self.push_rumors(now, out);
        self.open_due(now, rows, out)?;
        self.sweep(rows)
    }

    /// A peer is connected.
    pub fn peer_up(&mut self, peer: Peer, leads: bool, now: Millis) {
        self.peers.up(peer, leads, now);
    }

    /// A peer is gone.
    pub fn peer_down(&mut self, peer: Peer) {
        self.peers.down(peer);
    }

    /// Something we published may be lost: ask around soon.
    pub fn publish_failed(&mut self, now: Millis) {
        self.peers.quicken(now);
    }

    fn knowledge_hash(&self) -> u64 {
        let beyond = |(key, vector): (&KeyHash, &VersionVector)| {
            let rest = vector.beyond(self.knowledge.of(*key));
            (!rest.is_empty()).then_some((*key, rest))
        };
        let residue: Vec<(KeyHash, VersionVector)> =
            self.silent.iter().filter_map(beyond).collect();
        knowledge_hash(&self.knowledge, residue.iter().map(|(key, vector)| (*key, vector)))
    }
}

/// A space as readers see it: only what is durable.
pub struct View<'r> {
    replica: &'r Replica,
    rows: Overlay<'r>,
}

impl<'r> View<'r> {
    /// A replica and the rows it speaks of.
    pub fn new(replica: &'r Replica, rows: Overlay<'r>) -> Self {
        Self { replica, rows }
    }

    /// The root of the index.
    pub fn root(&self) -> Digest {
        self.replica.index.root()
    }

    /// Which keys there are, and what state each is in.
    pub fn index(&self) -> &'r Index {
        &self.replica.index
    }

    /// Live patterns.
    pub fn len(&self) -> u64 {
        self.replica.index.len()
    }

    /// True iff no pattern is live.
    pub fn is_empty(&self) -> bool {
        self.replica.index.is_empty()
    }

    /// What is fully incorporated, our own events included.
    pub fn knowledge(&self) -> &'r Knowledge {
        &self.replica.knowledge
    }

    /// Another number after every reopening and every loss of a record.
    pub fn life(&self) -> u64 {
        self.replica.life
    }

    /// The events on one pattern that count as seen here, its context aside: for a record that was
    /// lost to damage fewer than for all others.
    pub fn floor_of(&self, id: &PatternId) -> &'r VersionVector {
        self.replica.floor_of(crate::codec::key_hash(self.replica.table.id(), id))
    }

    /// Equal at two replicas with equal roots iff they have nothing to tell each other.
    pub fn knowledge_hash(&self) -> u64 {
        self.replica.knowledge_hash()
    }

    /// What embeddings look like, once one was written or an encoding chosen.
    pub fn shape(&self) -> Option<Shape> {
        self.replica.table.shape()
    }

    /// The number of the latest change.
    pub fn version(&self) -> u64 {
        self.replica.sequence
    }

    /// A pattern by id; dead ones count as absent. O(its size).
    pub fn get(&self, id: &PatternId) -> Result<Option<Pattern>, TableError> {
        Ok(self.record(id)?.filter(|pattern| !pattern.is_dead()))
    }

    /// What is stored of a pattern, dead ones with a context included. O(its size).
    pub fn record(&self, id: &PatternId) -> Result<Option<Pattern>, TableError> {
        let key = crate::codec::key_hash(self.replica.table.id(), id);
        self.replica.table.load(&self.rows, key)
    }

    /// A pattern by its key; dead ones count as absent. O(its size).
    pub fn by_key(&self, key: KeyHash) -> Result<Option<Pattern>, TableError> {
        let found = self.replica.table.load(&self.rows, key)?;
        Ok(found.filter(|pattern| !pattern.is_dead()))
    }

    /// The changes after a number, in order, at most so many; `None` where the log no longer
    /// reaches back so far, or never came so far.
    pub fn changes(
        &self,
        after: u64,
        most: u64,
    ) -> Result<Option<Vec<(u64, KeyHash)>>, TableError> {
        let now = self.replica.sequence;
        if after > now {
            return Ok(None);
        }
        self.replica.table.changes(&self.rows, after, now.min(after.saturating_add(most)))
    }

    /// Content by digest.
    pub fn content(&self, digest: &Digest) -> Result<Option<Content>, TableError> {
        self.replica.table.content(&self.rows, *digest)
    }

    /// Every record in key order, dead ones with a context included.
    pub fn for_each(
        &self,
        visit: &mut dyn FnMut(&Pattern) -> ControlFlow<()>,
    ) -> Result<(), TableError> {
        for (key, _) in self.replica.table.digests(&self.rows)? {
            if let Some(pattern) = self.replica.table.load(&self.rows, key)?
                && visit(&pattern).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// The digest the index holds for a pattern.
    pub fn indexed(&self, id: &PatternId) -> Option<Digest> {
        self.replica.index.get(&crate::codec::key_hash(self.replica.table.id(), id))
    }

    /// Reads everything that is stored of the space and says what does not fit. Calls `pattern` for
    /// every record that can be read. O(bytes).
    pub fn audit(
        &self,
        pattern: &mut dyn FnMut(&Pattern),
        found: &mut dyn FnMut(Finding),
    ) -> Audited {
        self.replica.table.audit(&self.rows, pattern, found)
    }

    /// The connected peers as this space knows them.
    pub fn peers(&self) -> &'r Peers {
        &self.replica.peers
    }

    /// Sizes and open ends.
    pub fn counts(&self) -> Counts {
        let knowledge = &self.replica.knowledge;
        let beyond =
            |(key, vector): &(&KeyHash, &VersionVector)| !knowledge.of(**key).dominates(vector);
        Counts {
            patterns: self.replica.index.len(),
            contexts: self.replica.contexts.len() as u64,
            residue: self.replica.silent.iter().filter(beyond).count() as u64,
            holes: knowledge.holes() as u64,
            quarantined: self.replica.quarantine.len() as u64,
            sessions: self.replica.sessions.len() as u64,
            wants: self
                .replica
                .table
                .wants(&self.rows, None, usize::MAX)
                .map_or(0, |w| w.len() as u64),
            ..self.replica.counts
        }
    }
}

/// The sum of two reports.
pub(crate) fn add_reports(left: WriteReport, right: WriteReport) -> WriteReport {
    WriteReport {
        inserted: left.inserted + right.inserted,
        updated: left.updated + right.updated,
        removed: left.removed + right.removed,
        unchanged: left.unchanged + right.unchanged,
    }
}
