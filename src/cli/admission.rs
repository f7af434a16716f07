//! Verbs about who may enter: tickets, and the list of members.
//! It must never judge a peer or read a key; whoever holds the store does.

use std::io::Read as _;

use super::output::Output;
use super::source::{Purpose, Source};
use super::table::Layout;
use super::{Common, narrate};
use crate::net::admission::TICKET_CHARS_MAX;
use crate::store::{Fault, Input, Query, Verdict};

/// Arguments of `invite`.
#[derive(clap::Args)]
pub(super) struct InviteArguments {
    /// Where others reach this node; may be given several times [default: where it listens].
    #[arg(long, value_name = "MULTIADDR")]
    address: Vec<String>,
    /// Make a new cluster key: nobody with the old one is let in any more, and every node that is
    /// to stay joins with the new ticket.
    #[arg(long)]
    rotate: bool,
    /// The secret that admits to the cluster, of a store that is not being served [default:
    /// cluster.key in the store].
    #[arg(long, value_name = "FILE")]
    cluster_key: Option<String>,
}

/// Arguments of `join`.
#[derive(clap::Args)]
pub(super) struct JoinArguments {
    /// What invite printed; - reads it from stdin, where no process list shows it.
    #[arg(value_name = "TICKET")]
    ticket: String,
    /// Leave the cluster this store is in.
    #[arg(long)]
    replace: bool,
    /// Where to keep the secret, for a store that is not being served [default: cluster.key in the
    /// store].
    #[arg(long, value_name = "FILE")]
    cluster_key: Option<String>,
}

/// Arguments of `admit`.
#[derive(clap::Args)]
pub(super) struct AdmitArguments {
    /// Peer ids, or addresses that end in one.
    #[arg(value_name = "PEER")]
    peers: Vec<String>,
    /// Whom the cluster key alone lets in: everybody not revoked, or nobody.
    #[arg(long, value_name = "open|listed")]
    admission: Option<String>,
}

/// Arguments of `revoke`.
#[derive(clap::Args)]
pub(super) struct RevokeArguments {
    /// Peer ids, or addresses that end in one.
    #[arg(value_name = "PEER", required = true)]
    peers: Vec<String>,
}

const MEMBERS: Layout = Layout::Columns(&["peer_id", "standing", "admission"]);

pub(super) fn invite(
    common: &Common,
    arguments: &InviteArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = Source::find(common.store()?, Purpose::Fill)?;
    let query = Query::Invite {
        rotate: arguments.rotate,
        addresses: arguments.address.clone(),
        key_file: arguments.cluster_key.clone(),
    };
    let verdict = source.ask(&query, Input::None, out)?;
    narrate("whoever has this ticket is in: pass it on as you would a password");
    Ok(verdict)
}

pub(super) fn join(
    common: &Common,
    arguments: &JoinArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let ticket = if arguments.ticket == "-" { read_ticket()? } else { arguments.ticket.clone() };
    let source = Source::find(common.store()?, Purpose::Fill)?;
    let query =
        Query::Join { ticket, replace: arguments.replace, key_file: arguments.cluster_key.clone() };
    let layout = Layout::Columns(&["peer_id", "cluster", "contacts"]);
    out.rows(&layout, |rows| source.ask(&query, Input::None, rows))
}

/// A ticket may come in several lines; one character more than the longest tells that it is none.
fn read_ticket() -> Result<String, Fault> {
    let mut text = String::new();
    let failed = |error| Fault::Io(format!("read the ticket: {error}"));
    let stdin = std::io::stdin().lock();
    let limit = u64::try_from(TICKET_CHARS_MAX).unwrap_or(u64::MAX) + 1;
    stdin.take(limit).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

pub(super) fn admit(
    common: &Common,
    arguments: &AdmitArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let (peers, admission) = (arguments.peers.clone(), arguments.admission.clone());
    ask(common, &Query::Admit { peers, admission }, out)
}

pub(super) fn revoke(
    common: &Common,
    arguments: &RevokeArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    ask(common, &Query::Revoke { peers: arguments.peers.clone() }, out)
}

fn ask(common: &Common, query: &Query, out: &mut Output) -> Result<Verdict, Fault> {
    let source = Source::find(common.store()?, Purpose::Change)?;
    out.rows(&MEMBERS, |rows| source.ask(query, Input::None, rows))
}
