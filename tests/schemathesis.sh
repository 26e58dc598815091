#!/usr/bin/env bash
# Lets schemathesis (PyPI) try the receiver by docs/openapi.yaml: no request may be answered by a 5xx, answers are as described, and what is
# refused changes no row.
#
#   tests/schemathesis.sh [EXAMPLES]    so many requests for each call, by default 50
#
# It installs schemathesis into a directory of its own, builds packhorse, and starts a receiver on a SQLite file that it throws away.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
pid=
trap 'if [[ -n $pid ]]; then kill "$pid" 2>/dev/null || true; fi; rm -rf "$scratch"' EXIT

python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet schemathesis
cargo build --quiet --locked
"${CARGO_TARGET_DIR:-target}/debug/packhorse" -q receiver --listen 127.0.0.1:0 --database "sqlite://$scratch/central.db" >"$scratch/said" &
pid=$!
for _ in {1..200}; do
    [[ -s $scratch/said ]] && break
    sleep 0.1
done
url=$(sed -n 's|^listening on \(http://[^/]*\)/rest/$|\1|p' "$scratch/said")
export RECEIVER_DATABASE=$scratch/central.db SCHEMATHESIS_HOOKS=schemathesis_nothing_stored PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1
checks=not_a_server_error,response_schema_conformance,content_type_conformance,nothing_stored_by_a_refused_request
"$scratch/venv/bin/schemathesis" run docs/openapi.yaml --url "$url" --checks "$checks" --continue-on-failure \
    --max-examples "${1:-50}" --phases examples,coverage,fuzzing --suppress-health-check all
kill -0 "$pid" # it still runs
