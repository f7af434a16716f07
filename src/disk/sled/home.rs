//! The directory around the engine: FORMAT, LOCK, CURRENT and what must be synced.
//! It must never know what is in the engine's files.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use fs4::{FileExt, TryLockError};

use super::super::OpenError;
use super::reserve::is_full;
use super::{ENGINE, FORMAT, LOCK_PAUSE, LOCK_TRIES, SledDisk};

const MAGIC: &str = "consilience-store";
/// What a generation is called, before its number.
const PREFIX: &str = "gen-";
const FIRST_GENERATION: &str = "gen-1";
/// A half-made generation that the engine could not open, kept out of the way.
const SET_ASIDE: &str = "gen-1.aside";
/// In a generation that was moved to; a copy without it may be half made.
const MOVED_TO: &str = "moved-to";
/// In a generation whose files are damaged: they are kept when it is in use no more.
const KEEP: &str = "keep";
/// What damaged files that are kept are called, before a number.
const DAMAGED_PREFIX: &str = "damaged-";
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

/// Whose mark a FORMAT gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Instance {
    /// That of the very file.
    Here,
    /// Nobody's: the store is taken for a copy.
    Unknown,
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
        // Everything is said twice, so that a lost bit makes no other format of ours.
        let (text, again) = text.split_at_checked(text.len() / 2).unwrap_or_default();
        if text != again {
            return Err(self.damaged("FORMAT"));
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
                    let written = file
                        .set_len(0)
                        .and_then(|()| file.rewind())
                        .and_then(|()| writeln!(file, "{}", std::process::id()));
                    return match written {
                        // The lock is held; the name of its holder is a courtesy.
                        Err(error) if !is_full(&error) => Err(io_error("write", &path)(error)),
                        _ => Ok(file),
                    };
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
        self.replace("CURRENT", |_| current_text(FIRST_GENERATION))?;
        Ok(generation)
    }

    pub(super) fn set_generation_aside(&self) -> Result<(), OpenError> {
        let generation = self.dir.join(FIRST_GENERATION);
        fs::rename(&generation, self.dir.join(SET_ASIDE))
            .map_err(io_error("set aside", &generation))
    }

    /// Which generation of the engine's files is in use.
    pub(super) fn current(&self) -> Result<u64, OpenError> {
        let path = self.dir.join("CURRENT");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.damaged("CURRENT is missing"));
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.damaged("CURRENT is not text"));
            }
            other => other.map_err(io_error("read", &path))?,
        };
        // Said twice, so that a lost bit names no other generation: a half-made one may be there.
        let name = text.lines().next().unwrap_or_default();
        let is_sound = text.ends_with('\n') && text.lines().all(|line| line == name);
        let number = number_of(name).filter(|_| is_sound);
        number.ok_or_else(|| self.damaged("CURRENT names no generation"))
    }

    /// Where the engine's files are, after a check that it would not start an empty store.
    pub(super) fn generation(&self) -> Result<PathBuf, OpenError> {
        let number = self.current()?;
        let generation = self.path_of(number);
        if fs::metadata(generation.join("db")).map_or(0, |metadata| metadata.len()) == 0 {
            return Err(self.damaged(format!("gen-{number}/db is missing or empty")));
        }
        Ok(generation)
    }

    /// The files of one generation.
    pub(super) fn path_of(&self, generation: u64) -> PathBuf {
        self.dir.join(format!("{PREFIX}{generation}"))
    }

    /// Puts another generation in use, which is whole and holds all that the one before does.
    pub(super) fn switch(&self, generation: u64) -> Result<(), OpenError> {
        self.leave(generation, MOVED_TO)?;
        self.replace("CURRENT", |_| current_text(&format!("{PREFIX}{generation}")))
    }

    /// Which of these was in use, where CURRENT does not say: the last that was moved to, or the
    /// first, which nothing ever moved to.
    pub(super) fn last_moved_to(&self, generations: &[u64]) -> Option<u64> {
        let was_moved_to = |number: &&u64| self.path_of(**number).join(MOVED_TO).exists();
        generations.iter().rev().find(was_moved_to).or(generations.first()).copied()
    }

    /// Says that the files of a generation are damaged, so that a crash after the move to another
    /// does not cost them.
    pub(super) fn keep(&self, generation: u64) -> Result<(), OpenError> {
        self.leave(generation, KEEP)
    }

    /// Takes that back.
    pub(super) fn keep_no_more(&self, generation: u64) {
        // Where it is not there, or stays, the worst is files that are kept for nothing.
        let _ = fs::remove_file(self.path_of(generation).join(KEEP));
    }

    /// Leaves an empty file in a generation, durably.
    fn leave(&self, generation: u64, name: &str) -> Result<(), OpenError> {
        let path = self.path_of(generation);
        let file = path.join(name);
        File::create(&file).map_err(io_error("write", &file))?;
        sync_path(&file)?;
        sync_path(&path)
    }

    /// Puts the damaged files of a generation that is not in use where nothing deletes them.
    pub(super) fn set_damaged_aside(&self, generation: u64) -> Result<String, OpenError> {
        let path = self.path_of(generation);
        let names = (generation..).map(|number| format!("{DAMAGED_PREFIX}{number}"));
        let free = names.into_iter().find(|name| !self.dir.join(name).exists());
        let name = free.expect("a directory holds fewer names than there are numbers");
        fs::rename(&path, self.dir.join(&name)).map_err(io_error("set aside", &path))?;
        sync_path(&self.dir)?;
        Ok(name)
    }

    /// The generations there are, whether in use or not.
    pub(super) fn generations(&self) -> Result<Vec<u64>, OpenError> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))? {
            let entry = entry.map_err(io_error("list", &self.dir))?;
            numbers.extend(entry.file_name().to_str().and_then(number_of));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Deletes the generations that are not `current`: a compaction was cut short before or after
    /// it moved over. Damaged files are set aside instead. What fails is left to the next open.
    pub(super) fn sweep(&self, current: u64) {
        let others = self.generations().unwrap_or_default();
        for number in others.into_iter().filter(|number| *number != current) {
            if !self.path_of(number).join(KEEP).exists() {
                self.delete(number);
            } else if let Err(error) = self.set_damaged_aside(number) {
                tracing::warn!(number, %error, "damaged files stay where they are");
            }
        }
    }

    /// Deletes a generation that is not in use.
    pub(super) fn delete(&self, generation: u64) {
        let path = self.path_of(generation);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "an unused generation stays");
            }
            _ => {}
        }
    }

    /// The engine never syncs its configuration nor any directory.
    pub(super) fn sync_generation(&self, generation: &Path) -> Result<(), OpenError> {
        for name in ["conf", "db", "blobs"] {
            sync_path(&generation.join(name))?;
        }
        sync_path(generation)?;
        sync_path(&self.dir)
    }

    /// True iff a FORMAT that may be damaged bears the mark of its own file: no copy does.
    pub(super) fn is_marked_somewhere(&self) -> bool {
        let path = self.dir.join("FORMAT");
        let (Ok(bytes), Ok(metadata)) = (fs::read(&path), fs::metadata(&path)) else {
            return false;
        };
        let line = format!("instance {}", mark(&metadata));
        bytes.split(|byte| *byte == b'\n').any(|found| found == line.as_bytes())
    }

    /// Writes FORMAT, with the mark of the very file that becomes FORMAT or with none.
    pub(super) fn write_format(&self, instance: Instance) -> Result<(), OpenError> {
        self.replace("FORMAT", |metadata| {
            let mark = match instance {
                Instance::Here => mark(metadata),
                Instance::Unknown => "unknown".to_owned(),
            };
            format!("{MAGIC}\nformat {FORMAT}\nengine {ENGINE}\ninstance {mark}\n").repeat(2)
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
            .inspect(|()| stop_here(&format!("{name}.new")))
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(io_error("write", &path))?;
        sync_path(&self.dir)
    }
}

/// What CURRENT says when a generation of this name is in use.
fn current_text(name: &str) -> String {
    format!("{name}\n").repeat(2)
}

/// The number of a generation by its name, in the one spelling that [`Home::path_of`] gives it.
fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix(PREFIX)?.parse().ok()?;
    (format!("{PREFIX}{number}") == name).then_some(number)
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

/// Where tests cut short what a crash may cut short.
pub(super) fn stop_here(step: &str) {
    #[cfg(test)]
    super::tests::stop_here(step);
    #[cfg(not(test))]
    let _ = step;
}

pub(super) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
}
