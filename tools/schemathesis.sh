#!/bin/sh
# Sends a running server requests that its OpenAPI document allows, and many that it does not. No response may be a
# 5xx, undocumented, or different from its schema. Runs as the operator, with an API key and with an integration key;
# on the metrics also with their token.
# Usage: tools/schemathesis.sh [path of the binary]; EXAMPLES is the number of cases for each operation.
set -eu

version=4.32.5
validator_version=0.9.0
cd "$(dirname "$0")/.."
binary=${1:-target/release/bursar}
examples=${EXAMPLES:-100}
tools=target/schemathesis-$version
work=$(mktemp -d)
server=
# shellcheck disable=SC2329 # called by the trap
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

fail() {
    echo "$*" >&2
    exit 1
}

command -v python3 >/dev/null || fail "python3 is missing: install python3, python3-venv and python3-pip"
command -v curl >/dev/null || fail "curl is missing: install curl"
[ -x "$binary" ] || fail "$binary is missing: build it with cargo build --release --bin bursar"
if [ ! -x "$tools/bin/schemathesis" ]; then
    python3 -m venv "$tools" || fail "python3 cannot make a venv: install python3-venv"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check \
        "schemathesis==$version" "openapi-spec-validator==$validator_version" ||
        { rm -rf "$tools"; fail "pip could not install schemathesis $version"; }
fi

"$tools/bin/openapi-spec-validator" openapi.json

# Above the request rate of the tool.
unlimited=1000000000
protection="BURSAR_PROTECTION_REQUESTS_PER_MINUTE=$unlimited BURSAR_PROTECTION_REQUESTS_PER_SECOND=$unlimited"
protection="$protection BURSAR_PROTECTION_TRAFFIC_PER_MINUTE=$unlimited BURSAR_PROTECTION_TRAFFIC_PER_SECOND=$unlimited"

token=operator-token-of-schemathesis
metrics_token=metrics-token-of-schemathesis
# shellcheck disable=SC2086 # several words
env -i $protection BURSAR_LISTEN=127.0.0.1:0 BURSAR_DATA_DIR="$work/data" BURSAR_OPERATOR_TOKEN=$token \
    BURSAR_METRICS_TOKEN=$metrics_token NO_COLOR=1 "$binary" serve >"$work/log" 2>&1 &
server=$!
address=
tries=0
while [ -z "$address" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$server" 2>/dev/null; then
        cat "$work/log" >&2
        fail "the server did not start"
    fi
    sleep 0.1
    address=$(sed -n 's/.*address=\([0-9.]*:[0-9]*\).*/\1/p' "$work/log" | head -n 1)
done

# post PATH JSON FIELD: sends a request as the operator and prints a field of the response's data.
post() {
    curl -sS --fail-with-body "http://$address/api/v1$1" -H "Authorization: Bearer $token" \
        -H "X-Tenant-ID: $tenant" -H 'Content-Type: application/json' -d "$2" |
        python3 -c "import json, sys; print(json.load(sys.stdin)['data']['$3'])"
}

# prepare NAME: creates a tenant with an integration, and a document whose examples use the integration.
example=$(sed -n 's/.*EXAMPLE_ID: &str = "\(.*\)".*/\1/p' crates/bursar-server/src/wire/schema.rs)
prepare() {
    echo "== $1"
    tenant=$(tenant=none post /tenants "{\"name\": \"$1\"}" id)
    limits='"budget_limit_cents": 100000, "rate_limit_rpm": 100000'
    BURSAR_INTEGRATION=$(post /integrations "{\"name\": \"example\", \"provider_type\": \"custom\", $limits}" id)
    export BURSAR_INTEGRATION
    post "/integrations/$BURSAR_INTEGRATION/enable" '' status >/dev/null
    curl -sS "http://$address/openapi.json" | sed "s/$example/$BURSAR_INTEGRATION/g" >"$work/openapi.json"
}

# run_schemathesis OPTION...: runs it with these headers and the prepared tenant, because a random tenant would only be
# refused. It writes files into its working directory, so it runs in the temporary one.
failed=0
root=$(pwd)
run_schemathesis() (
    cd "$work"
    "$root/$tools/bin/schemathesis" --config-file "$root/tools/schemathesis.toml" --no-color run openapi.json \
        --url "http://$address" --checks all --max-examples "$examples" --generation-database none \
        --seed 1 --request-timeout 30 -H "X-Tenant-ID: $tenant" "$@"
)

prepare "as the operator"
run_schemathesis -H "Authorization: Bearer $token" || failed=1

# No scope for keys: the key would find itself in the list and revoke itself.
prepare "with an API key"
scopes='["telemetry:*", "enforcement:check", "integrations:read"]'
key=$(post /keys "{\"name\": \"k\", \"scopes\": $scopes}" secret)
run_schemathesis -H "Authorization: Bearer $key" || failed=1

prepare "with the key of an integration"
key=$(post "/integrations/$BURSAR_INTEGRATION/keys" '' secret)
run_schemathesis -H "X-CUS-Integration-Key: $key" || failed=1

echo "== with the token of the metrics"
run_schemathesis -H "Authorization: Bearer $metrics_token" --include-path /metrics --phases coverage,fuzzing || failed=1

kill -0 "$server" 2>/dev/null || fail "the server exited"
if grep -E 'ERROR|panicked' "$work/log" >&2; then
    fail "the server logged errors"
fi
[ "$failed" -eq 0 ] || fail "schemathesis found responses that do not match the document"
