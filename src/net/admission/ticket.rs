//! A ticket: all that a newcomer needs to enter a cluster, as one word that can be pasted.
//!
//! It must never know a file or a connection: it is text in, parts out, and back.
//!
//! The word is `consilience-` and, in base32 without padding, version 1, the 32 bytes of the
//! cluster key, the peer id of whoever invites, its addresses, and the first 4 bytes of a blake3
//! of all that.

use super::{ClusterKey, KEY_BYTES};
use data_encoding::BASE32_NOPAD;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// Addresses one ticket carries: as many as are remembered of one peer.
pub const ADDRESSES_MAX: usize = 8;
/// A ticket is refused unread beyond this: 1 + 32 + 65 + 1 + 8 × 256 + 4 bytes take 3,442
/// characters of base32, and a prefix.
pub const TICKET_CHARS_MAX: usize = 4_096;

const PREFIX: &str = "consilience-";
const VERSION: u8 = 1;
/// An id is a multihash of at most 64 bytes; an ed25519 one takes 38.
const ID_BYTES_MAX: usize = 64;
const ADDRESS_BYTES_MAX: usize = 255;
/// One pasted letter in four milliards goes unnoticed.
const CHECK_BYTES: usize = 4;

/// Why a text is not a ticket; nothing changed. The operator's, or whoever sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It is longer than any ticket.
    #[error("read a ticket: it has more than {TICKET_CHARS_MAX} characters")]
    TooLong,
    /// It does not start like one.
    #[error("read a ticket: it starts with {PREFIX}, and this does not")]
    Prefix,
    /// A letter is lost, added or changed.
    #[error("read a ticket: it is damaged or incomplete; copy all of it once more")]
    Damaged,
    /// A later release made it.
    #[error("read a ticket: version {0} is not known to this release")]
    Version(u8),
}

/// The way into a cluster. Whoever holds it is in: it is as secret as the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// The secret of the cluster.
    pub key: ClusterKey,
    /// Who invites.
    pub peer: PeerId,
    /// Where it may be reached, without the peer id; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<Multiaddr>,
}

impl Ticket {
    /// The ticket as text. Addresses beyond the limits are left out.
    pub fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(self.key.as_bytes());
        put(&mut bytes, &self.peer.to_bytes());
        let addresses: Vec<Vec<u8>> = self.addresses.iter().map(Multiaddr::to_vec).collect();
        let fit = addresses.iter().filter(|address| address.len() <= ADDRESS_BYTES_MAX);
        let fit: Vec<&Vec<u8>> = fit.take(ADDRESSES_MAX).collect();
        bytes.push(u8::try_from(fit.len()).expect("at most eight"));
        fit.into_iter().for_each(|address| put(&mut bytes, address));
        bytes.extend_from_slice(&check(&bytes));
        format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }

    /// Reads [`Ticket::encode`]; line breaks, spaces and capitals are what mail made of it.
    pub fn decode(text: &str) -> Result<Self, TicketError> {
        if text.len() > TICKET_CHARS_MAX {
            return Err(TicketError::TooLong);
        }
        let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let plain = plain.to_ascii_lowercase();
        let word = plain.strip_prefix(PREFIX).ok_or(TicketError::Prefix)?;
        let word = word.to_ascii_uppercase();
        let bytes = BASE32_NOPAD.decode(word.as_bytes()).map_err(|_| TicketError::Damaged)?;
        let body = bytes.len().checked_sub(CHECK_BYTES).ok_or(TicketError::Damaged)?;
        let (body, sum) = bytes.split_at(body);
        if check(body) != sum {
            return Err(TicketError::Damaged);
        }
        match body.split_first() {
            Some((&VERSION, rest)) => read(rest).ok_or(TicketError::Damaged),
            Some((&other, _)) => Err(TicketError::Version(other)),
            None => Err(TicketError::Damaged),
        }
    }

    /// The addresses, each with the id of whoever must answer there.
    pub fn contacts(&self) -> impl Iterator<Item = Multiaddr> + '_ {
        self.addresses.iter().map(|address| address.clone().with(Protocol::P2p(self.peer)))
    }
}

fn put(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.push(u8::try_from(field.len()).expect("ids and addresses kept here are short"));
    bytes.extend_from_slice(field);
}

fn check(body: &[u8]) -> [u8; CHECK_BYTES] {
    let sum = blake3::derive_key("consilience ticket v1", body);
    sum[..CHECK_BYTES].try_into().expect("a hash has more bytes")
}

fn read(rest: &[u8]) -> Option<Ticket> {
    let (key, rest) = rest.split_first_chunk::<KEY_BYTES>()?;
    let (id, rest) = field(rest)?;
    if id.len() > ID_BYTES_MAX {
        return None;
    }
    let peer = PeerId::from_bytes(id).ok()?;
    let (&count, mut rest) = rest.split_first()?;
    if usize::from(count) > ADDRESSES_MAX {
        return None;
    }
    let mut addresses = Vec::new();
    for _ in 0..count {
        let (address, after) = field(rest)?;
        addresses.push(Multiaddr::try_from(address.to_vec()).ok()?);
        rest = after;
    }
    let ticket = Ticket { key: ClusterKey::new(*key), peer, addresses };
    rest.is_empty().then_some(ticket)
}

/// A length byte and as many bytes; and what comes after.
fn field(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = rest.split_first()?;
    rest.split_at_checked(usize::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        let addresses = ["/ip4/192.0.2.1/tcp/4001", "/ip6/2001:db8::1/tcp/4001"];
        Ticket {
            key: ClusterKey::new([7; KEY_BYTES]),
            peer: PeerId::random(),
            addresses: addresses.map(|text| text.parse().unwrap()).into(),
        }
    }

    #[test]
    fn a_ticket_reads_back_as_it_was_also_from_a_mail() {
        let made = ticket();
        let text = made.encode();
        assert_eq!(Ticket::decode(&text).unwrap(), made);
        let (start, end) = text.split_at(60);
        let mailed = format!("  {}\r\n {end}\n", start.to_ascii_uppercase());
        assert_eq!(Ticket::decode(&mailed).unwrap(), made);
        let named = made.contacts().all(|address| address.iter().last().is_some());
        assert!(named && !format!("{made:?}").contains("7, 7"));
    }

    #[test]
    fn no_letter_of_a_ticket_can_be_changed_lost_or_added_unnoticed() {
        let text = ticket().encode();
        for at in 0..text.len() {
            let other = if &text[at..=at] == "b" { "c" } else { "b" };
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            let lost = format!("{}{}", &text[..at], &text[at + 1..]);
            for bad in [changed, lost, text[..at].to_owned(), format!("{text}{}", &text[at..])] {
                assert!(Ticket::decode(&bad).is_err(), "{bad}");
            }
        }
        assert_eq!(Ticket::decode(&"a".repeat(5_000)), Err(TicketError::TooLong));
        assert_eq!(Ticket::decode("hello"), Err(TicketError::Prefix));
    }

    #[test]
    fn a_ticket_of_a_later_release_or_with_impossible_counts_is_refused() {
        let sealed = |body: &[u8]| {
            let bytes = [body, &check(body)].concat();
            format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes))
        };
        assert_eq!(Ticket::decode(&sealed(&[9, 1])), Err(TicketError::Version(9)));
        let peer = PeerId::random().to_bytes();
        let head =
            [&[VERSION][..], &[7; KEY_BYTES], &[u8::try_from(peer.len()).unwrap()], &peer].concat();
        for tail in [&[][..], &[9], &[1], &[1, 5, 4], &[1, 1, 255], &[0, 0]] {
            let text = sealed(&[&head[..], tail].concat());
            assert_eq!(Ticket::decode(&text), Err(TicketError::Damaged), "{tail:?}");
        }
        assert!(Ticket::decode(&sealed(&[&head[..], &[0]].concat())).is_ok());
    }
}
