//! `bursar db migrate` and `bursar db status`: the schema of the store.

use std::process::ExitCode;

use bursar_store::{PostgresStore, SchemaStatus, SqliteStore};
use serde::Serialize;
use serde_json::value::to_raw_value;

use super::command_error::CommandError;
use super::output::Printer;
use crate::cli::terminal::print_line;
use crate::config::database::Database;
use crate::config::settings::Config;

/// The status of a schema.
#[derive(Serialize)]
struct StatusView {
    database: String,
    schema: u32,
    schema_known: u32,
    schema_oldest_known: u32,
    is_usable: bool,
    advice: &'static str,
}

/// Migrates PostgreSQL and grants the use of the tables to the servers' role.
pub(super) fn migrate(config: &Config, app_role: Option<&str>) -> Result<(), CommandError> {
    let database = &config.database();
    let Database::Postgres(postgres) = database else {
        let nothing = "nothing to do: the server migrates its own file when it starts";
        return Ok(print_line(&format!("{database}: {nothing}"))?);
    };
    let role = app_role.ok_or("name the database role of the servers with --app-role NAME")?;
    let url = postgres.url()?;
    let before = PostgresStore::schema_status(url.expose())?;
    let after = PostgresStore::migrate(url.expose(), role)?;
    let climbed = if before.found == after.found {
        format!("schema {}, unchanged", after.found)
    } else {
        format!("schema {}, migrated from {}", after.found, before.found)
    };
    Ok(print_line(&format!("{database}: {climbed}; the role {role} may use it"))?)
}

/// Prints the version of the schema and what to do.
pub(super) fn status(config: &Config, printer: Printer) -> Result<ExitCode, CommandError> {
    let (status, (is_usable, advice)) = match &config.database() {
        Database::File(path) => {
            let status = SqliteStore::schema_status(path)?;
            (status, advice_on_file(&status))
        }
        Database::Postgres(database) => {
            let status = PostgresStore::schema_status(database.url()?.expose())?;
            (status, advice(&status))
        }
    };
    let SchemaStatus { found, known, oldest_known } = status;
    printer.one(&to_raw_value(&StatusView {
        database: config.database().to_string(),
        schema: found,
        schema_known: known,
        schema_oldest_known: oldest_known,
        is_usable,
        advice,
    })?)?;
    Ok(if is_usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether this binary can use the schema, and what to do.
fn advice(status: &SchemaStatus) -> (bool, &'static str) {
    let SchemaStatus { found, known, oldest_known: _ } = *status;
    let is_usable = status.is_usable();
    let advice = match found {
        0 => "run `bursar db migrate --app-role NAME` as the role that is to own the tables",
        _ if found < known => {
            "run `bursar db migrate --app-role NAME` as the role that owns the tables; servers of \
             the previous version keep running meanwhile"
        }
        _ if found == known => "nothing to do",
        _ if is_usable => "nothing to do: a newer version can use the database beside this one",
        _ => "use a newer bursar",
    };
    (is_usable, advice)
}

/// Like [`advice`], for a file, which a server migrates when it starts.
fn advice_on_file(status: &SchemaStatus) -> (bool, &'static str) {
    match status.found {
        0 => (true, "nothing to do: the server creates the schema when it first starts"),
        found if found < status.known => {
            (true, "nothing to do: the server migrates the schema when it next starts")
        }
        _ => advice(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_usable_by_its_own_binary_and_by_its_neighbours() {
        for (found, known, oldest_known, is_usable, word) in [
            (0, 2, 0, false, "own the tables"),
            (1, 2, 1, false, "owns the tables"),
            (2, 2, 1, true, "nothing to do"),
            (3, 2, 2, true, "newer version can use"),
            (3, 2, 3, false, "use a newer bursar"),
        ] {
            let (usable, said) = advice(&SchemaStatus { found, known, oldest_known });
            assert_eq!(usable, is_usable, "{found} {known} {oldest_known}");
            assert!(said.contains(word), "{said}");
        }
    }
}
