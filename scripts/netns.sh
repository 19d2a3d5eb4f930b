# What the scripts with network namespaces have in common, to be sourced: who may run them, and the binary. Sets ADIT.

PATH=$PATH:/usr/sbin:/sbin
name=$(basename "$0")
fail() { echo "$name: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "nothing was tested: network namespaces need root"
for program in ip:iproute2 curl:curl sysctl:procps; do
    command -v "${program%:*}" >/dev/null && continue
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${program#*:}"; } >/dev/null ||
        fail "${program#*:} cannot be installed"
done
if [ -z "${ADIT:-}" ]; then
    cargo build --release --quiet --locked -p adit
    ADIT=${CARGO_TARGET_DIR:-target}/release/adit
fi

namespaces=()
remove_namespaces() {
    local space
    for space in "${namespaces[@]}"; do ip netns del "$space" 2>/dev/null || true; done
}
trap remove_namespaces EXIT

make_namespaces() { # NAME...
    local space
    for space in "$@"; do
        ip netns add "$space" && namespaces+=("$space") && ip -n "$space" link set lo up ||
            fail "nothing was tested: this machine does not let us make network namespaces"
    done
}
