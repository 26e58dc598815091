#!/usr/bin/env bash
# Runs a command in a copy of this machine that systemd has booted: process 1 there is systemd, all files are this machine's, whatever is
# written goes with it, and its network is its own loopback. Nothing of it is seen outside.
#
#   bash tests/booted.sh COMMAND [ARGUMENT]...
#
# Ends as the command does, or with 77 where such a copy cannot be made, and says why.
set -euo pipefail

cannot() {
    printf 'tests/booted.sh: SKIPPED: %s\n' "$*" >&2
    exit 77
}

# Inside of new namespaces: the copy's file system, and systemd.
boot() {
    local root=$1/root
    mount --make-rprivate /
    mount -t tmpfs -o mode=755,size=2g tmpfs "$1"
    mkdir "$1/upper" "$1/work" "$root"
    mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$root"
    mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
    for path in sys sysrq-trigger; do
        [[ -e $root/proc/$path ]] || continue
        mount --bind "$root/proc/$path" "$root/proc/$path"
        mount -o remount,bind,ro "$root/proc/$path"
    done
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
    mkdir "$root/dev/pts" "$root/dev/shm"
    # A console that nobody looks at is a null.
    local device
    for device in null:3 zero:5 full:7 random:8 urandom:9 console:3; do
        mknod -m 666 "$root/dev/${device%:*}" c 1 "${device#*:}"
    done
    mknod -m 666 "$root/dev/tty" c 5 0
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
    mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
    : >"$root/etc/fstab"
    # What waits in /tmp for the command stays there.
    mkdir -p "$root/etc/tmpfiles.d"
    : >"$root/etc/tmpfiles.d/tmp.conf"
    hostname booted
    cd "$root"
    mkdir -p .old
    pivot_root . .old
    umount -l /.old
    # As systemd finds it on a machine, and counts on for credentials: among its own namespaces.
    mount --make-rshared /
    # It has this machine's kernel, and must not touch what is not its own there.
    exec env -i container=packhorse PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog \
        /lib/systemd/systemd --system --unit=sysinit.target --show-status=no </dev/null >/dev/null 2>&1
}

if [[ ${1-} == --boot ]]; then
    boot "$2"
fi

((EUID == 0)) || cannot "it takes root"
[[ -x /lib/systemd/systemd ]] || cannot "there is no systemd"
for tool in unshare nsenter setpriv pivot_root; do
    command -v "$tool" >/dev/null || cannot "there is no $tool"
done
groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
[[ -n $groups ]] || cannot "no cgroup2 is mounted"
group=$groups/packhorse-booted-$$
mkdir "$group" 2>/dev/null || cannot "no group can be made in $groups"

scratch=$(mktemp -d)
starter='' init=''
finish() {
    local status=$?
    trap - EXIT
    # With its process 1 all others end.
    [[ -z $init ]] || kill -9 "$init" 2>/dev/null || true
    [[ -z $starter ]] || wait "$starter" 2>/dev/null || true
    for _ in {1..50}; do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.1
    done
    rm -rf "$scratch"
    exit "$status"
}
trap finish EXIT

# A group of its own comes first: it is the root of what systemd sees and takes for its own.
(
    echo "$BASHPID" >"$group/cgroup.procs"
    exec unshare --cgroup --mount --uts --ipc --net --pid --fork --kill-child bash "${BASH_SOURCE[0]}" --boot "$scratch" 2>"$scratch.log"
) &
starter=$!
state=
for _ in {1..600}; do
    kill -0 "$starter" 2>/dev/null || cannot "it does not boot: $(cat "$scratch.log")"
    [[ -n $init ]] || init=$(pgrep -P "$starter" || true)
    if [[ -n $init ]]; then
        state=$(nsenter -t "$init" -a systemctl is-system-running 2>/dev/null || true)
        [[ $state == running || $state == degraded ]] && break
    fi
    sleep 0.1
done
[[ $state == running || $state == degraded ]] || cannot "systemd does not come up: ${state:-no answer}"
# Whoever is not root asks systemd over the bus.
nsenter -t "$init" -a systemctl start dbus.socket 2>/dev/null || true
nsenter -t "$init" -a env -i container=packhorse HOME=/root PATH="$PATH" LANG=C.UTF-8 "$@"
