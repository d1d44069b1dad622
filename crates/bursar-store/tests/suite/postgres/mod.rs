//! Features of the PostgreSQL store only: above all the rule that everything of a tenant starts
//! with `tenant_id`.
//!
//! The schema and the statements are parsed from the source, so that a table or a statement that
//! breaks the rule is found before it runs.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::wildcard_enum_match_arm, reason = "the parser also knows other databases")]

mod citus;
mod database;
mod faults;
mod limits;
mod samples;
mod schema;
mod scope;
mod sessions;
mod statements;

use std::collections::BTreeSet;

use schema::Schema;

use crate::support::constants::{Constant, constants, sources};

/// The folders with statements: those of PostgreSQL, and those of both databases.
const SOURCES: [&str; 2] = ["src/postgres", "src/tables"];
const MIGRATIONS: &str = "migrations/postgres";
/// String constants that are not statements.
const NO_STATEMENTS: [&str; 1] = ["ADDRESS_FORM"];

/// The schema that the migrations create.
pub(crate) fn schema() -> Schema {
    let migrations = sources(MIGRATIONS);
    Schema::read(migrations.iter().map(|(_, sql)| sql.as_str())).unwrap()
}

/// The statements of the store.
pub(crate) fn all_statements() -> Vec<Constant> {
    SOURCES.into_iter().flat_map(statements_in).collect()
}

fn statements_in(folder: &str) -> Vec<Constant> {
    let mut constants = constants(folder, "");
    constants.retain(|constant| !NO_STATEMENTS.contains(&constant.name.as_str()));
    constants
}

#[test]
fn every_table_of_the_migrations_keeps_the_rule() {
    let schema = schema();
    let count = schema.tables.keys().filter(|table| schema.is_of_tenants(table)).count();
    assert!(count >= 12, "only {count} tables of tenants found");
    assert_eq!(schema.faults(), Vec::<String>::new());
}

#[test]
fn every_statement_of_the_store_names_one_tenant() {
    let (schema, statements) = (schema(), all_statements());
    assert!(statements.len() >= 40, "only {} statements found", statements.len());
    let broken = |Constant { name, file, text }: Constant| {
        let faults = statements::faults(&schema, &text);
        (!faults.is_empty()).then(|| format!("{name} in {file}: {faults:?}"))
    };
    assert_eq!(statements.into_iter().filter_map(broken).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn every_statement_of_the_source_is_checked() {
    let begins = ["select ", "insert into ", "update ", "delete from ", "with ", "truncate "];
    for folder in SOURCES {
        let statements = statements_in(folder);
        for (file, source) in sources(folder) {
            for word in begins {
                let written = source.matches(&format!("\"{word}")).count();
                let of_file = statements.iter().filter(|known| known.file == file);
                let judged = of_file.filter(|known| known.text.starts_with(word));
                // A statement with two forms stands in the source once.
                let judged: BTreeSet<&str> = judged.map(|known| known.name.as_str()).collect();
                assert_eq!(written, judged.len(), "texts that begin with {word}in {file}");
            }
        }
    }
}

#[test]
fn a_schema_that_keeps_the_rule_passes() {
    assert_eq!(Schema::read([samples::SCHEMA]).unwrap().faults(), Vec::<String>::new());
}

#[test]
fn every_break_of_the_rule_in_a_schema_is_found() {
    for (migration, expected) in samples::BROKEN_SCHEMAS {
        let faults = Schema::read([samples::SCHEMA, migration]).unwrap().faults();
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{migration}: {faults:?}");
    }
}

#[test]
fn a_table_without_a_part_of_row_level_security_is_found() {
    let table = "create table t (tenant_id bigint primary key);";
    let secured = [
        ("alter table t enable row level security;", "is not enabled"),
        ("alter table t force row level security;", "is not forced"),
        ("create policy p on t using (tenant_id = current_setting('bursar.tenant_id'));", "policy"),
    ];
    let all = secured.map(|(statement, _)| statement).concat();
    assert_eq!(Schema::read([table, &all]).unwrap().faults(), Vec::<String>::new());
    for (missing, expected) in secured {
        let faults = Schema::read([table, &all.replace(missing, "")]).unwrap().faults();
        let [fault] = faults.as_slice() else { panic!("without {missing}: {faults:?}") };
        assert!(fault.contains(expected), "without {missing}: {fault}");
    }
}

#[test]
fn statements_that_name_one_tenant_pass() {
    let schema = Schema::read([samples::SCHEMA]).unwrap();
    for sql in samples::ONE_TENANT {
        assert_eq!(statements::faults(&schema, sql), Vec::<String>::new(), "{sql}");
    }
}

#[test]
fn every_break_of_the_rule_in_a_statement_is_found() {
    let schema = Schema::read([samples::SCHEMA]).unwrap();
    for (sql, expected) in samples::BROKEN_STATEMENTS {
        let faults = statements::faults(&schema, sql);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{sql}: {faults:?}");
    }
}
