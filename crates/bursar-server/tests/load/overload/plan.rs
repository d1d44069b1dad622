//! What a loud client does, step after step: always the same mix, whatever is refused.

use std::fmt::Write as _;

/// Records of most batches, and of every fourth.
const SMALL_BATCH: u64 = 100;
const LARGE_BATCH: u64 = 1_000;
/// Steps of a cycle: one batch and six single records, two reservations, one record that settles.
const STEPS: u64 = 10;
/// Calls of a cycle besides its batch: the second of its reservations is left to expire.
const OTHER_CALLS: u64 = 8;
/// Shorter than the load lasts, so that expiry is a part of it.
const TTL_SECONDS: u32 = 10;

/// What one record of a wide batch has besides the rest: the batch just fits the largest body.
const WIDE_METADATA: usize = 8_000;

/// What one kind of client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    /// 70 % of the requests record, 20 % reserve, 10 % settle.
    Ordinary,
    /// Nothing but the largest batches that there are.
    Wide,
}

/// What is sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Records of calls that follow each other.
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
    /// Records a call that was reserved before.
    Settle {
        call: u64,
    },
}

impl Step {
    /// How many records or reservations it is.
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

/// Where a client is on its way. Its steps are numbered calls, each the client's own.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    mix: Mix,
    client: usize,
    step: u64,
    first_call: u64,
}

impl Plan {
    /// The way of a client, from its beginning.
    pub(crate) fn new(mix: Mix, client: usize) -> Self {
        Self { mix, client, step: 0, first_call: 0 }
    }

    /// The steps that were made.
    pub(crate) fn steps(&self) -> u64 {
        self.step
    }

    /// Clients are at different cycles, so that the mix of all is the same at every moment.
    fn batch(&self) -> u64 {
        let cycle = self.step / STEPS + self.client as u64;
        if cycle % 4 == 3 { LARGE_BATCH } else { SMALL_BATCH }
    }

    /// What is to be sent.
    pub(crate) fn step_now(&self) -> Step {
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

    /// Goes on, once the step is acknowledged.
    pub(crate) fn advance(&mut self) {
        let batch = self.batch();
        self.step += 1;
        if self.step.is_multiple_of(STEPS) {
            self.first_call += batch + OTHER_CALLS;
        }
    }

    /// The request of the step.
    pub(crate) fn request(&self, bearer: &str, integration: &str) -> Vec<u8> {
        let metadata = match self.mix {
            Mix::Ordinary => "search".to_owned(),
            Mix::Wide => "x".repeat(WIDE_METADATA),
        };
        let record = |call: u64| record(integration, &call_id(self.client, call), &metadata);
        let (path, body) = match self.step_now() {
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

/// A request that posts JSON.
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

/// The client and the number in a call id of such a client.
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
