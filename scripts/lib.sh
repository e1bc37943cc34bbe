# Shared by the scripts beside it; sourced, never run.
# shellcheck shell=bash

# A plain user's PATH lacks dockerd and debootstrap, and a job started without a login shell lacks cargo.
HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin
export HOME PATH

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Prints the comment at the head of a script.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$1"; }

# Runs a command as root: as it is, or by sudo where this user may.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "\`$1\` needs root, and there is no sudo"
    fi
}

# Takes the lock NAME on the file descriptor FD until this process ends.
#   lock FD NAME
lock() {
    local file=/tmp/kiln-$2.lock
    # Made by whoever comes first and opened for reading by all: the kernel refuses even root to create or write another user's
    # file in a sticky folder.
    (umask 022 && : >>"$file") 2>/dev/null || true
    eval "exec $1<\"\$file\""
    flock --nonblock "$1" && return 0
    say "waiting for another run that holds $file"
    flock --timeout 1800 "$1" || die "$file has been held for half an hour"
}

# Installs those of the named packages that are missing.
install_packages() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    have apt-get || die "please install ${missing[*]}: only apt is known here"
    say "installing ${missing[*]}"
    # A fresh machine installs its own updates at the same time, hence the wait for dpkg's lock. A failed refresh is reported by
    # the installation, if it matters.
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
    as_root "${apt[@]}" update </dev/null >&2 || say "warning: the package lists could not be refreshed"
    as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null >&2 || die "cannot install ${missing[*]}"
}

# A place outside the clone, so that a clean checkout builds only what changed.
use_target_dir() {
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kiln/target}
    mkdir -p "$CARGO_TARGET_DIR"
    CARGO_TARGET_DIR=$(cd "$CARGO_TARGET_DIR" && pwd)
    export CARGO_TARGET_DIR
    have cargo || die "there is no cargo; install a Rust toolchain"
}

# A daemon that hangs must not hang the scripts.
engine_answers() { have docker && timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# Prints the socket of the engine on this host; fails where DOCKER_HOST names another engine.
local_socket() {
    case "${DOCKER_HOST:-}" in
    '' | unix:///var/run/docker.sock | unix:///run/docker.sock) echo /var/run/docker.sock ;;
    *) return 1 ;;
    esac
}

# Makes sure that this process may talk to the engine. A user outside the group `docker` who has sudo goes on in that group for this
# one run: it ends with the run, unlike a membership.
#   use_engine SCRIPT ARGUMENT...      the command line to start again
use_engine() {
    engine_answers && return 0
    local socket group
    socket=$(local_socket) || die "no Docker Engine answers at DOCKER_HOST=$DOCKER_HOST"
    if [ "$(id -u)" -eq 0 ] || [ ! -S "$socket" ] || [ -n "${KILN_IN_ENGINE_GROUP:-}" ]; then
        die "no Docker Engine answers at $socket"
    fi
    group=$(stat -Lc %g "$socket")
    say "this user may not use the engine: going on in its group for this run (lasting: \`sudo usermod -aG docker $(id -un)\`)"
    exec sudo -E setpriv --reuid "$(id -u)" --regid "$(id -g)" --groups "$(id -G | tr ' ' ','),$group" \
        env "PATH=$PATH" "HOME=$HOME" KILN_IN_ENGINE_GROUP=yes "$@"
}

# Prints the folder of the CA certificates that were installed on this host by hand; fails where there are none.
local_cas() {
    local folder=/usr/local/share/ca-certificates
    [ -n "$(find "$folder" -maxdepth 1 -name '*.crt' -print -quit 2>/dev/null)" ] && printf '%s\n' "$folder"
}

# Prints the mirror that this host's apt uses for a distribution; fails where there is none.
#   host_mirror debian|ubuntu main|security
host_mirror() {
    local family=$1 kind=$2 format='$(ORIGIN)|$(RELEASE)|$(REPO_URI)' found
    have apt-get || return 1
    # Third parties name their suites after releases too, so what counts is the origin in the repository's own index.
    found=$(apt-get indextargets --format "$format" 2>/dev/null |
        awk -F'|' -v family="$family" 'tolower($1) == family { print $2, $3 }')
    if [ -z "$found" ]; then
        # Before the first `apt-get update` only the configuration is known: take the host's own release at a path that says so.
        found=$(
            . /etc/os-release
            [ "${ID:-}" = "$family" ] || exit 0
            apt-get indextargets --no-release-info --format "$format" 2>/dev/null |
                awk -F'|' -v name="${VERSION_CODENAME:-none}" -v path="^mirror|/$family(-security|-ports)?/*\$" \
                    'index($2, name) == 1 && $3 ~ path { print $2, $3 }'
        )
    fi
    found=$(awk -v kind="$kind" '
        { is = $1 ~ /-security$|\/updates$/ ? "security" : $1 ~ /-/ ? "other" : "main" }
        is == kind { sub(/\/+$/, "", $2); print $2; exit }' <<<"$found")
    # Cloud images keep the address in a file of its own, and apt says so: mirror+file:/etc/apt/mirrors/debian.list.
    case "$found" in
    mirror+file:*)
        found=$(sed -E '/^[[:space:]]*(#|$)/d; s/[[:space:]].*//; s|/+$||' "/${found#mirror+file:}" 2>/dev/null | head -n 1)
        ;;
    esac
    case "$found" in
    http://* | https://* | file:/* | ftp://*) printf '%s\n' "$found" ;;
    *) return 1 ;;
    esac
}

# Prints debootstrap's script for a release; fails where it knows none.
debootstrap_script() {
    local family=$1 release=$2 folder=/usr/share/debootstrap/scripts
    if [ -e "$folder/$release" ]; then
        echo "$folder/$release"
        return
    fi
    # Releases younger than this debootstrap are made as those before them, as its own links say.
    case "$family" in
    debian) echo "$folder/sid" ;;
    ubuntu) echo "$folder/gutsy" ;;
    *) return 1 ;;
    esac
}

# Prints the mirror that debootstrap takes by itself, which is the distribution's public one.
default_mirror_of() {
    local script mirror
    script=$(debootstrap_script "$1" "$2") || return 1
    # Its scripts are shell and choose by architecture: they are asked, with everything but the answer made silent.
    mirror=$(
        ARCH=$(dpkg --print-architecture) SUITE=$2 DEBOOTSTRAP_DIR=${script%/scripts/*}
        export ARCH SUITE DEBOOTSTRAP_DIR
        bash -c 'answer=
            default_mirror() { answer=$1; }
            for word in mirror_style download_style finddebs_style variants keyring doing_variant error info warning; do
                eval "$word() { false; }"
            done
            . "$1"
            echo "$answer"' sh "$script" 2>/dev/null
    ) || true
    [ -n "$mirror" ] || mirror=$(sed -n 's/^DEF_MIRROR="\(.*\)"$/\1/p' "$(command -v debootstrap)" | head -n 1)
    [ -n "$mirror" ] && printf '%s\n' "${mirror%/}"
}

# The folder of programs that are built here for tests and benchmarks, outside the clone.
tools_dir() { printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/kiln/tools"; }

# Prints the path of Garage, the S3 server that tests run against; fails where there is none.
garage_program() {
    local own
    own=$(tools_dir)/bin/garage
    if [ -x "$own" ]; then echo "$own"; else type -P garage; fi
}

# Starts a Garage of one node on free ports of the loopback, with its data in FOLDER, and exports what a store there needs:
# KILN_TEST_S3 (the URL of an empty store), AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. GARAGE_PID is its process, for stop_garage.
#   start_garage FOLDER
start_garage() {
    local folder=$1 program config ports rpc_port s3_port _
    program=$(garage_program) || die "there is no garage; \`scripts/setup garage\` installs it"
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    ports=$(python3 -c 'import socket
taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in taken))') || die "no free ports"
    read -r rpc_port s3_port <<<"$ports"
    config=$folder/garage.toml
    (
        umask 077
        cat >"$config" <<END
metadata_dir = "$folder/meta"
data_dir = "$folder/data"
db_engine = "lmdb"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$rpc_port"
rpc_public_addr = "127.0.0.1:$rpc_port"
rpc_secret = "$(random_hex 32)"

[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:$s3_port"
END
    )
    AWS_ACCESS_KEY_ID=GK$(random_hex 12)
    AWS_SECRET_ACCESS_KEY=$(random_hex 32)
    export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    unset AWS_SESSION_TOKEN AWS_PROFILE AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3
    export NO_PROXY="127.0.0.1${NO_PROXY:+,$NO_PROXY}"
    RUST_LOG=garage=warn GARAGE_DEFAULT_BUCKET=kiln \
        GARAGE_DEFAULT_ACCESS_KEY=$AWS_ACCESS_KEY_ID GARAGE_DEFAULT_SECRET_KEY=$AWS_SECRET_ACCESS_KEY \
        "$program" -c "$config" server --single-node --default-bucket >"$folder/log" 2>&1 </dev/null &
    GARAGE_PID=$!
    for _ in $(seq 1 120); do
        if "$program" -c "$config" bucket info kiln >/dev/null 2>&1; then
            export KILN_TEST_S3="s3://kiln?endpoint=http://127.0.0.1:$s3_port&region=garage&path_style=true"
            say "garage (process $GARAGE_PID) serves $KILN_TEST_S3"
            return 0
        fi
        kill -0 "$GARAGE_PID" 2>/dev/null || break
        sleep 0.25
    done
    tail -n 20 "$folder/log" >&2
    stop_garage
    say "error: garage does not start; its last words stand above"
    return 1
}

# Stops the Garage that start_garage started.
stop_garage() {
    [ -n "${GARAGE_PID:-}" ] || return 0
    kill "$GARAGE_PID" 2>/dev/null || true
    wait "$GARAGE_PID" 2>/dev/null || true
    GARAGE_PID=
}

# Prints that many random bytes as hexadecimal digits.
random_hex() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }
