//! Row level security, the second barrier behind the statements: what the role of the servers and
//! the owner of the tables can read and write without or as another tenant.

use std::time::Duration;

use bursar_testing::postgres::session;
use bursar_testing::process::bodies::record;
use bursar_testing::process::http::Http;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;
use serde_json::json;

use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::{Site, reservation};

const TABLES: &str = "select table_name::text from information_schema.columns \
     where column_name = 'tenant_id' and table_schema = 'public' and table_name <> 'tenants' \
     order by table_name";

/// The values of a result with one column.
fn values(rows: Vec<session::Row>) -> Vec<String> {
    rows.into_iter().flatten().flatten().collect()
}

/// Lowers a threshold of a tenant by an override and exceeds it, which stores a signal.
fn exceed_override(fleet: &Fleet, tenant: &Tenant, http: &mut Http) {
    let context = "/api/v1/session/context";
    let lowered = json!({
        "tenant_id": tenant.id, "dimension": "rate", "allowed_value": 1,
        "expires_at": "2031-07-01T00:00:00Z", "reason": "a test",
    });
    let mut operator = fleet.server(0).operator(&fleet.node(0).folder);
    assert_eq!(http.get(context).expect("an answer").status, 200);
    let made = operator.post("/fdr/abuse/override", &lowered).expect("an answer");
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(http.get(context).expect("an answer").status, 429);
}

/// A database with two tenants that have a row in every table of tenants.
struct Tenants {
    site: Site,
    tables: Vec<String>,
    /// The numbers of the tenants.
    numbers: [String; 2],
}

impl Tenants {
    fn new() -> Self {
        let site = Site::new();
        let fleet = Fleet::start(&site, 1);
        for _ in 0..2 {
            let tenant = fleet.tenant(&[100]);
            let integration = tenant.integrations.first().expect("an integration");
            let mut http = tenant.client(fleet.server(0));
            let keys = format!("/api/v1/integrations/{integration}/keys");
            let too_much = json!({ "integration_id": integration, "estimated_cost_cents": 101 });
            for (path, body) in [
                (keys.as_str(), json!({})),
                ("/api/v1/enforcement/reservations", reservation(integration, "held", 10)),
                ("/api/v1/telemetry/llm-usage", record(integration, "recorded", 1)),
                ("/api/v1/enforcement/check", too_much),
            ] {
                let answer = http.post(path, &body).expect("an answer");
                assert!(answer.is_success(), "{answer:?}");
            }
            exceed_override(&fleet, &tenant, &mut http);
        }
        // No request writes them yet.
        for insert in [
            "tag_names select tenant_id, 'team' from tenants",
            "limits (tenant_id, limit_id, name, scope, measure, amount, action, warn_percents, \
             required, enabled, managed_by, created_at, updated_at, created_by, since_version) \
             select tenant_id, tenant_id, 'calls', 1, 4, 1, 3, '', 0, 0, 1, 1, 1, 'operator', 1 \
             from tenants",
            "limit_accounts select tenant_id, tenant_id, '', 0, 0, 0, 0, 0, 0, 0, 0 from tenants",
            "limit_seconds select tenant_id, tenant_id, '', 0, 0, 0, 0, 0, 0, 0, 0 from tenants",
            "limit_values select tenant_id, tenant_id, 0, 0 from tenants",
            "postings select tenant_id, tenant_id, '', 0, gen_random_uuid(), 0, 0, 0 from tenants",
        ] {
            site.database.run(&format!("insert into {insert}"));
        }
        let tables = values(site.database.run(TABLES));
        let numbers = values(site.database.run("select tenant_id from tenants order by tenant_id"));
        let numbers = numbers.try_into().expect("two tenants");
        let tenants = Self { site, tables, numbers };
        // Decisions are stored once a second.
        let missing = || -> Vec<&String> {
            let of = |table: &&String| {
                let count = format!("select count(distinct tenant_id) from {table}");
                values(tenants.site.database.run(&count)) != ["2"]
            };
            tenants.tables.iter().filter(of).collect()
        };
        let filled = within(Duration::from_secs(10), || missing().is_empty().then_some(()));
        assert!(filled.is_some(), "no rows of both tenants in {:?}", missing());
        assert!(tenants.tables.len() >= 12, "{:?}", tenants.tables);
        fleet.stop();
        tenants
    }

    /// The values or the error of a statement that a role runs as a tenant or as none.
    fn run(&self, url: &str, tenant: Option<&str>, sql: &str) -> Result<Vec<String>, String> {
        let named = tenant.map(|tenant| format!("set local bursar.tenant_id = '{tenant}';"));
        let sql = format!("begin; {} {sql}; commit", named.unwrap_or_default());
        let rows = session::ask(url, &sql).map_err(|error| {
            let message = error.as_db_error().map(|error| error.message().to_owned());
            message.unwrap_or_else(|| error.to_string())
        })?;
        Ok(values(rows))
    }
}

#[test]
fn a_session_sees_only_the_rows_of_the_tenant_that_it_names() {
    let tenants = Tenants::new();
    let [a, b] = &tenants.numbers;
    let database = &tenants.site.database;
    for table in &tenants.tables {
        let seen = format!("select distinct tenant_id from {table} order by tenant_id");
        for url in [database.app_url(), database.owner_url()] {
            let see = |tenant| tenants.run(url, tenant, &seen).expect("rows");
            assert_eq!(see(None), Vec::<String>::new(), "{table} without a tenant");
            assert_eq!(see(Some("")), Vec::<String>::new(), "{table} of a tenant without a number");
            assert_eq!(see(Some(a)), std::slice::from_ref(a), "{table} of one tenant");
            assert_eq!(see(Some(b)), std::slice::from_ref(b), "{table} of the other");
        }
    }
}

#[test]
fn a_session_cannot_insert_rows_of_another_tenant() {
    let tenants = Tenants::new();
    let [a, b] = &tenants.numbers;
    let database = &tenants.site.database;
    for table in &tenants.tables {
        let row =
            format!("select to_jsonb({table})::text from {table} where tenant_id = {b} limit 1");
        let row = values(database.run(&row)).pop().expect("a row");
        let row = row.replace('\'', "''");
        let insert = format!(
            "insert into {table} select * from jsonb_populate_record(null::{table}, '{row}')"
        );
        for tenant in [Some(a.as_str()), None] {
            let refused = tenants.run(database.app_url(), tenant, &insert);
            let refused = refused.expect_err("a row of another tenant was written");
            assert!(refused.contains("row-level security"), "{table}: {refused}");
        }
    }
}

#[test]
fn a_session_cannot_change_or_delete_rows_of_another_tenant() {
    let tenants = Tenants::new();
    let [a, b] = &tenants.numbers;
    let database = &tenants.site.database;
    let count = |table: &str, rest: &str| {
        values(database.run(&format!("select count(*) from {table} where tenant_id = {b} {rest}")))
    };
    for table in ["calls", "decisions", "signals"] {
        let before = count(table, "");
        let delete = format!("delete from {table} where tenant_id = {b} returning tenant_id");
        for tenant in [Some(a.as_str()), None] {
            let deleted = tenants.run(database.app_url(), tenant, &delete);
            assert_eq!(deleted, Ok(Vec::new()), "{table}");
        }
        assert_eq!(count(table, ""), before, "{table}");
    }
    let change = format!("update counters set used_tokens = -1 where tenant_id = {b} returning 1");
    assert_eq!(tenants.run(database.app_url(), Some(a), &change), Ok(Vec::new()));
    assert_eq!(count("counters", "and used_tokens = -1"), ["0"]);
    let move_over = format!("update counters set tenant_id = {b} where tenant_id = {a}");
    let refused = tenants.run(database.app_url(), Some(a), &move_over);
    assert!(refused.expect_err("moved").contains("row-level security"));
}
