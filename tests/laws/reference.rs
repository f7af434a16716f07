//! The `crdts` crate as a second opinion: its set and its register, step by step, and the shortest
//! histories that show why its map is not used here.

use std::collections::BTreeSet;

use consilience::lattice::Actor;
use consilience::pattern::Pattern;
use crdts::{CmRDT, CvRDT, MVReg, Map, Orswot};
use proptest::prelude::*;

use super::cases;
use super::history::{History, NODES, Step, episodes, steps};

type Set = Orswot<String, u64>;
type Register = MVReg<u8, u64>;

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn episodes_are_those_of_an_orswot_at_every_step(steps in steps()) {
        let mut history = History::new();
        let mut sets = vec![Set::new(); NODES];
        for step in steps.iter().filter(|step| !is_beyond_states(step)) {
            let actor = |at: &usize| history.nodes[*at].actor;
            match step {
                Step::Observe(at, said) => {
                    let mut fresh = names(said.episodes);
                    fresh.retain(|name| !sets[*at].contains(name).val);
                    cite(&mut sets[*at], actor(at), fresh);
                }
                Step::Affirm(at, said) => cite(&mut sets[*at], actor(at), names(said.episodes)),
                Step::Retract(at, bits) => remove(&mut sets[*at], &names(*bits)),
                Step::Remove(at) => remove(&mut sets[*at], &names(u8::MAX)),
                Step::Join(to, from) => {
                    let theirs = sets[*from].clone();
                    sets[*to].merge(theirs);
                }
                _ => {}
            }
            history.step(step);
            for (node, set) in history.nodes.iter().zip(&sets) {
                let members: BTreeSet<String> = set.read().val.into_iter().collect();
                prop_assert_eq!(live_episodes(&node.whole), members, "after {:?}", step);
            }
        }
    }

    /// The register cannot be emptied and a write replaces all siblings, so removals and
    /// affirmations are left out.
    #[test]
    fn descriptions_are_those_of_an_mvreg_at_every_step(steps in steps()) {
        let mut history = History::new();
        let mut registers = vec![Register::new(); NODES];
        let in_both = |step: &&Step| {
            !is_beyond_states(step) && !matches!(step, Step::Remove(_) | Step::Affirm(..))
        };
        for step in steps.iter().filter(in_both) {
            match step {
                Step::Observe(at, said) => {
                    let register = &mut registers[*at];
                    let wanted = said.content.filter(|n| register.read().val != [*n]);
                    if let Some(n) = wanted {
                        let actor = history.nodes[*at].actor.0;
                        let write = register.write(n, register.read().derive_add_ctx(actor));
                        register.apply(write);
                    }
                }
                Step::Join(to, from) => {
                    let theirs = registers[*from].clone();
                    registers[*to].merge(theirs);
                }
                _ => {}
            }
            history.step(step);
            for (node, register) in history.nodes.iter().zip(&registers) {
                let mut values = register.read().val;
                values.sort_unstable();
                prop_assert_eq!(live_contents(&node.whole), values, "after {:?}", step);
            }
        }
    }
}

/// Deltas that overtake each other, forgetting, and actors that come to an end have no counterpart
/// in the crate.
fn is_beyond_states(step: &Step) -> bool {
    matches!(step, Step::Deliver(..) | Step::Forget(_) | Step::Reopen(..))
}

fn names(bits: u8) -> Vec<String> {
    episodes(bits).iter().map(ToString::to_string).collect()
}

fn live_episodes(pattern: &Pattern) -> BTreeSet<String> {
    pattern.episode_ids().map(ToString::to_string).collect()
}

fn live_contents(pattern: &Pattern) -> Vec<u8> {
    let mut values: Vec<u8> = pattern.contents.iter().map(|content| content.digest.0[0]).collect();
    values.sort_unstable();
    values
}

fn cite(set: &mut Set, actor: Actor, episodes: Vec<String>) {
    if !episodes.is_empty() {
        let add = set.add_all(episodes, set.read_ctx().derive_add_ctx(actor.0));
        set.apply(add);
    }
}

fn remove(set: &mut Set, names: &[String]) {
    let removal = set.rm_all(names.to_vec(), set.read().derive_rm_ctx());
    set.apply(removal);
}

/// The states of three replicas merged in the order given.
fn merged<S: CvRDT + Clone>(states: &[S; 3], order: [usize; 3]) -> S {
    let mut all = states[order[0]].clone();
    order[1..].iter().for_each(|at| all.merge(states[*at].clone()));
    all
}

/// No shorter history of three replicas and one key does this; all shorter ones were tried.
#[test]
fn a_crdts_map_of_sets_brings_a_removed_episode_back_in_some_orders_of_merging() {
    type SetMap = Map<u8, Orswot<u8, u64>, u64>;
    let add = |map: &mut SetMap, actor: u64, episode: u8| {
        let context = map.read_ctx().derive_add_ctx(actor);
        map.apply(map.update(0, context, |set, context| set.add(episode, context)));
    };
    let [mut a, mut b, mut c] = [SetMap::new(), SetMap::new(), SetMap::new()];
    add(&mut c, 2, 2);
    b.merge(c.clone());
    add(&mut c, 2, 1);
    a.merge(b.clone());
    let observed = a.get(&0).val.unwrap().contains(&2).derive_rm_ctx();
    a.apply(a.update(0, a.read_ctx().derive_add_ctx(0), |set, _| set.rm(2, observed)));
    b.apply(b.rm(0, b.get(&0).derive_rm_ctx()));
    let read = |order| -> BTreeSet<u8> {
        let all: SetMap = merged(&[a.clone(), b.clone(), c.clone()], order);
        all.get(&0).val.unwrap().read().val.into_iter().collect()
    };
    assert_eq!(read([0, 2, 1]), BTreeSet::from([1]), "episode 2 was removed, and not cited again");
    assert_eq!(read([0, 1, 2]), BTreeSet::from([1, 2]), "the defect is gone: think again");
}

/// No shorter history of three replicas and one key does this; all shorter ones were tried.
#[test]
fn a_crdts_map_of_registers_brings_a_removed_value_back_in_some_orders_of_merging() {
    type RegisterMap = Map<u8, Register, u64>;
    let write = |map: &mut RegisterMap, actor: u64, value: u8| {
        let context = map.read_ctx().derive_add_ctx(actor);
        map.apply(map.update(0, context, |register, context| register.write(value, context)));
    };
    let [mut a, mut b, mut c] = [RegisterMap::new(), RegisterMap::new(), RegisterMap::new()];
    write(&mut a, 0, 1);
    b.merge(a.clone());
    write(&mut b, 1, 3);
    c.merge(b.clone());
    b.apply(b.rm(0, b.get(&0).derive_rm_ctx()));
    write(&mut a, 0, 4);
    let read = |order| -> BTreeSet<u8> {
        let all: RegisterMap = merged(&[a.clone(), b.clone(), c.clone()], order);
        all.get(&0).val.unwrap().read().val.into_iter().collect()
    };
    assert_eq!(read([2, 1, 0]), BTreeSet::from([4]), "value 3 was removed, and not written again");
    assert_eq!(read([0, 1, 2]), BTreeSet::from([3, 4]), "the defect is gone: think again");
}
