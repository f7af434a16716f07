//! The laws every join here must obey, as checks a test can call.
//! It must never know which lattice it is checking.

/// Panics, naming the law, unless `join` is idempotent, commutative and associative on the three
/// states, and each join lies above both of its arguments.
pub fn assert_join_semilattice<S: Clone + PartialEq + std::fmt::Debug>(
    states: [&S; 3],
    join: impl Fn(&S, &S) -> S,
) {
    let [x, y, z] = states;
    assert_eq!(&join(x, x), x, "join is not idempotent");
    let xy = join(x, y);
    assert_eq!(xy, join(y, x), "join is not commutative");
    assert_eq!(join(&xy, z), join(x, &join(y, z)), "join is not associative");
    assert_eq!(join(x, &xy), xy, "join is not inflationary on the left");
    assert_eq!(join(y, &xy), xy, "join is not inflationary on the right");
}
