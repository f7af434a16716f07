//! What committed writes have replaced, kept until they are durable.
//! It must never know why a flush failed.

use super::super::Batch;

/// The values under the writes since the last good flush.
///
/// A write costs one push here. Only once a flush has failed does anyone look for a key.
#[derive(Default)]
pub(super) struct PreImages {
    /// In the order of the writes; a key may come more than once.
    replaced: Vec<(sled::IVec, Option<sled::IVec>)>,
    /// The durable value of every key in question; filled when the store turns read-only.
    durable: Batch,
}

impl PreImages {
    pub(super) fn is_empty(&self) -> bool {
        self.replaced.is_empty() && self.durable.is_empty()
    }

    pub(super) fn add(&mut self, key: sled::IVec, before: Option<sled::IVec>) {
        self.replaced.push((key, before));
    }

    /// Everything is durable.
    pub(super) fn clear(&mut self) {
        self.replaced.clear();
        self.durable.clear();
    }

    /// No more will become durable: from here on [`PreImages::durable`] answers.
    pub(super) fn settle(&mut self) {
        // Backwards, so that of several writes of one key the first tells what was durable.
        for (key, before) in self.replaced.drain(..).rev() {
            match before {
                Some(before) => self.durable.put(&*key, &*before),
                None => self.durable.delete(&*key),
            }
        }
    }

    /// What was durable under the writes, as a batch that would bring it back.
    pub(super) fn durable(&self) -> &Batch {
        &self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_writes_of_one_key_the_first_tells_what_was_durable() {
        let mut images = PreImages::default();
        assert!(images.is_empty());
        images.add(b"a".into(), Some(b"1".into()));
        images.add(b"b".into(), None);
        images.add(b"a".into(), Some(b"2".into()));
        images.add(b"b".into(), Some(b"2".into()));
        images.settle();
        let durable: Vec<_> = images.durable().iter().collect();
        assert_eq!(durable, [(&b"a"[..], Some(&b"1"[..])), (b"b", None)]);
        assert!(!images.is_empty());
        images.clear();
        assert!(images.is_empty());
    }
}
