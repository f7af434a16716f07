//! Keys that are owed to the peer or wanted from it, within the bounds of one session.
//! It must never know what a part says.

use super::Session;
use crate::codec::frame::{Ask, Scope};
use crate::index::Index;
use crate::pattern::KeyHash;

impl Session {
    /// The peer asks for keys.
    pub fn on_ask(&mut self, asks: &[Ask]) {
        for ask in asks {
            self.ship(ask.key, ask.scope);
        }
    }

    /// This key's part is owed to the peer.
    pub fn ship(&mut self, key: KeyHash, scope: Scope) {
        if !self.ship.contains_key(&key) && !self.fits(self.ship.len() + 1) {
            return;
        }
        let entry = self.ship.entry(key).or_insert(scope);
        *entry = scope.max(*entry);
    }

    /// This key's part is wanted from the peer.
    pub fn ask(&mut self, key: KeyHash, scope: Scope) {
        if self.passes_over_key(&key) {
            return;
        }
        if !self.asks.contains_key(&key) {
            if !self.fits(self.asks.len() + 1) || !self.may_ask(self.asked) {
                return;
            }
            self.asked += 1;
        }
        let entry = self.asks.entry(key).or_insert(scope);
        *entry = scope.max(*entry);
    }

    /// The next key whose part is owed. O(log n).
    pub fn next_part(&mut self, index: &Index) -> Option<(KeyHash, Scope)> {
        if !self.may_ship(self.shipped) {
            self.ship.clear();
            self.ranges.clear();
            return None;
        }
        let part = self.next_shipped(index);
        self.shipped += u64::from(part.is_some());
        part
    }

    fn next_shipped(&mut self, index: &Index) -> Option<(KeyHash, Scope)> {
        if let Some((key, scope)) = self.ship.pop_first() {
            return Some((key, scope));
        }
        while let Some(range) = self.ranges.front_mut() {
            let page = index.entries(&range.prefix, range.after, 1);
            let Some((key, _)) = page.first() else {
                self.ranges.pop_front();
                continue;
            };
            range.after = Some(*key);
            if !range.skip.contains(key) {
                return Some((*key, Scope::Fresh));
            }
        }
        None
    }
}
