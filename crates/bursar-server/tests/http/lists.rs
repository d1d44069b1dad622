//! Every list of the API: paging by offset and by cursor shows each row once.

use std::collections::BTreeSet;

use bursar_server::openapi;
use serde_json::{Value, json};

use crate::databases;
use crate::support::conformance::follow;
use crate::support::{Client, Tenant, TestApp, record, reservation, with};

const INTEGRATIONS: usize = 25;
/// Records, most of which do not match the filters.
const SMALL: usize = 2_000;
/// Records whose metadata is too large for one page.
const LARGE: usize = 120;
/// One of this many records matches.
const MATCH_EVERY: usize = 97;

/// A list with its filters and the rows that it must show.
struct List {
    /// Its path in the OpenAPI document.
    route: &'static str,
    client: Client,
    path: String,
    /// The JSON pointer to its rows.
    rows: &'static str,
    /// JSON pointers to the fields that identify a row.
    names: &'static [&'static str],
    expected: BTreeSet<String>,
    limits: [usize; 2],
}

/// The lists of the document, with the names of their parameters.
fn documented() -> Vec<(String, Vec<String>)> {
    let paths = openapi::document()["paths"].as_object().unwrap();
    let mut lists = Vec::new();
    for (path, item) in paths {
        let operation = &item["get"];
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        if schema["properties"]["meta"]["$ref"] != "#/components/schemas/PageMeta" {
            continue;
        }
        let parameters = operation["parameters"].as_array().unwrap().iter();
        let names = parameters.map(|given| follow(given)["name"].as_str().unwrap().to_owned());
        lists.push((path.clone(), names.collect()));
    }
    lists
}

impl List {
    fn name_of(&self, row: &Value) -> String {
        let text =
            |name: &&str| row.pointer(name).and_then(Value::as_str).unwrap_or("-").to_owned();
        self.names.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    /// The rows and the meta of a page, after the checks that apply to every page.
    async fn page(&self, limit: usize, place: &str) -> (Vec<String>, Value) {
        let mark = if self.path.contains('?') { '&' } else { '?' };
        let path = format!("{}{mark}limit={limit}{place}", self.path);
        let answer = self.client.root(&path).await;
        let rows = answer.is(200).at(self.rows).as_array().unwrap();
        let meta = answer.at("/meta").clone();
        assert_eq!(meta["page_size"], limit, "{path}: {meta}");
        assert!(meta["page"].is_u64() && meta["has_more"].is_boolean(), "{path}: {meta}");
        let total = meta.get("total").unwrap();
        assert!(*total == json!(self.expected.len()) || total.is_null(), "{path}: {meta}");
        (rows.iter().map(|row| self.name_of(row)).collect(), meta)
    }

    #[track_caller]
    fn check(&self, found: &[String], how: &str) {
        let set: BTreeSet<String> = found.iter().cloned().collect();
        assert_eq!(set.len(), found.len(), "{how} of {} shows rows twice", self.path);
        assert_eq!(set, self.expected, "{how} of {}", self.path);
    }

    async fn add_up_offsets(&self, limit: usize) {
        let mut found = Vec::new();
        loop {
            let (rows, meta) = self.page(limit, &format!("&offset={}", found.len())).await;
            assert_eq!(meta["page"], found.len() / limit + 1);
            let is_full = rows.len() == limit;
            found.extend(rows);
            if meta["has_more"] == false {
                return self.check(&found, "by offset");
            }
            assert!(is_full, "a short page of {} before {}", self.path, found.len());
        }
    }

    /// Whether a page was short although it was not the last.
    async fn follow_cursors(&self, limit: usize) -> bool {
        let (mut found, mut place, mut was_short) = (Vec::new(), String::new(), false);
        loop {
            let (rows, meta) = self.page(limit, &place).await;
            let (count, has_more) = (rows.len(), meta["has_more"] == true);
            found.extend(rows);
            assert_eq!(meta["next_cursor"].is_string(), has_more, "{}: {meta}", self.path);
            if !has_more {
                self.check(&found, "by cursor");
                return was_short;
            }
            was_short |= count < limit;
            place = format!("&cursor={}", meta["next_cursor"].as_str().unwrap());
        }
    }
}

fn string_set<T: Into<String>>(names: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    names.into_iter().map(Into::into).collect()
}

/// Whether a record matches the filters of the history.
fn is_match(at: usize) -> bool {
    at.is_multiple_of(MATCH_EVERY)
}

/// Stores records of two integrations on two days; returns each call id with its integration.
async fn record_all(tenant: &Tenant, ids: &[String]) -> Vec<(String, String)> {
    let metadata = "x".repeat(20_000);
    let mut records = Vec::new();
    for at in 0..SMALL + LARGE {
        let (id, day) = (&ids[at % 2], 12 + at % 2);
        let (hour, minute, second) = (at / 3_600, at / 60 % 60, at % 60);
        let more = json!({
            "occurred_at": format!("2026-03-{day}T{hour:02}:{minute:02}:{second:02}Z"),
            "policy_result": if is_match(at) { "allowed" } else { "warned" },
            "session_id": if is_match(at) { "matching" } else { "common" },
            "metadata": if at < SMALL { json!({}) } else { json!({ "text": metadata }) },
        });
        records.push(with(record(id, &format!("call-{at}")), more));
    }
    for batch in records.chunks(200) {
        let body = json!({ "records": batch });
        let answer = tenant.founder().post("/telemetry/llm-usage/batch").json(&body).await;
        assert_eq!(answer.is(200).at("/data/accepted"), batch.len());
    }
    let day_of = |record: &Value| {
        record["occurred_at"].as_str().unwrap().split('T').next().unwrap().to_owned()
    };
    let id_of = |record: &Value| record["integration_id"].as_str().unwrap().to_owned();
    records.iter().map(|record| (day_of(record), id_of(record))).collect()
}

/// Causes protection signals of a new tenant, one a minute.
async fn signal(app: &TestApp, count: usize) -> (String, BTreeSet<String>) {
    let tenant = app.tenant("loud").await;
    let key = tenant.key(&["integrations:read"]).await;
    let set_rate = json!({
        "tenant_id": tenant.id, "dimension": "rate", "allowed_value": 1,
        "expires_at": "2026-03-20T00:00:00Z", "reason": "a test",
    });
    // A tenant in onboarding has ten times the threshold.
    app.founder().root_post("/fdr/abuse/override", &set_rate).await.is(201);
    for _ in 0..count {
        for _ in 0..12 {
            key.get("/integrations").await;
        }
        app.tick().await;
        app.clock.advance_monotonic(60);
    }
    let path = format!("/fdr/abuse/signals/{}", tenant.id);
    let all = app.founder().root(&format!("{path}?limit=1000")).await;
    let rows = all.is(200).at("/data/signals").as_array().unwrap().clone();
    assert_eq!((rows.len(), all.at("/meta/has_more")), (count, &json!(false)), "{}", all.body);
    (path, string_set(rows.iter().map(|row| row["id"].as_str().unwrap())))
}

async fn fill_lists(app: &TestApp) -> Vec<List> {
    let tenant = app.tenant("listed").await;
    let founder = tenant.founder();
    let mut ids = Vec::new();
    for number in 0..INTEGRATIONS {
        let provider = if number % 5 == 0 { "custom" } else { "openai" };
        let fields = json!({ "name": format!("i{number}"), "provider_type": provider });
        let made = founder.post("/integrations").json(&fields).await;
        ids.push(made.is(201).text("/data/id").to_owned());
    }
    // Each of these is refused, because the integration is not enabled.
    for id in &ids {
        let check = json!({ "integration_id": id });
        founder.post("/enforcement/check").json(&check).await.is(200);
    }
    for id in &ids[..2] {
        founder.post(&format!("/integrations/{id}/enable")).await.is(200);
    }
    let mut keys = Vec::new();
    let mut own_keys = Vec::new();
    for _ in 0..11 {
        keys.push(tenant.new_key(&["*"]).await.is(201).text("/data/id").to_owned());
        let made = founder.post(&format!("/integrations/{}/keys", ids[0])).await;
        own_keys.push(made.is(201).text("/data/id").to_owned());
    }
    for number in 0..30 {
        let reserve = reservation(&ids[number % 2], &format!("held-{number:02}"));
        founder.post("/enforcement/reservations").json(&reserve).await.is(201);
    }
    let days = record_all(&tenant, &ids).await;
    app.tick().await;
    let (signals, signalled) = signal(app, 8).await;
    let mut tenants = vec![tenant.id.clone()];
    let listed = app.founder().get("/tenants?limit=100").await;
    tenants.extend(listed.column("/id").into_iter().map(str::to_owned));
    for number in 0..9 {
        tenants.push(app.tenant(&format!("t{number}")).await.id);
    }
    let file = founder.get("/audit/export").await;
    let rows = file.body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let rows: Vec<Value> = rows.collect();
    let audited = |action: Option<&str>| {
        let chosen = rows.iter().filter(|row| action.is_none_or(|action| row["action"] == action));
        string_set(chosen.map(|row| row["id"].as_str().unwrap()))
    };

    let list = |route: &'static str, query: &str, names, expected, limits| List {
        route,
        client: founder.clone(),
        path: format!("{}{query}", route.replace("{id}", &ids[0])),
        rows: "/data",
        names,
        expected,
        limits,
    };
    let calls = |keeps: &dyn Fn(usize) -> bool| {
        let kept = (0..SMALL + LARGE).filter(|at| keeps(*at));
        string_set(kept.map(|at| format!("call-{at}")))
    };
    let held = |keeps: &dyn Fn(usize) -> bool| {
        string_set((0..30).filter(|at| keeps(*at)).map(|at| format!("held-{at:02}")))
    };
    let every = |_: usize| true;
    let custom = ids.iter().step_by(5).cloned();
    let history = "/api/v1/telemetry/usage-history";
    let integrations = "/api/v1/integrations";
    let reservations = "/api/v1/enforcement/reservations";
    let span = "?start_date=2026-03-01&end_date=2026-03-14";
    let matching_of_one = format!("?policy_result=allowed&integration_id={}", ids[1]);
    let (id, call): (&[&str], &[&str]) = (&["/id"], &["/call_id"]);
    vec![
        List {
            client: app.founder(),
            ..list("/api/v1/tenants", "", id, string_set(tenants), [3, 100])
        },
        List {
            client: app.founder(),
            path: signals,
            rows: "/data/signals",
            ..list("/fdr/abuse/signals/{tenant_id}", "", id, signalled, [3, 8])
        },
        list(integrations, "", id, string_set(ids.clone()), [4, 25]),
        list(integrations, "?provider_type=custom", id, string_set(custom), [2, 100]),
        list(integrations, "?status=enabled", id, string_set(ids[..2].to_vec()), [1, 2]),
        list("/api/v1/integrations/{id}/keys", "", id, string_set(own_keys), [4, 100]),
        list("/api/v1/keys", "", id, string_set(keys), [4, 11]),
        list(reservations, "", call, held(&every), [7, 30]),
        list(
            reservations,
            &format!("?integration_id={}", ids[0]),
            call,
            held(&|at| at % 2 == 0),
            [7, 100],
        ),
        list(
            "/api/v1/enforcement/decisions",
            "",
            &["/integration_id"],
            string_set(ids.clone()),
            [4, 100],
        ),
        list("/api/v1/audit", "", id, audited(None), [9, 1_000]),
        list("/api/v1/audit", "?action=key.create", id, audited(Some("key.create")), [9, 1_000]),
        list(
            "/api/v1/audit",
            "?action=integration.enable",
            id,
            audited(Some("integration.enable")),
            [1, 10],
        ),
        list(history, "", call, calls(&every), [90, 400]),
        list(history, "?policy_result=allowed", call, calls(&is_match), [5, 100]),
        list(
            history,
            "?session_id=matching&policy_result=warned",
            call,
            string_set::<String>([]),
            [5, 100],
        ),
        list(history, &matching_of_one, call, calls(&|at| is_match(at) && at % 2 == 1), [3, 100]),
        list(
            "/api/v1/telemetry/daily-aggregates",
            span,
            &["/date", "/integration_id"],
            string_set(days.iter().map(|(day, id)| format!("{day} {id}"))),
            [1, 10],
        ),
    ]
}

async fn check_lists(app: &TestApp) {
    let lists = fill_lists(app).await;
    let mut was_short = 0;
    for (route, parameters) in documented() {
        let has = |name: &str| parameters.iter().any(|known| known == name);
        assert!(has("offset") || has("cursor"), "{route} does not lead on");
        let mut tried = lists.iter().filter(|list| list.route == route).peekable();
        assert!(tried.peek().is_some(), "{route} is not tried");
        for list in tried {
            for limit in list.limits {
                if has("offset") {
                    list.add_up_offsets(limit).await;
                }
                if has("cursor") {
                    was_short += usize::from(list.follow_cursors(limit).await);
                }
            }
        }
    }
    // One because of the size of its rows, one because of its filter.
    assert!(was_short >= 2, "only {was_short} walks had short pages");
}

#[tokio::test]
async fn every_list_shows_what_was_written_by_offset_and_by_cursor() {
    for on_database in databases::each() {
        check_lists(&on_database.app).await;
    }
}
