#!/bin/sh
# Checks what we depend on against deny.toml: licences, bans and sources always; known vulnerabilities when the
# database of them can be had.
# BURSAR_ADVISORY_DB=<folder>: a clone of https://github.com/RustSec/advisory-db; otherwise it is fetched.
# BURSAR_ADVISORIES=required: fail when there is no database; otherwise one line says so.
set -eu

version=0.20.2
cd "$(dirname "$0")/.."
tools=$PWD/target/tools/cargo-deny-$version
# The folder is named after the database's address by cargo-deny.
databases=target/tools/advisory-dbs
database=$databases/advisory-db-3157b0e258782691

fail() {
    echo "$*" >&2
    exit 1
}

# The tool itself: what is installed, when it is this version; else ours, built once. It is built for a quick build.
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

# Known vulnerabilities.
mkdir -p "$databases"
unchecked() {
    [ "${BURSAR_ADVISORIES:-}" != required ] || fail "FAILED: $1, and BURSAR_ADVISORIES=required"
    echo "WARNING: known vulnerabilities were NOT CHECKED: $1 (name a clone of it in BURSAR_ADVISORY_DB)" >&2
    exit 0
}
if [ -n "${BURSAR_ADVISORY_DB:-}" ]; then
    [ -d "$BURSAR_ADVISORY_DB/crates" ] || fail "BURSAR_ADVISORY_DB names no clone of the advisory database"
    clone=$(cd "$BURSAR_ADVISORY_DB" && pwd)
    [ ! -e "$database" ] || [ -L "$database" ] || rm -rf "$database"
    ln -sfn "$clone" "$database"
else
    [ ! -L "$database" ] || rm "$database"
    GIT_TERMINAL_PROMPT=0 timeout 120 "$deny" --locked fetch db 2>"$databases/fetch.log" ||
        [ -d "$database/crates" ] || unchecked "the advisory database could not be fetched"
fi
# What was fetched is not fetched again; a database that is older than 90 days is refused.
"$deny" --locked --offline check --hide-inclusion-graph advisories
