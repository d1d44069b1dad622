//! What only the PostgreSQL store has: the rule that everything of a tenant starts with it.
//!
//! The schema and the statements are read from the source with a parser, so that a table or a
//! statement that breaks the rule is found before it runs, on whatever database.

#![expect(clippy::wildcard_enum_match_arm, reason = "the parser reads other databases' words too")]

mod samples;
mod schema;
mod scope;
mod statements;

use schema::Schema;

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
