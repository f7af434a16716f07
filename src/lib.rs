//! `consilience`: a replicated, embeddable store for semantic patterns.
//!
//! Every node consolidates episodes into patterns on its own; nodes that can reach each other come
//! to hold the same patterns, with no coordinator. A pattern is a causal state: an observed-remove
//! set of episodes, one opinion per replica (read as max and mean confidence) and a description.
//!
//! The modules below stand in rows; a module uses only rows above it in this list.

pub mod lattice;
#[doc(hidden)]
pub mod planted;

pub mod pattern;

pub mod belief;
pub mod codec;

pub mod disk;
pub mod index;

#[path = "../migrations/mod.rs"]
pub mod migrations;
pub mod port;

pub mod sync;
pub mod table;

pub mod replica;

pub mod host;

pub mod engine;
pub mod sim;

#[cfg(feature = "net")]
pub mod net;

#[cfg(feature = "store")]
pub mod store;

#[cfg(feature = "cli")]
pub mod cli;
