# Installs what ./test and ./demo need besides a Rust toolchain. Sourced by both, which set before:
#
#   me        how the caller is called, for its errors
#   scratch   a directory of the caller's own, which it removes
#
# and which call remove_policy when they end, however they end.
# shellcheck shell=bash
: "${me:?}" "${scratch:?}"
made_policy=

say() { printf '== %s\n' "$*"; }

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "$me: to install packages, run it as root or install sudo" >&2
        return 1
    fi
}

# While we install, apt must not start what it installs: Debian asks this script. One that was there before says so already, or is somebody's wish.
policy=/usr/sbin/policy-rc.d

add_policy() {
    [[ ! -e $policy ]] || return 0
    printf '#!/bin/sh\nexit 101\n' >"$scratch/policy-rc.d"
    made_policy=1
    as_root install -m 755 "$scratch/policy-rc.d" "$policy"
}

remove_policy() {
    [[ -n $made_policy ]] || return 0
    as_root rm -f "$policy" || true
    made_policy=
}

# Installs Debian packages, without starting the services that come in them.
install_packages() {
    say "installing $*"
    add_policy
    local log=$scratch/apt.log status=0
    {
        as_root apt-get -q -o DPkg::Lock::Timeout=300 update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
    } >"$log" 2>&1 </dev/null || status=$?
    remove_policy
    if ((status)); then
        tail -n 40 "$log" >&2
        echo "$me: apt-get could not install $*" >&2
        exit 1
    fi
}

need_packages() {
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    if ! command -v cargo >/dev/null; then
        echo "$me: there is no cargo: install a Rust toolchain (https://rustup.rs)" >&2
        exit 1
    fi
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    if ! PATH=$PATH:/usr/sbin command -v mariadbd >/dev/null; then missing+=(mariadb-server); fi
    ((${#missing[@]})) || return 0
    install_packages "${missing[@]}"
    # A server that nobody had before is not left to start with the machine.
    if [[ " ${missing[*]} " == *" mariadb-server "* ]]; then
        as_root systemctl disable mariadb.service >/dev/null 2>&1 || true
        as_root systemctl stop mariadb.service >/dev/null 2>&1 || true
    fi
}
