//! Power sums of a set: from them, whoever holds a few elements more finds out which those are.
//!
//! It must never know what its elements stand for, nor be believed: whoever finds something by it
//! holds what comes out against a digest.
//!
//! With `e` the elements, none of them 0, word `j` is the sum of `e^(2j + 1)` over GF(2^32). The
//! sums of even powers are squares of these, so `w` words are the syndrome of a BCH code: they name
//! up to `w` elements that one of two sets lacks, as the roots of a polynomial (Berlekamp 1968,
//! Massey 1969). Of more elements, or of such as are unknown here, they say nothing.

use super::field::{inverse, mul};

/// The first `words` odd power sums. O(elements · words).
pub fn power_sums(elements: &[u32], words: usize) -> Vec<u32> {
    let mut sums = vec![0; words];
    for element in elements {
        let (square, mut power) = (mul(*element, *element), *element);
        for sum in &mut sums {
            *sum ^= power;
            power = mul(power, square);
        }
    }
    sums
}

/// The places in `mine` of the elements that a set with these sums lacks, if it lacks no more than
/// there are words, and holds none besides. O(elements · words).
pub fn missing(sums: &[u32], mine: &[u32]) -> Option<Vec<usize>> {
    let ours = power_sums(mine, sums.len());
    let odd: Vec<u32> = ours.into_iter().zip(sums).map(|(ours, theirs)| ours ^ theirs).collect();
    let locator = locator(&odd)?;
    let at = |element: u32| locator.iter().fold(0, |value, term| mul(value, element) ^ term);
    let found = (0..mine.len()).filter(|place| at(mine[*place]) == 0);
    // One beyond the degree is enough to see that two elements here are the same.
    let found: Vec<usize> = found.take(locator.len()).collect();
    (found.len() + 1 == locator.len()).then_some(found)
}

/// The polynomial whose roots are the elements with these odd power sums, highest term first.
/// `None` where it would have more roots than there are sums.
fn locator(odd: &[u32]) -> Option<Vec<u32>> {
    let mut sums: Vec<u32> = Vec::with_capacity(2 * odd.len());
    for (at, sum) in odd.iter().enumerate() {
        // Squaring adds nothing up: the sum of the squares is the square of the sum.
        let half = if at == 0 { *sum } else { sums[at] };
        sums.push(*sum);
        sums.push(mul(half, half));
    }
    let (mut now, mut before) = (vec![1], vec![1]);
    let (mut degree, mut since, mut scale) = (0, 1, 1);
    for at in 0..sums.len() {
        let terms = now.iter().enumerate().skip(1).take(degree);
        let rest = terms.fold(sums[at], |rest, (i, term)| rest ^ mul(*term, sums[at - i]));
        if rest == 0 {
            since += 1;
            continue;
        }
        let factor = mul(rest, inverse(scale));
        let mut next = now.clone();
        next.resize(next.len().max(before.len() + since), 0);
        before.iter().enumerate().for_each(|(i, term)| next[i + since] ^= mul(factor, *term));
        since += 1;
        if 2 * degree <= at {
            degree = at + 1 - degree;
            before = now;
            (scale, since) = (rest, 1);
        }
        now = next;
    }
    let top = now.iter().rposition(|term| *term != 0);
    now.truncate(degree + 1);
    (degree <= odd.len() && top == Some(degree)).then_some(now)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn elements() -> impl Strategy<Value = Vec<u32>> {
        let set = prop::collection::btree_set(1_u32.., 0..60);
        set.prop_map(|set: BTreeSet<u32>| set.into_iter().collect())
    }

    fn spread(number: u32) -> u32 {
        (number + 1).wrapping_mul(0x9e37_79b9)
    }

    proptest! {
        #[test]
        fn what_a_set_lacks_is_found_up_to_as_many_as_there_are_words(
            mine in elements(), words in 1_usize..=16, seed: u64,
        ) {
            // Some places of `mine`, spread by the seed.
            let lacks = |at: &usize| (seed >> (at % 60)) & 1 == 1 && at.is_multiple_of(3);
            let gone: Vec<usize> = (0..mine.len()).filter(lacks).collect();
            let held = (0..mine.len()).filter(|at| !gone.contains(at));
            let theirs: Vec<u32> = held.map(|at| mine[at]).collect();
            let found = missing(&power_sums(&theirs, words), &mine);
            prop_assert_eq!(found, (gone.len() <= words).then_some(gone));
        }

        #[test]
        fn an_element_that_is_unknown_here_is_never_taken_for_others(
            mine in elements(), more in 1_u32.., words in 1_usize..=16,
        ) {
            prop_assume!(!mine.contains(&more));
            let theirs: Vec<u32> = mine.iter().copied().skip(1).chain([more]).collect();
            prop_assert_eq!(missing(&power_sums(&theirs, words), &mine), None);
        }

        #[test]
        fn whatever_a_liar_sends_names_no_more_places_than_it_has_words(
            mine in elements(), sums in prop::collection::vec(any::<u32>(), 1..=16),
        ) {
            let found = missing(&sums, &mine).unwrap_or_default();
            prop_assert!(found.len() <= sums.len());
            prop_assert!(found.iter().all(|at| *at < mine.len()));
        }
    }

    #[test]
    fn sixteen_of_many_thousands_are_found() {
        let mine: Vec<u32> = (0..65_536).map(spread).collect();
        let theirs: Vec<u32> = mine.iter().copied().skip(16).collect();
        assert_eq!(missing(&power_sums(&theirs, 16), &mine), Some((0..16).collect()));
        assert_eq!(missing(&power_sums(&theirs, 15), &mine), None);
    }

    #[test]
    fn two_equal_elements_here_are_not_told_apart() {
        assert_eq!(missing(&power_sums(&[7, 9], 4), &[7, 9, 11]), Some(vec![2]));
        assert_eq!(missing(&power_sums(&[7, 9], 4), &[7, 9, 9]), None);
        // A pair that neither side lacks cancels out, and is in nobody's way.
        assert_eq!(missing(&power_sums(&[7, 9, 9], 4), &[7, 9, 9, 11]), Some(vec![3]));
    }
}
