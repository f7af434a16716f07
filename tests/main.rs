//! The one test binary: every suite is a module of it, so the crate links once.
//!
//! `tests/README.md` says which claim each suite holds.
#![allow(clippy::unwrap_used, missing_docs)]

mod tidy;

mod beliefs;
mod budget;

#[cfg(feature = "cli")]
mod cli;
mod compaction;
mod convergence;
mod cost;
#[cfg(all(feature = "store", unix))]
mod crash;
#[cfg(feature = "store")]
mod damage;
mod encodings;
#[cfg(all(feature = "store", target_os = "linux"))]
mod faults;
mod forgery;
#[cfg(all(feature = "store", feature = "net"))]
mod fuzz;
mod golden;
#[cfg(feature = "store")]
mod held;
mod hints;
mod holes;
#[cfg(feature = "store")]
mod identity;
mod laws;
mod liars;
#[cfg(feature = "store")]
mod limits;
mod lost;
#[cfg(feature = "cli")]
mod merkle;
mod migrations;
#[cfg(all(feature = "cli", feature = "net", target_os = "linux"))]
mod net;
#[cfg(feature = "planted")]
mod planted;
#[cfg(all(feature = "store", target_os = "linux"))]
mod power;
mod quarantine;
mod regression;
mod repair;
#[cfg(feature = "cli")]
mod report;
mod rounds;
#[cfg(all(feature = "store", target_os = "linux"))]
mod scenario;
mod search;
#[cfg(all(feature = "store", target_os = "linux"))]
mod shim;
mod simulation;
mod sketch;
#[cfg(feature = "store")]
mod space;
mod wire;
mod world;
