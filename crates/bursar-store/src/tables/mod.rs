//! Stored entities that both databases keep in the same way: one file for each.
//!
//! A file holds the statements of its table, what readers ask of it, and what a transaction of the
//! control plane writes. Statements use `$1` for the first value, which both databases accept.
//! Deliberately absent: tables whose statements differ, in locks, bulk forms or plans; they are in
//! `sqlite/` and `postgres/`.

pub(crate) mod decisions;
pub(crate) mod integrations;
pub(crate) mod keys;
pub(crate) mod overrides;
pub(crate) mod query;
pub(crate) mod signals;
pub(crate) mod tenants;
pub(crate) mod value;
