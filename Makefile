# `make run` needs cargo and a C compiler. `make test` also needs test programs, which it installs on
# Debian; README.md lists them.

.PHONY: run test lint deny prove bench release clean

# Builds and starts a server with a tenant, an integration and keys to try.
run:
	cargo run --profile quick --locked --bin bursar -- dev

# What CI runs.
test: lint deny
	cargo test --workspace --locked

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --locked

# Checks the licences, bans and sources of the dependencies, and their known vulnerabilities if the
# advisory database is available. The first run builds cargo-deny, in a minute or two.
deny:
	tools/deny.sh

# The long proofs: kills, faults, races and many seeds, at most 25 minutes. Then schemathesis tests
# the whole API for a few minutes more, which needs curl, and python3 with venv and pip.
prove:
	cargo test --workspace --locked --profile prove --no-run
	BURSAR_PROVE=1 timeout --kill-after=10 1500 cargo test --workspace --locked --profile prove --no-fail-fast
	cargo build --locked --profile prove --bin bursar
	timeout --kill-after=10 900 tools/schemathesis.sh target/prove/bursar

# Measures the server against three baselines, in a few minutes. Needs the programs of PostgreSQL.
bench:
	cargo run --release --locked --package bursar-bench

# Builds target/dist/bursar, and its debug symbols in target/dist/bursar.debug. Needs binutils.
release:
	tools/release.sh target/dist

clean:
	cargo clean
