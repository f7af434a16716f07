//! The directory around the engine: FORMAT, LOCK, CURRENT and what must be synced.
//! It must never know what is in the engine's files.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use fs4::{FileExt, TryLockError};

use super::super::OpenError;
use super::{ENGINE, FORMAT, LOCK_PAUSE, LOCK_TRIES, SledDisk};

const MAGIC: &str = "consilience-store";
const FIRST_GENERATION: &str = "gen-1";
/// A half-made generation that the engine could not open, kept out of the way.
const SET_ASIDE: &str = "gen-1.aside";
/// All that creation makes before FORMAT: a directory with nothing else is half made.
const MADE_BEFORE_FORMAT: [&str; 6] =
    ["LOCK", "CURRENT", "CURRENT.new", "FORMAT.new", FIRST_GENERATION, SET_ASIDE];

pub(super) struct Home {
    pub(super) dir: PathBuf,
}

/// What a look at the directory says; a directory that is not ours is an error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// No directory, an empty one, or one whose making was cut short.
    Nothing,
    /// A store of our format, with its own mark or with that of its origin.
    Store { is_marked: bool },
}

impl Home {
    /// Reads FORMAT and changes nothing.
    pub(super) fn look(&self) -> Result<Found, OpenError> {
        let path = self.dir.join("FORMAT");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let metadata = fs::metadata(&path).map_err(io_error("inspect", &path))?;
                self.check_format(&text, &metadata)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.check_emptiness(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(OpenError::NotAStore { dir: self.dir.clone() })
            }
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    fn check_emptiness(&self) -> Result<Found, OpenError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            other => other.map_err(io_error("list", &self.dir))?,
        };
        for entry in entries {
            let name = entry.map_err(io_error("list", &self.dir))?.file_name();
            if !MADE_BEFORE_FORMAT.iter().any(|made| name == *made) {
                return Err(OpenError::NotAStore { dir: self.dir.clone() });
            }
        }
        Ok(Found::Nothing)
    }

    fn check_format(&self, text: &str, metadata: &Metadata) -> Result<Found, OpenError> {
        if text.lines().next() != Some(MAGIC) {
            return Err(OpenError::NotAStore { dir: self.dir.clone() });
        }
        let field = |name| {
            let mut values = text.lines().filter_map(|line| line.split_once(' '));
            values.find(|(found, _)| *found == name).map(|(_, value)| value)
        };
        let (Some(format), Some(engine)) = (field("format"), field("engine")) else {
            return Err(self.damaged("FORMAT names no format or no engine"));
        };
        if (format, engine) != (FORMAT, ENGINE) {
            return Err(OpenError::OtherFormat {
                found: format!("format {format}, engine {engine}"),
                expected: format!("format {FORMAT}, engine {ENGINE}"),
                message: SledDisk::format_release_hint(format, engine),
            });
        }
        Ok(Found::Store { is_marked: field("instance") == Some(&mark(metadata)) })
    }

    /// Takes the directory for this handle alone and leaves our process id for the others.
    pub(super) fn lock(&self) -> Result<File, OpenError> {
        let path = self.dir.join("LOCK");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(io_error("open", &path))?;
        for _ in 0..LOCK_TRIES {
            match FileExt::try_lock(&file) {
                Ok(()) => {
                    file.set_len(0)
                        .and_then(|()| file.rewind())
                        .and_then(|()| writeln!(file, "{}", std::process::id()))
                        .map_err(io_error("write", &path))?;
                    return Ok(file);
                }
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
            }
        }
        let mut text = String::new();
        // The holder is a courtesy: without it the answer is still that we are locked out.
        let holder = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
        Err(OpenError::Locked { dir: self.dir.clone(), holder })
    }

    /// Makes what must be there before the engine, and makes it durable.
    pub(super) fn begin(&self) -> Result<PathBuf, OpenError> {
        // The directory itself may be left from a creation that was cut short before this.
        sync_path(parent_of(&self.dir))?;
        let generation = self.dir.join(FIRST_GENERATION);
        create_dir_synced(&generation)?;
        self.replace("CURRENT", |_| format!("{FIRST_GENERATION}\n"))?;
        Ok(generation)
    }

    pub(super) fn set_generation_aside(&self) -> Result<(), OpenError> {
        let generation = self.dir.join(FIRST_GENERATION);
        fs::rename(&generation, self.dir.join(SET_ASIDE))
            .map_err(io_error("set aside", &generation))
    }

    /// Where the engine's files are, after a check that it would not start an empty store.
    pub(super) fn generation(&self) -> Result<PathBuf, OpenError> {
        let path = self.dir.join("CURRENT");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.damaged("CURRENT is missing"));
            }
            other => other.map_err(io_error("read", &path))?,
        };
        let name = text.trim_end();
        if name.strip_prefix("gen-").is_none_or(|number| number.parse::<u64>().is_err()) {
            return Err(self.damaged("CURRENT names no generation"));
        }
        let generation = self.dir.join(name);
        if fs::metadata(generation.join("db")).map_or(0, |metadata| metadata.len()) == 0 {
            return Err(self.damaged(format!("{name}/db is missing or empty")));
        }
        Ok(generation)
    }

    /// The engine never syncs its configuration nor any directory.
    pub(super) fn sync_generation(&self, generation: &Path) -> Result<(), OpenError> {
        for name in ["conf", "db", "blobs"] {
            sync_path(&generation.join(name))?;
        }
        sync_path(generation)?;
        sync_path(&self.dir)
    }

    /// Writes FORMAT with the mark of the very file that becomes FORMAT.
    pub(super) fn write_format(&self) -> Result<(), OpenError> {
        self.replace("FORMAT", |metadata| {
            let mark = mark(metadata);
            format!("{MAGIC}\nformat {FORMAT}\nengine {ENGINE}\ninstance {mark}\n")
        })
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> OpenError {
        OpenError::Damaged { dir: self.dir.clone(), what: what.into() }
    }

    /// Puts a file in place whole: beside, synced, renamed, and the rename synced.
    fn replace(&self, name: &str, text: impl FnOnce(&Metadata) -> String) -> Result<(), OpenError> {
        let path = self.dir.join(name);
        let beside = self.dir.join(format!("{name}.new"));
        File::create(&beside)
            .and_then(|mut file| {
                let text = text(&file.metadata()?);
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(io_error("write", &path))?;
        sync_path(&self.dir)
    }
}

/// A file keeps its inode when renamed or moved, and loses it when copied.
fn mark(metadata: &Metadata) -> String {
    format!("{}:{}", metadata.dev(), metadata.ino())
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a directory and those above it, each entry durable.
pub(super) fn create_dir_synced(dir: &Path) -> Result<(), OpenError> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = parent_of(dir);
    create_dir_synced(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(io_error("make", dir)(error))
        }
        _ => sync_path(parent),
    }
}

pub(super) fn sync_path(path: &Path) -> Result<(), OpenError> {
    #[cfg(test)]
    super::tests::SYNCED.with_borrow_mut(|synced| synced.push(path.to_owned()));
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error("sync", path))
}

pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
}
