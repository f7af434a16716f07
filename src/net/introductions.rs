//! Introductions: one message in which a node tells a peer whom else of the cluster it is connected
//! to, so that a cluster that was made by tickets of one node outlives that node.
//!
//! It must never know who is worth a call, nor tell of anybody who was not let in.
//!
//! On a stream of its own the opener sends, once: a byte n, then n times a length and the bytes of
//! a peer id, a length and the bytes of an address. Nothing is answered.

use super::stream::Report;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// The protocol's name.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/consilience/peers/1");
/// Addresses of one message: eight peers of eight addresses each, or 64 of one.
pub(super) const ADDRESSES_MAX: usize = 64;
/// A multihash of at most 64 bytes; an ed25519 one takes 38.
const ID_BYTES_MAX: usize = 64;
const ADDRESS_BYTES_MAX: usize = 255;
/// 1 + 64 × (1 + 64 + 1 + 255) = 20,545 bytes; whatever is longer is not read to its end.
const MESSAGE_BYTES_MAX: u64 = 20_545;
/// For all of one introduction, on either side.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Introductions that are read at a time, whoever sends them; more are dropped.
const READING_MAX: usize = 16;

/// Who is where.
pub(super) type Acquaintance = (PeerId, Multiaddr);

/// The message; what goes beyond the limits is left out.
pub(super) fn encode(acquaintances: &[Acquaintance]) -> Vec<u8> {
    let fit = |(id, address): &&Acquaintance| {
        id.to_bytes().len() <= ID_BYTES_MAX && address.len() <= ADDRESS_BYTES_MAX
    };
    let fit: Vec<&Acquaintance> = acquaintances.iter().filter(fit).take(ADDRESSES_MAX).collect();
    let mut bytes = vec![u8::try_from(fit.len()).expect("at most 64")];
    for (id, address) in fit {
        for field in [id.to_bytes(), address.to_vec()] {
            bytes.push(u8::try_from(field.len()).expect("at most 255"));
            bytes.extend_from_slice(&field);
        }
    }
    bytes
}

/// Reads [`encode`]; `None` where a count, a length, an id or an address is not what it should be.
/// One bad row is the fault of whoever sent it, and the rest is not wanted either.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Acquaintance>> {
    let (&n, mut rest) = bytes.split_first()?;
    if usize::from(n) > ADDRESSES_MAX {
        return None;
    }
    let mut field = || {
        let (&length, after) = rest.split_first()?;
        let (field, after) = after.split_at_checked(usize::from(length))?;
        rest = after;
        Some(field)
    };
    let mut all = Vec::with_capacity(usize::from(n));
    for _ in 0..n {
        let id = field().filter(|id| id.len() <= ID_BYTES_MAX)?;
        let id = PeerId::from_bytes(id).ok()?;
        let address = Multiaddr::try_from(field()?.to_vec()).ok()?;
        all.push((id, Some(address).filter(is_callable)?));
    }
    rest.is_empty().then_some(all)
}

/// An address of one machine and one port by TCP, and nothing else: no relay, no other transport.
pub(super) fn is_callable(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let is_host = match parts.next() {
        Some(Protocol::Ip4(ip)) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        Some(Protocol::Ip6(ip)) => !ip.is_unspecified() && !ip.is_multicast(),
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)) => true,
        _ => false,
    };
    let is_port = matches!(parts.next(), Some(Protocol::Tcp(port)) if port != 0);
    is_host && is_port && parts.next().is_none()
}

/// Tells a peer once; whether it hears is its affair, for it will be told again elsewhere.
pub(super) async fn tell(mut control: Control, id: PeerId, message: Vec<u8>) {
    let telling = async {
        let mut stream = control.open_stream(id, PROTOCOL).await.map_err(std::io::Error::other)?;
        stream.write_all(&message).await?;
        stream.close().await
    };
    match timeout(TIMEOUT, telling).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%id, %error, "failed to introduce others"),
        Err(_) => tracing::debug!(%id, "an introduction took too long"),
    }
}

/// Takes introductions in, a bounded number at a time.
pub(super) async fn listen(mut incoming: IncomingStreams, reports: mpsc::Sender<Report>) {
    let reading = Arc::new(Semaphore::new(READING_MAX));
    while let Some((id, stream)) = incoming.next().await {
        let Ok(permit) = Arc::clone(&reading).try_acquire_owned() else { continue };
        let reports = reports.clone();
        tokio::spawn(async move {
            let mut bytes = Vec::new();
            let mut limited = stream.take(MESSAGE_BYTES_MAX + 1);
            let read = timeout(TIMEOUT, limited.read_to_end(&mut bytes)).await;
            let told = matches!(read, Ok(Ok(_))).then(|| decode(&bytes)).flatten();
            // Without a driver there is nobody to tell.
            let _ = reports.send(Report::Introduced { id, told }).await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_told_reads_back_and_no_more_than_64_are_told() {
        let all: Vec<Acquaintance> = (1..=70_u16)
            .map(|port| (PeerId::random(), address(&format!("/ip4/10.0.0.1/tcp/{port}"))))
            .collect();
        let bytes = encode(&all);
        assert!(bytes.len() as u64 <= MESSAGE_BYTES_MAX);
        assert_eq!(decode(&bytes).unwrap(), all[..64]);
        assert_eq!(decode(&encode(&[])), Some(Vec::new()));
    }

    #[test]
    fn a_message_that_is_cut_too_long_or_lies_is_not_read() {
        let fine = encode(&[(PeerId::random(), address("/ip4/10.0.0.1/tcp/1"))]);
        for cut in 0..fine.len() {
            assert_eq!(decode(&fine[..cut]), None, "{cut} bytes");
        }
        assert_eq!(decode(&[&fine[..], &[0]].concat()), None);
        let mut many = vec![65];
        (0..65).for_each(|_| many.extend_from_slice(&fine[1..]));
        assert_eq!(decode(&many), None);
        let mut nobody = fine.clone();
        nobody[2] ^= 0xff;
        assert_eq!(decode(&nobody), None);
    }

    #[test]
    fn only_an_address_of_one_machine_by_tcp_is_taken() {
        let id = PeerId::random();
        for good in ["/ip4/10.0.0.1/tcp/1", "/ip6/::1/tcp/9", "/dns4/example.org/tcp/4001"] {
            assert!(decode(&encode(&[(id, address(good))])).is_some(), "{good}");
        }
        let relay = format!("/ip4/10.0.0.1/tcp/1/p2p/{id}/p2p-circuit");
        for bad in [
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.1/tcp/1",
            "/ip4/255.255.255.255/tcp/1",
            "/ip4/10.0.0.1/tcp/0",
            "/ip4/10.0.0.1/udp/1",
            "/ip4/10.0.0.1/udp/1/quic-v1",
            "/unix/a",
            "/ip4/10.0.0.1",
            &relay,
        ] {
            assert_eq!(decode(&encode(&[(id, address(bad))])), None, "{bad}");
        }
    }
}
