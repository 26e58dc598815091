#!/usr/bin/env bash
# Goes through the life of the Debian package on this machine, as root: install, check, start, cut the link, look, kill -9, start again, drain, upgrade,
# remove, install again, purge. It touches no database server that runs, and leaves nothing. Where process 1 is not systemd it goes through it a
# second time in a copy of this machine that systemd has booted (tests/booted.sh), and says so where that cannot be made.
#
#   bash tests/package.sh              builds the package first
#   bash tests/package.sh --no-build   of what was built before
#   bash tests/package.sh OLD.deb NEW.deb
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*"; }
fail() {
    printf 'tests/package.sh: %s\n' "$*" >&2
    exit 1
}

((EUID == 0)) || fail "run it as root"
for needed in adduser ca-certificates; do
    dpkg -s "$needed" >/dev/null 2>&1 || fail "install $needed first: a package that is installed for this would stay"
done
leftovers() {
    # A program that was tried with the default socket has left an empty folder, and whoever read a page of the manual its copy in the cache.
    find /etc /lib/systemd /run /usr /var -xdev -name '*packhorse*' -not -path '/usr/local/*' -not -path '/var/cache/man/*' -not \( -path /run/packhorse -empty \) 2>/dev/null || true
    getent passwd packhorse || true
    getent group packhorse || true
}
found=$(leftovers)
[[ -z $found ]] || fail "there is a packhorse on this machine: $found"

scratch=$(mktemp -d)
chmod 755 "$scratch"
daemon='' receiver='' mariadb='' life=''
finish() {
    local status=$?
    trap - EXIT
    for pid in $daemon $receiver; do
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    [[ -z $life ]] || exec {life}>&-
    [[ -z $mariadb ]] || wait "$mariadb" 2>/dev/null || true
    dpkg --purge packhorse >/dev/null 2>&1 || true
    rm -rf /etc/packhorse "$scratch"
    exit "$status"
}
trap finish EXIT

if [[ ${1-} == *.deb ]]; then
    deb=$1 newer=$2
else
    say "building"
    # The next one takes its place.
    built=$(./deb "$@" | tail -n 1)
    deb=$scratch/${built##*/}
    cp "$built" "$deb"
    newer=$(./deb --no-build --version 99.0.0-1 | tail -n 1)
fi
dpkg-deb -x "$deb" "$scratch/tree"
program=$scratch/tree/usr/bin/packhorse
echo "$deb: $(stat -c %s "$deb") bytes; /usr/bin/packhorse: $(stat -c %s "$program") bytes"
ldd "$program" | sed 's/ (0x.*//'

say "a database, and a server with tokens"
coproc MARIADB { exec bash tests/support/mariadb.sh start "$scratch/mariadb" 2>"$scratch/mariadb.log"; }
mariadb=$MARIADB_PID life=${MARIADB[1]}
IFS= read -r -t 120 url <&"${MARIADB[0]}" || fail "the private MariaDB did not start"
server=${url%/*}
sql() { "$(command -v mariadb || command -v mysql)" --no-defaults -h 127.0.0.1 -P "${server##*:}" -u root -BN -e "$1"; }
sql "CREATE DATABASE ch; CREATE USER packhorse@'%' IDENTIFIED BY 'secret-1'; GRANT SELECT ON ch.* TO packhorse@'%'"
sample() { "$program" -q datagen --url "$server/ch" "$@" >/dev/null; }
rows() { sql "SELECT (SELECT COUNT(*) FROM ch.Reading) + (SELECT COUNT(*) FROM ch.NodeState)"; }
sample --create-tables --houses 2 --days 3 --until "$(date -u -d '2 days ago' +%FT%T)"
echo "house-17 token-of-house-17-0000" >"$scratch/tokens"
chmod 600 "$scratch/tokens"
port=$((20000 + RANDOM % 10000))
printf '[receiver]\nlisten = "127.0.0.1:%s"\ndatabase = "sqlite://%s"\ntokens_file = "%s"\n' "$port" "$scratch/central.db" "$scratch/tokens" >"$scratch/receiver.toml"
start_receiver() {
    "$program" -q --config "$scratch/receiver.toml" receiver >"$scratch/receiver.out" &
    receiver=$!
    for _ in {1..300}; do
        [[ -s $scratch/receiver.out ]] && return
        sleep 0.2
    done
    fail "the receiver does not listen"
}
stop_receiver() {
    kill -9 "$receiver"
    wait "$receiver" 2>/dev/null || true
    receiver=
}
start_receiver

say "install"
dpkg -i "$deb"
[[ $(stat -c '%a %U %G' /etc/packhorse/packhorse.toml) == "640 root packhorse" ]] || fail "mode of the configuration"
[[ $(stat -c '%a %U %G' /etc/packhorse/secrets) == "2750 root packhorse" ]] || fail "mode of /etc/packhorse/secrets"
[[ $(stat -c '%a %U %G' /var/lib/packhorse) == "750 packhorse packhorse" ]] || fail "mode of /var/lib/packhorse"
dpkg -c "$deb" >"$scratch/files"
grep -q 'man1/packhorse-queue-status.1.gz' "$scratch/files" || fail "a man page is missing"
grep -q 'bash-completion/completions/packhorse$' "$scratch/files" || fail "completions are missing"
# Its documents point to each other.
documents=$scratch/tree/usr/share/doc/packhorse
[[ -f $documents/docs/configuration.md ]] || fail "the configuration names a document that is not there"
while IFS=: read -r document link; do
    link=${link#](} link=${link%%[#)]*}
    [[ -z $link || $link == *://* || -e ${document%/*}/$link ]] || fail "$document: $link is not there"
done < <(grep -rHo ']([^)]*)' --include '*.md' "$documents")
verified=$(systemd-analyze verify --man=no packhorse.service 2>&1 | grep -i packhorse || true)
[[ -z $verified ]] || fail "systemd-analyze verify: $verified"

say "check, before anything is filled in"
packhorse check | tee "$scratch/unfilled" || true
grep -q 'there is no \[\[destination\]\]' "$scratch/unfilled" || fail "check does not tell that there is no destination"

say "fill in, and check"
# A day of sample data begins some minutes before its time: late rows, which an audit finds, by default within an hour.
cat >>/etc/packhorse/packhorse.toml <<EOF
[[destination]]
name = "central"
url = "http://127.0.0.1:$port/rest/"
token_file = "/etc/packhorse/secrets/token"
backoff_max = "2s"
linger = "1s"
EOF
sed -i "s|^url = \"mysql://packhorse@localhost/ch\"|url = \"mysql://packhorse@127.0.0.1:${server##*:}/ch\"|; s|^# password_file|audit_interval = \"5s\"\npassword_file|" /etc/packhorse/packhorse.toml
(umask 027 && echo secret-1 >/etc/packhorse/secrets/db-password)
(umask 077 && echo token-of-house-17-0000 >/etc/packhorse/secrets/token)
packhorse check || fail "check"

if [[ -d /run/systemd/system ]]; then
    start() { systemctl enable --quiet --now packhorse || fail "it does not start: $(journalctl --no-pager --quiet --output=cat --unit packhorse | tail -n 20)"; }
    stop() { systemctl stop packhorse; }
    kill_9() {
        local pid
        pid=$(main_pid)
        systemctl kill -s KILL packhorse
        until [[ ! -d /proc/$pid ]]; do sleep 0.1; done
    }
    main_pid() { systemctl show --property MainPID --value packhorse; }
else
    # What the unit would do.
    install -d -o packhorse -g packhorse -m 755 /run/packhorse
    install -d -o packhorse -g packhorse -m 500 "$scratch/credentials"
    for file in /etc/packhorse/secrets/*; do
        install -o packhorse -m 400 "$file" "$scratch/credentials/secret_${file##*/}"
    done
    command=$(sed -n 's/^ExecStart=//p' /lib/systemd/system/packhorse.service)
    start() {
        # shellcheck disable=SC2086
        CREDENTIALS_DIRECTORY=$scratch/credentials setpriv --reuid packhorse --regid packhorse --init-groups --no-new-privs $command 2>>"$scratch/packhorse.log" &
        daemon=$!
    }
    stop() {
        kill "$daemon"
        wait "$daemon" || fail "the daemon ended with $?: $(tail "$scratch/packhorse.log")"
        daemon=
    }
    kill_9() {
        kill -9 "$daemon"
        wait "$daemon" 2>/dev/null || true
        daemon=
    }
fi
pending() { packhorse -qq queue status --json | grep -o '"pending":[0-9]*,"pending_bytes"' | grep -o '[0-9][0-9]*'; }
acked() { packhorse -qq queue status --json | grep -o '"acked":[0-9]*' | awk -F : '{ all += $2 } END { print all }'; }
until_it_is() {
    for _ in {1..600}; do
        [[ $("$1" 2>/dev/null) == "$2" ]] && return
        sleep 0.5
    done
    fail "$1 is $("$1"), not $2: $(tail "$scratch/packhorse.log" 2>/dev/null)"
}
page() {
    exec 9<>/dev/tcp/127.0.0.1/9130
    printf 'GET / HTTP/1.0\r\n\r\n' >&9
    cat <&9
    exec 9>&-
}

# What the unit promises, on the running service.
as_the_unit_says() {
    local pid state
    pid=$(main_pid)
    # Type=notify: it is there as soon as it is started.
    packhorse queue status >/dev/null || fail "it is started, and does not answer"
    [[ $(systemctl is-enabled packhorse) == enabled ]] || fail "it is not enabled"
    state=$(cat "/proc/$pid/status")
    for line in "NoNewPrivs:.1" "Seccomp:.2" "CapEff:.0*" "CapBnd:.0*" "Uid:.$(id -u packhorse)[^0-9].*"; do
        grep -qx "$line" <<<"$state" || fail "/proc/$pid/status has no $line"
    done
    grep -qx "secret_token secret_db-password\|secret_db-password secret_token" <<<"$(nsenter -t "$pid" -m ls /run/credentials/packhorse.service | xargs)" ||
        fail "systemd does not hand over the secrets"
    for place in /etc /usr /root /home /boot /srv; do
        if nsenter -t "$pid" -m touch "$place/packhorse-was-here" 2>/dev/null; then fail "the service could write to $place"; fi
    done
    for place in /var/lib/packhorse /var/log/packhorse /run/packhorse /tmp; do
        nsenter -t "$pid" -m setpriv --reuid packhorse --regid packhorse --clear-groups touch "$place/packhorse-was-here" || fail "the service cannot write to $place"
        nsenter -t "$pid" -m rm "$place/packhorse-was-here"
    done
    [[ $(stat -c '%a %U %G' /var/log/packhorse /run/packhorse | xargs) == "750 packhorse packhorse 755 packhorse packhorse" ]] || fail "modes of its directories"
    systemctl reload packhorse
    journalctl --quiet --output cat --unit packhorse | grep -q 'SIGHUP: reading the configuration again' || fail "it is not reloaded"
    [[ $(main_pid) == "$pid" ]] || fail "a reload is no restart"
}
# It hangs; and its configuration is wrong for a while. Each restart waits longer than the one before.
is_never_given_up() {
    mkdir -p /etc/systemd/system/packhorse.service.d
    printf '[Service]\nWatchdogSec=3s\n' >/etc/systemd/system/packhorse.service.d/watchdog.conf
    systemctl daemon-reload
    systemctl restart packhorse
    local pid
    pid=$(main_pid)
    # Longer than the watchdog's time: while it is well it is left alone.
    sleep 7
    [[ $(main_pid) == "$pid" ]] || fail "the watchdog ends a service that is well"
    kill -STOP "$pid"
    until_it_is restarts 1
    journalctl --quiet --output cat --unit packhorse | grep -q 'Watchdog timeout' || fail "the watchdog did not end it"
    local since=$SECONDS
    until_it_is answers yes
    # Over the bus it learns that this is the first restart.
    [[ ! -S /run/dbus/system_bus_socket ]] || ((SECONDS - since >= 9)) || fail "it does not pause before a restart"
    sed -i 's/^linger/lingre/' /etc/packhorse/packhorse.toml
    kill -9 "$(main_pid)"
    until_it_is restarts 3
    sed -i 's/^lingre/linger/' /etc/packhorse/packhorse.toml
    until_it_is answers yes
    rm -r /etc/systemd/system/packhorse.service.d
    systemctl daemon-reload
    systemctl restart packhorse
}
restarts() { systemctl show --property NRestarts --value packhorse; }
answers() { packhorse queue status >/dev/null 2>&1 && systemctl is-active --quiet packhorse && echo yes; }

say "start"
start
until_it_is acked "$(rows)"
if [[ -d /run/systemd/system ]]; then
    say "as the unit says"
    as_the_unit_says
    say "never given up"
    is_never_given_up
fi

say "cut the link, and look"
stop_receiver
before=$(rows)
sample --houses 2 --days 1 --until "$(date -u -d '1 day ago' +%FT%T)"
(($(rows) > before)) || fail "no new rows"
until_it_is pending "$(($(rows) - before))"
page >"$scratch/page"
grep -q 'waiting for the link since' "$scratch/page" || fail "the page does not say that it waits"
packhorse queue status
timeout 5 packhorse queue status --watch 1s >"$scratch/watch" || true
(($(grep -c central "$scratch/watch") >= 2)) || fail "queue status --watch"

say "kill -9, and start again"
kill_9
packhorse queue status >/dev/null
packhorse queue verify
others=$(find /var/lib/packhorse -not -user packhorse)
[[ -z $others ]] || fail "root's commands have left files of root's: $others"
if [[ -d /run/systemd/system ]]; then
    # By itself, after its pause.
    until_it_is answers yes
else
    start
fi
until_it_is pending "$(($(rows) - before))"

say "link up, drained"
start_receiver
until_it_is pending 0
until_it_is acked "$(rows)"
stop
packhorse reconcile || fail "both ends differ"

say "upgrade, with rows that wait"
stop_receiver
before=$(rows)
sample --houses 2 --days 1 --until "$(date -u +%FT%T)"
start
until_it_is pending "$(($(rows) - before))"
waits=$(pending)
source_id=$(cat /var/lib/packhorse/source-id)
sha=$(sha256sum /etc/packhorse/packhorse.toml)
if [[ -d /run/systemd/system ]]; then pid=$(main_pid); else stop; fi
dpkg -i "$newer"
if [[ -d /run/systemd/system ]]; then
    [[ $(main_pid) != "$pid" && $(answers) == yes ]] || fail "the upgrade has not restarted it"
fi
[[ $(dpkg-query -W -f '${Version}' packhorse) == "$(dpkg-deb -f "$newer" Version)" ]] || fail "it is not upgraded"
[[ $(sha256sum /etc/packhorse/packhorse.toml) == "$sha" ]] || fail "the upgrade has changed the configuration"
[[ $(stat -c '%a %U %G' /etc/packhorse/packhorse.toml) == "640 root packhorse" ]] || fail "the upgrade has changed the configuration's mode"
[[ $(cat /var/lib/packhorse/source-id) == "$source_id" ]] || fail "another source id"
[[ -d /run/systemd/system ]] || start
until_it_is pending "$waits"
[[ -d /run/systemd/system ]] || stop

say "remove: what waits is told, and stays"
dpkg -r packhorse 2>&1 | tee "$scratch/removed"
grep -q "packhorse: $waits rows have not been delivered" "$scratch/removed" || fail "the removal does not tell what waits"
[[ ! -e /usr/bin/packhorse && -e /var/lib/packhorse/central && -e /etc/packhorse/packhorse.toml ]] || fail "removed too much or too little"
[[ ! -d /run/systemd/system || -z $(main_pid) || $(main_pid) == 0 ]] || fail "it runs on"
[[ ! -e /etc/systemd/system/multi-user.target.wants/packhorse.service ]] || fail "it is still enabled"
dpkg -i "$newer"
[[ $(pending) == "$waits" ]] || fail "rows are gone"

say "purge: what is removed is told, and nothing stays"
dpkg -P packhorse 2>&1 | tee "$scratch/purged"
grep -q "packhorse: $waits rows that were not delivered are removed" "$scratch/purged" || fail "the purge does not tell what it removes"
[[ -e /etc/packhorse/secrets/token ]] || fail "an administrator's secrets are removed"
rm -r /etc/packhorse
if grep crontab "$scratch/purged"; then fail "the purge speaks of what is no concern of it"; fi
found=$(leftovers)
[[ -z $found ]] || fail "left behind: $found"

if [[ ! -d /run/systemd/system ]]; then
    say "all of it once more, under systemd"
    bash tests/booted.sh bash "$PWD/tests/package.sh" "$deb" "$newer" || [[ $? == 77 ]] || fail "under systemd"
fi
say "all of it passed"
