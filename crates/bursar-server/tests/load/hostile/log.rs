//! The log: refusals at full speed while the pipe of the log is never read.

use crate::hostile::attack::{Attack, Client, Log, PROTECTED};
use crate::hostile::request;
use crate::hostile::scene::Scene;

pub(crate) const STUCK: Attack = Attack {
    settings: &PROTECTED,
    log: Log::StuckPipe,
    statuses: &[200, 401],
    ..Attack::new("stuck log", stuck)
};

fn stuck(scene: &mut Scene) -> Vec<Client> {
    let path = "/api/v1/integrations?limit=1";
    let refused = request::get(path, &scene.attacker.bearer);
    let unknown = request::get(path, "Bearer bur_of_nobody");
    let client = |number: usize| {
        Client::repeats(number, if number < 4 { refused.clone() } else { unknown.clone() })
    };
    (0..6).map(client).collect()
}
