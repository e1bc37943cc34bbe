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
kiln_rest={{ path_all | sh }}:
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

{% for e in env_all if e.key != "PATH" %}
[ -n "{{ "${" }}{{ e.key }}+set}" ] || export {{ e.key }}={{ e.value | sh }}
{% endfor %}
{% if ca.any %}
{% for key in ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS"] %}
[ -n "{{ "${" }}{{ key }}+set}" ] || export {{ key }}=/usr/local/share/kiln/ca-bundle.pem
{% endfor %}
[ -n "${UV_SYSTEM_CERTS+set}" ] || export UV_SYSTEM_CERTS=true
{% endif %}
