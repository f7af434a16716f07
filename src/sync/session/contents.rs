//! The contents of a session: asked for by digest, or sent along to a peer that holds nothing.
//! It must never know what a content says.

use super::Session;
use crate::pattern::Digest;

/// Contents that are remembered as sent along: 2 MiB of digests.
const SENT_ALONG_MAX: usize = 1 << 16;

impl Session {
    /// The peer asks for content.
    pub fn on_ask_content(&mut self, digests: Vec<Digest>) {
        if self.fits(self.contents.len() + digests.len()) {
            self.contents.extend(digests);
        }
    }

    /// This content is wanted from the peer.
    pub fn ask_content(&mut self, digest: Digest) {
        if self.passes_over_content(&digest) || self.content_asks.contains(&digest) {
            return;
        }
        if self.fits(self.content_asks.len() + 1) && self.may_ask(self.contents_asked) {
            self.content_asks.insert(digest);
            self.contents_asked += 1;
        }
    }

    /// The peer has sent this content: it need not be asked for.
    pub fn on_content(&mut self, digest: &Digest) {
        self.content_asks.remove(digest);
    }

    /// The next content that is owed.
    pub fn next_content(&mut self) -> Option<Digest> {
        if !self.may_ship(self.contents_shipped) {
            self.contents.clear();
        }
        let content = self.contents.pop_front();
        self.contents_shipped += u64::from(content.is_some());
        content
    }

    /// A part names this content. A peer that holds nothing lacks it for certain: it is sent along,
    /// once.
    pub fn send_along(&mut self, digest: Digest) {
        let is_empty = self.their_hello().is_some_and(|hello| hello.standing.patterns == 0);
        if self.sent_along.len() >= SENT_ALONG_MAX {
            // What is shared by patterns that far apart may well travel twice.
            self.sent_along.clear();
        }
        if is_empty && self.sent_along.insert(digest) {
            self.contents.push_back(digest);
        }
    }
}
