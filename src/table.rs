//! Patterns in rows: typed keys over ordered bytes, one pattern read, merged and written at a time.
//! It must never know that peers exist.

mod account;
mod audit;
mod contents;
mod keys;
mod knowledge;
mod mend;
mod patterns;
mod rows;
mod space;

pub use account::{Account, Sum};
pub use audit::{Audited, Finding};
pub use keys::{CHUNK_BYTES, META_REPLICA};
pub use mend::{checked_catalogue, mend_descriptor, mend_replica_id, rows_of, space_numbers};
pub use patterns::DigestRow;
pub use rows::{Lost, Sealed, TableError};
pub use space::{Change, LOG_ROWS_MAX, Table, catalogue, create_space, replica_id};
