//! Label sets: a great many models with the longest names, in several tenants.

use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::scale;

use crate::hostile::attack::{Attack, Client};
use crate::hostile::request;
use crate::hostile::running_clients::Tally;
use crate::hostile::scene::Scene;

/// The maximal lengths of the names of a model and a provider.
const MODEL: usize = 256;
const PROVIDER: usize = 100;
/// Models in a batch; the first batch already exceeds the limit on label sets.
pub(crate) const MODELS: usize = 400;
const MORE_MODELS: usize = 50;

/// A batch is written whole, and one with the longest names takes twice as long as others.
pub(crate) const LABELS: Attack = Attack { p99_times: 2, ..Attack::new("labels", labels) };

fn labels(scene: &mut Scene) -> Vec<Client> {
    let tenants: Vec<_> = (0..scale(16, 40)).map(|_| scene.add_tenant()).collect();
    // Each tenant reaches its limit before the measurement, then adds more models.
    let first =
        tenants.iter().enumerate().map(|(number, tenant)| label_client(number, tenant, MODELS, 1));
    check_accepted(&scene.run_to_end(first.collect()));
    let more =
        |(number, tenant)| label_client(number, tenant, scale(MORE_MODELS, MODELS), usize::MAX);
    tenants.iter().enumerate().map(more).collect()
}

/// Asserts that a batch of `MODELS` records was accepted.
#[track_caller]
pub(crate) fn check_accepted(tally: &Tally) {
    let (_, example) = tally.answers.get(&200).expect("an answer");
    assert!(example.contains(&format!("\"accepted\":{MODELS},")), "{example}");
}

/// A client that sends batches of records, each record with another model.
pub(crate) fn label_client(
    number: usize,
    tenant: &Tenant,
    models: usize,
    batches: usize,
) -> Client {
    let integration = tenant.integrations.first().expect("an integration").clone();
    let bearer = tenant.bearer.clone();
    let mut sent = 0;
    Client::requests(number, move || {
        sent += 1;
        let record = |at| {
            let call_id = format!("{batches}-{sent}-{at}");
            // The limits count characters; these have four bytes each.
            let longest = |length: usize| {
                format!("{call_id}-{}", "\u{1d4c2}".repeat(length - call_id.len() - 1))
            };
            let (provider, model) = (longest(PROVIDER), longest(MODEL));
            format!(
                "{{\"integration_id\":\"{integration}\",\"call_id\":\"{call_id}\",\
                 \"provider\":\"{provider}\",\"model\":\"{model}\",\"tokens_in\":1,\
                 \"tokens_out\":1,\"cost_cents\":1}}"
            )
        };
        let records: Vec<String> = (0..models).map(record).collect();
        (sent <= batches).then(|| request::post(request::BATCH, &bearer, &request::batch(&records)))
    })
}
