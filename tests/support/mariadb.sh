#!/bin/bash
# A private, throw-away MariaDB server in a directory of its own.
#
#   mariadb.sh start DIR
#
# Makes DIR, starts a server in it on a free port of 127.0.0.1 and on DIR/socket, prints the URL of its administrator as one line on
# standard output, and then obeys lines on standard input: "kill" ends the server as a power cut would, "start" starts it again on
# the same port and data, "stop" ends it as the operating system does, and "clock +3d" (or "clock +0") moves its clock, where the variable
# PACKHORSE_TEST_FAKETIME names the library for it; each is answered by one line. When standard input ends, because whoever started this script has ended in
# whatever way, the server ends and DIR is removed. It reads no configuration file and touches no other server.
set -u

if [ "${1:-}" != start ] || [ -z "${2:-}" ]; then
    echo "usage: $0 start DIR" >&2
    exit 2
fi
PATH=$PATH:/usr/sbin:/sbin
for tool in mariadbd mariadb-install-db mariadb-admin; do
    command -v "$tool" >/dev/null || { echo "$0: $tool is missing; install the package mariadb-server" >&2; exit 3; }
done

mkdir -p "$2" && dir=$(cd "$2" && pwd) || exit 3
pid=
port=
as=()
[ "$(id -u)" = 0 ] && as=(--user=root)

end() {
    [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    rm -rf "$dir"
}
trap end EXIT
trap 'exit 1' INT TERM HUP

launch() { # on port $1
    local clock=()
    [ -n "${PACKHORSE_TEST_FAKETIME:-}" ] && clock=(env LD_PRELOAD="$PACKHORSE_TEST_FAKETIME" FAKETIME_TIMESTAMP_FILE="$dir/clock"
        FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1)
    "${clock[@]}" mariadbd --no-defaults "${as[@]}" --datadir="$dir/data" --tmpdir="$dir" --socket="$dir/socket" --pid-file="$dir/pid" \
        --bind-address=127.0.0.1 --port="$1" --skip-name-resolve --skip-log-bin --performance-schema=OFF \
        --innodb-buffer-pool-size=96M --innodb-log-file-size=48M --innodb-log-buffer-size=4M \
        --innodb-flush-log-at-trx-commit=0 --innodb-flush-method=nosync --innodb-doublewrite=OFF \
        --key-buffer-size=1M --aria-pagecache-buffer-size=1M --max-connections=200 --max-allowed-packet=16M \
        </dev/null >>"$dir/log" 2>&1 3>&- &
    pid=$!
    for _ in $(seq 600); do
        mariadb-admin --no-defaults --socket="$dir/socket" --user=root ping </dev/null >/dev/null 2>&1 && return 0
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    kill -9 "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    pid=
    return 1
}

mariadb-install-db --no-defaults "${as[@]}" --datadir="$dir/data" --auth-root-authentication-method=normal --skip-test-db \
    --skip-name-resolve --tmpdir="$dir" </dev/null >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 3; }

echo +0 >"$dir/clock"
# A port is free only once the server has it: one that is taken makes it end, and the next is tried.
for _ in $(seq 20); do
    port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 12000))
    launch "$port" && break
done
[ -n "$pid" ] || { cat "$dir/log" >&2; exit 3; }
echo "mysql://root@127.0.0.1:$port/mysql"
# From here on nothing of the caller's is held open but the two pipes.
exec 2>/dev/null

while read -r word value; do
    case $word in
        kill)
            [ -n "$pid" ] && kill -9 "$pid" && wait "$pid" 2>/dev/null
            pid=
            echo killed
            ;;
        stop)
            [ -n "$pid" ] && kill "$pid" && wait "$pid" 2>/dev/null
            pid=
            echo stopped
            ;;
        clock)
            echo "$value" >"$dir/clock.new" && mv "$dir/clock.new" "$dir/clock"
            echo set
            ;;
        start)
            [ -n "$pid" ] || launch "$port" || { cat "$dir/log" >&2; exit 3; }
            echo started
            ;;
        *) echo "unknown: $word" ;;
    esac
done
