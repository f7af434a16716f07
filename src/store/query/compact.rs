//! What a store takes up, and making it take less.
//! It must never decide when; the engine does, or whoever asks.

use std::io::Write;

use serde_json::json;

use super::{Fault, PatternStore, Verdict};
use crate::engine::COMPACTION_FLOOR_BYTES;
use crate::store::Usage;

pub(super) fn compact(
    store: &PatternStore,
    dry_run: bool,
    out: &mut dyn Write,
) -> Result<Verdict, Fault> {
    let before = store.usage();
    let mut row = json!({
        "bytes": before.on_disk,
        "bytes_live": before.live,
        "times": times(before),
        "due": before.is_due(COMPACTION_FLOOR_BYTES),
    });
    if !dry_run {
        let done = store.compact()?;
        let after = Usage { on_disk: done.bytes_after, live: before.live };
        row["bytes_after"] = json!(after.on_disk);
        row["times_after"] = json!(times(after));
    }
    writeln!(out, "{row}")?;
    Ok(Verdict::Yes)
}

/// To two digits: how many bytes on disk there are for each that is live.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn times(usage: Usage) -> f64 {
    (usage.on_disk as f64 / usage.live.max(1) as f64 * 100.0).round() / 100.0
}
