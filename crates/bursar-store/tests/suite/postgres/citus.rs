//! Compares `deploy/citus.sql` with the migrations.
//!
//! Citus itself does not run. Substitutes of its functions log their calls, and the tests look for
//! what Citus is known to refuse.

use std::collections::BTreeMap;
use std::path::Path;

use bursar_testing::postgres::database::Database;
use bursar_testing::postgres::session::ask;

use crate::postgres::database::{check_apart, column, migrated, tables_of_tenants};
use crate::postgres::schema::{OF_NO_TENANT, ON_THE_COORDINATOR};

/// Substitutes of the functions of Citus, which log their calls in order.
const SUBSTITUTES: &str = "
    create table placed (place serial, name text primary key, by text, beside text);
    create function create_reference_table(regclass) returns void language sql
        as 'insert into placed (name) values ($1::text)';
    create function create_distributed_table(
        name regclass, by text, distribution_type text default 'hash',
        colocate_with text default 'default'
    ) returns void language sql
        as 'insert into placed (name, by, beside) values ($1::text, $2, $4)';";

/// A database on which the file was run.
fn placed() -> Database {
    let database = migrated();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/citus.sql");
    // Without Citus, only a superuser may set its parameters for a database.
    database.run(SUBSTITUTES);
    database.run(&std::fs::read_to_string(path).unwrap());
    database
}

#[test]
fn every_table_is_placed_once_and_beside_the_others_of_its_tenant() {
    let database = placed();
    let row = |row: Vec<Option<String>>| {
        let [Some(name), by, beside] = row.as_slice() else { panic!("{row:?}") };
        (name.clone(), (by.clone(), beside.clone()))
    };
    let rows = database.run("select name, by, beside from placed order by place");
    let placed: BTreeMap<_, _> = rows.into_iter().map(row).collect();
    let text = |text: &str| Some(text.to_owned());
    let mut expected = BTreeMap::new();
    for table in tables_of_tenants() {
        let beside = if table == "integrations" { "default" } else { "integrations" };
        expected.insert(table, (text("tenant_id"), text(beside)));
    }
    for table in OF_NO_TENANT.iter().filter(|table| !ON_THE_COORDINATOR.contains(table)) {
        expected.insert((*table).to_owned(), (None, None));
    }
    assert_eq!(placed, expected);
}

#[test]
fn a_table_is_placed_after_those_that_it_refers_to() {
    let early = "select k.conname from pg_constraint k \
         join placed a on a.name = k.conrelid::regclass::text \
         left join placed b on b.name = k.confrelid::regclass::text \
         where k.contype = 'f' and coalesce(a.place < b.place, true)";
    assert_eq!(column(&placed(), early), Vec::<String>::new());
}

#[test]
fn policies_have_no_subquery_there_and_still_keep_tenants_apart() {
    let database = placed();
    let subqueries = "select tablename || ': ' || qual from pg_policies \
         where qual ilike '%select%' or with_check ilike '%select%'";
    assert_eq!(column(&database, subqueries), Vec::<String>::new());
    ask(&database.admin_url(), "drop table placed cascade").unwrap();
    check_apart(&database, &[database.app_url()]);
}

#[test]
fn the_owner_may_move_the_rows_of_every_tenant() {
    let forced = "select relname from pg_class where relforcerowsecurity";
    assert_eq!(column(&placed(), forced), Vec::<String>::new());
}

#[test]
fn every_session_propagates_the_settings_of_a_transaction() {
    let database = placed();
    let set = ask(database.app_url(), "show citus.propagate_set_commands").unwrap();
    assert_eq!(set, [[Some("local".to_owned())]]);
}
