//! One session stream: the greeting, length-prefixed frames both ways, credit, and its end.
//!
//! It must never know what a frame says, nor which other sessions exist: it reports to the driver
//! and obeys the two ends it was given.
//!
//! On the wire the opener sends the 16 bytes of the space tag; the acceptor answers one byte,
//! accepted or refused. Then each side sends frames: a big-endian `u32` length and that many bytes.

use super::introductions::Acquaintance;
use super::refusals::Refusal;
use crate::port::{SessionId, SpaceTag};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

/// The largest frame: 256 KiB of payload and 64 bytes for what wraps it.
pub const FRAME_BYTES_MAX: usize = 262_144 + 64;

/// The protocol's name.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/consilience/sync/1");
/// Frames handed over but not written, and frames delivered but not consumed: 4 each way, so one
/// session holds at most 9 × 256 KiB = 2.3 MiB with the frame being read.
pub(super) const FRAMES_IN_FLIGHT: u32 = 4;

const TAG_BYTES: usize = 16;
const ACCEPTED: u8 = 1;
const REFUSED: u8 = 0;
/// An open is tried this often: the accepting side loses opens when many arrive at once.
const OPEN_ATTEMPTS: u32 = 3;
/// Before the second attempt, doubled before the third.
const OPEN_BACKOFF: Duration = Duration::from_millis(200);
/// For each step of the greeting; opening can hang when the connection goes.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// How often idleness is looked at while it lasts as long as a session may be idle.
const IDLE_CHECKS: u32 = 4;
/// After our end of stream, how long the other side may take for its own.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a session task tells the driver. `Ended` is the last report of a session, and certain.
#[derive(Debug)]
pub(super) enum Report {
    /// A peer opened a stream; nothing was read from it yet.
    Inbound {
        id: PeerId,
        stream: Stream,
    },
    Opened {
        session: SessionId,
        space: SpaceTag,
    },
    Frame {
        session: SessionId,
        bytes: Vec<u8>,
    },
    Written {
        session: SessionId,
        bytes: usize,
    },
    /// A peer told whom else it is connected to; `None` where that could not be read.
    Introduced {
        id: PeerId,
        told: Option<Vec<Acquaintance>>,
    },
    Ended {
        session: SessionId,
        /// What the peer did wrong, if it did.
        refusal: Option<Refusal>,
    },
}

/// The driver's orders to a session task, as the task holds them.
pub(super) struct Orders {
    pub(super) session: SessionId,
    /// Frames to write; closed when the core closed the session.
    pub(super) frames: mpsc::Receiver<Vec<u8>>,
    /// One permit for each frame that may still be delivered.
    pub(super) credit: Arc<Semaphore>,
    pub(super) reports: mpsc::Sender<Report>,
    /// How long nothing may move.
    pub(super) idle: Duration,
}

impl Orders {
    async fn report(&self, report: Report) -> io::Result<()> {
        self.reports.send(report).await.map_err(|_| gone())
    }
}

/// The driver has stopped: nobody is left to report to.
fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the driver has stopped")
}

/// Opens a session to `id` and carries it to its end.
pub(super) async fn open(mut orders: Orders, control: Control, id: PeerId, space: SpaceTag) {
    let session = orders.session;
    let mut refusal = None;
    if let Some(stream) = greet(control, id, space).await
        && orders.report(Report::Opened { session, space }).await.is_ok()
    {
        refusal = carry(&mut orders, stream).await;
    }
    // Without a driver there is nobody to tell.
    let _ = orders.report(Report::Ended { session, refusal }).await;
}

/// Answers a stream that a peer opened and carries it to its end.
pub(super) async fn accept(
    mut orders: Orders,
    mut stream: Stream,
    spaces: Arc<BTreeSet<SpaceTag>>,
) {
    let session = orders.session;
    let mut refusal = None;
    match answer(&mut stream, &spaces).await {
        Some(space) if orders.report(Report::Opened { session, space }).await.is_ok() => {
            refusal = carry(&mut orders, stream).await;
        }
        Some(_) => {}
        None => refusal = Some(Refusal::Greeting),
    }
    // Without a driver there is nobody to tell.
    let _ = orders.report(Report::Ended { session, refusal }).await;
}

/// Tells an opener that we have no room; it does not try again.
pub(super) async fn refuse(mut stream: Stream) {
    let goodbye = async {
        stream.write_all(&[REFUSED]).await?;
        stream.close().await
    };
    // The opener's own limit covers a refusal that does not arrive.
    let _ = timeout(GREETING_TIMEOUT, goodbye).await;
}

/// An opened and accepted stream, or `None` after the last attempt or a refusal.
async fn greet(mut control: Control, id: PeerId, space: SpaceTag) -> Option<Stream> {
    for attempt in 0..OPEN_ATTEMPTS {
        if attempt > 0 {
            sleep(OPEN_BACKOFF * (1 << (attempt - 1))).await;
        }
        let opening = control.open_stream(id, PROTOCOL);
        let mut stream = match timeout(GREETING_TIMEOUT, opening).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%id, %error, "failed to open a session stream");
                continue;
            }
            Err(_) => continue,
        };
        let greeting = async {
            stream.write_all(&space.0).await?;
            stream.flush().await?;
            let mut answer = [REFUSED];
            stream.read_exact(&mut answer).await?;
            io::Result::Ok(answer[0])
        };
        // A successful open may have been dropped by the acceptor: only its answer counts.
        match timeout(GREETING_TIMEOUT, greeting).await {
            Ok(Ok(ACCEPTED)) => return Some(stream),
            Ok(Ok(_)) => return None,
            Ok(Err(_)) | Err(_) => {}
        }
    }
    None
}

/// Reads the tag and accepts it if the space is served here; refuses otherwise.
async fn answer(stream: &mut Stream, spaces: &BTreeSet<SpaceTag>) -> Option<SpaceTag> {
    let greeting = async {
        let mut tag = [0; TAG_BYTES];
        stream.read_exact(&mut tag).await?;
        let space = SpaceTag(tag);
        let served = spaces.contains(&space);
        stream.write_all(&[if served { ACCEPTED } else { REFUSED }]).await?;
        stream.flush().await?;
        if !served {
            stream.close().await?;
        }
        io::Result::Ok(served.then_some(space))
    };
    timeout(GREETING_TIMEOUT, greeting).await.ok()?.ok()?
}

/// Moves frames until either side ends the session; what the peer did wrong, if it did.
async fn carry<S: AsyncRead + AsyncWrite + Unpin>(
    orders: &mut Orders,
    stream: S,
) -> Option<Refusal> {
    let mut refusal = None;
    let (mut reader, mut writer) = stream.split();
    let progress = AtomicU64::new(0);
    let Orders { session, frames, credit, reports, idle: patience } = orders;
    let ours = tokio::select! {
        end = read_frames(&mut reader, *session, credit, reports, &progress) => {
            if let Err(error) = end {
                if error.kind() == io::ErrorKind::InvalidData {
                    refusal = Some(Refusal::FrameLength);
                }
                tracing::debug!(?session, %error, "failed to read from a session stream");
            }
            false
        }
        end = write_frames(&mut writer, *session, frames, reports, &progress) => {
            if let Err(error) = &end {
                tracing::debug!(?session, %error, "failed to write to a session stream");
            }
            end.is_ok()
        }
        () = idle(&progress, *patience) => {
            refusal = Some(Refusal::Idle);
            false
        }
    };
    if ours {
        // Dropping the stream with unread bytes would reset it under what we just flushed.
        let _ = timeout(LINGER_TIMEOUT, drain(&mut reader)).await;
    }
    refusal
}

/// Delivers frames as credit allows until the other side ends; an error is a broken stream or a
/// length that is not allowed, and both end in a reset when the stream is dropped.
async fn read_frames<S: AsyncRead + Unpin>(
    reader: &mut ReadHalf<S>,
    session: SessionId,
    credit: &Semaphore,
    reports: &mpsc::Sender<Report>,
    progress: &AtomicU64,
) -> io::Result<()> {
    loop {
        // The permit comes back when the core has consumed the frame.
        credit.acquire().await.map_err(io::Error::other)?.forget();
        let mut length = [0; 4];
        match reader.read(&mut length[..1]).await? {
            0 => return Ok(()),
            _ => read_full(reader, &mut length[1..], progress).await?,
        }
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
        if length == 0 || length > FRAME_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame length out of range"));
        }
        let mut bytes = vec![0; length];
        read_full(reader, &mut bytes, progress).await?;
        reports.send(Report::Frame { session, bytes }).await.map_err(|_| gone())?;
    }
}

async fn read_full<S: AsyncRead + Unpin>(
    reader: &mut ReadHalf<S>,
    mut rest: &mut [u8],
    progress: &AtomicU64,
) -> io::Result<()> {
    while !rest.is_empty() {
        let read = reader.read(rest).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        progress.fetch_add(1, Ordering::Relaxed);
        rest = &mut rest[read..];
    }
    Ok(())
}

/// Writes what is handed over; when the driver ends that, flushes and ends our direction.
async fn write_frames<S: AsyncWrite + Unpin>(
    writer: &mut WriteHalf<S>,
    session: SessionId,
    frames: &mut mpsc::Receiver<Vec<u8>>,
    reports: &mpsc::Sender<Report>,
    progress: &AtomicU64,
) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        writer.write_all(&length.to_be_bytes()).await?;
        let mut rest = &frame[..];
        while !rest.is_empty() {
            let written = writer.write(rest).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            progress.fetch_add(1, Ordering::Relaxed);
            rest = &rest[written..];
        }
        writer.flush().await?;
        let report = Report::Written { session, bytes: frame.len() };
        reports.send(report).await.map_err(|_| gone())?;
    }
    writer.close().await
}

/// Returns when no byte has moved for the limit.
async fn idle(progress: &AtomicU64, patience: Duration) {
    let mut seen = progress.load(Ordering::Relaxed);
    let mut quiet = Duration::ZERO;
    while quiet < patience {
        sleep(patience / IDLE_CHECKS).await;
        let now = progress.load(Ordering::Relaxed);
        quiet = if now == seen { quiet + patience / IDLE_CHECKS } else { Duration::ZERO };
        seen = now;
    }
}

/// Reads and forgets until the other side ends.
async fn drain<S: AsyncRead + Unpin>(reader: &mut ReadHalf<S>) {
    let mut sink = [0; 4_096];
    while let Ok(1..) = reader.read(&mut sink).await {}
}
