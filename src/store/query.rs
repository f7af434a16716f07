//! Every question a store answers, once: the same over the control socket and in one's own process.
//! It must never know who asks, nor print anything for people.

#[cfg(feature = "net")]
mod admission;
mod belief_rows;
mod beliefs;
mod compact;
mod edit;
#[cfg(all(feature = "net", feature = "cli"))]
mod glimpse;
mod look;
mod merkle;
#[cfg(feature = "net")]
mod peers;
mod rows;
mod status;

use std::io::{self, BufRead, BufReader, Seek, Write};

use serde::{Deserialize, Serialize};

use super::{DumpMode, LoadError, OpenError, PatternStore, ReadError, WriteError};
use crate::engine;
use crate::host::StepError;
use crate::migrations::MigrationError;
use crate::pattern::{IdError, SpaceId};
use crate::table::TableError;
pub(crate) use beliefs::{Extent, Lens};
#[cfg(all(feature = "net", feature = "cli"))]
pub(crate) use glimpse::dry_run;
#[cfg(feature = "cli")]
pub(crate) use merkle::{compared, prefix};

/// A question or an order; names are checked by whoever answers.
#[derive(Clone, Serialize, Deserialize, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    /// The root of a space, as hex and a newline.
    Root { space: String },
    /// A row of what stands at a path of the trie.
    Merkle { space: String, path: String },
    /// One JSON object about everything.
    Status,
    /// A row for each pattern whose id matches.
    List { space: String, glob: Option<String> },
    /// A row for each pattern named by id or unique prefix.
    Get { space: String, ids: Vec<String> },
    /// A row for each belief, or for that of one pattern; then one of counts.
    Beliefs { space: String, id: Option<String>, extent: Extent, lens: Lens },
    /// A row for each conflict, or for each relation of one pattern; then one of counts.
    Conflicts { space: String, id: Option<String>, lens: Lens },
    /// A row for each event a pattern stands on.
    History { space: String, id: String },
    /// The space as JSON lines.
    Dump { space: String, values: bool },
    /// A row for each space checked.
    Verify { space: Option<String> },
    /// Makes the store take less space, or only says what it takes.
    Compact { dry_run: bool },
    /// A row of id and digest for each pattern.
    Digests { space: String },
    /// Takes the input; a row for each space.
    Load { space: Option<String>, kind: LoadKind },
    /// Makes a space, with an encoding where one is named.
    Create { space: String, encoding: Option<String> },
    /// Takes back citations.
    Retract { space: String, id: String, episodes: Vec<String> },
    /// Removes patterns.
    Remove { space: String, ids: Vec<String> },
    /// A row for each peer.
    Peers,
    /// Refuses just these peers from now on.
    Isolate { peers: Vec<String> },
    /// Sessions with a peer; a row for each space.
    Sync { address: String, space: Option<String> },
    /// A ticket, under a new key if the old one is to go.
    Invite { rotate: bool, addresses: Vec<String>, key_file: Option<String> },
    /// Enters the cluster of a ticket, leaving another one if told to.
    Join { ticket: String, replace: bool, key_file: Option<String> },
    /// Lets peers in by name, and says whom the key alone lets in; then a row for each one listed.
    Admit { peers: Vec<String>, admission: Option<String> },
    /// Keeps peers out for good.
    Revoke { peers: Vec<String> },
}

/// What an input is.
#[derive(Clone, Copy, Serialize, Deserialize, Debug, PartialEq, Eq)]
pub(crate) enum LoadKind {
    /// Dumps of a space.
    Dumps,
    /// Plain consolidation lines.
    Observations,
}

/// An answer in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// As asked.
    Yes,
    /// It differs, or is damaged; the rows say how.
    No,
}

/// Why there is no answer: whose fault it is, and the words after "failed to".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// There is no such thing here.
    #[error("{0}")]
    NotFound(String),
    /// Something kept here is damaged.
    #[error("{0}")]
    Damaged(String),
    /// The question makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The system or its disk.
    #[error("{0}")]
    Io(String),
    /// No store is there.
    #[error("{0}")]
    NoStore(String),
    /// Another process holds the store and does not answer.
    #[error("{0}")]
    Locked(String),
    /// Another release must read it.
    #[error("{0}")]
    OtherFormat(String),
    /// A peer cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// What was offered is not taken; nothing has changed.
    #[error("{0}")]
    Refused(String),
}

impl Fault {
    /// The number it has as an exit code and on the control socket.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::NotFound(_) | Self::Damaged(_) => 1,
            Self::Usage(_) => 2,
            Self::Io(_) => 3,
            Self::NoStore(_) => 10,
            Self::Locked(_) => 11,
            Self::OtherFormat(_) => 12,
            Self::Unreachable(_) => 13,
            Self::Refused(_) => 14,
        }
    }

    /// The fault with this number.
    pub(crate) fn from_code(code: u8, message: String) -> Self {
        match code {
            1 => Self::NotFound(message),
            2 => Self::Usage(message),
            10 => Self::NoStore(message),
            11 => Self::Locked(message),
            12 => Self::OtherFormat(message),
            13 => Self::Unreachable(message),
            14 => Self::Refused(message),
            _ => Self::Io(message),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(format!("pass the answer on: {error}"))
    }
}

impl From<IdError> for Fault {
    fn from(error: IdError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<TableError> for Fault {
    fn from(error: TableError) -> Self {
        match &error {
            TableError::Damaged { .. } | TableError::Unbalanced { .. } => {
                Self::Damaged(error.to_string())
            }
            TableError::Disk(_) => Self::Io(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Table(error) => error.into(),
            ReadError::NoSpace { .. } => Self::NotFound(error.to_string()),
            ReadError::Output(_) => Self::Io(error.to_string()),
        }
    }
}

impl From<WriteError> for Fault {
    fn from(error: WriteError) -> Self {
        match error {
            engine::WriteError::Step(StepError::Table(error)) => error.into(),
            engine::WriteError::Step(StepError::TooManySpaces(_)) => {
                Self::Refused(error.to_string())
            }
            engine::WriteError::Step(StepError::NoSpace(_)) => Self::NotFound(error.to_string()),
            _ => Self::Io(error.to_string()),
        }
    }
}

impl From<LoadError> for Fault {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Input(_) => Self::Io(error.to_string()),
            LoadError::Read(error) => error.into(),
            LoadError::Write(error) => error.into(),
            refused => Self::Refused(refused.to_string()),
        }
    }
}

impl From<OpenError> for Fault {
    fn from(error: OpenError) -> Self {
        let message = error.to_string();
        if error.is_other_format() {
            return Self::OtherFormat(message);
        }
        match error {
            OpenError::Disk(disk) => match disk {
                crate::disk::OpenError::NoStore { .. }
                | crate::disk::OpenError::NotAStore { .. } => Self::NoStore(message),
                crate::disk::OpenError::Locked { .. } => Self::Locked(message),
                crate::disk::OpenError::Damaged { .. } => Self::Damaged(message),
                _ => Self::Io(message),
            },
            OpenError::Start(
                engine::StartError::Table(
                    TableError::Damaged { .. } | TableError::Unbalanced { .. },
                )
                | engine::StartError::Format(
                    MigrationError::Unreadable
                    | MigrationError::Unmarked
                    | MigrationError::Step { .. },
                ),
            ) => Self::Damaged(message),
            _ => Self::Io(message),
        }
    }
}

#[cfg(feature = "net")]
impl From<crate::net::NetError> for Fault {
    fn from(error: crate::net::NetError) -> Self {
        use crate::net::{MembersError, NetError};
        match &error {
            NetError::Dial { .. } | NetError::Timeout(_) => Self::Unreachable(error.to_string()),
            NetError::TooManySpaces
            | NetError::Members(MembersError::Full | MembersError::Malformed { .. }) => {
                Self::Refused(error.to_string())
            }
            _ => Self::Io(error.to_string()),
        }
    }
}

/// What a query reads besides itself.
pub(crate) enum Input<'i> {
    /// Nothing.
    None,
    /// A stream that can be read once.
    Stream(&'i mut dyn BufRead),
    /// A file that can be read twice.
    File(std::fs::File),
}

/// Answers one query; rows are lines of bytes.
pub(crate) fn answer(
    store: &PatternStore,
    query: &Query,
    input: Input<'_>,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    match query {
        Query::Root { space } => look::root(store, &SpaceId::new(space)?, out),
        Query::Merkle { space, path } => merkle::merkle(store, &SpaceId::new(space)?, path, out),
        Query::Status => status::status(store, out),
        Query::List { space, glob } => {
            look::list(store, &SpaceId::new(space)?, glob.as_deref(), out)
        }
        Query::Get { space, ids } => look::get(store, &SpaceId::new(space)?, ids, out),
        Query::Beliefs { space, id, extent, lens } => {
            beliefs::beliefs(store, &SpaceId::new(space)?, id.as_deref(), *extent, lens, out)
        }
        Query::Conflicts { space, id, lens } => {
            beliefs::conflicts(store, &SpaceId::new(space)?, id.as_deref(), lens, out)
        }
        Query::History { space, id } => beliefs::events(store, &SpaceId::new(space)?, id, out),
        Query::Dump { space, values } => {
            let mode = if *values { DumpMode::Values } else { DumpMode::State };
            store.dump(&SpaceId::new(space)?, mode, out)?;
            Ok(Verdict::Yes)
        }
        Query::Verify { space } => look::verify(store, space.as_deref(), out),
        Query::Compact { dry_run } => compact::compact(store, *dry_run, out),
        Query::Digests { space } => look::digests(store, &SpaceId::new(space)?, out),
        Query::Load { space, kind } => load(store, space.as_deref(), *kind, input, out),
        Query::Create { space, encoding } => {
            edit::create(store, &SpaceId::new(space)?, encoding.as_deref())
        }
        Query::Retract { space, id, episodes } => {
            edit::retract(store, &SpaceId::new(space)?, id, episodes, out)
        }
        Query::Remove { space, ids } => edit::remove(store, &SpaceId::new(space)?, ids, out),
        #[cfg(feature = "net")]
        Query::Peers => peers::peers(store, out),
        #[cfg(feature = "net")]
        Query::Isolate { peers } => peers::isolate(store, peers),
        #[cfg(feature = "net")]
        Query::Sync { address, space } => peers::sync(store, address, space.as_deref(), out),
        #[cfg(feature = "net")]
        Query::Invite { .. } | Query::Join { .. } | Query::Admit { .. } | Query::Revoke { .. } => {
            admission::answer(store, query, out)
        }
        #[cfg(not(feature = "net"))]
        Query::Peers
        | Query::Isolate { .. }
        | Query::Sync { .. }
        | Query::Invite { .. }
        | Query::Join { .. }
        | Query::Admit { .. }
        | Query::Revoke { .. } => {
            Err(Fault::Usage("reach peers: this binary was built without the network".to_owned()))
        }
    }
}

/// The space observations without one of their own go to.
pub(crate) const SPACE_DEFAULT: &str = "default";

fn load(
    store: &PatternStore,
    space: Option<&str>,
    kind: LoadKind,
    input: Input<'_>,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let named = space.map(SpaceId::new).transpose()?;
    let default = named.clone().map_or_else(|| SpaceId::new(SPACE_DEFAULT), Ok)?;
    let mut nothing = io::empty();
    let report = match (kind, input) {
        (LoadKind::Dumps, Input::File(file)) => {
            store.load_file(named.as_ref(), &mut rewound(file)?)?
        }
        (LoadKind::Observations, Input::File(file)) => {
            store.load_observations_file(&default, &mut rewound(file)?)?
        }
        (LoadKind::Dumps, Input::Stream(stream)) => store.load(named.as_ref(), stream)?,
        (LoadKind::Observations, Input::Stream(stream)) => {
            store.load_observations(&default, stream)?
        }
        (_, Input::None) => store.load(named.as_ref(), &mut nothing)?,
    };
    for (space, written) in &report.spaces {
        rows::put(out, &rows::WrittenRow::new(space, *written))?;
    }
    Ok(Verdict::Yes)
}

fn rewound(mut file: std::fs::File) -> io::Result<BufReader<std::fs::File>> {
    file.rewind()?;
    Ok(BufReader::with_capacity(256 * 1024, file))
}
