//! Worker time: bodies that cost far more to decode than to send.

use bursar_testing::waiting::scale;

use crate::hostile::attack::{Attack, Client};
use crate::hostile::request;
use crate::hostile::scene::Scene;

/// The size of a body.
fn body_bytes() -> usize {
    scale(1, 4) * 1024 * 1024
}
/// The header of a gzip member: no name, no time, an unknown system.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The checksum and the length of an empty member.
const GZIP_END: [u8; 8] = [0; 8];

/// Compressed bodies without content, and JSON that is deep or wide.
pub(crate) const DECODED: Attack =
    Attack { statuses: &[200, 400, 413, 415, 422], ..Attack::new("decoded", decoded) };

fn decoded(scene: &mut Scene) -> Vec<Client> {
    let bearer = &scene.attacker.bearer;
    let compressed = |body: &[u8]| {
        request::with_body("POST", request::BATCH, bearer, "Content-Encoding: gzip\r\n", body)
    };
    let plain = |body: &str| request::post(request::BATCH, bearer, body);
    let requests = [
        compressed(&empty_blocks(body_bytes())),
        compressed(&empty_members(body_bytes())),
        plain(&deep_json(body_bytes())),
        plain(&wide_json(body_bytes(), &scene.target())),
    ];
    let each = scale(1, 2);
    let client = |number: usize| {
        Some(Client::repeats(number, requests.get(number % requests.len())?.clone()))
    };
    (0..each * requests.len()).filter_map(client).collect()
}

/// A gzip member of about this size that consists of empty blocks with fixed codes. Each block
/// takes ten bits, and the decoder builds its tables anew for it.
fn empty_blocks(bytes: usize) -> Vec<u8> {
    // Three bits for a block with fixed codes that is not the last, seven for its end.
    const BLOCK: u64 = 0b010;
    let four_blocks = BLOCK | BLOCK << 10 | BLOCK << 20 | BLOCK << 30;
    let last_block = [0b011, 0];
    let mut body = GZIP_HEAD.to_vec();
    body.extend(four_blocks.to_le_bytes()[..5].repeat(bytes / 5));
    body.extend(last_block);
    body.extend(GZIP_END);
    body
}

/// Many gzip members without content.
fn empty_members(bytes: usize) -> Vec<u8> {
    let member = [GZIP_HEAD.as_slice(), &[0b011, 0], &GZIP_END].concat();
    member.repeat(bytes / member.len())
}

/// A batch of nested lists.
fn deep_json(bytes: usize) -> String {
    let deep = bytes / 2;
    format!("{{\"records\":[{}{}]}}", "[".repeat(deep), "]".repeat(deep))
}

/// A batch of records with metadata of many fields.
fn wide_json(bytes: usize, integration: &str) -> String {
    let fields: Vec<String> = (0..3_000).map(|at| format!("\"{at}\":{at}")).collect();
    let more = format!(",\"metadata\":{{{}}}", fields.join(","));
    let record = |at| request::record(integration, &format!("wide-{at}"), "gpt-4o", &more);
    let count = bytes / record(0).len();
    request::batch(&(0..count).map(record).collect::<Vec<String>>())
}
