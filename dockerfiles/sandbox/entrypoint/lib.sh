# What Kiln's boot scripts share. Sourced by them, as root or as the sandbox user.

# Also right when the caller emptied the environment.
. /etc/profile.d/kiln.sh

identity=/var/lib/kiln/identity
kiln_user=$(cat /etc/kiln/user)

# The story goes to stderr: stdout belongs to the command that is booted.
say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n -- "$@"
    fi
}

# Steps down from root without PAM, which is not set up in every sandbox.
as_user() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid "$kiln_user" --regid "$kiln_user" --init-groups \
            env HOME="$(getent passwd "$kiln_user" | cut -d: -f6)" USER="$kiln_user" LOGNAME="$kiln_user" "$@"
    else
        "$@"
    fi
}

# Goes on as the sandbox user: `become_user "$0" "$@"` stands first in a script
# that must not run as root.
become_user() {
    if [ "$(id -u)" = 0 ]; then
        as_user "$@"
        exit
    fi
}

# Runs every script of a directory in order. One that fails hides no other.
run_parts() {
    failed=
    for part in "$1"/*; do
        [ -x "$part" ] || continue
        "$part" || failed="$failed ${part##*/}"
    done
    if [ -n "$failed" ]; then
        say "failed:$failed."
        return 1
    fi
}
