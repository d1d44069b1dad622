//! What a machine may forbid a test, and whether that fails the test.

/// What a test needs of the machine besides programs, which a test installs or asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To mount a small disk.
    Mounts,
    /// To make a cgroup that bounds memory.
    Cgroups,
}

impl Need {
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

    /// What the machine gave. Where it gave nothing, says which test is left out, or fails it where
    /// this is required.
    ///
    /// # Panics
    /// When there is nothing and it is required.
    #[track_caller]
    pub fn met_by<T>(self, given: Option<T>) -> Option<T> {
        if given.is_none() {
            let word = self.word();
            assert!(!self.is_required(), "this machine does not allow {word}, which are required");
            eprintln!("left out: this machine does not allow {word}");
        }
        given
    }
}

/// Whether a list with commas names a need.
///
/// # Panics
/// When the list has a word that stands for nothing: a proof would be left out in silence.
fn is_named(need: Need, list: &str) -> bool {
    let words: Vec<&str> = list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    for word in &words {
        let is_known = *word == "all" || Need::ALL.iter().any(|known| known.word() == *word);
        assert!(is_known, "BURSAR_REQUIRE_TESTS names {word:?}, which stands for nothing");
    }
    words.iter().any(|word| *word == "all" || *word == need.word())
}
