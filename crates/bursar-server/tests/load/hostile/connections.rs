//! Connections: idle ones up to the last place, and HTTP/2 that takes nothing and says too much.

use std::time::Duration;

use bursar_testing::frames::{self, flag, kind};
use bursar_testing::waiting::scale;

use crate::hostile::attack::{Attack, Client, Hold};
use crate::hostile::labels::{MODELS, check_accepted, labelled};
use crate::hostile::scene::Scene;

/// Ten addresses with as many connections as each may have: all that there are.
const CONNECTIONS: usize = 1_000;
const SILENTLY: Duration = Duration::from_secs(3_600);
const QUICKLY: Duration = Duration::from_millis(5);
/// Streams that a connection may have open.
const STREAMS: u32 = 128;

/// Idle connections of ten addresses in every place.
pub(crate) const IDLE: Attack = Attack {
    settings: &[
        ("BURSAR_SERVER_CONNECTIONS_MAX", "1000"),
        ("BURSAR_SERVER_CONNECTIONS_PER_ADDRESS_MAX", "100"),
    ],
    ..Attack::new("idle", idle)
};
/// Pages that nobody takes, and frames that are no requests, beside one that is.
pub(crate) const FRAMES: Attack =
    Attack { lasts: Duration::from_secs(10), is_cut: true, ..Attack::new("frames", flood) };

fn idle(_: &mut Scene) -> Vec<Client> {
    let hold = |number: usize| {
        // Every other one has asked before it fell silent.
        let asked = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        let opening = if (number / 10).is_multiple_of(2) { Vec::new() } else { asked };
        Client::holds(number, Hold { opening, next: Vec::new(), pause: SILENTLY, reads: true })
    };
    (0..CONNECTIONS).map(hold).collect()
}

fn flood(scene: &mut Scene) -> Vec<Client> {
    // Metrics that are a large answer too, and so need memory that pages may have taken.
    check_accepted(&scene.work_off(vec![labelled(0, &scene.attacker, MODELS, 1)]));
    let pages = |number| {
        let opening = [frames::opening(), frames::setting(frames::INITIAL_WINDOW_SIZE, 0)].concat();
        let page = |at: u32| frames::get(2 * at + 1, "/docs", &[]);
        let opening = opening.into_iter().chain((0..STREAMS).flat_map(page)).collect();
        // Nothing more is said that could be taken for life.
        Client::holds(number, Hold { opening, next: Vec::new(), pause: SILENTLY, reads: true })
    };
    let questions = |number| {
        let headers = [("authorization", scene.attacker.bearer.as_str())];
        let head = frames::head("POST", "/api/v1/telemetry/llm-usage", &headers);
        let open = frames::frame(kind::HEADERS, flag::END_HEADERS, 1, &head);
        let opening = [frames::opening(), open].concat();
        let ping = frames::frame(kind::PING, 0, 0, &[0; 8]);
        let settings = frames::setting(frames::INITIAL_WINDOW_SIZE, 65_535);
        let next = [ping, settings].concat().repeat(1_000);
        Client::holds(number, Hold { opening, next, pause: QUICKLY, reads: true })
    };
    let (many, few) = (scale(10, 40), scale(4, 10));
    (0..many).map(pages).chain((0..few).map(questions)).collect()
}
