//! The commands that import and export usage.

use super::{World, names, text};

/// Imports three calls and exports them.
#[track_caller]
fn check_export(world: &World) {
    world.run(&["tenant", "create", "acme"]);
    let create =
        ["integration", "create", "main", "--tenant=acme", "--provider=openai", "--enable"];
    let made = world.json(&create);
    let csv = "call_id,provider,model,tokens_in,tokens_out,cost_cents,occurred_at\n\
               a,openai,gpt-4o,1,2,0.5,2026-01-01T00:00:00Z\n\
               b,openai,o3,1,2,0.5,2026-01-02T00:00:00Z\n\
               c,openai,gpt-4o,1,2,0.5,2026-01-03T00:00:00Z\n";
    std::fs::write(world.folder.path().join("calls.csv"), csv).unwrap();
    let integration = format!("--integration={}", text(&made, "id"));
    world.run(&["usage", "import", "calls.csv", "--tenant=acme", &integration]);

    let export = ["usage", "export", "--tenant=acme"];
    let with = |more: &[&'static str]| [&export[..], more].concat();
    let whole = world.run(&export);
    assert!(whole.starts_with("id,kind,integration_id,call_id,"), "{whole}");
    assert_eq!(whole.lines().count(), 4);
    let lines = world.run(&with(&["--format=ndjson", "--model=gpt-4o", "--integration=main"]));
    let calls: Vec<String> =
        lines.lines().map(|line| text(&serde_json::from_str(line).unwrap(), "call_id")).collect();
    assert_eq!(calls, ["c", "a"]);
    assert_eq!(world.run(&with(&["--end=2026-01-01"])).lines().count(), 2);
    assert_eq!(world.run(&with(&["--errors-only"])).lines().count(), 1);

    assert_eq!(world.run(&with(&["--output=all.csv"])), "");
    let read = || std::fs::read_to_string(world.folder.path().join("all.csv")).unwrap();
    assert_eq!(read(), whole);
    world.check_failed(&with(&["--output=all.csv"]), 1, &["all.csv already exists", "--force"]);
    world.run(&with(&["--output=all.csv", "--force", "--model=o3"]));
    assert_eq!(read().lines().count(), 2);
    world.check_failed(&with(&["--start=soon"]), 1, &["start must be an instant"]);
    world.check_failed(&with(&["--output=none/all.csv"]), 1, &["cannot write none/all.csv"]);
    world.check_failed(&["usage", "export"], 1, &["a tenant is required: give --tenant"]);
    world.check_failed(&["usage", "export", "--tenant=x"], 1, &["no tenant has the id"]);
    let left = names(world.folder.path());
    assert!(!left.iter().any(|name| name.contains("partial")), "{left:?}");
}

#[test]
fn usage_is_exported_through_a_server() {
    check_export(&World::with_server());
}

#[test]
fn usage_is_exported_without_a_server() {
    check_export(&World::without_server());
}
