//! The time that protection adds to a request, with far more tenants than caches hold.

#![expect(clippy::unwrap_used, reason = "a measurement names what it made")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bursar_core::{IntegrationId, TenantId, Timestamp};
use bursar_server::protection::counting::{Capacity, SlidingWindows};
use bursar_server::protection::rule::{ProtectedRequest, Protection, RouteNumber, WindowOwner};
use bursar_server::protection::thresholds::{RequestClass, Thresholds};
use criterion::Criterion;

const TENANTS: u64 = 100_000;
const ROUTES: u64 = 5;
/// The limit of one decision.
const DECISION_MAX: Duration = Duration::from_micros(2);
/// The decisions that are measured against the limit.
const DECISIONS: u32 = 2_000_000;

/// The requests of all tenants to all routes in an order without a pattern, a microsecond apart.
struct Requests(u64);

impl Requests {
    fn next(&mut self) -> ProtectedRequest {
        self.0 += 1;
        let mut chance = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        chance ^= chance >> 29;
        let tenant_id = TenantId::from_number((chance % TENANTS) as i64 + 1).unwrap();
        // Every third request has the key of an integration.
        let integration_id =
            self.0.is_multiple_of(3).then(|| IntegrationId::from_number(1).unwrap());
        ProtectedRequest {
            owner: WindowOwner { tenant_id, integration_id },
            route: RouteNumber((chance / TENANTS % ROUTES) as u16),
            class: RequestClass::Traffic,
            thresholds: Thresholds::default(),
            now: Timestamp::from_micros(1_763_640_000_000_000).unwrap(),
            elapsed: Duration::from_micros(self.0),
        }
    }
}

fn warm(capacity: Capacity) -> (SlidingWindows, Requests) {
    let (mut rule, mut requests) = (SlidingWindows::new(capacity), Requests(0));
    for _ in 0..4 * TENANTS * ROUTES {
        rule.decide(&requests.next());
    }
    (rule, requests)
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let everything = Capacity { tenants: 131_072, owners: 262_144, routes: 1_048_576 };
    let crowded = Capacity { tenants: 16_384, owners: 16_384, routes: 65_536 };
    for (name, capacity) in [("all windows fit", everything), ("most windows are evicted", crowded)]
    {
        let (mut rule, mut requests) = warm(capacity);
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| rule.decide(black_box(&requests.next())));
        });
        let began = Instant::now();
        for _ in 0..DECISIONS {
            black_box(rule.decide(black_box(&requests.next())));
        }
        let each = began.elapsed() / DECISIONS;
        println!("{name}: {each:?} a decision");
        assert!(each < DECISION_MAX, "{name}: {each:?} is more than {DECISION_MAX:?}");
    }
    criterion.final_summary();
}
