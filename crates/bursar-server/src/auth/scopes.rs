//! The scopes of API keys, and the set of them that a key has.
//!
//! A set is one integer, so a cached caller always takes the same memory.

/// Every scope, as listed in docs/api.md.
pub(crate) const SCOPES: &[&str] = &[
    "integrations:read",
    "integrations:write",
    "telemetry:read",
    "telemetry:write",
    "enforcement:check",
    "credentials:write",
    "keys:write",
    "gateway:use",
];

/// Everything that can be granted to a key: the wildcards, then the scopes.
pub(crate) const GRANTS: &[&str] = &[
    "*",
    "integrations:*",
    "telemetry:*",
    "enforcement:*",
    "credentials:*",
    "keys:*",
    "gateway:*",
    "integrations:read",
    "integrations:write",
    "telemetry:read",
    "telemetry:write",
    "enforcement:check",
    "credentials:write",
    "keys:write",
    "gateway:use",
];

/// The scopes of an integration key, for its own integration.
pub(crate) const INTEGRATION_KEY_SCOPES: &[&str] =
    &["telemetry:write", "enforcement:check", "integrations:read"];

/// The most scopes in one request, including duplicates.
pub(crate) const WORDS_MAX: usize = 64;

/// Whether a granted scope, possibly a wildcard, covers another.
pub(crate) fn covers(granted: &str, asked: &str) -> bool {
    granted == "*"
        || granted == asked
        || granted
            .strip_suffix(":*")
            .is_some_and(|resource| asked.split(':').next() == Some(resource))
}

/// A set of the entries of [`GRANTS`], one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScopeSet(u64);

impl ScopeSet {
    /// Reads a stored set: names separated by blanks. A name that this version does not know is
    /// ignored.
    pub(crate) fn stored(text: &str) -> Self {
        let mut set = Self::default();
        for word in text.split(' ') {
            set.insert(word);
        }
        set
    }

    /// Adds a scope. Returns whether it was new, or `None` for an unknown name.
    pub(crate) fn insert(&mut self, word: &str) -> Option<bool> {
        let at = GRANTS.iter().position(|known| *known == word)?;
        let before = self.0;
        self.0 |= 1 << at;
        Some(self.0 != before)
    }

    /// The names in the set, in the order of [`GRANTS`].
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let has = move |at: usize| self.0 & (1 << at) != 0;
        GRANTS.iter().enumerate().filter(move |(at, _)| has(*at)).map(|(_, word)| *word)
    }

    /// Whether the set covers a scope or a wildcard.
    pub(crate) fn covers(self, asked: &str) -> bool {
        self.names().any(|granted| covers(granted, asked))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn wildcards_cover_what_they_say() {
        assert!(covers("*", "keys:write"));
        assert!(covers("telemetry:*", "telemetry:read"));
        assert!(covers("telemetry:read", "telemetry:read"));
        assert!(!covers("telemetry:*", "integrations:read"));
        assert!(!covers("telemetry:read", "telemetry:write"));
        assert!(!covers("tele:*", "telemetry:read"));
    }

    #[test]
    fn every_scope_and_the_wildcard_of_its_resource_can_be_given() {
        let wildcard = |scope: &str| scope.split(':').next().map(|of| format!("{of}:*"));
        let wildcards = SCOPES.iter().filter_map(|scope| wildcard(scope));
        let mut expected: BTreeSet<String> = wildcards.collect();
        expected.extend(SCOPES.iter().map(|&scope| scope.to_owned()));
        expected.insert("*".to_owned());
        let given: BTreeSet<String> = GRANTS.iter().map(|&word| word.to_owned()).collect();
        assert_eq!(given, expected);
        assert_eq!(given.len(), GRANTS.len());
        assert!(GRANTS.len() <= 64);
        assert!(INTEGRATION_KEY_SCOPES.iter().all(|scope| SCOPES.contains(scope)));
    }

    #[test]
    fn a_set_has_each_word_once_however_often_it_was_written() {
        let set = ScopeSet::stored("keys:write telemetry:* keys:write of:tomorrow");
        assert_eq!(set.names().collect::<Vec<_>>(), ["telemetry:*", "keys:write"]);
        assert!(set.covers("telemetry:read") && set.covers("telemetry:*"));
        assert!(!set.covers("*") && !set.covers("of:tomorrow"));
        let mut set = ScopeSet::default();
        assert_eq!(set.insert("gateway:use"), Some(true));
        assert_eq!(set.insert("gateway:use"), Some(false));
        assert_eq!(set.insert("nothing:*"), None);
    }
}
