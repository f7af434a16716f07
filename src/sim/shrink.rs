//! A plan that fails, made shorter: deeds are left out as long as it still fails.
//! It must never know what a deed does.

use super::{Failure, Plan, live};

/// The plan without the deeds it can do without, and how it fails then. Lives through at most
/// `lives_max` shorter plans. `None` where the plan does not fail.
pub fn shrunk(plan: &Plan, lives_max: usize) -> Option<(Plan, Failure)> {
    let mut failure = live(plan).err()?;
    let mut plan = plan.clone();
    let mut lives = 0;
    let mut size = plan.deeds.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < plan.deeds.len() && lives < lives_max {
            let mut shorter = plan.clone();
            let end = plan.deeds.len().min(at + size);
            // The time they took passes all the same.
            let pause_ms: u64 = shorter.deeds.drain(at..end).map(|(ms, _)| ms).sum();
            if let Some(next) = shorter.deeds.get_mut(at) {
                next.0 += pause_ms;
            }
            lives += 1;
            match live(&shorter) {
                Err(still) => (plan, failure) = (shorter, still),
                Ok(_) => at = end,
            }
        }
        size /= 2;
    }
    Some((plan, failure))
}
