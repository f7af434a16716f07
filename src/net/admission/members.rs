//! The list of members: who may enter besides holding the key, who may not, and whom to call.
//!
//! It must never know a connection: it judges ids, and is read from and written to one file.

use super::{KeyError, read, replace};
use crate::net::dialing::split;
use libp2p::{Multiaddr, PeerId};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Peers admitted, and as many revoked: 2 × 4,096 lines of at most 100 bytes, 800 KiB.
pub const MEMBERS_MAX: usize = 4_096;
/// Addresses to stay connected to, from tickets.
pub const CONTACTS_MAX: usize = 64;

const FIRST_LINE: &str = "consilience members 1";
/// 8,192 ids of at most 100 bytes a line, 64 contacts of at most 700, and two lines more.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Whom the key alone lets in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Admission {
    /// Everybody who holds it and is not revoked.
    #[default]
    Open,
    /// Those on the list.
    Listed,
}

/// What the list says of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It was admitted by name.
    Admitted,
    /// It is on no list, and the list is open.
    Unlisted,
    /// It is on no list, and only those on the list may enter.
    Stranger,
    /// It was revoked.
    Revoked,
}

/// Why the list of members could not be had or changed. It is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembersError {
    /// The file could not be read or written. The disk's or the operator's.
    #[error(transparent)]
    File(#[from] KeyError),
    /// A line says nothing we know: nobody is let in on a guess. The operator's.
    #[error("read {}: line {line} is no line of a members file; mend or remove it", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// There is no room for one more. The operator's.
    #[error("list one more peer: {MEMBERS_MAX} are listed; drop some lines of the members file")]
    Full,
}

/// Who may enter. The empty list is open.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Members {
    /// Whom the key alone lets in.
    pub admission: Admission,
    admitted: BTreeSet<PeerId>,
    revoked: BTreeSet<PeerId>,
    contacts: BTreeSet<Multiaddr>,
}

impl Members {
    /// What the list says of a peer.
    pub fn standing(&self, id: &PeerId) -> Standing {
        match self.admission {
            _ if self.revoked.contains(id) => Standing::Revoked,
            _ if self.admitted.contains(id) => Standing::Admitted,
            Admission::Open => Standing::Unlisted,
            Admission::Listed => Standing::Stranger,
        }
    }

    /// True iff the peer may enter.
    pub fn admits(&self, id: &PeerId) -> bool {
        matches!(self.standing(id), Standing::Admitted | Standing::Unlisted)
    }

    /// Lets a peer in by name, also one that was revoked.
    pub fn admit(&mut self, id: PeerId) -> Result<(), MembersError> {
        add(&mut self.admitted, id)?;
        self.revoked.remove(&id);
        Ok(())
    }

    /// Keeps a peer out for good; it is called no more.
    pub fn revoke(&mut self, id: PeerId) -> Result<(), MembersError> {
        add(&mut self.revoked, id)?;
        self.admitted.remove(&id);
        self.contacts.retain(|address| split(address).1 != Some(id));
        Ok(())
    }

    /// Calls this address from now on; the oldest in order goes from a full list.
    pub fn call(&mut self, address: Multiaddr) {
        if self.contacts.len() >= CONTACTS_MAX && !self.contacts.contains(&address) {
            self.contacts.pop_first();
        }
        self.contacts.insert(address);
    }

    /// The addresses to stay connected to.
    pub fn contacts(&self) -> impl Iterator<Item = &Multiaddr> {
        self.contacts.iter()
    }

    /// The peers admitted by name.
    pub fn admitted(&self) -> impl Iterator<Item = &PeerId> {
        self.admitted.iter()
    }

    /// The peers kept out.
    pub fn revoked(&self) -> impl Iterator<Item = &PeerId> {
        self.revoked.iter()
    }

    /// Reads the list at `path`; where there is none, everybody with the key may enter.
    pub fn load(path: &Path) -> Result<Self, MembersError> {
        let Some(bytes) = read(path, FILE_BYTES_MAX)? else {
            return Ok(Self::default());
        };
        let malformed = |line| MembersError::Malformed { path: path.to_path_buf(), line };
        let text = String::from_utf8(bytes).map_err(|_| malformed(1))?;
        Self::parse(&text).map_err(malformed)
    }

    /// Writes the list to `path`, durably and all at once; only its owner can read it.
    pub fn store(&self, path: &Path) -> Result<(), MembersError> {
        Ok(replace(path, self.to_text().as_bytes())?)
    }

    /// The list as a file holds it, or the number of the first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, usize> {
        let mut lines = (1..).zip(text.lines());
        if lines.next().is_none_or(|(_, line)| line != FIRST_LINE) {
            return Err(1);
        }
        let mut members = Self::default();
        for (number, line) in lines {
            let (word, value) = line.split_once(' ').ok_or(number)?;
            let id = || value.parse::<PeerId>().map_err(|_| number);
            match (word, value) {
                ("admission", "open") => members.admission = Admission::Open,
                ("admission", "listed") => members.admission = Admission::Listed,
                ("admit", _) => members.admit(id()?).map_err(|_| number)?,
                ("revoke", _) => members.revoke(id()?).map_err(|_| number)?,
                ("contact", _) => members.call(value.parse().map_err(|_| number)?),
                _ => return Err(number),
            }
        }
        Ok(members)
    }

    fn to_text(&self) -> String {
        let admission = match self.admission {
            Admission::Open => "open",
            Admission::Listed => "listed",
        };
        let mut text = format!("{FIRST_LINE}\nadmission {admission}\n");
        let mut line = |word: &str, value: &dyn std::fmt::Display| {
            writeln!(text, "{word} {value}").expect("a string takes all that is written");
        };
        self.admitted.iter().for_each(|id| line("admit", id));
        self.revoked.iter().for_each(|id| line("revoke", id));
        self.contacts.iter().for_each(|address| line("contact", address));
        text
    }
}

fn add(list: &mut BTreeSet<PeerId>, id: PeerId) -> Result<(), MembersError> {
    if list.len() >= MEMBERS_MAX && !list.contains(&id) {
        return Err(MembersError::Full);
    }
    list.insert(id);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_list_lets_in_all_but_the_revoked_and_a_closed_one_only_the_admitted() {
        let (friend, other) = (PeerId::random(), PeerId::random());
        let mut members = Members::default();
        assert!(members.admits(&friend) && members.admits(&other));
        members.revoke(other).unwrap();
        assert!(members.admits(&friend) && !members.admits(&other));
        members.admission = Admission::Listed;
        assert_eq!(members.standing(&friend), Standing::Stranger);
        members.admit(friend).unwrap();
        assert!(members.admits(&friend) && !members.admits(&other));
        members.admit(other).unwrap();
        assert!(members.admits(&other));
        members.revoke(friend).unwrap();
        assert_eq!(members.standing(&friend), Standing::Revoked);
    }

    #[test]
    fn a_list_is_remembered_and_whoever_is_revoked_is_called_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("members");
        assert_eq!(Members::load(&path).unwrap(), Members::default());
        let (friend, other) = (PeerId::random(), PeerId::random());
        let mut members = Members { admission: Admission::Listed, ..Members::default() };
        members.admit(friend).unwrap();
        for id in [friend, other] {
            members.call(format!("/ip4/192.0.2.1/tcp/1/p2p/{id}").parse().unwrap());
        }
        members.revoke(other).unwrap();
        assert_eq!(members.contacts().count(), 1);
        members.store(&path).unwrap();
        assert_eq!(Members::load(&path).unwrap(), members);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_list_lets_nobody_in_on_a_guess() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("members");
        let bad = ["", "admission listed\n", "consilience members 2\n"];
        let rest = ["admission maybe", "revoke nobody", "revok x", "", "contact x"];
        let rest = rest.map(|line| format!("{FIRST_LINE}\nadmission listed\n{line}\n"));
        for text in bad.map(str::to_owned).into_iter().chain(rest) {
            std::fs::write(&path, &text).unwrap();
            let refused = Members::load(&path);
            assert!(matches!(refused, Err(MembersError::Malformed { .. })), "{text:?}");
        }
    }

    #[test]
    fn a_list_takes_4096_peers_of_each_kind_and_64_contacts() {
        let mut members = Members::default();
        for _ in 0..MEMBERS_MAX {
            members.admit(PeerId::random()).unwrap();
            members.revoke(PeerId::random()).unwrap();
        }
        assert!(matches!(members.admit(PeerId::random()), Err(MembersError::Full)));
        assert!(matches!(members.revoke(PeerId::random()), Err(MembersError::Full)));
        for port in 0..=CONTACTS_MAX {
            members.call(format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap());
        }
        assert_eq!(members.contacts().count(), CONTACTS_MAX);
        assert!(members.to_text().len() as u64 <= FILE_BYTES_MAX);
    }
}
