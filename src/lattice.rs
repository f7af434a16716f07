//! Dots, version vectors and causal entries: the order in which events are known.
//! It must never know what an event is about.

mod causal;
mod dot;
pub mod laws;
mod version_vector;

pub use causal::{Entry, join_entries};
pub use dot::{Actor, COUNTER_MAX, Dot};
pub use version_vector::VersionVector;
