# The commands of this project. `make run` needs cargo, a C compiler and nothing else; `make test` also programs to test with,
# which it fetches on Debian and asks for elsewhere (README.md).

.PHONY: run test lint deny prove bench clean

# Builds and starts the main job: a server with a tenant, an integration and keys to try.
run:
	cargo run --profile quick --locked --bin bursar -- dev

# What CI runs.
test: lint deny
	cargo test --workspace --locked

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# Licences, bans and sources of what we depend on, and its known vulnerabilities where their database can be had. The first run
# builds cargo-deny, in a minute or two.
deny:
	tools/deny.sh

# The long proofs: kills, faults, races and many seeds, bounded to 25 minutes; then the whole API asked by schemathesis, a
# few minutes more, which wants python3 with venv and pip, and curl.
prove:
	cargo test --workspace --locked --profile prove --no-run
	BURSAR_PROVE=1 timeout --kill-after=10 1500 cargo test --workspace --locked --profile prove
	cargo build --locked --profile prove --bin bursar
	timeout --kill-after=10 900 tools/schemathesis.sh target/prove/bursar

# E, S, P and everything as a part of them, in one run; a few minutes. P wants PostgreSQL's programs, as the tests do.
bench:
	cargo run --release --locked --package bursar-bench

clean:
	cargo clean
