//! Who may enter: the list of members of a store, kept beside it and told to a running node.
//! It must never decide who belongs on it.

use std::path::PathBuf;
use std::sync::{MutexGuard, PoisonError};

use super::PatternStore;
use crate::net::{Admission, Members, MembersError, NetError, PeerId};

/// The name of the list in the store's directory.
const MEMBERS_NAME: &str = "members";

impl PatternStore {
    /// Who may enter, as this store remembers it.
    pub fn members(&self) -> Result<Members, MembersError> {
        let mut slot = self.members_slot();
        let members = match &*slot {
            Some(members) => members.clone(),
            None => self.read_members()?,
        };
        *slot = Some(members.clone());
        Ok(members)
    }

    /// Lets a peer in by name, also one that was revoked. Durable, and at once.
    pub fn admit(&self, id: PeerId) -> Result<(), NetError> {
        self.change_members(|members| members.admit(id)).map(|_| ())
    }

    /// Keeps a peer out for good: its connections close now, and it is remembered.
    pub fn revoke(&self, id: PeerId) -> Result<(), NetError> {
        self.change_members(|members| members.revoke(id)).map(|_| ())
    }

    /// Says whom the cluster key alone lets in. Durable, and at once.
    pub fn set_admission(&self, admission: Admission) -> Result<(), NetError> {
        let change = |members: &mut Members| {
            members.admission = admission;
            Ok(())
        };
        self.change_members(change).map(|_| ())
    }

    /// Where the running node keeps its cluster key.
    pub(crate) fn key_file(&self) -> Option<PathBuf> {
        self.network()?.config.key_file.clone()
    }

    /// Changes the list: first on disk, so that a crash forgets no revocation, then in the node.
    pub(crate) fn change_members(
        &self,
        change: impl FnOnce(&mut Members) -> Result<(), MembersError>,
    ) -> Result<Members, NetError> {
        let mut slot = self.members_slot();
        let mut members = match &*slot {
            Some(members) => members.clone(),
            None => self.read_members()?,
        };
        change(&mut members)?;
        if let Some(path) = self.members_file() {
            members.store(&path)?;
        }
        *slot = Some(members.clone());
        if let Some(network) = self.network() {
            network.node.set_members(members.clone())?;
        }
        Ok(members)
    }

    /// The members a node starts with: those of its config, else those remembered here.
    pub(super) fn remembered(&self, members: Members) -> Result<Members, MembersError> {
        if members == Members::default() {
            return self.members();
        }
        *self.members_slot() = Some(members.clone());
        Ok(members)
    }

    fn read_members(&self) -> Result<Members, MembersError> {
        self.members_file().map_or_else(|| Ok(Members::default()), |path| Members::load(&path))
    }

    fn members_file(&self) -> Option<PathBuf> {
        self.home().map(|home| home.join(MEMBERS_NAME))
    }

    fn members_slot(&self) -> MutexGuard<'_, Option<Members>> {
        self.inner.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
