//! The embedding facade: plain synchronous reads and writes over one engine, network optional.
//! It must never know how states converge; it names spaces, batches and files.

mod beliefs;
mod changes;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line compares"))]
mod comparison;
#[cfg(unix)]
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line is the client"))]
mod control;
mod dump;
#[cfg(all(feature = "net", feature = "cli"))]
mod glimpse;
mod lines;
mod load;
#[cfg(feature = "net")]
mod members;
mod migration;
#[cfg(feature = "net")]
mod network;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line asks the rest"))]
mod query;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line compares"))]
mod rehearsal;
mod repair;
mod space;
mod spool;
#[cfg(test)]
mod tests;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(feature = "net")]
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::disk::memory::MemoryDisk;
use crate::disk::sled::SledDisk;
use crate::disk::{Disk, OpenMode};
use crate::engine::{COMPACTION_FLOOR_BYTES, Engine, EngineOptions, ReplicaChoice, StartError};
use crate::migrations::MigrationError;
use crate::pattern::{Encoding, IdError, ReplicaId, Shape, SpaceId, Write, WriteReport};
use crate::sync::Millis;
use crate::table::TableError;

pub use crate::codec::dump::{DumpError, DumpMode};
pub use crate::disk::Compacted;
pub use crate::engine::WriteError;
pub use crate::host::Usage;
pub use beliefs::{Beliefs, Refreshed, Totals};
pub use changes::{Changed, Changes, ChangesError, Cursor, CursorError};
#[cfg(all(unix, any(feature = "cli", test)))]
pub(crate) use control::Client;
#[cfg(unix)]
pub use control::ControlServer;
#[cfg(unix)]
pub use control::SOCKET_NAME;
#[cfg(all(feature = "net", feature = "cli"))]
pub(crate) use glimpse::Glimpse;
pub use load::{LoadError, LoadReport};
#[cfg(feature = "net")]
pub(crate) use network::SpaceSync;
#[cfg(any(feature = "cli", test))]
pub(crate) use query::LoadKind;
#[cfg(all(feature = "net", feature = "cli"))]
pub(crate) use query::dry_run;
#[cfg(any(feature = "cli", test))]
pub(crate) use query::{Extent, Lens};
pub(crate) use query::{Fault, Input, Query, Verdict, answer};
#[cfg(feature = "cli")]
pub(crate) use query::{SPACE_DEFAULT, compared, prefix};
pub use repair::{Claim, Holes, Mended, RepairReport, Repaired};
pub use space::{Applied, PatternView, Patterns, Space};
pub use verify::VerifyReport;

/// Why a store could not be opened. No stored row has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory, its lock or its format stands in the way.
    #[error(transparent)]
    Disk(#[from] crate::disk::OpenError),
    /// The rows could not be read. The disk's fault, or a later release wrote them.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system has no randomness.
    #[error("draw a random number for the store: {0}")]
    Random(getrandom::Error),
}

impl OpenError {
    /// True iff another release must read this store.
    pub fn is_other_format(&self) -> bool {
        matches!(
            self,
            Self::Disk(crate::disk::OpenError::OtherFormat { .. })
                | Self::Start(StartError::Format(
                    MigrationError::Newer { .. } | MigrationError::Older { .. }
                ))
        )
    }
}

/// Why a read failed. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A row is damaged or the disk refused.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The caller's: no space has this name.
    #[error("find space {space}: the store has {}", listed(known))]
    NoSpace {
        /// The name asked for.
        space: SpaceId,
        /// The names there are.
        known: Vec<SpaceId>,
    },
    /// What was read could not be passed on: the system's, or whoever reads it went away.
    #[error("write what was read: {0}")]
    Output(#[from] std::io::Error),
}

fn listed(spaces: &[SpaceId]) -> String {
    if spaces.is_empty() {
        return "no spaces yet".to_owned();
    }
    let names: Vec<&str> = spaces.iter().map(SpaceId::as_str).collect();
    format!("{}; name one with --space", names.join(", "))
}

/// What may be chosen when a space is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SpaceOptions {
    /// How embeddings are kept; `None` leaves it to the first write (f32) or the first peer.
    pub encoding: Option<Encoding>,
}

impl SpaceOptions {
    /// With this encoding.
    #[must_use]
    pub const fn encoding(self, encoding: Encoding) -> Self {
        Self { encoding: Some(encoding), ..self }
    }
}

/// A store of patterns. Clones share it; it closes when the last is gone or at
/// [`PatternStore::close`].
///
/// ```
/// use consilience::pattern::{EpisodeId, Observation, PatternId, Ratio};
/// use consilience::store::PatternStore;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PatternStore::in_memory()?;
/// let space = store.space("default")?;
/// space.observe(Observation {
///     id: PatternId::new("tides")?,
///     episodes: [EpisodeId::new("monday")?].into(),
///     content: None,
///     belief: Some((Ratio::new(0.75)?, Ratio::new(0.5)?)),
///     weight: None,
///     at_ms: 0,
/// })?;
/// assert_eq!(space.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PatternStore {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    home: Option<PathBuf>,
    #[cfg(feature = "net")]
    network: Mutex<Option<Arc<network::Network>>>,
    /// Who may enter, once somebody asked; changes wait for each other here.
    #[cfg(feature = "net")]
    members: Mutex<Option<crate::net::Members>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

impl std::fmt::Debug for PatternStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PatternStore").field("home", &self.inner.home).finish_non_exhaustive()
    }
}

impl PatternStore {
    /// Opens the store in `dir`, making one where there is none. O(patterns).
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_in(dir.as_ref(), OpenMode::Create)
    }

    /// Opens the store in `dir`; refuses where there is none.
    pub fn open_existing(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_in(dir.as_ref(), OpenMode::MustExist)
    }

    /// A store that is gone when it is dropped.
    pub fn in_memory() -> Result<Self, OpenError> {
        Self::start(Box::new(MemoryDisk::default()), ReplicaChoice::Keep, None)
    }

    fn open_in(dir: &Path, mode: OpenMode) -> Result<Self, OpenError> {
        let disk = SledDisk::open(dir, mode)?;
        let choice = if disk.was_copied() {
            tracing::warn!(dir = %dir.display(), "this store is a copy: it gets a new replica id");
            ReplicaChoice::Mint
        } else {
            ReplicaChoice::Keep
        };
        Self::start(Box::new(disk), choice, Some(dir.to_owned()))
    }

    fn start(
        disk: Box<dyn Disk>,
        replica: ReplicaChoice,
        home: Option<PathBuf>,
    ) -> Result<Self, OpenError> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(OpenError::Random)?;
        let options = EngineOptions {
            seed: u64::from_le_bytes(seed),
            replica,
            clock: Arc::new(now),
            compaction_floor_bytes: COMPACTION_FLOOR_BYTES,
        };
        let inner = Inner {
            engine: Engine::start(disk, options)?,
            home,
            #[cfg(feature = "net")]
            network: Mutex::new(None),
            #[cfg(feature = "net")]
            members: Mutex::new(None),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A space by name. It comes into being at its first write.
    pub fn space(&self, name: &str) -> Result<Space, IdError> {
        Ok(Space::new(self.clone(), SpaceId::new(name)?))
    }

    /// The spaces there are, by name.
    pub fn spaces(&self) -> Vec<SpaceId> {
        self.inner.engine.read(crate::host::Host::spaces)
    }

    /// The directory, unless the store is in memory.
    pub fn home(&self) -> Option<&Path> {
        self.inner.home.as_deref()
    }

    /// The stable name of this replica.
    pub fn replica_id(&self) -> ReplicaId {
        self.inner.engine.read(crate::host::Host::replica_id)
    }

    /// Why the store takes no more writes, if so: its disk has failed.
    pub fn failure(&self) -> Option<String> {
        self.inner.engine.read(|host| host.failure().map(str::to_owned))
    }

    /// Makes a space exist before its first write, so that peers' patterns arrive in it.
    pub fn create_space(&self, space: &SpaceId) -> Result<(), WriteError> {
        self.inner.engine.create_space(space)?;
        self.serve_space(space);
        Ok(())
    }

    /// As [`PatternStore::create_space`], with choices that hold for good; the same again is fine.
    /// Other choices than the space has, or than its first write or a peer has made, are refused.
    ///
    /// Choose at one node before any writes: nodes that have no choice of their own take over that
    /// of the first peer they meet, and a first write without one makes a space f32.
    pub fn create_space_with(
        &self,
        space: &SpaceId,
        options: SpaceOptions,
    ) -> Result<(), WriteError> {
        let Some(encoding) = options.encoding else {
            return self.create_space(space);
        };
        self.create_space_as(space, Shape::of_any_dimension(encoding))
    }

    fn create_space_as(&self, space: &SpaceId, shape: Shape) -> Result<(), WriteError> {
        self.inner.engine.create_space_as(space, shape)?;
        self.serve_space(space);
        Ok(())
    }

    /// What the store takes up on disk, and how much of it is live.
    pub fn usage(&self) -> Usage {
        self.inner.engine.read(crate::host::Host::usage)
    }

    /// Rewrites the store densely, beside what is there, and moves over; a crash at any moment
    /// leaves one or the other. Writers wait meanwhile, readers only for the move. It happens by
    /// itself once a store of more than 16 MiB takes four times its live bytes. Needs as much free
    /// space as the live bytes take, twice over. O(bytes).
    pub fn compact(&self) -> Result<Compacted, WriteError> {
        self.inner.engine.compact()
    }

    /// Stops the network and the writer; what was acknowledged is durable anyway. Later writes are
    /// refused, in all clones.
    pub fn close(&self) {
        #[cfg(feature = "net")]
        self.leave();
        self.inner.engine.stop();
    }

    /// Applies writes, all or nothing, and returns when they are durable.
    pub(crate) fn write(
        &self,
        space: &SpaceId,
        writes: Vec<Write>,
    ) -> Result<WriteReport, WriteError> {
        let is_new = self.inner.engine.read(|host| host.view(space).is_none());
        let report = self.inner.engine.write(space, writes)?;
        if is_new {
            self.serve_space(space);
        }
        Ok(report)
    }

    /// Tells a running network that the space exists.
    #[cfg_attr(not(feature = "net"), expect(clippy::unused_self, reason = "nobody to tell"))]
    fn serve_space(&self, space: &SpaceId) {
        #[cfg(feature = "net")]
        if let Some(network) = self.network() {
            network.serve(space);
        }
        #[cfg(not(feature = "net"))]
        let _ = space;
    }

    #[cfg(feature = "net")]
    fn network_slot(&self) -> MutexGuard<'_, Option<Arc<network::Network>>> {
        self.inner.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of all files below the store's directory.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        self.home().map_or(0, tree_bytes)
    }
}

fn tree_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => tree_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
