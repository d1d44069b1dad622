//! Connections: idle ones in every place, and HTTP/2 connections that do not read or send floods.

use std::time::Duration;

use bursar_testing::frames::{self, flag, kind};
use bursar_testing::waiting::scale;

use crate::hostile::attack::{Attack, Client, Hold};
use crate::hostile::labels::{MODELS, check_accepted, label_client};
use crate::hostile::scene::Scene;

/// The limit on connections, from ten addresses with their limit each.
const CONNECTIONS: usize = 1_000;
const SILENT_PAUSE: Duration = Duration::from_secs(3_600);
const FLOOD_PAUSE: Duration = Duration::from_millis(5);
/// The limit on open streams of a connection.
const STREAMS: u32 = 128;

/// Idle connections of ten addresses in every place.
pub(crate) const IDLE: Attack = Attack {
    settings: &[
        ("BURSAR_SERVER_CONNECTIONS_MAX", "1000"),
        ("BURSAR_SERVER_CONNECTIONS_PER_ADDRESS_MAX", "100"),
    ],
    ..Attack::new("idle", idle)
};
/// Unread responses, and floods of frames beside an open request.
pub(crate) const FRAMES: Attack =
    Attack { lasts: Duration::from_secs(10), is_cut: true, ..Attack::new("frames", flood) };

fn idle(_: &mut Scene) -> Vec<Client> {
    let hold = |number: usize| {
        // Every other one sends a request first.
        let request = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        let first_bytes = if (number / 10).is_multiple_of(2) { Vec::new() } else { request };
        Client::holds(
            number,
            Hold { first_bytes, next: Vec::new(), pause: SILENT_PAUSE, reads: true },
        )
    };
    (0..CONNECTIONS).map(hold).collect()
}

fn flood(scene: &mut Scene) -> Vec<Client> {
    // Makes the metrics a large response, which needs memory that the unread ones hold.
    check_accepted(&scene.run_to_end(vec![label_client(0, &scene.attacker, MODELS, 1)]));
    let pages = |number| {
        let first_bytes =
            [frames::preface(), frames::setting(frames::INITIAL_WINDOW_SIZE, 0)].concat();
        let page = |at: u32| frames::get(2 * at + 1, "/docs", &[]);
        let first_bytes = first_bytes.into_iter().chain((0..STREAMS).flat_map(page)).collect();
        // Nothing more is sent, so the connection counts as idle.
        Client::holds(
            number,
            Hold { first_bytes, next: Vec::new(), pause: SILENT_PAUSE, reads: true },
        )
    };
    let pings = |number| {
        let headers = [("authorization", scene.attacker.bearer.as_str())];
        let head = frames::head("POST", "/api/v1/telemetry/llm-usage", &headers);
        let open = frames::frame(kind::HEADERS, flag::END_HEADERS, 1, &head);
        let first_bytes = [frames::preface(), open].concat();
        let ping = frames::frame(kind::PING, 0, 0, &[0; 8]);
        let settings = frames::setting(frames::INITIAL_WINDOW_SIZE, 65_535);
        let next = [ping, settings].concat().repeat(1_000);
        Client::holds(number, Hold { first_bytes, next, pause: FLOOD_PAUSE, reads: true })
    };
    let (many, few) = (scale(10, 40), scale(4, 10));
    (0..many).map(pages).chain((0..few).map(pings)).collect()
}
