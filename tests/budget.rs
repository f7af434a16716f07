//! How much a test tries: little by itself, as much as the environment says where it says so.

use std::str::FromStr;

/// The number in a variable, or `plain` where there is none.
pub fn budget<N: FromStr>(variable: &str, plain: N) -> N {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(plain)
}
