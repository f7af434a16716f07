//! The laws a pattern obeys, each tried on states that random histories reach.
//!
//! `CONSILIENCE_CASES` says how many histories each law meets; a failure prints how to replay it.

mod exhaustive;
mod history;
mod reference;

use std::collections::BTreeSet;

use consilience::codec::{decode_record, encode_record, state_digest};
use consilience::lattice::laws::assert_join_semilattice;
use consilience::lattice::{Actor, Dot, VersionVector};
use consilience::pattern::crdt::{ApplyError, MergeError};
use consilience::pattern::{
    Contribution, DeltaOutcome, Digest, Edit, Opinion, Pattern, PatternId, Ratio, ReplicaId, Voice,
    summarise,
};
use crdts::{CmRDT, CvRDT, ResetRemove};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::budget::budget;
use history::{Fact, History, NODES, Said, Sent, Step, episodes, facts, steps};

pub fn cases() -> ProptestConfig {
    let cases = budget("CONSILIENCE_CASES", 500);
    ProptestConfig { cases, ..ProptestConfig::default() }
}

fn joined(mine: &Pattern, theirs: &Pattern) -> Pattern {
    let mut joined = mine.clone();
    joined.merge(theirs.clone());
    joined
}

fn both(mine: &VersionVector, theirs: &VersionVector) -> VersionVector {
    let mut both = mine.clone();
    both.join(theirs);
    both
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_replica_stands_where_a_naive_store_with_tombstones_does(steps in steps()) {
        let mut history = History::new();
        for step in &steps {
            history.step(step);
            history.assert_exact();
        }
    }

    #[test]
    fn a_join_is_idempotent_commutative_associative_and_inflationary(
        steps in steps(),
        picks in any::<[Index; 3]>(),
    ) {
        let History { past, nodes, .. } = History::of(&steps);
        let [x, y, z] = picks.map(|pick| pick.get(&past));
        assert_join_semilattice([x, y, z], joined);
        assert_join_semilattice([&nodes[0].whole, &nodes[1].whole, x], joined);
        prop_assert_eq!(x.validate_merge(y), Ok(()), "an honest history looks forked");
    }

    #[test]
    fn any_order_and_any_duplication_of_merges_gives_one_state_and_one_record(
        steps in steps(),
        picks in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        let History { past, nodes, .. } = History::of(&steps);
        let mut states: Vec<&Pattern> = nodes.iter().map(|node| &node.whole).collect();
        let forwards = states.iter().fold(past[0].clone(), |all, state| joined(&all, state));
        for pick in &picks {
            let repeated = pick.get(&states);
            states.insert(pick.index(states.len()), repeated);
        }
        let shuffled = states.iter().rev().fold(past[0].clone(), |all, one| joined(one, &all));
        let mut halves: Vec<Pattern> = states.into_iter().cloned().collect();
        while halves.len() > 1 {
            halves = halves.chunks(2).map(|two| joined(&two[0], &two[two.len() - 1])).collect();
        }
        for other in [&shuffled, &halves[0]] {
            prop_assert_eq!(other, &forwards);
            prop_assert_eq!(encode_record(other), encode_record(&forwards));
            prop_assert_eq!(state_digest(other), state_digest(&forwards));
        }
    }

    #[test]
    fn a_delta_applied_is_the_state_of_its_author_joined(
        steps in steps(),
        pick in any::<Index>(),
    ) {
        let History { past, sent, .. } = History::of(&steps);
        for Sent { delta, before, after, .. } in &sent {
            let ready = joined(pick.get(&past), before);
            let mut applied = ready.clone();
            prop_assert_eq!(applied.validate_op(delta), Ok(()));
            CmRDT::apply(&mut applied, delta.clone());
            prop_assert_eq!(&applied, &joined(&ready, after));
            CmRDT::apply(&mut applied, delta.clone());
            prop_assert_eq!(&applied, &joined(&ready, after), "applied twice");
        }
    }

    #[test]
    fn a_delta_whose_base_is_missing_changes_nothing_and_reports_the_gap(steps in steps()) {
        let History { nodes, sent, .. } = History::of(&steps);
        for (node, sent) in nodes.iter().flat_map(|node| sent.iter().map(move |s| (node, s))) {
            let mut state = node.whole.clone();
            let verdict = state.validate_op(&sent.delta);
            let expected = sent.expected_at(&node.ledger);
            CmRDT::apply(&mut state, sent.delta.clone());
            match verdict {
                Err(ApplyError::Gap { missing, .. }) => {
                    prop_assert_eq!(expected, DeltaOutcome::Gap);
                    prop_assert!(sent.needs(missing) && !node.whole.context.covers(missing));
                    prop_assert_eq!(&state, &node.whole, "a refused delta left a trace");
                }
                other => {
                    prop_assert_eq!(other, Ok(()));
                    prop_assert_ne!(expected, DeltaOutcome::Gap);
                    prop_assert!(state.context.covers(sent.delta.dot));
                }
            }
        }
    }

    #[test]
    fn the_context_alone_decides_the_state_because_removals_tick(steps in steps()) {
        let History { past, .. } = History::of(&steps);
        for (x, y) in past.iter().flat_map(|x| past.iter().map(move |y| (x, y))) {
            prop_assert_eq!(x.context == y.context, x == y, "{:?} and {:?}", x, y);
            if y.context.dominates(&x.context) {
                prop_assert_eq!(&joined(x, y), y, "the greater context is not the greater state");
            }
        }
    }

    #[test]
    fn equal_live_parts_and_no_others_have_equal_digests(steps in steps()) {
        let History { past, nodes, .. } = History::of(&steps);
        let parts: Vec<_> = past.iter().map(|state| (facts(state), state_digest(state))).collect();
        for (x, y) in parts.iter().flat_map(|x| parts.iter().map(move |y| (x, y))) {
            prop_assert_eq!(x.0 == y.0, x.1 == y.1);
        }
        for node in &nodes {
            prop_assert_eq!(state_digest(&node.lean), state_digest(&node.whole));
        }
    }

    #[test]
    fn what_is_forgotten_under_a_floor_is_invisible_to_joins_with_that_floor(
        steps in steps(),
        (at, low) in (0..NODES, 0..NODES),
    ) {
        let History { nodes, .. } = History::of(&steps);
        let floor = nodes[at].knowledge.meet(&nodes[low].knowledge);
        for other in &nodes {
            for mine in [&nodes[at].whole, &nodes[at].lean] {
                let mut less = mine.clone();
                less.forget(&floor);
                let (theirs, known) = (&other.lean, &other.knowledge);
                let here = [mine, &less].map(|state| state.join(&floor, theirs, known));
                let there = [mine, &less].map(|state| theirs.join(known, state, &floor));
                for (own, [whole, lean]) in [(&floor, here), (known, there)] {
                    let seen = |dot| lean.context.covers(dot) || own.covers(dot);
                    prop_assert!(lean.live_dots().all(seen), "what is live was not seen");
                    prop_assert_eq!(facts(&lean), facts(&whole));
                    let all = both(&floor, known);
                    prop_assert_eq!(both(&lean.context, &all), both(&whole.context, &all));
                }
            }
        }
    }

    #[test]
    fn an_addition_wins_over_a_concurrent_removal_and_nothing_else_survives_it(
        steps in steps(),
        (adder, remover) in (0..NODES, 0..NODES),
        bits in 1..16_u8,
    ) {
        let History { nodes, .. } = History::of(&steps);
        let (mut added, mut removed) = (nodes[adder].whole.clone(), nodes[remover].whole.clone());
        let seen = removed.context.clone();
        let (fresh, cut) = (Dot::new(Actor(1_000), 1), Dot::new(Actor(1_001), 1));
        let said = contribution(bits);
        let affirmed = added.plan(&Edit::Affirm(said.clone()), fresh, 0).unwrap();
        CmRDT::apply(&mut added, affirmed.clone());
        if let Some(removal) = removed.plan(&Edit::Remove, cut, 0) {
            CmRDT::apply(&mut removed, removal);
        }
        let survivors = facts(&joined(&removed, &added));
        prop_assert!(facts(&affirmed.live()).is_subset(&survivors));
        prop_assert!(survivors.iter().all(|fact| !seen.covers(fact.dot())));
        let unseen = facts(&added).into_iter().filter(|fact| !seen.covers(fact.dot()));
        prop_assert_eq!(survivors, unseen.collect::<BTreeSet<Fact>>());
    }

    #[test]
    fn a_reset_removes_just_what_its_clock_covers_and_no_merge_undoes_it(
        steps in steps(),
        picks in any::<[Index; 3]>(),
    ) {
        let History { past, sent, .. } = History::of(&steps);
        let [x, y, z] = picks.map(|pick| pick.get(&past));
        let mut clock = y.context.to_crdts();
        clock.dots.insert(77, 0);
        let reset = |state: &Pattern| {
            let mut emptied = state.clone();
            emptied.reset_remove(&clock);
            emptied
        };
        let rest = facts(x).into_iter().filter(|fact| !y.context.covers(fact.dot()));
        prop_assert_eq!(facts(&reset(x)), rest.collect::<BTreeSet<Fact>>());
        prop_assert_eq!(&reset(x).context, &both(&x.context, &y.context));
        prop_assert_eq!(joined(x, &reset(x)), reset(x), "the reset is undone");
        prop_assert_eq!(reset(&joined(x, z)), joined(&reset(x), z));
        for Sent { delta, .. } in &sent {
            let mut emptied = past[0].clone();
            emptied.reset_remove(&delta.dot.to_crdts().into());
            prop_assert_eq!(emptied.validate_op(delta), Ok(()), "what is covered leaves no gap");
        }
    }

    #[test]
    fn a_fork_and_a_stranger_are_found_before_a_merge_and_a_stranger_changes_nothing(
        steps in steps(),
        pick in any::<Index>(),
    ) {
        let History { past, .. } = History::of(&steps);
        let state = pick.get(&past);
        let mut forged = state.clone();
        forged.opinions.iter_mut().for_each(|voice| voice.opinion.weight += 9);
        if let Some(Voice { dot, .. }) = state.opinions.first() {
            let fork = MergeError::Fork { id: state.id.clone(), dot: *dot };
            prop_assert_eq!(state.validate_merge(&forged), Err(fork));
        }
        forged = state.clone();
        forged.contents.iter_mut().for_each(|text| text.digest = Digest([9; 32]));
        prop_assert_eq!(state.validate_merge(&forged).is_err(), !state.contents.is_empty());
        let mut stranger = past[past.len() - 1].clone();
        stranger.id = PatternId::new("another").unwrap();
        let mut same = state.clone();
        prop_assert!(same.validate_merge(&stranger).is_err());
        same.merge(stranger);
        prop_assert_eq!(&same, state);
    }

    #[test]
    fn a_record_is_read_back_whole_and_one_changed_byte_is_refused_or_means_just_itself(
        steps in steps(),
        salt in any::<usize>(),
    ) {
        let History { nodes, past, .. } = History::of(&steps);
        for state in [&nodes[0].lean, &past[past.len() - 1]] {
            let record = encode_record(state);
            prop_assert_eq!(&decode_record(&record), &Ok(state.clone()));
            for at in 0..record.len() {
                let flip = 1 + u8::try_from((salt ^ at.wrapping_mul(89)) % 255).unwrap();
                assert_honest_change(&record, at, flip);
            }
        }
    }

    #[test]
    fn the_summary_of_opinions_does_not_depend_on_their_order(
        steps in steps(),
        order in Just((0..97).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let History { past, .. } = History::of(&steps);
        let voices: BTreeSet<&Voice> = past.iter().flat_map(|state| &state.opinions).collect();
        let mut voices: Vec<(usize, Voice)> = order.into_iter().zip(voices.into_iter().cloned())
            .collect();
        let list = |voices: &[(usize, Voice)]| -> Vec<Voice> {
            voices.iter().map(|(_, voice)| voice.clone()).collect()
        };
        let sorted = summarise(&list(&voices));
        voices.sort_by_key(|(at, _)| *at);
        prop_assert_eq!(summarise(&list(&voices)), sorted);
    }
}

fn contribution(bits: u8) -> Contribution {
    let opinion = Opinion {
        replica: ReplicaId(0),
        confidence: Ratio::ONE,
        strength: Ratio::ZERO,
        weight: 1,
        at_ms: 0,
    };
    let content = Some(Digest([bits; 32]));
    Contribution { episodes: episodes(bits), opinion: Some(opinion), content }
}

/// Panics unless the record with one byte changed is refused, or is the record of another state.
fn assert_honest_change(record: &[u8], at: usize, flip: u8) {
    let mut changed = record.to_vec();
    changed[at] ^= flip;
    if let Ok(state) = decode_record(&changed) {
        assert_eq!(encode_record(&state), changed, "byte {at} of {record:?}, flipped by {flip}");
        assert_eq!(state.broken_limit(), None);
    }
}

#[test]
fn every_change_of_one_byte_and_every_cut_of_a_rich_record_is_refused_or_means_just_itself() {
    let said = |n: u8| Said { episodes: 5 << (n % 2), opinion: Some(n), content: Some(n) };
    let mut steps: Vec<Step> = (0..4).map(|n| Step::Observe(usize::from(n), said(n))).collect();
    steps.extend((1..NODES).map(|from| Step::Join(0, from)));
    let state = History::of(&steps).nodes.swap_remove(0).whole;
    assert_eq!((state.context.len(), state.contents.len()), (NODES, NODES));
    let record = encode_record(&state);
    for (at, flip) in (0..record.len()).flat_map(|at| (1..=255).map(move |flip| (at, flip))) {
        assert_honest_change(&record, at, flip);
    }
    assert!((0..record.len()).all(|end| decode_record(&record[..end]).is_err()));
    assert!((0..=255).all(|byte| decode_record(&[&record[..], &[byte]].concat()).is_err()));
}
