//! Where a verb finds its store: a directory, a dump, stdin, or the process that holds it.
//! It must never choose by verb; a verb says whether it reads or writes.

use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Write};
use std::path::{Path, PathBuf};

use super::narrate;
use crate::store::{Client, Fault, Input, PatternStore, Query, Verdict, answer};

/// What a verb is going to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The store must be there; a dump will do.
    Read,
    /// The store must be there, in a directory.
    Change,
    /// A store is made where there is none.
    Fill,
}

/// Somewhere queries are answered.
pub(super) enum Source {
    /// A store in this process.
    Open(PatternStore),
    /// A dump, read into memory.
    Dump(PatternStore),
    /// A store that another process holds and answers for.
    Held(PathBuf),
}

impl Source {
    /// Finds it, and says on stderr when another process is asked.
    pub(super) fn find(path: &Path, purpose: Purpose) -> Result<Self, Fault> {
        if purpose == Purpose::Read {
            if path == Path::new("-") {
                return Self::read_dump("stdin", &mut io::stdin().lock());
            }
            if path.is_file() {
                let name = path.display().to_string();
                let file = File::open(path);
                let file = file.map_err(|error| Fault::Io(format!("open {name}: {error}")))?;
                return Self::read_dump(&name, &mut BufReader::new(file));
            }
        }
        if Client::connect(path).is_ok() {
            return Ok(Self::held(path));
        }
        let opened = match purpose {
            Purpose::Read | Purpose::Change => PatternStore::open_existing(path),
            Purpose::Fill => PatternStore::open(path),
        };
        match opened.map_err(Fault::from) {
            Ok(store) => Ok(Self::Open(store)),
            // It may have come up while we waited for the lock.
            Err(Fault::Locked(_)) if Client::connect(path).is_ok() => Ok(Self::held(path)),
            Err(fault) => Err(fault),
        }
    }

    fn held(path: &Path) -> Self {
        let holder = fs::read_to_string(path.join("LOCK")).unwrap_or_default();
        let holder = holder.trim();
        narrate(&format!("asking process {holder}, which holds {}", path.display()));
        Self::Held(path.to_owned())
    }

    fn read_dump(name: &str, reader: &mut dyn io::BufRead) -> Result<Self, Fault> {
        let store = PatternStore::in_memory()?;
        let at = |fault: Fault| Fault::from_code(fault.code(), format!("read {name}: {fault}"));
        store.load(None, reader).map_err(|error| at(error.into()))?;
        Ok(Self::Dump(store))
    }

    /// Answers a query wherever the store is.
    pub(super) fn ask(
        &self,
        query: &Query,
        input: Input<'_>,
        out: &mut dyn Write,
    ) -> Result<Verdict, Fault> {
        match self {
            Self::Open(store) | Self::Dump(store) => answer(store, query, input, out),
            Self::Held(dir) => {
                let lost = |error| Fault::Io(format!("reach the control socket: {error}"));
                Client::connect(dir).map_err(lost)?.ask(query, input, out)
            }
        }
    }

    /// These spaces in memory, as they are now: what is done to the copy reaches nothing else. A
    /// dump is one already. Takes as much memory as their dumps and they do.
    pub(super) fn copy(self, spaces: &[String]) -> Result<PatternStore, Fault> {
        if let Self::Dump(store) = self {
            return Ok(store);
        }
        let copy = PatternStore::in_memory()?;
        for space in spaces {
            let mut dump = Vec::new();
            let query = Query::Dump { space: space.clone(), values: false };
            self.ask(&query, Input::None, &mut dump)?;
            copy.load_file(None, &mut Cursor::new(dump))?;
        }
        Ok(copy)
    }

    /// The space a query is about: the one named, else the only one of a dump, else the default.
    pub(super) fn space(&self, named: Option<&str>) -> String {
        let only = match self {
            Self::Dump(store) => match &store.spaces()[..] {
                [only] => Some(only.as_str().to_owned()),
                _ => None,
            },
            _ => None,
        };
        let default = || crate::store::SPACE_DEFAULT.to_owned();
        named.map(str::to_owned).or(only).unwrap_or_else(default)
    }
}
