//! Capabilities that a test needs from the machine, and whether the test fails without them.

/// A capability besides installed programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Mounting a small disk.
    Mounts,
    /// Creating a cgroup with a memory limit.
    Cgroups,
}

impl Capability {
    const ALL: [Self; 2] = [Self::Mounts, Self::Cgroups];

    fn word(self) -> &'static str {
        match self {
            Self::Mounts => "mounts",
            Self::Cgroups => "cgroups",
        }
    }

    /// Whether `BURSAR_REQUIRE_TESTS` names it, or says `all`.
    fn is_required(self) -> bool {
        let required = std::env::var("BURSAR_REQUIRE_TESTS").unwrap_or_default();
        is_named(self, &required)
    }

    /// Passes on what the machine gave. If it gave nothing, prints that the test is skipped.
    ///
    /// # Panics
    /// If it gave nothing and `BURSAR_REQUIRE_TESTS` requires this capability.
    #[track_caller]
    pub fn check<T>(self, given: Option<T>) -> Option<T> {
        if given.is_none() {
            let word = self.word();
            assert!(!self.is_required(), "this machine does not allow {word}, which are required");
            eprintln!("skipped: this machine does not allow {word}");
        }
        given
    }
}

/// Whether a comma-separated list names a capability.
///
/// # Panics
/// If the list has an unknown word: a misspelt one would skip a test silently.
fn is_named(capability: Capability, list: &str) -> bool {
    let words: Vec<&str> = list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    for word in &words {
        let is_known = *word == "all" || Capability::ALL.iter().any(|known| known.word() == *word);
        assert!(is_known, "BURSAR_REQUIRE_TESTS names {word:?}, which is unknown");
    }
    words.iter().any(|word| *word == "all" || *word == capability.word())
}
