//! The rule of tenants in the catalog of a migrated database, and in what its roles can see.

use std::collections::BTreeSet;

use bursar_store::PostgresStore;
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;
use bursar_testing::postgres::session::{ask, block_on, connect, rows};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use crate::postgres::schema::Schema;
use crate::postgres::{all_statements, schema, statements};

/// A database for one test, with the newest schema.
pub(crate) fn migrated() -> Database {
    Database::migrated(Cluster::shared(), |owner_url, application| {
        PostgresStore::migrate(owner_url, application).unwrap();
    })
}

/// The tables of tenants that the parser found.
pub(crate) fn tables_of_tenants() -> Vec<String> {
    let schema = schema();
    schema.tables.keys().filter(|table| schema.is_of_tenants(table)).cloned().collect()
}

/// The first column of a statement's rows, as a superuser.
#[track_caller]
pub(crate) fn column(database: &Database, sql: &str) -> Vec<String> {
    let first = |row: Vec<Option<String>>| row.into_iter().next().flatten().unwrap();
    database.run(sql).into_iter().map(first).collect()
}

#[test]
fn the_parser_finds_every_table_there_is() {
    let database = migrated();
    let found: BTreeSet<String> = schema().tables.into_keys().collect();
    let tables = column(&database, "select tablename from pg_tables where schemaname = 'public'");
    assert_eq!(found, tables.into_iter().collect());
}

/// The objects in the catalog that break the rule: unique indexes including those of keys, foreign
/// keys, and tables without complete row level security.
fn faults(database: &Database) -> Vec<String> {
    let of_tenants = format!("any('{{{}}}')", tables_of_tenants().join(","));
    column(
        database,
        &format!(
            "select i.indexrelid::regclass::text from pg_index i \
             join pg_class c on c.oid = i.indrelid and c.relname = {of_tenants} \
             left join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0] \
             where i.indisunique and a.attname is distinct from 'tenant_id' \
             union all select k.conname from pg_constraint k \
             join pg_class c on c.oid = k.conrelid and c.relname = {of_tenants} \
             join pg_attribute a on a.attrelid = c.oid and a.attnum = k.conkey[1] \
             join pg_attribute f on f.attrelid = k.confrelid and f.attnum = k.confkey[1] \
             where k.contype = 'f' and (a.attname, f.attname) <> ('tenant_id', 'tenant_id') \
             union all select c.relname from pg_class c where c.relname = {of_tenants} \
             and not (relrowsecurity and relforcerowsecurity and exists (select from pg_policy p \
             where p.polrelid = c.oid and p.polpermissive and p.polcmd = '*')) order by 1"
        ),
    )
}

#[test]
fn the_catalog_agrees_that_every_table_keeps_the_rule() {
    let database = migrated();
    assert_eq!(faults(&database), Vec::<String>::new());
    // Each broken object is found.
    let broken = "create unique index a_index on calls (call_key); \
         create unique index b_index on calls ((tenant_id + 1)); \
         alter table calls add constraint c_key foreign key (entry_id) references tenants; \
         alter table audit no force row level security; \
         drop policy of_tenant on decisions";
    ask(database.owner_url(), broken).unwrap();
    assert_eq!(faults(&database), ["a_index", "audit", "b_index", "c_key", "decisions"]);
}

#[test]
fn every_statement_prepares_on_the_newest_schema() {
    let (database, schema) = (migrated(), schema());
    block_on(async {
        let client = connect(database.app_url()).await.unwrap();
        for statement in all_statements() {
            if statement.text.starts_with("set local") {
                // `set local` works only in a transaction.
                let sql = format!("begin; {}; rollback", statement.text);
                client.batch_execute(&sql).await.unwrap();
                continue;
            }
            if statement.text.starts_with("begin") {
                let sql = format!("{}; rollback", statement.text);
                client.batch_execute(&sql).await.unwrap();
                continue;
            }
            let prepared =
                prepare(&client, &statement.text, arrays(&schema, &statement.text)).await;
            let (name, file) = (statement.name, statement.file);
            assert!(prepared.is_ok(), "{name} in {file}: {:?}", prepared.err());
        }
    });
}

/// The types of the parameters that a statement unnests, which the database cannot infer: an array
/// has the type of its column, except that integers are sent as `bigint[]`.
fn arrays(schema: &Schema, sql: &str) -> Vec<Type> {
    let mut types = Vec::new();
    for (number, of) in statements::arrays(schema, sql) {
        types.resize(types.len().max(number), Type::UNKNOWN);
        *types.get_mut(number - 1).unwrap() = match of.as_str() {
            "smallint" | "integer" | "bigint" => Type::INT8_ARRAY,
            "uuid" => Type::UUID_ARRAY,
            "text" => Type::TEXT_ARRAY,
            other => unreachable!("{other}"),
        };
    }
    types
}

/// Prepares a statement. A parameter whose type cannot be inferred (`$1 is null`) is tried as an
/// integer, then as a text.
async fn prepare(client: &Client, sql: &str, types: Vec<Type>) -> Result<(), Error> {
    let Err(error) = client.prepare_typed(sql, &types).await else { return Ok(()) };
    let message = error.as_db_error().map(|said| said.message()).unwrap_or_default();
    let without_type = message.strip_prefix("could not determine data type of parameter $");
    let Some(number) = without_type.and_then(|number| number.parse::<usize>().ok()) else {
        return Err(error);
    };
    let with = |of: Type| {
        let mut types = types.clone();
        types.resize(types.len().max(number), Type::UNKNOWN);
        types.iter_mut().skip(number - 1).take(1).for_each(|unknown| *unknown = of.clone());
        types
    };
    if Box::pin(prepare(client, sql, with(Type::INT8))).await.is_ok() {
        return Ok(());
    }
    Box::pin(prepare(client, sql, with(Type::TEXT))).await
}

/// A statement for each table of tenants that inserts one row of a tenant, with filler values.
fn inserts(database: &Database, tenant: u32) -> Vec<(String, String)> {
    let of_tenants = format!("any('{{{}}}')", tables_of_tenants().join(","));
    let sql = format!(
        "select table_name, format('insert into %I (%s) values (%s)', table_name, \
         string_agg(quote_ident(column_name), ', '), string_agg(case \
         when column_name = 'tenant_id' then '{tenant}' \
         when data_type = 'uuid' then quote_literal(gen_random_uuid()) \
         when data_type in ('text', 'bytea') then quote_literal('x') else '1' end, ', ')) \
         from information_schema.columns where table_schema = 'public' \
         and table_name = {of_tenants} group by table_name"
    );
    let two = |row: Vec<Option<String>>| {
        let mut columns = row.into_iter().flatten();
        (columns.next().unwrap(), columns.next().unwrap())
    };
    database.run(&sql).into_iter().map(two).collect()
}

/// Checks that row level security separates tenants in every table, for the roles of these URLs.
#[track_caller]
pub(crate) fn check_apart(database: &Database, urls: &[&str]) {
    let tables = tables_of_tenants();
    for tenant in [1, 2] {
        let inserts = inserts(database, tenant);
        assert_eq!(inserts.len(), tables.len());
        for (_, insert) in inserts {
            // This disables foreign keys, which the filler violates.
            database.run(&format!("set session_replication_role = replica; {insert}"));
        }
    }
    for &url in urls {
        block_on(async {
            let client = connect(url).await.unwrap();
            for table in &tables {
                let count = format!("select count(*) from {table}");
                let one = format!("begin; set local bursar.tenant_id = '1'; {count}; commit");
                let unset = format!("begin; set local bursar.tenant_id = ''; {count}; commit");
                // Without a tenant, with one, after it in the same session, and with an empty one.
                for (sql, expected) in [(&count, "0"), (&one, "1"), (&count, "0"), (&unset, "0")] {
                    let answer = rows(&client, sql).await.unwrap();
                    assert_eq!(answer, [[Some(expected.to_owned())]], "{sql}");
                }
            }
        });
        for (table, insert) in inserts(database, 2) {
            let refused = ask(url, &format!("begin; set local bursar.tenant_id = '1'; {insert}"));
            let said = refused.unwrap_err().as_db_error().unwrap().message().to_owned();
            assert!(said.contains("row-level security policy"), "{table}: {said}");
        }
    }
}

#[test]
fn a_transaction_sees_and_writes_rows_of_its_tenant_only() {
    let database = migrated();
    check_apart(&database, &[database.app_url(), database.owner_url()]);
}
