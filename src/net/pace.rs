//! How fast one peer may go: a bucket of tokens for each thing it can do.
//!
//! It must never know what a token pays for.

use super::limits::Rate;
use tokio::time::Instant;

/// Thousandths of a token, so that slow rates gain something in each millisecond.
const PARTS: u64 = 1_000;

/// Tokens left, and when that was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    rate: Rate,
    parts: u64,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, parts: rate.burst.saturating_mul(PARTS), at: now }
    }

    /// Takes tokens, or none where there are too few.
    pub(super) fn take(&mut self, tokens: u64, now: Instant) -> Pace {
        let passed = now.saturating_duration_since(self.at).as_millis();
        let gained = u64::try_from(passed).unwrap_or(u64::MAX).saturating_mul(self.rate.per_second);
        if gained > 0 {
            self.at = now;
        }
        let full = self.rate.burst.saturating_mul(PARTS);
        self.parts = self.parts.saturating_add(gained).min(full);
        match self.parts.checked_sub(tokens.saturating_mul(PARTS)) {
            Some(left) => {
                self.parts = left;
                Pace::Within
            }
            None => Pace::TooFast,
        }
    }
}

/// Whether a peer keeps to its rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    Within,
    TooFast,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate::new(10, 3), start);
        let mut taken = |after_ms| bucket.take(1, start + Duration::from_millis(after_ms));
        assert_eq!(
            [0; 4].map(&mut taken),
            [Pace::Within, Pace::Within, Pace::Within, Pace::TooFast]
        );
        assert_eq!(
            [99, 100, 100, 199, 200].map(&mut taken).map(|pace| pace == Pace::Within),
            [false, true, false, false, true]
        );
        // A year of silence saves up no more than a burst.
        let later = start + Duration::from_secs(31_536_000);
        assert_eq!(bucket.take(4, later), Pace::TooFast);
        assert_eq!(bucket.take(3, later), Pace::Within);
        assert_eq!(bucket.take(u64::MAX, later), Pace::TooFast);
    }
}
