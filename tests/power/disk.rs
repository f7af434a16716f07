//! A disk that remembers what is certain and what is not, and images of it after a power cut.
//! It must never know what the files are for.
//!
//! The rule is that of POSIX. Certain is what `fsync` or `fdatasync` of a file covered, and of a
//! directory its entries. Of the rest, each page of 4 KiB survives by itself, as of any moment
//! since the last sync, or torn between sectors; a length survives as of any moment; entries
//! survive up to some moment, one for all directories as with a journal, or one for each.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use consilience::sync::Chance;

use crate::shim::{CREATES, Event, How, TRUNCATES};

const PAGE_BYTES: usize = 4_096;
const SECTOR_BYTES: usize = 512;
/// One page of so many is torn between its sectors.
const TORN: u64 = 8;
const ROOT: usize = 0;

/// Which syncs count: a guard is switched off by looking away from what it does.
pub type Counts = fn(path: &str, is_dir: bool, how: How) -> bool;

enum Change<'a> {
    Write(u64, &'a [u8]),
    Length(u64),
}

#[derive(Default)]
struct FileNode<'a> {
    /// As of the last sync.
    certain: Vec<u8>,
    /// Since then.
    pending: Vec<Change<'a>>,
}

/// What an entry of a directory points at from some event on; `None` once it is gone.
type Edit = Vec<(String, Option<usize>)>;

#[derive(Default)]
struct DirNode {
    names: BTreeMap<String, usize>,
    edits: Vec<(usize, Edit)>,
    certain: usize,
}

enum Node<'a> {
    File(FileNode<'a>),
    Dir(DirNode),
}

/// How much of what is uncertain an image keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    Nothing,
    Everything,
    /// Data is lost and entries are kept: the file system wrote its journal first.
    Entries,
    /// By chance, with entries in one order for all directories, or in one for each.
    SomeInOrder,
    SomeOfEach,
}

/// The state of all files below the watched directory after some events of a log.
pub struct Disk<'a> {
    nodes: Vec<Node<'a>>,
    handles: BTreeMap<u32, (usize, &'a str)>,
    counts: Counts,
    events: usize,
    /// The last event that some directory's sync made certain.
    journal: usize,
}

impl<'a> Disk<'a> {
    pub fn new(counts: Counts) -> Self {
        let nodes = vec![Node::Dir(DirNode::default())];
        Self { nodes, handles: BTreeMap::new(), counts, events: 0, journal: 0 }
    }

    pub fn apply(&mut self, event: &'a Event) {
        self.events += 1;
        match event {
            Event::Start => self.handles.clear(),
            Event::Open { handle, flags, path } => {
                let node = self.open(path, *flags);
                self.handles.insert(*handle, (node, path));
            }
            Event::Write { handle, offset, data } => {
                self.file(self.handles[handle].0).pending.push(Change::Write(*offset, data));
            }
            Event::SetLength { handle, length } => {
                self.file(self.handles[handle].0).pending.push(Change::Length(*length));
            }
            Event::Sync { handle, how } => self.sync(*handle, *how),
            Event::Rename { from, to } => {
                let node = self.find(from).expect("what is renamed is there");
                let ((old, old_name), (new, new_name)) = (self.split(from), self.split(to));
                let (gone, come) = ((old_name, None), (new_name, Some(node)));
                if old == new {
                    self.edit(old, vec![gone, come]);
                } else {
                    self.edit(new, vec![come]);
                    self.edit(old, vec![gone]);
                }
            }
            Event::Unlink(path) | Event::Rmdir(path) => {
                let (dir, name) = self.split(path);
                self.edit(dir, vec![(name, None)]);
            }
            Event::Mkdir(path) => self.make(path, Node::Dir(DirNode::default())),
            Event::Ack(_) | Event::Fault { .. } => {}
        }
    }

    fn open(&mut self, path: &str, flags: u32) -> usize {
        if self.find(path).is_none() {
            assert!(flags & CREATES != 0, "{path} is open and the log does not say who made it");
            self.make(path, Node::File(FileNode::default()));
        }
        let node = self.find(path).expect("it was just made");
        if flags & TRUNCATES != 0 {
            self.file(node).pending.push(Change::Length(0));
        }
        node
    }

    fn make(&mut self, path: &str, node: Node<'a>) {
        self.nodes.push(node);
        let (dir, name) = self.split(path);
        self.edit(dir, vec![(name, Some(self.nodes.len() - 1))]);
    }

    fn sync(&mut self, handle: u32, how: How) {
        let (node, path) = self.handles[&handle];
        let is_dir = matches!(self.nodes[node], Node::Dir(_));
        if how == How::Range || !(self.counts)(path, is_dir, how) {
            return;
        }
        match &mut self.nodes[node] {
            Node::File(file) => {
                file.certain = file.as_of(file.pending.len());
                file.pending.clear();
            }
            Node::Dir(dir) => {
                dir.certain = dir.edits.len();
                self.journal = self.events;
            }
        }
    }

    fn edit(&mut self, dir: usize, edit: Edit) {
        let Node::Dir(dir) = &mut self.nodes[dir] else { panic!("a file has no entries") };
        for (name, node) in &edit {
            match node {
                Some(node) => dir.names.insert(name.clone(), *node),
                None => dir.names.remove(name),
            };
        }
        dir.edits.push((self.events, edit));
    }

    fn find(&self, path: &str) -> Option<usize> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(ROOT, |dir, name| {
            let Node::Dir(dir) = &self.nodes[dir] else { return None };
            dir.names.get(name).copied()
        })
    }

    fn split(&self, path: &str) -> (usize, String) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.find(dir).expect("the directory above is there"), name.to_owned())
    }

    fn file(&mut self, node: usize) -> &mut FileNode<'a> {
        match &mut self.nodes[node] {
            Node::File(file) => file,
            Node::Dir(_) => panic!("a directory has no bytes"),
        }
    }

    /// Puts into `dir` what a power cut at this moment might leave.
    pub fn image(&self, dir: &Path, keep: Keep, chance: &mut Chance) {
        let span = (self.events - self.journal) as u64;
        let until = match keep {
            Keep::Nothing => self.journal,
            Keep::Everything | Keep::Entries => self.events,
            _ => self.events - usize::try_from(chance.below(span + 1)).unwrap(),
        };
        self.write_out(ROOT, dir, (keep, until), chance);
    }

    fn write_out(&self, dir: usize, to: &Path, keep: (Keep, usize), chance: &mut Chance) {
        let Node::Dir(dir) = &self.nodes[dir] else { panic!("a directory") };
        let in_order = dir.edits.partition_point(|(at, _)| *at <= keep.1).max(dir.certain);
        let of_its_own = chance.below((dir.edits.len() - dir.certain) as u64 + 1);
        let survive = match keep.0 {
            Keep::SomeOfEach => dir.certain + usize::try_from(of_its_own).unwrap(),
            Keep::Nothing => dir.certain,
            _ => in_order,
        };
        let mut names = BTreeMap::new();
        for (name, node) in dir.edits[..survive].iter().flat_map(|(_, edit)| edit) {
            match node {
                Some(node) => names.insert(name, *node),
                None => names.remove(name),
            };
        }
        for (name, node) in names {
            let to = to.join(name);
            match &self.nodes[node] {
                Node::Dir(_) => {
                    fs::create_dir(&to).unwrap();
                    self.write_out(node, &to, keep, chance);
                }
                Node::File(file) => {
                    let bytes = match keep.0 {
                        Keep::Nothing | Keep::Entries => file.certain.clone(),
                        Keep::Everything => file.as_of(file.pending.len()),
                        Keep::SomeInOrder | Keep::SomeOfEach => file.survivor(chance),
                    };
                    fs::write(&to, bytes).unwrap();
                }
            }
        }
    }
}

impl Change<'_> {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let start = usize::try_from(*offset).unwrap();
                let end = start + data.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[start..end].copy_from_slice(data);
            }
            Self::Length(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
        }
    }
}

impl FileNode<'_> {
    fn as_of(&self, changes: usize) -> Vec<u8> {
        let mut bytes = self.certain.clone();
        self.pending[..changes].iter().for_each(|change| change.apply(&mut bytes));
        bytes
    }

    /// The pages that changes may have altered, with the number of the changes that did.
    fn touched(&self) -> BTreeMap<usize, Vec<usize>> {
        let mut touched: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut length = self.certain.len();
        for (at, change) in self.pending.iter().enumerate() {
            let (start, end) = match change {
                Change::Write(offset, data) => {
                    let start = usize::try_from(*offset).unwrap();
                    (start, start + data.len())
                }
                Change::Length(to) => (usize::try_from(*to).unwrap(), length),
            };
            for page in start / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
                touched.entry(page).or_default().push(at + 1);
            }
            length = match change {
                Change::Write(..) => length.max(end),
                Change::Length(_) => start,
            };
        }
        touched
    }

    /// One of the contents that a power cut may leave.
    fn survivor(&self, chance: &mut Chance) -> Vec<u8> {
        let all: Vec<usize> = (1..=self.pending.len()).collect();
        let length = self.as_of(pick(&all, chance)).len();
        let mut versions: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for (page, changes) in self.touched() {
            let start = page * PAGE_BYTES;
            let is_torn = chance.below(TORN) == 0;
            let step = if is_torn { SECTOR_BYTES } else { PAGE_BYTES };
            for from in (start..start + PAGE_BYTES).step_by(step) {
                versions.entry(pick(&changes, chance)).or_default().push((from, from + step));
            }
        }
        let mut bytes = self.certain.clone();
        bytes.resize(bytes.len().max(length), 0);
        let mut version = self.certain.clone();
        let mut done = 0;
        // A range keeps the version it was given: one pass over the changes serves all ranges.
        for (changes, ranges) in versions {
            self.pending[done..changes].iter().for_each(|change| change.apply(&mut version));
            done = changes;
            for (from, to) in ranges {
                let (to, from) = (to.min(length), from.min(length));
                bytes[from..to].fill(0);
                let have = to.min(version.len());
                if from < have {
                    bytes[from..have].copy_from_slice(&version[from..have]);
                }
            }
        }
        bytes.truncate(length);
        bytes
    }
}

/// One of the numbers, or 0 for none of them. All and none are as likely as everything between.
fn pick(from: &[usize], chance: &mut Chance) -> usize {
    let at = usize::try_from(chance.below(from.len() as u64 + 1)).unwrap();
    match chance.below(3) {
        0 => 0,
        1 => from.last().copied().unwrap_or(0),
        _ => at.checked_sub(1).map_or(0, |at| from[at]),
    }
}
