//! All spaces of one node over one disk: steps are staged, committed together, then released.
//! It must never know a thread or a clock; whoever drives it hands both in.

mod compaction;
mod durable;
mod fragments;
mod repair;

use std::collections::{BTreeMap, BTreeSet};

use crate::disk::{Batch, Disk, DiskError, Overlay};
use crate::migrations::{self, MigrationError};
use crate::pattern::{ReplicaId, Shape, SpaceId, Write, WriteReport};
use crate::planted::{self, Bug};
use crate::port::{NetInput, NetOutput, Peer, SessionId, SpaceTag, Verdict};
use crate::replica::{Absorb, Output, Replica, Trust, View};
use crate::sync::{Chance, Millis};
use crate::table::{self, Lost, TableError};
pub use compaction::Usage;
pub use fragments::FRAGMENT_BYTES_TOTAL;
pub use repair::{Claim, Holes, Mended, Repaired, forget_replica_id, repair};

/// Damaged records and contents one step may run into before it is given up.
const ASIDE_MAX: u32 = 64;

/// Most spaces of one store.
pub const SPACES_MAX: usize = 1_024;

/// Why a store could not be started. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its format is not this release's.
    #[error(transparent)]
    Format(#[from] MigrationError),
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A row that every open needs is damaged.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Why a step was refused. Nothing of it has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The pattern, or the row below it, stands in the way.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The disk failed earlier; what was acknowledged is intact and readable.
    #[error("write: the store is read-only since {0}; free space or replace the disk, then reopen")]
    ReadOnly(String),
    /// There are too many spaces.
    #[error("create space {0}: a store holds at most 1,024")]
    TooManySpaces(SpaceId),
    /// No such space.
    #[error("find space {0}: the store has none of this name")]
    NoSpace(SpaceId),
}

/// Whether the stable name of the replica is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaChoice {
    /// Keep it, or take one where there is none yet.
    Keep,
    /// Take a new one: this is a restored or copied store.
    Mint,
}

/// What the outside may ask for.
#[derive(Clone, Debug)]
pub enum Input {
    /// Make a space exist.
    Create(SpaceId),
    /// Make a space exist whose embeddings look like this, or refuse if they look otherwise.
    CreateAs(SpaceId, Shape),
    /// Local writes, all or nothing; the space comes into being at the first.
    Write(SpaceId, Vec<Write>),
    /// States from a dump.
    Absorb(SpaceId, Absorb),
    /// From the network.
    Net(NetInput),
    /// A session with this peer now, in one space.
    Sync(SpaceId, Peer),
    /// Time passes.
    Tick,
}

/// What a step answers, once it is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Nothing to say.
    Done,
    /// What the writes did.
    Written(WriteReport),
    /// The session that will be opened, where the network is there.
    Session(Option<SessionId>),
}

type Stepped<T> = Result<T, TableError>;

/// Whether a step refuses limits and shapes before anything moves, as a batch of writes does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checked {
    Whole,
    No,
}

/// One node's spaces over one disk.
pub struct Host {
    disk: Box<dyn Disk>,
    replicas: BTreeMap<SpaceId, Replica>,
    tags: BTreeMap<SpaceTag, SpaceId>,
    me: ReplicaId,
    chance: Chance,
    staged: Batch,
    outputs: Vec<Output>,
    /// The connected peers, and whether we lead.
    peers: BTreeMap<Peer, bool>,
    /// Spaces with staged writes, whose account must go with them.
    touched: BTreeSet<SpaceId>,
    failure: Option<String>,
    /// See [`Host::bound_fragments`].
    fragment_bytes_max: usize,
}

impl Host {
    /// Opens all spaces: migrates, reads digest rows and knowledge. O(patterns).
    pub fn open(
        mut disk: Box<dyn Disk>,
        seed: u64,
        choice: ReplicaChoice,
    ) -> Result<Self, StartError> {
        let mut chance = Chance::new(seed);
        let empty = Batch::default();
        migrations::migrate(&mut *disk)?;
        let mut rows = Overlay::new(&*disk, &empty);
        migrations::mark(&mut rows)?;
        let held = table::replica_id(&mut rows, None)?;
        let me = match (choice, held) {
            (ReplicaChoice::Keep, Some(id)) => id,
            _ => ReplicaId(chance.draw()),
        };
        table::replica_id(&mut rows, Some(me))?;
        if planted::is(Bug::SameActorAgain) {
            chance = Chance::new(me.0);
        }
        let mut replicas = BTreeMap::new();
        for table in table::checked_catalogue(&rows)? {
            let id = table.id().clone();
            let mut replica = Replica::open(table, me, chance.draw(), Trust::Account, &mut rows)?;
            // Opening may have set damaged records aside.
            replica.write_account(&mut rows)?;
            replicas.insert(id, replica);
        }
        let batch = rows.into_batch();
        // A disk without space serves what it holds; what opening would write is left for later.
        let failure = disk.failure();
        if !batch.is_empty() && failure.is_none() {
            disk.commit(&batch)?;
            disk.flush()?;
        }
        let (tags, peers) = (BTreeMap::new(), BTreeMap::new());
        let (staged, outputs, touched) = (empty, Vec::new(), BTreeSet::new());
        Ok(Self {
            disk,
            replicas,
            tags,
            me,
            chance,
            staged,
            outputs,
            peers,
            touched,
            failure,
            fragment_bytes_max: FRAGMENT_BYTES_TOTAL,
        })
    }

    /// Stages one step. Its outputs come out of [`Host::commit`].
    pub fn step(&mut self, now: Millis, input: Input) -> Result<Reply, StepError> {
        if let Some(failure) = &self.failure {
            let failure = failure.clone();
            return self.decline(&input, failure);
        }
        match input {
            Input::Create(space) => self.create(&space).map(|()| Reply::Done),
            Input::CreateAs(space, shape) => {
                self.create(&space)?;
                self.run(&space, Checked::Whole, |replica, rows, _| {
                    replica.choose_shape(shape, rows)
                })
                .map(|()| Reply::Done)
            }
            Input::Write(space, writes) => {
                self.create(&space)?;
                self.run(&space, Checked::Whole, |replica, rows, _| {
                    replica.write(now, &writes, rows)
                })
                .map(Reply::Written)
            }
            Input::Absorb(space, absorb) => {
                self.create(&space)?;
                self.with(&space, |replica, rows, _| replica.absorb(&absorb, rows))
                    .map(Reply::Written)
            }
            Input::Sync(space, peer) => self
                .with(&space, |replica, rows, out| replica.open_session(now, peer, rows, out))
                .map(Reply::Session),
            Input::Tick => {
                let mut outcome = Ok(Reply::Done);
                for space in self.spaces() {
                    let tick = self.with(&space, |one, rows, out| one.tick(now, rows, out));
                    // One space in trouble must not starve the others.
                    outcome = outcome.and(tick.map(|()| Reply::Done));
                }
                outcome
            }
            Input::Net(input) => self.net(now, input).map(|()| Reply::Done),
        }
    }

    /// A read-only store writes nothing, so it takes part in nothing either: it could not keep what
    /// it hears, and must not speak of what it cannot keep.
    fn decline(&mut self, input: &Input, failure: String) -> Result<Reply, StepError> {
        match input {
            Input::Write(..) if planted::is(Bug::ReadOnlySaysYes) => {}
            Input::Create(_) | Input::CreateAs(..) | Input::Write(..) | Input::Absorb(..) => {
                return Err(StepError::ReadOnly(failure));
            }
            Input::Sync(..) => return Ok(Reply::Session(None)),
            Input::Net(NetInput::Rumor { message, .. }) => {
                let (message, verdict) = (*message, Verdict::Ignore);
                self.outputs.push(Output::Net(NetOutput::Verdict { message, verdict }));
            }
            Input::Net(NetInput::Opened { session, .. } | NetInput::Frame { session, .. }) => {
                self.outputs.push(Output::Net(NetOutput::Close { session: *session }));
            }
            Input::Net(NetInput::PeerUp { peer, leads }) => {
                self.peers.insert(*peer, *leads);
            }
            Input::Net(NetInput::PeerDown { peer }) => {
                self.peers.remove(peer);
            }
            Input::Net(_) | Input::Tick => {}
        }
        Ok(Reply::Done)
    }

    fn create(&mut self, space: &SpaceId) -> Result<(), StepError> {
        if self.replicas.contains_key(space) {
            return Ok(());
        }
        if self.replicas.len() >= SPACES_MAX {
            return Err(StepError::TooManySpaces(space.clone()));
        }
        let mut rows = Overlay::new(&*self.disk, &self.staged);
        let table = table::create_space(&mut rows, space)?;
        let seed = self.chance.draw();
        let mut replica = Replica::open(table, self.me, seed, Trust::Staged, &mut rows)?;
        self.peers.iter().for_each(|(peer, leads)| replica.peer_up(*peer, *leads, Millis(0)));
        self.staged.merge(rows.into_batch());
        self.touched.insert(space.clone());
        self.replicas.insert(space.clone(), replica);
        Ok(())
    }

    fn with<T>(
        &mut self,
        space: &SpaceId,
        act: impl FnMut(&mut Replica, &mut Overlay<'_>, &mut Vec<Output>) -> Stepped<T>,
    ) -> Result<T, StepError> {
        self.run(space, Checked::No, act)
    }

    /// Runs a step of one replica on an overlay of its own; on an error nothing of it remains. What
    /// it finds damaged is set aside first, durably as all that is staged, and the step runs anew.
    fn run<T>(
        &mut self,
        space: &SpaceId,
        checked: Checked,
        mut act: impl FnMut(&mut Replica, &mut Overlay<'_>, &mut Vec<Output>) -> Stepped<T>,
    ) -> Result<T, StepError> {
        let mut set_aside = 0;
        loop {
            let Some(replica) = self.replicas.get_mut(space) else {
                return Err(StepError::NoSpace(space.clone()));
            };
            let mut rows = Overlay::new(&*self.disk, &self.staged);
            let mut out = Vec::new();
            match act(replica, &mut rows, &mut out) {
                Ok(value) => {
                    replica.report_forks(&mut out);
                    if rows.has_writes() {
                        self.touched.insert(space.clone());
                    }
                    let batch = rows.into_batch();
                    self.staged.merge(batch);
                    self.outputs.append(&mut out);
                    return Ok(value);
                }
                Err(error) if checked == Checked::Whole && error.is_refusal() => {
                    return Err(error.into());
                }
                Err(TableError::Damaged { lost: Some(lost), .. }) if set_aside < ASIDE_MAX => {
                    set_aside += 1;
                    self.reload(space, Some(lost));
                }
                Err(error) => {
                    if let TableError::Disk(error) = &error {
                        // What cannot be read cannot be kept in step with either.
                        self.failure.get_or_insert(error.to_string());
                    }
                    self.reload(space, None);
                    return Err(error.into());
                }
            }
        }
    }

    /// Builds a replica anew from what is staged: what a failed step did to it in RAM is gone, and
    /// so is what was lost to damage.
    fn reload(&mut self, space: &SpaceId, lost: Option<Lost>) {
        let seed = self.chance.draw();
        let mut rows = Overlay::new(&*self.disk, &self.staged);
        let opened = reopen(&mut rows, space, self.me, seed, lost);
        let batch = rows.into_batch();
        match opened {
            Ok(Some(mut replica)) => {
                if !batch.is_empty() {
                    self.staged.merge(batch);
                    self.touched.insert(space.clone());
                }
                let old = self.replicas.get(space);
                let open = old.into_iter().flat_map(Replica::open_sessions);
                let close = |session| Output::Net(NetOutput::Close { session });
                self.outputs.extend(open.map(close));
                let tag = old.and_then(Replica::tag);
                tag.into_iter().for_each(|tag| replica.set_tag(tag));
                let peers = self.peers.iter();
                peers.for_each(|(peer, leads)| replica.peer_up(*peer, *leads, Millis(0)));
                self.replicas.insert(space.clone(), replica);
            }
            // It came into being in the step that failed.
            Ok(None) => drop(self.replicas.remove(space)),
            Err(error) => {
                self.failure.get_or_insert(format!("space {space} could not be read: {error}"));
            }
        }
    }

    fn net(&mut self, now: Millis, input: NetInput) -> Result<(), StepError> {
        match input {
            NetInput::PeerUp { peer, leads } => {
                self.peers.insert(peer, leads);
                self.replicas.values_mut().for_each(|replica| replica.peer_up(peer, leads, now));
                Ok(())
            }
            NetInput::PeerDown { peer } => {
                self.peers.remove(&peer);
                self.replicas.values_mut().for_each(|replica| replica.peer_down(peer));
                Ok(())
            }
            NetInput::PublishFailed { space } => {
                let Some(space) = self.tags.get(&space).cloned() else {
                    return Ok(());
                };
                self.with(&space, |replica, _, _| {
                    replica.publish_failed(now);
                    Ok(())
                })
            }
            NetInput::Rumor { peer, space, message, bytes } => {
                let Some(space) = self.tags.get(&space).cloned() else {
                    return Ok(());
                };
                self.with(&space, |replica, rows, out| {
                    replica.on_rumor(now, peer, message, &bytes, rows, out)
                })
            }
            NetInput::Opened { session, peer, space, opener } => {
                let Some(space) = self.tags.get(&space).cloned() else {
                    self.outputs.push(Output::Net(NetOutput::Close { session }));
                    return Ok(());
                };
                self.with(&space, |replica, rows, out| {
                    replica.on_opened(now, session, peer, opener, rows, out)
                })
            }
            NetInput::Frame { session, bytes } => {
                self.in_session(session, |replica, rows, out| {
                    replica.on_frame(now, session, &bytes, rows, out)
                })?;
                self.crowd_out(now);
                Ok(())
            }
            NetInput::Writable { session, frames } => self
                .in_session(session, |replica, rows, out| {
                    replica.on_writable(now, session, frames, rows, out)
                }),
            NetInput::Closed { session } | NetInput::OpenFailed { session } => {
                self.in_session(session, |replica, _, out| {
                    replica.on_closed(now, session, out);
                    Ok(())
                })
            }
        }
    }

    fn in_session(
        &mut self,
        session: SessionId,
        act: impl FnMut(&mut Replica, &mut Overlay<'_>, &mut Vec<Output>) -> Stepped<()>,
    ) -> Result<(), StepError> {
        let owner = self.replicas.iter().find(|(_, replica)| replica.has_session(session));
        match owner.map(|(space, _)| space.clone()) {
            Some(space) => self.with(&space, act),
            None => Ok(()),
        }
    }

    /// Makes everything staged durable, then releases its outputs. On an error nothing staged has
    /// happened: replicas are read back from the last durable state and the store is read-only.
    pub fn commit(&mut self) -> Result<Vec<Output>, DiskError> {
        let accounts = self.stage_accounts();
        let staged = std::mem::take(&mut self.staged);
        if !staged.is_empty() {
            let durable = accounts.and_then(|()| self.put(&staged));
            if let Err(error) = durable.and_then(|()| self.flush()) {
                self.give_up(&error);
                return Err(error);
            }
        }
        Ok(std::mem::take(&mut self.outputs))
    }

    /// True iff something waits for the next tick.
    pub fn is_eager(&self) -> bool {
        self.replicas.values().any(Replica::has_fresh_rumors)
    }

    /// Under which tag a space travels.
    pub fn set_tag(&mut self, space: &SpaceId, tag: SpaceTag) {
        self.tags.insert(tag, space.clone());
        if let Some(replica) = self.replicas.get_mut(space) {
            replica.set_tag(tag);
        }
    }

    /// The spaces, by name.
    pub fn spaces(&self) -> Vec<SpaceId> {
        self.replicas.keys().cloned().collect()
    }

    /// The stable name of this replica.
    pub fn replica_id(&self) -> ReplicaId {
        self.me
    }

    /// Why the store is read-only, if it is.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Bytes on disk, dead space included.
    pub fn bytes_on_disk(&self) -> u64 {
        self.disk.bytes_on_disk()
    }

    /// A space as readers see it. Call it between a commit and the next step.
    pub fn view(&self, space: &SpaceId) -> Option<View<'_>> {
        let replica = self.replicas.get(space)?;
        Some(View::new(replica, Overlay::new(&*self.disk, &self.staged)))
    }
}

/// A space as its rows say it is, after what was lost to damage is set aside. `None` where the rows
/// know of no such space.
fn reopen(
    rows: &mut Overlay<'_>,
    space: &SpaceId,
    me: ReplicaId,
    seed: u64,
    lost: Option<Lost>,
) -> Result<Option<Replica>, TableError> {
    let found = table::catalogue(rows)?.into_iter().find(|table| table.id() == space);
    let Some(table) = found else {
        return Ok(None);
    };
    if let Some(lost) = lost {
        tracing::error!(%space, ?lost, "damaged: it must come from a peer again");
        table.set_aside(rows, lost)?;
    }
    Replica::open(table, me, seed, Trust::Staged, rows).map(Some)
}
