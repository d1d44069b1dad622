#!/bin/sh
# Checks the dependencies against deny.toml: licences, bans and sources always; known vulnerabilities if the
# advisory database is available.
# BURSAR_ADVISORY_DB=<folder>: a clone of https://github.com/RustSec/advisory-db; by default it is fetched.
# BURSAR_ADVISORIES=required: fail without the database; by default only a warning is printed.
set -eu

version=0.20.2
cd "$(dirname "$0")/.."
tools=$PWD/target/tools/cargo-deny-$version
# cargo-deny names the folder after the database's URL.
databases=target/tools/advisory-dbs
database=$databases/advisory-db-3157b0e258782691

fail() {
    echo "$*" >&2
    exit 1
}

# Uses the installed cargo-deny of this version, or builds it once, with settings for a fast build.
if [ "$(cargo-deny --version 2>/dev/null)" = "cargo-deny $version" ]; then
    deny=cargo-deny
else
    deny=$tools/bin/cargo-deny
    if [ ! -x "$deny" ]; then
        echo "building cargo-deny $version, once, into target/tools"
        env -u CARGO_TARGET_DIR CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
            CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
            cargo install --quiet --locked --root "$tools" --version "=$version" cargo-deny ||
            fail "cargo could not install cargo-deny $version"
    fi
fi

"$deny" --locked check --hide-inclusion-graph bans licenses sources

mkdir -p "$databases"
unchecked() {
    [ "${BURSAR_ADVISORIES:-}" != required ] || fail "FAILED: $1, and BURSAR_ADVISORIES=required"
    echo "WARNING: known vulnerabilities were NOT CHECKED: $1 (set BURSAR_ADVISORY_DB to a clone of the advisory database)" >&2
    exit 0
}
if [ -n "${BURSAR_ADVISORY_DB:-}" ]; then
    [ -d "$BURSAR_ADVISORY_DB/crates" ] || fail "BURSAR_ADVISORY_DB is not a clone of the advisory database"
    clone=$(cd "$BURSAR_ADVISORY_DB" && pwd)
    [ ! -e "$database" ] || [ -L "$database" ] || rm -rf "$database"
    ln -sfn "$clone" "$database"
else
    [ ! -L "$database" ] || rm "$database"
    GIT_TERMINAL_PROMPT=0 timeout 120 "$deny" --locked fetch db 2>"$databases/fetch.log" ||
        [ -d "$database/crates" ] || unchecked "the advisory database could not be fetched"
fi
# Offline, because the database was just fetched. One older than 90 days is refused.
"$deny" --locked --offline check --hide-inclusion-graph advisories
