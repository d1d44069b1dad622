//! The steps of a load client, a fixed mix that refusals do not change.

use std::fmt::Write as _;

/// Records of a batch; every fourth batch is large.
const SMALL_BATCH: u64 = 100;
const LARGE_BATCH: u64 = 1_000;
/// Steps of a cycle: a batch, six single records, two reservations, and a record that settles one.
const STEPS: u64 = 10;
/// Calls of a cycle besides its batch. The second reservation expires.
const OTHER_CALLS: u64 = 8;
/// Shorter than the load, so that reservations expire during it.
const TTL_SECONDS: u32 = 10;

/// Metadata of a record of a wide batch, which just fits the largest body.
const WIDE_METADATA: usize = 8_000;

/// The mix of a client's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    /// 70 % of the requests record, 20 % reserve, 10 % settle.
    Ordinary,
    /// Only the largest batches.
    Wide,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Records of consecutive calls.
    Batch {
        first: u64,
        calls: u64,
    },
    Record {
        call: u64,
    },
    Reserve {
        call: u64,
    },
    /// Records a reserved call.
    Settle {
        call: u64,
    },
}

impl Step {
    /// The number of records or reservations.
    pub(crate) fn items(self) -> u64 {
        match self {
            Self::Batch { calls, .. } => calls,
            Self::Record { .. } | Self::Reserve { .. } | Self::Settle { .. } => 1,
        }
    }

    /// The calls that it records.
    pub(crate) fn records(self) -> std::ops::Range<u64> {
        match self {
            Self::Batch { first, calls } => first..first + calls,
            Self::Record { call } | Self::Settle { call } => call..call + 1,
            Self::Reserve { .. } => 0..0,
        }
    }
}

/// The position of a client in its steps. Calls are numbered for each client.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    mix: Mix,
    client: usize,
    step: u64,
    first_call: u64,
}

impl Plan {
    /// A client at its first step.
    pub(crate) fn new(mix: Mix, client: usize) -> Self {
        Self { mix, client, step: 0, first_call: 0 }
    }

    /// The number of acknowledged steps.
    pub(crate) fn steps(&self) -> u64 {
        self.step
    }

    /// The size of the current batch. Clients start in different cycles, so that the mix of all is
    /// the same at every moment.
    fn batch(&self) -> u64 {
        let cycle = self.step / STEPS + self.client as u64;
        if cycle % 4 == 3 { LARGE_BATCH } else { SMALL_BATCH }
    }

    pub(crate) fn current_step(&self) -> Step {
        if self.mix == Mix::Wide {
            return Step::Batch { first: self.step * LARGE_BATCH, calls: LARGE_BATCH };
        }
        let batch = self.batch();
        let after_batch = self.first_call + batch;
        match self.step % STEPS {
            0 => Step::Batch { first: self.first_call, calls: batch },
            at @ 1..=6 => Step::Record { call: after_batch + at - 1 },
            at @ 7..=8 => Step::Reserve { call: after_batch + at - 1 },
            _ => Step::Settle { call: after_batch + 6 },
        }
    }

    /// Moves to the next step after an acknowledgement.
    pub(crate) fn advance(&mut self) {
        let batch = self.batch();
        self.step += 1;
        if self.step.is_multiple_of(STEPS) {
            self.first_call += batch + OTHER_CALLS;
        }
    }

    /// The request of the current step.
    pub(crate) fn request(&self, bearer: &str, integration: &str) -> Vec<u8> {
        let metadata = match self.mix {
            Mix::Ordinary => "search".to_owned(),
            Mix::Wide => "x".repeat(WIDE_METADATA),
        };
        let record = |call: u64| record(integration, &call_id(self.client, call), &metadata);
        let (path, body) = match self.current_step() {
            Step::Batch { first, calls } => {
                let records: Vec<String> = (first..first + calls).map(record).collect();
                ("telemetry/llm-usage/batch", format!("{{\"records\":[{}]}}", records.join(",")))
            }
            Step::Record { call } | Step::Settle { call } => ("telemetry/llm-usage", record(call)),
            Step::Reserve { call } => {
                let call_id = call_id(self.client, call);
                ("enforcement/reservations", reservation(integration, &call_id))
            }
        };
        post(path, bearer, &body)
    }
}

/// A POST request with JSON.
pub(crate) fn post(path: &str, bearer: &str, body: &str) -> Vec<u8> {
    let mut request = String::new();
    write!(
        request,
        "POST /api/v1/{path} HTTP/1.1\r\nHost: bursar\r\nAuthorization: {bearer}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("written to a text");
    request.into_bytes()
}

fn call_id(client: usize, call: u64) -> String {
    format!("call-{client:05}-{call:08}")
}

/// The client and the number in a call id of a load client.
pub(crate) fn parse_call_id(call_id: &str) -> Option<(usize, u64)> {
    let (client, call) = call_id.strip_prefix("call-")?.split_once('-')?;
    Some((client.parse().ok()?, call.parse().ok()?))
}

fn record(integration: &str, call_id: &str, metadata: &str) -> String {
    format!(
        "{{\"integration_id\":\"{integration}\",\"call_id\":\"{call_id}\",\"provider\":\"openai\",\
         \"model\":\"gpt-4o\",\"agent_id\":\"agent\",\"tokens_in\":700,\"tokens_out\":200,\
         \"cost_cents\":0.25,\"latency_ms\":850,\"metadata\":{{\"team\":\"{metadata}\"}}}}"
    )
}

fn reservation(integration: &str, call_id: &str) -> String {
    format!(
        "{{\"integration_id\":\"{integration}\",\"call_id\":\"{call_id}\",\
         \"estimated_cost_cents\":1,\"estimated_tokens\":900,\"ttl_seconds\":{TTL_SECONDS}}}"
    )
}
