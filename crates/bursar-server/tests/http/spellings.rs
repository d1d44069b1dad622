//! A record is not refused for its spelling: numbers in any notation, labels with white space or
//! control characters, unknown fields. On both databases, alone and in batches.

use serde_json::{Value, json};

use crate::databases;
use crate::support::{ApiResponse, Tenant, TestApp, record, reservation, with};

/// The text of a record in which one field has exactly this JSON.
fn spelled(integration_id: &str, call_id: &str, field: &str, json: &str) -> String {
    let mut sent = record(integration_id, call_id);
    sent.as_object_mut().unwrap().remove(field);
    let text = sent.to_string();
    format!("{},\"{field}\":{json}}}", text.strip_suffix('}').unwrap())
}

async fn send(tenant: &Tenant, record: &str) -> ApiResponse {
    tenant.founder().post("/telemetry/llm-usage").body(record.to_owned()).await
}

/// The newest entry of the history.
async fn newest(tenant: &Tenant) -> Value {
    let history = tenant.founder().get("/telemetry/usage-history?limit=1").await;
    history.is(200).at("/data/0").clone()
}

/// Spellings of one value of a field, and the field of the history with that value.
struct Spellings {
    field: &'static str,
    shown: (&'static str, Value),
    texts: &'static [&'static str],
}

fn spellings() -> Vec<Spellings> {
    let of = |field, shown, value, texts| Spellings { field, shown: (shown, value), texts };
    vec![
        of(
            "cost_cents",
            "cost_usd",
            json!("0.597"),
            &[
                "59.699999999999996",
                "59.7",
                "\"59.70\"",
                "5.97e1",
                "\" 597E-1 \"",
                "\"\\u00359.7\"",
            ],
        ),
        of("cost_cents", "cost_usd", json!("0.003"), &["0.30000000000000004", "0.3", "\".3\""]),
        of("cost_cents", "cost_usd", json!("0.000000004"), &["3.5e-7", "0.00000035", "4e-7"]),
        of("cost_cents", "cost_usd", json!("0.005"), &["\"0.5\"", "0.5", "5e-1"]),
        of("cost_cents", "cost_usd", json!("0"), &["0", "-0.0", "1e-400", "\"0.000\""]),
        of(
            "cost_usd",
            "cost_usd",
            json!("0.597"),
            &["0.597", "\"0.59700000000000000001\"", "597e-3", "0.5969999999999999999"],
        ),
        of(
            "tokens_in",
            "tokens_in",
            json!(14_417),
            &["14417", "14417.0", "\"14417\"", "1.4417e4", "\"14417.000\""],
        ),
        of("tokens_out", "tokens_out", json!(0), &["0", "null", "\"0\"", "0.0"]),
        of("latency_ms", "latency_ms", json!(812), &["812", "812.4", "\"811.5\"", "8.12e2"]),
        of(
            "provider",
            "provider",
            json!("openai"),
            &["\"openai\"", "\"OpenAI \"", "\"\\topenAI\\n\"", "\"\\u2028OPENAI\""],
        ),
        of(
            "model",
            "model",
            json!("a\u{fffd}b\u{fffd}c"),
            &["\"a\\u0000b\\u2028c\"", "\" a\\nb\\u0085c\\r\\n\"", "\"a\u{fffd}b\u{2029}c\""],
        ),
        of("agent_id", "agent_id", json!("x y"), &["\"x y\"", "\"\u{a0}x y\u{3000}\""]),
        of("session_id", "session_id", Value::Null, &["null", "\"\"", "\" \\n\""]),
        of("error_code", "error_code", json!("429"), &["\"429\"", "\" 429 \""]),
        of(
            "error_message",
            "error_message",
            json!("a\u{fffd}b\nc"),
            &["\"a\\u0000b\\nc\"", "\"a\u{fffd}b\\nc\""],
        ),
        of("region", "region", json!("eu-central-1"), &["\"eu-central-1\"", "\"eu-central-1 \""]),
        of("response_model", "response_model", json!("m-2"), &["\"m-2\"", "\"\\rm-2\""]),
        of("call_id", "call_id", json!("a call"), &["\"a call\"", "\" a call\\n\""]),
    ]
}

#[tokio::test]
async fn every_spelling_of_a_value_is_the_same_record() {
    for on_database in databases::each() {
        let app = &on_database.app;
        let tenant = app.tenant("a").await;
        let id = tenant.integration("i", json!({})).await;
        for (at, Spellings { field, shown: (shown, value), texts }) in
            spellings().iter().enumerate()
        {
            app.clock.advance(1);
            let call_id = format!("call {at}");
            for (number, text) in texts.iter().enumerate() {
                let sent = spelled(&id, &call_id, field, text);
                let answer = send(&tenant, &sent).await;
                answer.is(if number == 0 { 201 } else { 200 });
                assert_eq!(newest(&tenant).await[shown], *value, "{field}: {text}");
                // As another call it has the same value, and repeated in a batch it is a duplicate.
                if *field == "call_id" {
                    continue;
                }
                let other = spelled(&id, &format!("call {at} {number}"), field, text);
                let batch = format!("{{\"records\":[{other},{other},{sent}]}}");
                let answer = tenant.founder().post("/telemetry/llm-usage/batch").body(batch).await;
                let statuses: Vec<&str> = ["0", "1", "2"]
                    .map(|index| answer.text(&format!("/data/results/{index}/status")))
                    .to_vec();
                assert_eq!(statuses, ["accepted", "duplicate", "duplicate"], "{}", answer.body);
                assert_eq!(newest(&tenant).await[shown], *value, "{field}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn cost_usd_takes_precedence_over_cost_cents() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let both = with(record(&id, "c"), json!({ "cost_cents": 1, "cost_usd": "0.0123456789" }));
    let answer = send(&tenant, &both.to_string()).await;
    assert_eq!(answer.is(201).text("/data/cost_source"), "reported");
    assert_eq!(newest(&tenant).await["cost_usd"], "0.012345679");
    let wrong = with(record(&id, "d"), json!({ "cost_cents": -1, "cost_usd": 1 }));
    send(&tenant, &wrong.to_string()).await.refused(422, "INVALID_FIELD").on("cost_cents");
}

#[tokio::test]
async fn the_answer_names_the_source_of_the_cost_and_the_ignored_fields() {
    for on_database in databases::each() {
        let app = &on_database.app;
        let tenant = app.tenant("a").await;
        let id = tenant.integration("i", json!({})).await;
        let mut misspelt = record(&id, "c");
        misspelt.as_object_mut().unwrap().remove("cost_cents");
        let misspelt = with(misspelt, json!({ "cost_cent": 5, "tokens_n": 1 }));
        for (status, code) in [("accepted", 201), ("duplicate", 200)] {
            let answer = send(&tenant, &misspelt.to_string()).await;
            assert_eq!(answer.is(code).text("/data/status"), status);
            assert_eq!(answer.text("/data/cost_source"), "unknown");
            assert_eq!(*answer.at("/data/ignored_fields"), json!(["cost_cent", "tokens_n"]));
        }
        let reserve = reservation(&id, "held");
        tenant.founder().post("/enforcement/reservations").json(&reserve).await.is(201);
        let settling = with(misspelt.clone(), json!({ "call_id": "held" }));
        let answer = send(&tenant, &settling.to_string()).await;
        assert_eq!(answer.is(201).text("/data/cost_source"), "held");
        let batch = json!({ "records": [misspelt, record(&id, "plain")] });
        let answer = tenant.founder().post("/telemetry/llm-usage/batch").json(&batch).await;
        let named = answer.is(200).at("/data/results/0/ignored_fields");
        assert_eq!(*named, json!(["cost_cent", "tokens_n"]));
        assert!(answer.at("/data/results/1").get("ignored_fields").is_none(), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_tag_or_unit_that_cannot_be_kept_does_not_cost_the_record() {
    for on_database in databases::each() {
        let app = &on_database.app;
        let tenant = app.tenant("a").await;
        let id = tenant.integration("i", json!({})).await;
        let raw_key = "sk-_Xq4r7tv2-9bLmNPZ6cWsB";
        let tags = json!({
            "team": "search\n", "count": 5, "empty": " ", "a b": "x", "bursar.source": "x",
            "import": "x", "secret": raw_key, "long": "x".repeat(257),
        });
        let extras = json!({
            "tags": tags, "units": { "Web": 1, "seconds": "1.5" },
            "provider_request_id": "x".repeat(257), "usage_status": "reported",
        });
        let answer = send(&tenant, &with(record(&id, "c"), extras).to_string()).await;
        let expected = json!([
            "provider_request_id",
            "units.Web",
            "tags.a b",
            "tags.bursar.source",
            "tags.count",
            "tags.empty",
            "tags.import",
            "tags.long",
            "tags.secret"
        ]);
        assert_eq!(*answer.is(201).at("/data/ignored_fields"), expected);
        let row = newest(&tenant).await;
        assert_eq!(row["tags"], json!({ "team": "search" }));
        assert_eq!(row["units"], json!({ "seconds": 1.5 }));
        assert_eq!(
            (&row["provider_request_id"], &row["usage_status"]),
            (&json!(null), &json!("final"))
        );
        app.clock.advance(1);
        // The seventeenth is one too many, and a name that is there twice keeps its first value.
        let mut pairs: Vec<String> =
            (0..17).map(|number| format!("\"t{number:02}\":\"a\"")).collect();
        pairs.insert(1, "\"t00\":\"b\"".to_owned());
        let sent = spelled(&id, "d", "tags", &format!("{{{}}}", pairs.join(",")));
        let answer = send(&tenant, &sent).await;
        assert_eq!(*answer.is(201).at("/data/ignored_fields"), json!(["tags.t00", "tags.t16"]));
        let row = newest(&tenant).await;
        assert_eq!(
            (row["tags"].as_object().unwrap().len(), &row["tags"]["t00"]),
            (16, &json!("a"))
        );
    }
}

#[tokio::test]
async fn tags_and_units_are_bounded_in_any_spelling() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    // The largest tags, every character of the values escaped.
    let largest: Vec<String> = (0..16)
        .map(|number| format!("\"{number:064}\":\"{}\"", "\\ud835\\udcc2".repeat(256)))
        .collect();
    let sent = spelled(&id, "c", "tags", &format!("{{{}}}", largest.join(",")));
    assert_eq!(*send(&tenant, &sent).await.is(201).at("/data/ignored_fields"), json!([]));
    assert_eq!(newest(&tenant).await["tags"].as_object().unwrap().len(), 16);
    let many: Vec<String> = (0..10_000).map(|number| format!("\"t{number}\":0")).collect();
    for field in ["tags", "units"] {
        let sent = spelled(&id, "d", field, &format!("{{{}}}", many.join(",")));
        send(&tenant, &sent).await.refused(422, "INVALID_FIELD").on(field);
    }
}

#[tokio::test]
async fn a_batch_names_a_limited_number_of_ignored_fields() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let mut unknown = json!({});
    for number in 0..20 {
        unknown[format!("{number:02}{}", "x".repeat(62))] = json!(1);
    }
    let records: Vec<Value> =
        (0..100).map(|number| with(record(&id, &format!("c{number}")), unknown.clone())).collect();
    let answer = tenant
        .founder()
        .post("/telemetry/llm-usage/batch")
        .json(&json!({ "records": records }))
        .await;
    assert_eq!(answer.is(200).at("/data/accepted"), 100);
    let results = answer.at("/data/results").as_array().unwrap();
    let named = results.iter().filter(|result| result.get("ignored_fields").is_some()).count();
    // 20 names of 64 bytes each are 1,280 bytes, of 64 KiB.
    assert_eq!(named, 51);
}

#[tokio::test]
async fn a_record_says_which_key_wrote_it() {
    for on_database in databases::each() {
        let app = &on_database.app;
        let tenant = app.tenant("a").await;
        let id = tenant.integration("i", json!({})).await;
        let key = tenant.new_key(&["telemetry:write"]).await;
        let key_id = key.is(201).text("/data/id").to_owned();
        let client = tenant.with_key(key.text("/data/secret"));
        let batch = json!({ "records": [record(&id, "c")] });
        client.post("/telemetry/llm-usage/batch").json(&batch).await.is(200);
        let row = newest(&tenant).await;
        assert_eq!((&row["key_id"], &row["source"]), (&json!(key_id), &json!("api")));
        app.clock.advance(1);
        send(&tenant, &record(&id, "d").to_string()).await.is(201);
        assert_eq!(newest(&tenant).await["key_id"], Value::Null);
    }
}

#[tokio::test]
async fn ignored_fields_are_bounded_and_name_no_key() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let raw_key = "sk-_Xq4r7tv2-9bLmNPZ6cWsB";
    let long = "x".repeat(1_000);
    let mut sent = with(record(&id, "c"), json!({ raw_key: 1, "a\nb": 1, long: 1 }));
    for number in 0..100 {
        sent[format!("y{number}")] = json!(null);
    }
    let answer = send(&tenant, &sent.to_string()).await;
    assert!(!answer.is(201).body.contains(raw_key), "{}", answer.body);
    let names: Vec<&str> = answer
        .at("/data/ignored_fields")
        .as_array()
        .unwrap()
        .iter()
        .flat_map(Value::as_str)
        .collect();
    assert_eq!(names.len(), 20);
    for name in ["[redacted]", "a\u{fffd}b", &"x".repeat(64)] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn a_failed_call_needs_no_tokens() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let mut failed = record(&id, "failed");
    for field in ["tokens_in", "tokens_out", "cost_cents"] {
        failed.as_object_mut().unwrap().remove(field);
    }
    send(&tenant, &failed.to_string()).await.refused(422, "INVALID_FIELD").on("tokens_in");
    let blank = with(failed.clone(), json!({ "error_code": " " }));
    send(&tenant, &blank.to_string()).await.refused(422, "INVALID_FIELD").on("tokens_in");
    let failed = with(failed, json!({ "error_code": "timeout" }));
    send(&tenant, &failed.to_string()).await.is(201);
    let row = newest(&tenant).await;
    assert_eq!((&row["tokens_in"], &row["tokens_out"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn an_estimate_is_read_like_a_record() {
    for on_database in databases::each() {
        let app = &on_database.app;
        let tenant = app.tenant("a").await;
        let id = tenant.integration("i", json!({ "budget_limit_cents": 100 })).await;
        let body = |cost: &str, tokens: &str, rest: &str| {
            format!(
                r#"{{"integration_id":"{id}","estimated_cost_cents":{cost},"estimated_tokens":{tokens}{rest}}}"#
            )
        };
        let spelled =
            [("59.699999999999996", "14417.0"), ("\"59.7\"", "\"14417\""), ("597e-1", "14417")];
        for (number, (cost, tokens)) in spelled.into_iter().enumerate() {
            let check =
                tenant.founder().post("/enforcement/check").body(body(cost, tokens, "")).await;
            assert_eq!(
                check.is(200).text("/data/result"),
                if number == 0 { "allowed" } else { "blocked" }
            );
            // The same reservation in another spelling is a repetition.
            let reserve = body(cost, tokens, ",\"call_id\":\" c \",\"model\":\"gpt\\n\"");
            let held = tenant.founder().post("/enforcement/reservations").body(reserve).await;
            assert_eq!(held.is(201).text("/data/reservation/held_cost_usd"), "0.597");
            assert_eq!(held.at("/data/reservation/held_tokens"), 14_417);
        }
        for (cost, tokens, field) in [
            ("-1", "1", "estimated_cost_cents"),
            ("\"NaN\"", "1", "estimated_cost_cents"),
            ("1", "1.5", "estimated_tokens"),
            ("1", "\"-1\"", "estimated_tokens"),
        ] {
            let check =
                tenant.founder().post("/enforcement/check").body(body(cost, tokens, "")).await;
            check.refused(422, "INVALID_FIELD").on(field);
        }
        let settling = spelled_cost(&id);
        send(&tenant, &settling).await.is(201);
        let limits = tenant.founder().get(&format!("/integrations/{id}/limits")).await;
        assert_eq!(limits.text("/data/budget_held_usd"), "0");
        assert_eq!(limits.text("/data/budget_used_usd"), "0.597");
    }
}

/// A record that settles the reservation of the test above.
fn spelled_cost(integration_id: &str) -> String {
    spelled(integration_id, "c\r\n", "cost_cents", "59.699999999999996")
}

#[tokio::test]
async fn long_model_names_are_stored_and_found() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let model = format!(
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/{}",
        "a1b2c3d4e5f6".repeat(4)
    );
    assert!(model.len() > 100);
    let sent = with(record(&id, "c"), json!({ "model": model, "region": "us-east-1" }));
    send(&tenant, &sent.to_string()).await.is(201);
    let found =
        tenant.founder().get(&format!("/telemetry/usage-history?model=%20{model}%0A")).await;
    assert_eq!(found.is(200).text("/data/0/model"), model);
}

#[tokio::test]
async fn metrics_show_no_control_characters_of_labels() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    let labels = json!({ "model": "a\u{1b}[2J\u{2028}b\nc", "provider": "Open\u{85}AI" });
    send(&tenant, &with(record(&id, "c"), labels).to_string()).await.is(201);
    let metrics = app.founder().root("/metrics").await;
    assert_eq!(metrics.status.as_u16(), 200);
    assert!(metrics.body.contains("model=\"a\u{fffd}[2J\u{fffd}b\u{fffd}c\""), "{}", metrics.body);
    assert!(metrics.body.contains("provider=\"open\u{fffd}ai\""), "{}", metrics.body);
    let is_foreign = |character: char| bursar_core::is_control(character) && character != '\n';
    assert!(!metrics.body.contains(is_foreign));
}

#[tokio::test]
async fn a_label_that_only_begins_like_a_key_is_accepted() {
    let app = TestApp::new();
    let tenant = app.tenant("a").await;
    let id = tenant.integration("i", json!({})).await;
    for agent in ["ASIA-PACIFIC-support-bot", "sk-Customer-Support-Bot-2026"] {
        let sent =
            with(record(&id, agent), json!({ "agent_id": agent, "metadata": { "agent": agent } }));
        send(&tenant, &sent.to_string()).await.is(201);
    }
    let found =
        tenant.founder().get("/telemetry/usage-history?agent_id=ASIA-PACIFIC-support-bot").await;
    assert_eq!(found.is(200).at("/meta/page_size"), 50);
    assert_eq!(found.text("/data/0/metadata/agent"), "ASIA-PACIFIC-support-bot");
}

#[tokio::test]
async fn metrics_count_a_hold_that_expires_without_a_record() {
    for on_database in databases::each() {
        let app = &on_database.app;
        let tenant = app.tenant("a").await;
        let id = tenant.integration("i", json!({ "budget_limit_cents": 100 })).await;
        for call_id in ["refused", "recorded"] {
            let reserve = reservation(&id, call_id);
            tenant.founder().post("/enforcement/reservations").json(&reserve).await.is(201);
        }
        let refused = with(record(&id, "refused"), json!({ "tokens_in": 1.5 }));
        send(&tenant, &refused.to_string()).await.refused(422, "INVALID_FIELD").on("tokens_in");
        send(&tenant, &record(&id, "recorded").to_string()).await.is(201);
        let metrics = app.founder().root("/metrics").await;
        let shows =
            |metrics: &ApiResponse, line: &str| metrics.body.lines().any(|shown| shown == line);
        assert!(shows(&metrics, "bursar_expired_without_record_total 0"), "{}", metrics.body);
        app.clock.advance(601);
        app.tick().await;
        let metrics = app.founder().root("/metrics").await;
        assert!(shows(&metrics, "bursar_expired_without_record_total 1"), "{}", metrics.body);
        let nanos = "bursar_expired_without_record_nanodollars_total 100000000";
        assert!(shows(&metrics, nanos), "{}", metrics.body);
    }
}
