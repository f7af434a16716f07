//! Arithmetic in GF(2^32): polynomials over bits modulo x^32 + x^7 + x^3 + x^2 + 1.
//!
//! It must never know what its elements stand for.
//!
//! Addition is XOR. Multiplication is carry-less and done with ordinary integer products, since
//! the instruction for it needs `unsafe`: each factor is cut into four numbers of every fourth
//! bit, and the three zero bits between hold the carries of at most eight summands.

/// Every fourth bit, from the lowest on.
const FOURTHS: u64 = 0x1111_1111_1111_1111;

/// The product of two elements.
pub fn mul(a: u32, b: u32) -> u32 {
    reduce(carryless(a, b))
}

/// The inverse of an element that is not 0; of 0 it is 0. Some 60 products.
pub fn inverse(a: u32) -> u32 {
    // The multiplicative group has 2^32 - 1 elements, so a^(2^32 - 2) is 1 / a.
    let (mut power, mut result) = (mul(a, a), 1);
    for _ in 1..32 {
        result = mul(result, power);
        power = mul(power, power);
    }
    result
}

/// Replaces each element, none of which may be 0, by its inverse: one inversion and three products
/// an element (Montgomery).
pub fn invert_all(elements: &mut [u32]) {
    let mut before = Vec::with_capacity(elements.len());
    let mut product = 1;
    for element in elements.iter() {
        before.push(product);
        product = mul(product, *element);
    }
    let mut rest = inverse(product);
    for (element, before) in elements.iter_mut().zip(before).rev() {
        let inverted = mul(rest, before);
        rest = mul(rest, *element);
        *element = inverted;
    }
}

fn carryless(a: u32, b: u32) -> u64 {
    let (a, b) = (u64::from(a), u64::from(b));
    let [a0, a1, a2, a3] = [0, 1, 2, 3].map(|at| a & (FOURTHS << at));
    let [b0, b1, b2, b3] = [0, 1, 2, 3].map(|at| b & (FOURTHS << at));
    let low = (a0 * b0) ^ (a1 * b3) ^ (a2 * b2) ^ (a3 * b1);
    let second = (a0 * b1) ^ (a1 * b0) ^ (a2 * b3) ^ (a3 * b2);
    let third = (a0 * b2) ^ (a1 * b1) ^ (a2 * b0) ^ (a3 * b3);
    let high = (a0 * b3) ^ (a1 * b2) ^ (a2 * b1) ^ (a3 * b0);
    (low & FOURTHS) | (second & (FOURTHS << 1)) | (third & (FOURTHS << 2)) | (high & (FOURTHS << 3))
}

/// The remainder modulo the polynomial: what stands above 32 bits is folded down twice, since the
/// first fold leaves at most seven bits there.
fn reduce(product: u64) -> u32 {
    let fold = |value: u64| {
        let high = value >> 32;
        (value & 0xffff_ffff) ^ high ^ (high << 2) ^ (high << 3) ^ (high << 7)
    };
    u32::try_from(fold(fold(product))).expect("two folds leave 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The modulus without its leading term.
    const MODULUS: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 7;

    /// The schoolbook, one bit at a time.
    fn slow_mul(a: u32, b: u32) -> u32 {
        let (mut product, mut a) = (0_u32, a);
        for bit in 0..32 {
            if b >> bit & 1 == 1 {
                product ^= a;
            }
            let carry = a >> 31;
            a = (a << 1) ^ (carry * u32::try_from(MODULUS).unwrap());
        }
        product
    }

    proptest! {
        #[test]
        fn products_are_those_of_the_schoolbook(a: u32, b: u32) {
            prop_assert_eq!(mul(a, b), slow_mul(a, b));
            for extreme in [0, 1, 2, 1 << 31, u32::MAX] {
                prop_assert_eq!(mul(a, extreme), slow_mul(a, extreme));
            }
        }

        #[test]
        fn an_element_times_its_inverse_is_one(
            elements in prop::collection::vec(1_u32.., 0..40),
        ) {
            let mut inverses = elements.clone();
            invert_all(&mut inverses);
            for (element, inverted) in elements.iter().zip(&inverses) {
                prop_assert_eq!(slow_mul(*element, *inverted), 1);
                prop_assert_eq!(inverse(*element), *inverted);
            }
        }
    }

    /// The remainder of one polynomial by another, and their greatest common divisor.
    fn remainder(mut a: u64, b: u64) -> u64 {
        while a != 0 && a.ilog2() >= b.ilog2() {
            a ^= b << (a.ilog2() - b.ilog2());
        }
        a
    }

    fn divisor(a: u64, b: u64) -> u64 {
        if b == 0 { a } else { divisor(b, remainder(a, b)) }
    }

    /// Rabin's test: x^(2^32) is x, and x^(2^16) - x shares no factor with the modulus. 2 is the
    /// only prime that divides 32, so no other degree needs a look.
    fn is_irreducible(modulus: u64) -> bool {
        let square = |a: u64| {
            let mut product = 0;
            (0..32).filter(|bit| a >> bit & 1 == 1).for_each(|bit| product ^= a << bit);
            remainder(product, modulus)
        };
        let frobenius = |times| (0..times).fold(2, |power, _| square(power));
        frobenius(32) == 2 && divisor(modulus, frobenius(16) ^ 2) == 1
    }

    #[test]
    fn the_modulus_is_irreducible() {
        assert!(is_irreducible(1 << 32 | MODULUS));
        // The test itself tells: x^32 + 1 is (x + 1)^32, and most others factor as well.
        assert!(!is_irreducible(1 << 32 | 1));
        let irreducible = (1..4_096_u64).step_by(2).filter(|low| is_irreducible(1 << 32 | low));
        // One polynomial of degree 32 in 32 is irreducible, one in 16 of those with a last 1.
        let share = irreducible.count();
        assert!((64..192).contains(&share), "{share} of 2,048");
    }
}
