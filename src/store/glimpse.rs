//! A look at a peer: where it stands, and what its first flight of cells says of the difference.
//! It must never ask for a state nor say anything of ours but a standing, and it changes nothing.
//!
//! We say `Beat`. A peer that stands elsewhere introduces itself and adds the first flight, as it
//! does to open any session; there we hang up. To the peer that is a session that broke: it counts
//! one, and waits about a second before it asks us by itself.

mod line;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::comparison::{Cells, Tally, cell_of};
use super::rehearsal::Rung;
use super::{Fault, PatternStore, ReadError};
use crate::codec::frame::{CELL_BYTES, Hello, Standing};
use crate::index::{Difference, Side};
use crate::lattice::VersionVector;
use crate::net::{Config, Multiaddr, RunningNode};
use crate::pattern::{Knowledge, SpaceId};
use crate::port::{Core as _, SpaceTag};
use crate::replica::View;
use crate::sync::{Emit, Finder, Session, Start, stub_of};
use line::{Answer, Line, Looker, Lost};

/// A peer that opens a session to us at the same moment refuses ours: tried again for so long.
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What was seen of one space at a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Glimpse {
    /// Where we stand.
    pub(crate) here: Standing,
    /// Where the peer stands.
    pub(crate) there: Standing,
    /// About how many keys differ; `None` where the peer sent no sketch.
    pub(crate) estimate: Option<u64>,
    /// Which keys differ, where the first flight tells.
    pub(crate) told: Option<Told>,
    /// How a session would look for differences.
    pub(crate) rung: Rung,
    /// What we would say next: cells of a larger sketch, or nodes of a walk.
    pub(crate) next: (u64, u64),
    /// Frame bytes said and heard.
    pub(crate) bytes: (u64, u64),
}

/// What a first flight told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Told {
    /// Keys that differ.
    pub(crate) tally: Tally,
    /// The same by cell.
    pub(crate) cells: Cells,
    /// Patterns we would send at least: they hold what the peer has not seen.
    pub(crate) patterns_out: u64,
    /// Keys we would ask for: the peer holds them alone, or has seen all that we hold of them.
    pub(crate) asks: u64,
}

impl PatternStore {
    /// Looks at a peer, space by space, from a node that lives just as long. No other node may run
    /// under the same identity meanwhile.
    pub(crate) fn glimpse(
        &self,
        config: Config,
        address: &Multiaddr,
        spaces: &[SpaceId],
    ) -> Result<Vec<Glimpse>, Fault> {
        let (sender, inputs) = channel();
        let names = spaces.iter().map(ToString::to_string).collect();
        let looker = Arc::new(Looker::new(sender, names));
        let node = RunningNode::start(looker.clone(), config)?;
        let id = node.dial(address.clone())?;
        let peer = node.peer_handle(id)?.ok_or(crate::net::NetError::Stopped)?;
        let mut line = Line::new(&looker, inputs, peer);
        spaces.iter().map(|space| self.glimpse_space(&mut line, space, address)).collect()
    }

    fn glimpse_space(
        &self,
        line: &mut Line<'_>,
        space: &SpaceId,
        address: &Multiaddr,
    ) -> Result<Glimpse, Fault> {
        self.view_or_refuse(space, |_| Ok(()))?;
        let tag = line.looker().tag_of(space).unwrap_or(SpaceTag([0; 16]));
        // The salt of the sketch comes with the tag; a step later the sketch is there.
        self.inner.engine.tag(space.as_str(), tag);
        self.create_space(space)?;
        let here = self.view_or_refuse(space, |view| Ok(standing(view)))?;
        let deadline = Instant::now() + RETRY_TIMEOUT;
        loop {
            match line.ask(tag, here) {
                Ok((answer, bytes)) => {
                    return Ok(self.view_or_refuse(space, |view| judge(view, &answer, bytes))?);
                }
                Err(Lost::Refused) if Instant::now() < deadline => sleep(RETRY_PAUSE),
                Err(lost) => {
                    return Err(Fault::Unreachable(format!(
                        "look at {address} in space {space}: {}",
                        lost.why()
                    )));
                }
            }
        }
    }
}

fn standing(view: &View<'_>) -> Standing {
    let (root, patterns) = (view.root(), view.len());
    Standing { root, patterns, knowledge_hash: view.knowledge_hash() }
}

/// Takes an answer in as a session would, up to what we would say to it.
fn judge(view: &View<'_>, answer: &Answer, bytes: (u64, u64)) -> Result<Glimpse, ReadError> {
    let here = standing(view);
    let there = answer.hello.as_ref().map_or(here, |hello| hello.standing);
    let (rung, next) = (Rung::Nothing, (0, 0));
    let mut seen = Glimpse { here, there, estimate: None, told: None, rung, next, bytes };
    let Some(hello) = answer.hello.as_ref().filter(|_| !answer.equal) else { return Ok(seen) };
    if here.root == there.root {
        return Ok(seen);
    }
    let difference =
        answer.sketch.as_ref().and_then(|(cells, strata)| view.index().difference(cells, strata));
    seen.estimate = difference.as_ref().map(Difference::estimate);
    if here.patterns == 0 || there.patterns == 0 {
        seen.rung = Rung::WholeStream;
        let mut told = Told { asks: there.patterns, ..Told::default() };
        told.patterns_out = here.patterns;
        told.tally = Tally { only_here: here.patterns, only_there: there.patterns, differ: 0 };
        let stubs = view.index().iter().map(|(key, _)| stub_of(&key));
        for stub in stubs {
            told.cells.entry(cell_of(stub)).or_default().only_here += 1;
        }
        seen.told = Some(told);
        return Ok(seen);
    }
    let sides = difference.as_ref().and_then(|one| one.decode_sides(view.index()));
    let sides = sides.filter(|sides| !sides.is_empty());
    if let Some(sides) = sides {
        seen.rung = Rung::FirstFlight;
        seen.told = Some(tell(view, &sides, &their_knowledge(answer))?);
        return Ok(seen);
    }
    seen.next = next_said(view, hello, answer, difference.as_ref());
    seen.rung = if seen.next.0 > 0 { Rung::LargerSketch } else { Rung::Walk };
    Ok(seen)
}

/// What the peer knows of keys without gaps; of the others it may know less.
fn their_knowledge(answer: &Answer) -> Knowledge {
    let mut all = VersionVector::new();
    answer.knowledge.iter().for_each(|rows| all.join(rows));
    all.into()
}

fn tell(view: &View<'_>, sides: &[(u32, Side)], known: &Knowledge) -> Result<Told, ReadError> {
    let mut told = Told::default();
    for (stub, side) in sides {
        let one = match side {
            Side::Here => Tally { only_here: 1, ..Tally::default() },
            Side::There => Tally { only_there: 1, ..Tally::default() },
            Side::Both => Tally { differ: 1, ..Tally::default() },
        };
        told.tally.add(one);
        told.cells.entry(cell_of(*stub)).or_default().add(one);
        let mut asked = *side == Side::There;
        for (key, _) in view.index().entries_of(*stub) {
            let known = known.of(key);
            let is_news = view.by_key(key)?.is_some_and(|pattern| {
                !known.dominates(&pattern.context)
                    || pattern.live_dots().any(|dot| !known.covers(dot))
            });
            told.patterns_out += u64::from(is_news);
            asked |= !is_news;
        }
        told.asks += u64::from(asked);
    }
    Ok(told)
}

/// How many cells, and how many nodes of a walk, a session would say next.
fn next_said(
    view: &View<'_>,
    hello: &Hello,
    answer: &Answer,
    difference: Option<&Difference>,
) -> (u64, u64) {
    let (here, root) = (standing(view), view.root());
    let finder = if view.index().keeps_sketch() { Finder::Sketch } else { Finder::Walk };
    let mut session = Session::new(Start::Beat, finder);
    if let Some(beat) = session.next_emit() {
        session.said(&beat, root, true);
    }
    let mut fits = session.on_hello(hello.clone());
    fits &= answer.knowledge.iter().all(|rows| session.on_knowledge(rows));
    if let Some((cells, _)) = &answer.sketch {
        session.on_sketch();
        session.on_difference(difference, cells.len() / CELL_BYTES, root, view.index());
    }
    let mut next = (0, 0);
    if !fits || !session.on_turn_end(root, true) {
        return next;
    }
    while let Some(emit) = session.next_emit() {
        match &emit {
            Emit::Hello { .. } => session.announce(here, Arc::new(view.knowledge().clone())),
            Emit::Sketch { cells, .. } => next.0 += *cells as u64,
            Emit::Walk(nodes, _) => next.1 += nodes.len() as u64,
            _ => {}
        }
        if session.said(&emit, root, true) {
            break;
        }
    }
    next
}
