//! Verbs about what patterns jointly say: beliefs, conflicts, history.
//! It must never judge a pair; it passes thresholds on and narrates what the answer cost.

use serde_json::Value;

use super::output::Output;
use super::source::{Purpose, Source};
use super::table::Layout;
use super::{Common, narrate};
use crate::store::{Extent, Fault, Input, Lens, Query, Verdict};

/// Thresholds of a view; they change nothing that is stored.
#[derive(clap::Args)]
struct LensArguments {
    /// From this cosine on two embeddings mean the same [default: 0.85].
    #[arg(long, value_name = "0..1")]
    cosine: Option<String>,
    /// From this share of common episodes on two patterns may be one belief [default: 0.5].
    #[arg(long, value_name = "0..1")]
    jaccard: Option<String>,
    /// From this share on they are readings of the same episodes [default: 0.9].
    #[arg(long, value_name = "0..1")]
    same_episodes: Option<String>,
    /// Also bind patterns that share no episode and look alike: compares all pairs.
    #[arg(long)]
    by_similarity: bool,
}

/// Arguments of `beliefs`.
#[derive(clap::Args)]
pub(super) struct BeliefsArguments {
    /// Only the belief of this pattern, with its episodes and content.
    id: Option<String>,
    /// Beliefs of one pattern too.
    #[arg(long, conflicts_with = "counts")]
    all: bool,
    /// Only how many there are, as a row.
    #[arg(long)]
    counts: bool,
    #[command(flatten)]
    lens: LensArguments,
}

/// Arguments of `conflicts`.
#[derive(clap::Args)]
pub(super) struct ConflictsArguments {
    /// How this pattern stands to all it is related to, with what they share.
    id: Option<String>,
    #[command(flatten)]
    lens: LensArguments,
}

/// Arguments of `history`.
#[derive(clap::Args)]
pub(super) struct HistoryArguments {
    /// An id, or a prefix that fits one id.
    id: String,
}

impl LensArguments {
    fn lens(&self) -> Lens {
        Lens {
            cosine: self.cosine.clone(),
            jaccard: self.jaccard.clone(),
            same_episodes: self.same_episodes.clone(),
            by_similarity: self.by_similarity,
        }
    }
}

pub(super) fn beliefs(
    common: &Common,
    arguments: &BeliefsArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = Source::find(common.store()?, Purpose::Read)?;
    let space = source.space(common.space()?);
    let extent = match (arguments.all, arguments.counts) {
        (_, true) => Extent::Counts,
        (true, false) => Extent::All,
        (false, false) => Extent::Joint,
    };
    let (id, lens) = (arguments.id.clone(), arguments.lens.lens());
    let query = Query::Beliefs { space, id, extent, lens };
    if arguments.counts {
        let layout = Layout::Block(&[
            "patterns",
            "beliefs",
            "joint",
            "same_episodes",
            "one_belief",
            "look_alike",
            "concurrent",
            "unresolved",
            "competing",
            "pairs",
            "comparisons",
            "products",
            "crowded",
        ]);
        return out.rows(&layout, |rows| source.ask(&query, Input::None, rows));
    }
    let list = Layout::Columns(&[
        "belief",
        "label",
        "patterns",
        "episodes",
        "max",
        "mean",
        "weight",
        "last_consolidated",
    ]);
    let one = Layout::Block(&[
        "belief",
        "label",
        "patterns",
        "episodes",
        "max",
        "mean",
        "strength",
        "voices",
        "weight",
        "last_consolidated",
        "members",
        "cited",
    ]);
    let layout = if arguments.id.is_some() { one } else { list };
    ask(&source, &query, &layout, out)
}

pub(super) fn conflicts(
    common: &Common,
    arguments: &ConflictsArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = Source::find(common.store()?, Purpose::Read)?;
    let space = source.space(common.space()?);
    let (id, lens) = (arguments.id.clone(), arguments.lens.lens());
    let query = Query::Conflicts { space, id, lens };
    let list = Layout::Columns(&[
        "type",
        "kind",
        "pattern",
        "other",
        "shared",
        "either",
        "cosine",
        "max",
        "other_max",
    ]);
    let one = Layout::Block(&[
        "type",
        "kind",
        "pattern",
        "other",
        "other_label",
        "jaccard",
        "cosine",
        "max",
        "other_max",
        "weight",
        "other_weight",
        "voices",
        "other_voices",
        "episodes",
        "why",
    ]);
    let layout = if arguments.id.is_some() { one } else { list };
    ask(&source, &query, &layout, out)
}

pub(super) fn history(
    common: &Common,
    arguments: &HistoryArguments,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let source = Source::find(common.store()?, Purpose::Read)?;
    let query = Query::History { space: source.space(common.space()?), id: arguments.id.clone() };
    let layout = Layout::Block(&[
        "event",
        "replica",
        "at",
        "confidence",
        "weight",
        "label",
        "episodes",
        "why",
    ]);
    out.rows(&layout, |rows| source.ask(&query, Input::None, rows))
}

/// The last row of an answer says what there is and what it took: that is narration.
fn ask(
    source: &Source,
    query: &Query,
    layout: &Layout,
    out: &mut Output,
) -> Result<Verdict, Fault> {
    let mut rows = Vec::new();
    let verdict = source.ask(query, Input::None, &mut rows)?;
    let whole = rows.strip_suffix(b"\n").unwrap_or(&rows);
    let last = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let counts = serde_json::from_slice(&whole[last..]).unwrap_or(Value::Null);
    out.rows(layout, |to| Ok(to.write_all(&rows[..last])?))?;
    told(&counts).iter().for_each(|sentence| narrate(sentence));
    Ok(verdict)
}

fn told(counts: &Value) -> Vec<String> {
    let number = |name: &str| counts[name].as_u64().unwrap_or_default();
    let mut said = vec![
        format!(
            "{} patterns are {} beliefs, {} of several; pairs of one belief: {}, \
             of the same episodes: {}, competing: {}; described concurrently: {}, unresolved: {}",
            number("patterns"),
            number("beliefs"),
            number("joint"),
            number("one_belief") + number("look_alike"),
            number("same_episodes"),
            number("competing"),
            number("concurrent"),
            number("unresolved"),
        ),
        format!(
            "compared {} of {} pairs with {} multiplications",
            number("comparisons"),
            number("pairs"),
            number("products"),
        ),
    ];
    if let [first, rest @ ..] = counts["crowded"].as_array().map_or(&[][..], Vec::as_slice) {
        said.push(format!(
            "episodes cited by more than {} patterns: {}, {} by {}; \
             patterns that share only such episodes were not compared",
            number("crowd_max"),
            rest.len() + 1,
            first["episode"],
            first["patterns"],
        ));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_compared_is_said() {
        let counts = serde_json::json!({
            "pairs": 10, "comparisons": 3, "products": 9, "crowd_max": 128,
            "crowded": [{"episode": "everywhere", "patterns": 4000}],
        });
        let said = told(&counts);
        assert_eq!(said[1], "compared 3 of 10 pairs with 9 multiplications");
        let expected = "episodes cited by more than 128 patterns: 1, \"everywhere\" by 4000; \
            patterns that share only such episodes were not compared";
        assert_eq!(said[2], expected);
    }
}
