//! Orders about who may enter: tickets out and in, the list of members, a new key.
//! It must never print a secret but in a ticket that was asked for.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::rows::put;
use super::{Fault, Query, Verdict};
use crate::net::admission::{Ticket, load_or_create_identity};
use crate::net::{Admission, ClusterKey, KeyError, Members, Multiaddr, PeerId, Standing};
use crate::store::PatternStore;

#[derive(Serialize)]
struct JoinRow {
    /// Who we are: what the other side may have to admit.
    peer_id: String,
    cluster: &'static str,
    contacts: usize,
}

#[derive(Serialize)]
struct MemberRow {
    peer_id: String,
    standing: &'static str,
    admission: &'static str,
}

pub(super) fn answer(
    store: &PatternStore,
    query: &Query,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    match query {
        Query::Invite { rotate, addresses, key_file } => {
            let kind = if *rotate { Key::Rotated } else { Key::Kept };
            invite(store, kind, addresses, key_file.as_deref(), out)
        }
        Query::Join { ticket, replace, key_file } => {
            let other = if *replace { Other::Left } else { Other::Kept };
            join(store, ticket, other, key_file.as_deref(), out)
        }
        Query::Admit { peers, admission } => admit(store, peers, admission.as_deref(), out),
        Query::Revoke { peers } => revoke(store, peers, out),
        _ => unreachable!("the caller hands over no other query"),
    }
}

/// Whether the cluster keeps its key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Kept,
    Rotated,
}

/// What becomes of a membership in another cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Other {
    Kept,
    Left,
}

/// Where the key of a store is: where its node says, else as named, else in its directory.
fn key_path(store: &PatternStore, named: Option<&str>) -> Result<PathBuf, Fault> {
    if let Some(path) = store.key_file() {
        return Ok(path);
    }
    let home = home(store)?;
    Ok(named.map_or_else(|| home.join("cluster.key"), PathBuf::from))
}

fn home(store: &PatternStore) -> Result<&Path, Fault> {
    store.home().ok_or_else(|| Fault::Refused("keep a key: the store has no directory".to_owned()))
}

fn key_fault(error: &KeyError) -> Fault {
    Fault::Io(error.to_string())
}

fn invite(
    store: &PatternStore,
    kind: Key,
    addresses: &[String],
    key_file: Option<&str>,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let path = key_path(store, key_file)?;
    let named = addresses.iter().map(|text| address(text)).collect::<Result<Vec<_>, _>>()?;
    let status = store.network_status()?;
    let addresses = match &status {
        _ if !named.is_empty() => named,
        Some((_, status)) => reachable(&status.listen_addrs),
        None => {
            let hint = "give --address MULTIADDR, or invite while the store is served";
            return Err(Fault::Usage(format!("invite: nobody could find this node; {hint}")));
        }
    };
    let peer = match status {
        Some((id, _)) => id,
        None => identity(store)?,
    };
    let key = match kind {
        Key::Kept => ClusterKey::load_or_create(&path).map_err(|error| key_fault(&error))?,
        Key::Rotated => {
            let key = ClusterKey::generate().map_err(|error| key_fault(&error))?;
            key.replace(&path).map_err(|error| key_fault(&error))?;
            store.rekey(key.clone())?;
            key
        }
    };
    let ticket = Ticket { key, peer, addresses };
    writeln!(out, "{}", ticket.encode())?;
    Ok(Verdict::Yes)
}

/// Addresses others may use: without those of this machine alone, where there are any.
fn reachable(addresses: &[Multiaddr]) -> Vec<Multiaddr> {
    let local = |address: &&Multiaddr| {
        let text = address.to_string();
        text.starts_with("/ip4/127.") || text.starts_with("/ip6/::1/")
    };
    let far: Vec<Multiaddr> = addresses.iter().filter(|address| !local(address)).cloned().collect();
    if far.is_empty() { addresses.to_vec() } else { far }
}

fn identity(store: &PatternStore) -> Result<PeerId, Fault> {
    let keys = load_or_create_identity(&home(store)?.join("identity.key"));
    Ok(keys.map_err(|error| key_fault(&error))?.public().to_peer_id())
}

fn join(
    store: &PatternStore,
    text: &str,
    other: Other,
    key_file: Option<&str>,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let ticket = Ticket::decode(text).map_err(|error| Fault::Refused(error.to_string()))?;
    let path = key_path(store, key_file)?;
    let us = identity(store)?;
    if us == ticket.peer {
        return Err(Fault::Refused("join: this ticket was made by this very store".to_owned()));
    }
    let cluster = if path.exists() {
        let held = ClusterKey::load_or_create(&path).map_err(|error| key_fault(&error))?;
        match (held == ticket.key, other) {
            (true, _) => "unchanged",
            (false, Other::Left) => {
                ticket.key.replace(&path).map_err(|error| key_fault(&error))?;
                "replaced"
            }
            (false, Other::Kept) => {
                let hint = "give --replace to leave it, as after a new key";
                return Err(Fault::Refused(format!("join: it is in another cluster; {hint}")));
            }
        }
    } else {
        ticket.key.store(&path).map_err(|error| key_fault(&error))?;
        "joined"
    };
    let members = store.change_members(|members| {
        ticket.contacts().for_each(|address| members.call(address));
        members.admit(ticket.peer)
    })?;
    if cluster != "unchanged" {
        store.rekey(ticket.key)?;
    }
    let contacts = members.contacts().count();
    put(out, &JoinRow { peer_id: us.to_string(), cluster, contacts })?;
    Ok(Verdict::Yes)
}

fn admit(
    store: &PatternStore,
    peers: &[String],
    admission: Option<&str>,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let ids = peers.iter().map(|text| peer_id(text)).collect::<Result<Vec<_>, _>>()?;
    let admission = match admission {
        None => None,
        Some("open") => Some(Admission::Open),
        Some("listed") => Some(Admission::Listed),
        Some(other) => {
            return Err(Fault::Usage(format!("admit: {other:?} is neither open nor listed")));
        }
    };
    let members = if ids.is_empty() && admission.is_none() {
        store.members().map_err(crate::net::NetError::from)?
    } else {
        store.change_members(|members| {
            members.admission = admission.unwrap_or(members.admission);
            ids.into_iter().try_for_each(|id| members.admit(id))
        })?
    };
    list(&members, out)
}

fn revoke(store: &PatternStore, peers: &[String], out: &mut dyn Write) -> Result<Verdict, Fault> {
    let ids = peers.iter().map(|text| peer_id(text)).collect::<Result<Vec<_>, _>>()?;
    let revoked = |members: &mut Members| ids.into_iter().try_for_each(|id| members.revoke(id));
    list(&store.change_members(revoked)?, out)
}

fn list(members: &Members, out: &mut dyn Write) -> Result<Verdict, Fault> {
    let admission = match members.admission {
        Admission::Open => "open",
        Admission::Listed => "listed",
    };
    for id in members.admitted().chain(members.revoked()) {
        let standing = standing_name(members.standing(id));
        put(out, &MemberRow { peer_id: id.to_string(), standing, admission })?;
    }
    Ok(Verdict::Yes)
}

pub(super) const fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Admitted => "admitted",
        Standing::Unlisted => "unlisted",
        Standing::Stranger => "stranger",
        Standing::Revoked => "revoked",
    }
}

/// A peer id, or an address that ends in one.
pub(super) fn peer_id(text: &str) -> Result<PeerId, Fault> {
    let last = text.rsplit('/').next().unwrap_or(text);
    last.parse::<PeerId>().map_err(|_| Fault::Usage(format!("read {text:?} as a peer id")))
}

fn address(text: &str) -> Result<Multiaddr, Fault> {
    let bad = |error| Fault::Usage(format!("read {text:?} as an address: {error}"));
    text.parse::<Multiaddr>().map_err(bad)
}
