#!/usr/bin/env bash
# Measures what an idle daemon costs: CPU time and wake-ups of two minutes with nothing to do, beside a private MariaDB and a receiver.
#
#   cargo build --release && bash tests/idle.sh [SECONDS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-120}
program=target/release/packhorse
scratch=$(mktemp -d)
daemon='' receiver=''
finish() {
    kill $daemon $receiver 2>/dev/null || true
    exec {life}>&-
    wait
    rm -rf "$scratch"
}
coproc MARIADB { exec bash tests/support/mariadb.sh start "$scratch/mariadb" 2>"$scratch/mariadb.log"; }
life=${MARIADB[1]}
trap finish EXIT
IFS= read -r -t 120 url <&"${MARIADB[0]}"
server=${url%/*}
"$(command -v mariadb || command -v mysql)" --no-defaults -h 127.0.0.1 -P "${server##*:}" -u root -e "CREATE DATABASE ch"
url=$server/ch
$program -q datagen --url "$url" --create-tables --houses 2 --days 2 >/dev/null
$program -q receiver --listen 127.0.0.1:0 --database "sqlite://$scratch/central.db" >"$scratch/receiver.out" &
receiver=$!
until grep -q listening "$scratch/receiver.out"; do sleep 0.2; done
cat >"$scratch/packhorse.toml" <<EOF
[gateway]
data_dir = "$scratch/data"
[source]
url = "$url"
[[destination]]
name = "central"
url = "$(sed 's/listening on //' "$scratch/receiver.out")"
[status]
listen = "127.0.0.1:0"
socket = "$scratch/packhorse.sock"
EOF
# As the unit has it, with nobody who listens.
$program -q --config "$scratch/packhorse.toml" run &
daemon=$!
until $program -qq --config "$scratch/packhorse.toml" queue status --json 2>/dev/null | grep -q '"pending":0,"pending_bytes"'; do sleep 1; done
# What was captured last is settled, and the catalog is in step.
sleep 30
figures() {
    awk '{ print $14 + $15 }' "/proc/$daemon/stat"
    cat /proc/"$daemon"/task/*/status | awk '/ctxt_switches/ { all += $2 } END { print all }'
    awk '/^(wchar|write_bytes)/ { print $2 }' "/proc/$daemon/io"
}
mapfile -t before < <(figures)
sleep "$seconds"
mapfile -t after < <(figures)
threads=("/proc/$daemon/task"/*)
ticks=$(getconf CLK_TCK)
awk -v s="$seconds" -v t="$ticks" -v c=$((after[0] - before[0])) -v w=$((after[1] - before[1])) -v o=$((after[2] - before[2])) -v d=$((after[3] - before[3])) \
    -v m="$(awk '/^VmRSS/ { print $2 }' "/proc/$daemon/status")" -v n="${#threads[@]}" 'BEGIN {
    printf "CPU %.2f ms a second (%.3f %% of a core); %.1f wake-ups a second; %.0f bytes written a minute, %.0f to the disk; %.1f MB resident; %d threads\n",
        c * 1000 / t / s, c * 100 / t / s, w / s, o * 60 / s, d * 60 / s, m / 1024, n }'
