//! Patterns in rows: typed keys over ordered bytes, one pattern read, merged and written at a time.
//! It must never know that peers exist.

mod account;
mod contents;
mod keys;
mod knowledge;
mod patterns;
mod rows;
mod space;

pub use account::{Account, Sum};
pub use keys::{CHUNK_BYTES, META_REPLICA};
pub use knowledge::{Hole, Vector};
pub use patterns::DigestRow;
pub use rows::{Lost, Sealed, TableError};
pub use space::{Change, LOG_ROWS_MAX, Table, catalogue, create_space, replica_id};
