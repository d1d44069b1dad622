//! The table `server`: the version of the schema, and the fingerprint of the secret key.

pub(crate) const SELECT_SERVER: &str = "select value from server where name = $1";
pub(crate) const UPSERT_SERVER: &str = "insert into server (name, value) values ($1, $2) \
     on conflict (name) do update set value = excluded.value";
