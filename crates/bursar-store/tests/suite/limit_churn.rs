//! Limits are made, changed, disabled and deleted at random while calls go on.
