//! Whole nodes on loopback against a core that only listens: what crosses the seam, and what must
//! not.
//!
//! They must never know the driver's insides: they see inputs, outputs and status.

use super::*;
use crate::port::{MessageId, NetInput, NetOutput, SessionId, SpaceTag, Verdict};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::timeout;

/// Generous: the machine is shared, and only a failing test waits so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const SPACE: &str = "memories";

type Outlet = Box<dyn Fn(Vec<NetOutput>) + Send + Sync>;

/// Passes every input on to the test and sends what the test says.
struct FakeCore {
    inputs: mpsc::UnboundedSender<NetInput>,
    outlet: Mutex<Option<Outlet>>,
    tags: Mutex<Vec<(String, SpaceTag)>>,
    fragment_bytes_max: AtomicUsize,
}

impl Core for FakeCore {
    fn submit(&self, input: NetInput) {
        let _ = self.inputs.send(input);
    }

    fn attach(&self, outlet: Outlet) {
        *self.outlet.lock().unwrap() = Some(outlet);
    }

    fn spaces(&self) -> Vec<String> {
        vec![SPACE.to_owned()]
    }

    fn bound_fragments(&self, bytes: usize) {
        self.fragment_bytes_max.store(bytes, Ordering::Relaxed);
    }

    fn tag(&self, space: &str, tag: SpaceTag) {
        self.tags.lock().unwrap().push((space.to_owned(), tag));
    }
}

fn fake_core() -> (Arc<FakeCore>, mpsc::UnboundedReceiver<NetInput>) {
    let (inputs, seen) = mpsc::unbounded_channel();
    let core = FakeCore {
        inputs,
        outlet: Mutex::new(None),
        tags: Mutex::default(),
        fragment_bytes_max: AtomicUsize::new(0),
    };
    (Arc::new(core), seen)
}

pub(super) struct Fixture {
    core: Arc<FakeCore>,
    pub(super) seen: mpsc::UnboundedReceiver<NetInput>,
    pub(super) node: Handle,
}

impl Fixture {
    pub(super) async fn start(config: Config) -> Self {
        let (core, seen) = fake_core();
        let node = Node::spawn(core.clone(), config).await.unwrap();
        Self { core, seen, node }
    }

    pub(super) fn say(&self, output: NetOutput) {
        self.say_all(vec![output]);
    }

    pub(super) fn say_all(&self, outputs: Vec<NetOutput>) {
        let outlet = self.core.outlet.lock().unwrap();
        outlet.as_ref().unwrap()(outputs);
    }

    /// The first input that `pick` picks; the ones before it are passed over.
    pub(super) async fn until<T>(&mut self, pick: impl Fn(&NetInput) -> Option<T>) -> T {
        let picked = async {
            loop {
                let input = self.seen.recv().await.expect("the node runs");
                if let Some(picked) = pick(&input) {
                    return picked;
                }
            }
        };
        timeout(PATIENCE, picked).await.expect("the awaited input came")
    }

    pub(super) async fn peer_up(&mut self) -> Peer {
        self.until(|input| match input {
            NetInput::PeerUp { peer, .. } => Some(*peer),
            _ => None,
        })
        .await
    }

    pub(super) async fn peer_down(&mut self) {
        self.until(|input| matches!(input, NetInput::PeerDown { .. }).then_some(())).await;
    }

    pub(super) async fn opened(&mut self) -> SessionId {
        self.until(|input| match input {
            NetInput::Opened { session, .. } => Some(*session),
            _ => None,
        })
        .await
    }

    pub(super) async fn frame(&mut self) -> (SessionId, Vec<u8>) {
        self.until(|input| match input {
            NetInput::Frame { session, bytes } => Some((*session, bytes.clone())),
            _ => None,
        })
        .await
    }

    pub(super) async fn rumor(&mut self) -> (MessageId, Vec<u8>) {
        self.until(|input| match input {
            NetInput::Rumor { message, bytes, .. } => Some((*message, bytes.clone())),
            _ => None,
        })
        .await
    }

    pub(super) async fn closed(&mut self, wanted: SessionId) {
        self.until(|input| match input {
            NetInput::Closed { session } if *session == wanted => Some(()),
            _ => None,
        })
        .await;
    }

    pub(super) async fn open_failed(&mut self, wanted: SessionId) {
        self.until(|input| match input {
            NetInput::OpenFailed { session } if *session == wanted => Some(()),
            _ => None,
        })
        .await;
    }

    /// Waits until a status satisfies `wanted`; the status has no event of its own.
    pub(super) async fn status_becomes(&self, wanted: impl Fn(&NetStatus) -> bool) {
        let reached = async {
            while !wanted(&self.node.status().await.unwrap()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, reached).await.expect("the status was reached");
    }

    pub(super) async fn subscribed(&self) {
        self.status_becomes(|status| status.peers.iter().any(|peer| peer.subscribed)).await;
    }

    pub(super) fn fragment_bytes_max(&self) -> usize {
        self.core.fragment_bytes_max.load(Ordering::Relaxed)
    }

    pub(super) async fn address(&self) -> Multiaddr {
        self.node.listen_addrs().await.unwrap().remove(0)
    }
}

pub(super) fn key() -> ClusterKey {
    ClusterKey::new([7; 32])
}

pub(super) fn tag() -> SpaceTag {
    key().space_tag(SPACE)
}

pub(super) fn config() -> Config {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    // All tests here speak of one space.
    let limits = Limits { sessions_per_space_max: 8, ..Limits::default() };
    Config { listen, limits, ..Config::new(Keypair::generate_ed25519(), key()) }
}

/// Two connected nodes, each with the other's handle.
pub(super) async fn pair(one: Config, two: Config) -> ((Fixture, Peer), (Fixture, Peer)) {
    let mut one = Fixture::start(one).await;
    let peers = vec![one.address().await];
    let mut two = Fixture::start(Config { peers, ..two }).await;
    let (of_one, of_two) = (one.peer_up().await, two.peer_up().await);
    ((one, of_one), (two, of_two))
}

/// A session from the first to the second, as each of them names it.
pub(super) async fn session(
    number: u64,
    (one, peer): (&mut Fixture, Peer),
    two: &mut Fixture,
) -> Ends {
    let session = SessionId(number);
    one.say(NetOutput::Open { session, peer, space: tag() });
    assert_eq!(one.opened().await, session);
    Ends { here: session, there: two.opened().await }
}

pub(super) struct Ends {
    pub(super) here: SessionId,
    pub(super) there: SessionId,
}

#[tokio::test]
async fn a_rumor_reaches_the_other_node_of_the_cluster_and_takes_its_verdict() {
    let ((one, _), (mut two, _)) = pair(config(), config()).await;
    one.subscribed().await;
    one.say(NetOutput::Publish { space: tag(), bytes: b"fresh".to_vec() });
    let (message, bytes) = two.rumor().await;
    assert_eq!(bytes, b"fresh");
    two.status_becomes(|status| status.undecided == 1).await;
    two.say(NetOutput::Verdict { message, verdict: Verdict::Accept });
    two.status_becomes(|status| status.undecided == 0).await;
}

#[tokio::test]
async fn a_rumor_that_nobody_can_get_by_gossip_is_reported_as_failed() {
    let mut alone = Fixture::start(config()).await;
    let mut silent = Fixture::start(Config { gossip: Switch::Off, ..config() }).await;
    let ((mut one, _), _two) = pair(config(), config()).await;
    one.subscribed().await;
    for (node, bytes) in [(&mut alone, 5), (&mut silent, 5), (&mut one, RUMOR_BYTES_MAX + 1)] {
        node.say(NetOutput::Publish { space: tag(), bytes: vec![1; bytes] });
        let failed = |input: &NetInput| match input {
            NetInput::PublishFailed { space } => Some(*space),
            _ => None,
        };
        assert_eq!(node.until(failed).await, tag());
    }
}

#[tokio::test]
async fn a_node_with_another_cluster_key_is_refused_and_hears_nothing() {
    let mut member = Fixture::start(config()).await;
    let stranger = Config { cluster_key: ClusterKey::new([8; 32]), ..config() };
    let mut stranger = Fixture::start(stranger).await;
    let refused = stranger.node.dial(member.address().await).await;
    assert!(matches!(refused, Err(NetError::Dial { .. } | NetError::Timeout(_))), "{refused:?}");
    member.status_becomes(|status| status.refused > 0).await;
    assert_eq!(member.node.status().await.unwrap().peers, []);
    assert_eq!(stranger.node.status().await.unwrap().peers, []);
    assert!(member.seen.try_recv().is_err());
    assert!(stranger.seen.try_recv().is_err());
}

#[tokio::test]
async fn a_dial_tells_who_answered_and_the_address_is_kept() {
    let one = Fixture::start(config()).await;
    let two = Fixture::start(config()).await;
    let address = one.address().await;
    let expected = one.node.local_peer_id();
    assert_eq!(two.node.dial(address.clone()).await.unwrap(), expected);
    assert_eq!(two.node.dial(address.clone()).await.unwrap(), expected);
    let named = address.with(libp2p::multiaddr::Protocol::P2p(expected));
    assert_eq!(two.node.dial(named).await.unwrap(), expected);
    assert!(two.node.peer_handle(expected).await.unwrap().is_some());
    let nobody = two.node.dial("/ip4/127.0.0.1/tcp/1".parse().unwrap()).await;
    assert!(matches!(nobody, Err(NetError::Dial { .. })), "{nobody:?}");
}

#[tokio::test]
async fn an_isolated_peer_goes_down_is_refused_and_comes_up_when_healed() {
    let ((mut one, peer), (mut two, _)) = pair(config(), config()).await;
    let ends = session(1, (&mut one, peer), &mut two).await;
    one.node.isolate(BTreeSet::from([two.node.local_peer_id()])).await.unwrap();
    two.closed(ends.there).await;
    two.peer_down().await;
    one.closed(ends.here).await;
    one.peer_down().await;
    // The other side redials; each attempt is refused.
    one.status_becomes(|status| status.refused > 0).await;
    let status = one.node.status().await.unwrap();
    assert!(status.peers[0].isolated && !status.peers[0].connected);
    one.node.isolate(BTreeSet::new()).await.unwrap();
    assert_eq!(one.peer_up().await, peer);
    two.peer_up().await;
}

#[tokio::test]
async fn a_node_that_restarts_with_its_identity_gossips_again() {
    let identity = Keypair::generate_ed25519();
    let again = Config { identity, ..config() };
    let ((mut one, peer), (two, _)) = pair(config(), again.clone()).await;
    one.subscribed().await;
    two.node.shutdown().await.unwrap();
    assert!(matches!(two.node.status().await, Err(NetError::Stopped)));
    one.peer_down().await;
    let peers = vec![one.address().await];
    let mut two = Fixture::start(Config { peers, ..again }).await;
    assert_eq!(one.peer_up().await, peer);
    one.subscribed().await;
    two.subscribed().await;
    one.say(NetOutput::Publish { space: tag(), bytes: b"again".to_vec() });
    let (message, bytes) = two.rumor().await;
    assert_eq!(bytes, b"again");
    two.say(NetOutput::Verdict { message, verdict: Verdict::Ignore });
    two.say(NetOutput::Publish { space: tag(), bytes: b"back".to_vec() });
    assert_eq!(one.rumor().await.1, b"back");
}

#[test]
fn a_program_without_a_runtime_starts_asks_and_stops_a_node() {
    let (core, mut seen) = fake_core();
    let one = RunningNode::start(core, config()).unwrap();
    let (other, _also_seen) = fake_core();
    let two = RunningNode::start(other, config()).unwrap();
    let address = one.listen_addrs().unwrap().remove(0);
    assert_eq!(two.dial(address.clone()).unwrap(), one.local_peer_id());
    assert!(matches!(seen.blocking_recv(), Some(NetInput::PeerUp { .. })));
    two.add_space("another").unwrap();
    assert!(two.peer_handle(one.local_peer_id()).unwrap().is_some());
    assert!(two.status().unwrap().peers[0].connected);
    two.shutdown().unwrap();
    assert!(matches!(seen.blocking_recv(), Some(NetInput::PeerDown { .. })));
    let (third, _unseen) = fake_core();
    let taken = RunningNode::start(third, Config { listen: vec![address], ..config() });
    assert!(matches!(taken, Err(NetError::Listen { .. })), "{:?}", taken.err());
}

#[tokio::test]
async fn a_peer_without_gossip_stays_connected_and_one_with_gossip_too() {
    let without = Config { gossip: Switch::Off, ..config() };
    let ((mut one, _), (mut two, _)) = pair(config(), without).await;
    let ((mut three, _), (mut four, _)) = pair(config(), config()).await;
    // The watch for silent peers cuts after 4 s and looks twice a second.
    let watch = Duration::from_secs(6);
    let downs = futures::future::join4(
        timeout(watch, one.peer_down()),
        timeout(watch, two.peer_down()),
        timeout(watch, three.peer_down()),
        timeout(watch, four.peer_down()),
    );
    let (one, two, three, four) = downs.await;
    assert!(one.is_err() && two.is_err() && three.is_err() && four.is_err());
}

#[tokio::test]
async fn the_core_hears_the_tag_of_every_space_and_a_new_space_gossips() {
    let ((one, _), (mut two, _)) = pair(config(), config()).await;
    let added = key().space_tag("added");
    for node in [&one, &two] {
        node.node.add_space("added").await.unwrap();
        let tags = node.core.tags.lock().unwrap().clone();
        assert_eq!(tags, [(SPACE.to_owned(), tag()), ("added".to_owned(), added)]);
    }
    // The subscription has no event here: publish until one arrives, each time something new.
    let publishing = async {
        for number in 0_u32.. {
            let bytes = number.to_be_bytes().to_vec();
            one.say(NetOutput::Publish { space: added, bytes });
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = publishing => unreachable!("it ends with the test"),
        _ = two.rumor() => {}
    }
}
