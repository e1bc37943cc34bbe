# The image's environment, for shells and for programs that were started without
# it. A variable that is set already keeps its value. Sourced, so it changes
# nothing else.

if [ -z "${HOME:-}" ]; then
    HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
    export HOME="${HOME:-/}"
fi

if [ -z "${USER:-}" ]; then
    USER=$(id -un 2>/dev/null || id -u)
    export USER LOGNAME="${LOGNAME:-$USER}"
fi

# Entries of the image come first, those of the system last; what the caller has
# keeps its order.
kiln_first= kiln_last=
kiln_rest=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:
while [ -n "$kiln_rest" ]; do
    kiln_entry=${kiln_rest%%:*}
    kiln_rest=${kiln_rest#*:}
    case ":${PATH:-}:" in
    *":$kiln_entry:"*) continue ;;
    esac
    case $kiln_entry in
    /usr/* | /bin | /sbin) kiln_last=$kiln_last:$kiln_entry ;;
    *) kiln_first=$kiln_first$kiln_entry: ;;
    esac
done
PATH=$kiln_first${PATH:-}$kiln_last
PATH=${PATH#:}
export PATH
unset kiln_first kiln_last kiln_rest kiln_entry

[ -n "${LANG+set}" ] || export LANG=C.UTF-8
[ -n "${OPENCODE_DISABLE_AUTOUPDATE+set}" ] || export OPENCODE_DISABLE_AUTOUPDATE=true
