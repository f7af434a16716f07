//! Rumors on gossipsub: which topic carries which space, and which messages await a verdict.
//!
//! It must never know what a rumor says: it maps tags to topics and verdicts to acceptances.

use super::behaviour::{Gossip, topic_score};
use super::{RUMOR_BYTES_MAX, SPACES_MAX};
use crate::codec::hex;
use crate::port::{MessageId, SpaceTag, Verdict};
use libp2p::PeerId;
use libp2p::gossipsub::{
    self, IdentTopic, MessageAcceptance, PublishError, TopicHash, TopicSubscriptionFilter,
};
use std::collections::BTreeMap;
use tokio::time::{Duration, Instant};

/// A message without verdict for this long has left gossipsub's cache (5 heartbeats = 3.5 s) and
/// is forgotten.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(10);
/// Every gossiping node subscribes to it and none publishes on it: it shows that a link carries
/// subscriptions even between nodes without a common space.
const PRESENCE: &str = "/consilience/1/presence";
/// What the topic of a space starts with; 32 hex digits of its tag follow.
const TOPIC_PREFIX: &str = "/consilience/1/";
const TOPIC_DIGITS: usize = 32;

struct Undecided {
    id: gossipsub::MessageId,
    source: PeerId,
    since: Instant,
}

/// The topics we serve and the messages we hold.
pub(super) struct Rumors {
    undecided_max: usize,
    topics: BTreeMap<SpaceTag, IdentTopic>,
    tags: BTreeMap<TopicHash, SpaceTag>,
    undecided: BTreeMap<MessageId, Undecided>,
    messages: u64,
}

/// Topics a peer may subscribe to: those whose name is one of ours. A longer name would be kept as
/// long as the peer is connected.
#[derive(Clone, Copy, Default)]
pub(super) struct OurTopics;

impl TopicSubscriptionFilter for OurTopics {
    fn can_subscribe(&mut self, topic: &TopicHash) -> bool {
        let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        let tag = topic.as_str().strip_prefix(TOPIC_PREFIX);
        let is_space =
            tag.is_some_and(|tag| tag.len() == TOPIC_DIGITS && tag.bytes().all(is_digit));
        is_space || Rumors::is_presence(topic)
    }
}

impl Rumors {
    pub(super) fn new(undecided_max: u32) -> Self {
        let undecided_max = undecided_max as usize;
        let (topics, tags, undecided) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { undecided_max, topics, tags, undecided, messages: 0 }
    }

    pub(super) fn undecided(&self) -> usize {
        self.undecided.len()
    }

    pub(super) fn is_presence(topic: &TopicHash) -> bool {
        topic.as_str() == PRESENCE
    }

    pub(super) fn subscribe_presence(gossip: &mut Gossip) {
        let topic = IdentTopic::new(PRESENCE);
        if let Err(error) = gossip.subscribe(&topic) {
            tracing::warn!(%error, "failed to subscribe to the presence topic");
        }
    }

    /// Subscribes to the space's topic; a second time changes nothing.
    pub(super) fn subscribe(&mut self, gossip: &mut Gossip, space: SpaceTag) {
        if self.topics.contains_key(&space) {
            return;
        }
        debug_assert!(self.topics.len() < SPACES_MAX, "the driver bounds the spaces");
        let topic = topic_of(space);
        let scored = gossip.set_topic_params(topic.clone(), topic_score());
        debug_assert!(scored.is_ok(), "scoring is initialised where gossip is built");
        if let Err(error) = gossip.subscribe(&topic) {
            tracing::warn!(%error, "failed to subscribe to a space");
        }
        self.tags.insert(topic.hash(), space);
        self.topics.insert(space, topic);
    }

    pub(super) fn space_of(&self, topic: &TopicHash) -> Option<SpaceTag> {
        self.tags.get(topic).copied()
    }

    /// Hands the rumor to gossipsub; whether a session must repair it.
    pub(super) fn publish(
        &self,
        gossip: &mut Gossip,
        space: SpaceTag,
        bytes: Vec<u8>,
    ) -> Published {
        let Some(topic) = self.topics.get(&space) else {
            return Published::Lost;
        };
        if bytes.len() > RUMOR_BYTES_MAX {
            return Published::Lost;
        }
        match gossip.publish(topic.clone(), bytes) {
            // A duplicate was published before; whether that arrived was told then.
            Ok(_) | Err(PublishError::Duplicate) => Published::Sent,
            Err(error) => {
                tracing::debug!(%error, "failed to publish a rumor");
                Published::Lost
            }
        }
    }

    /// Takes a message in for a verdict. `None`: too many await one, this one is dropped.
    pub(super) fn hold(
        &mut self,
        id: gossipsub::MessageId,
        source: PeerId,
        now: Instant,
    ) -> Option<MessageId> {
        if self.undecided.len() >= self.undecided_max {
            self.undecided.retain(|_, held| now.duration_since(held.since) < VERDICT_TIMEOUT);
        }
        if self.undecided.len() >= self.undecided_max {
            return None;
        }
        self.messages += 1;
        let message = MessageId(self.messages);
        self.undecided.insert(message, Undecided { id, source, since: now });
        Some(message)
    }

    /// Reports the core's verdict; one for a message no longer held is dropped.
    pub(super) fn decide(&mut self, gossip: &mut Gossip, message: MessageId, verdict: Verdict) {
        let Some(held) = self.undecided.remove(&message) else {
            return;
        };
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        gossip.report_message_validation_result(&held.id, &held.source, acceptance);
    }
}

/// What became of a rumor we published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Published {
    /// Queued for at least one peer, which is not delivery.
    Sent,
    /// For no peer; a session must carry it.
    Lost,
}

fn topic_of(space: SpaceTag) -> IdentTopic {
    IdentTopic::new(format!("{TOPIC_PREFIX}{}", hex(&space.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_messages_await_a_verdict_and_stale_ones_make_room() {
        let mut rumors = Rumors::new(256);
        let (source, start) = (PeerId::random(), Instant::now());
        let mut hold = |now| rumors.hold(gossipsub::MessageId::new(b"m"), source, now);
        for _ in 0..256 {
            assert!(hold(start).is_some());
        }
        assert!(hold(start).is_none());
        assert!(hold(start + VERDICT_TIMEOUT).is_some());
    }

    #[test]
    fn a_topic_is_the_hex_of_the_space_tag() {
        let topic = topic_of(SpaceTag([0xab; 16]));
        assert_eq!(topic.hash().as_str(), format!("/consilience/1/{}", "ab".repeat(16)));
        assert!(!Rumors::is_presence(&topic.hash()));
    }

    #[test]
    fn a_peer_may_subscribe_to_names_like_ours_alone() {
        let ours = [topic_of(SpaceTag([0xab; 16])), IdentTopic::new(PRESENCE)];
        assert!(ours.iter().all(|topic| OurTopics.can_subscribe(&topic.hash())));
        let long = format!("/consilience/1/{}", "a".repeat(33));
        let huge = "a".repeat(200_000);
        let upper = format!("/consilience/1/{}", "A".repeat(32));
        for other in ["", "/consilience/1/", &long, &huge, &upper, "/consilience/2/presence"] {
            assert!(!OurTopics.can_subscribe(&IdentTopic::new(other).hash()), "{other:.40}");
        }
    }
}
