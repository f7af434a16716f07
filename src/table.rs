//! Patterns in rows: typed keys over ordered bytes, one pattern read, merged and written at a time.
//! It must never know that peers exist.

mod keys;
mod rows;
mod space;

pub use keys::{CHUNK_BYTES, META_REPLICA};
pub use rows::{Sealed, TableError};
pub use space::{Change, DigestRow, LOG_ROWS_MAX, Table, catalogue, create_space, replica_id};
