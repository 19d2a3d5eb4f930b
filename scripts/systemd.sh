#!/usr/bin/env bash
# What can be known about the systemd unit and the example configuration on a machine that need not run systemd.
#
#   scripts/systemd.sh              # the release binary; ADIT=BINARY takes another
#
# - systemd reads the unit without a complaint, and rates how much is left exposed;
# - the configuration file has every option, and is fine as it is and with each of its commented lines;
# - the proxy really runs, as nobody and on a port below 1024, where every system call that the unit forbids is fatal: all
#   shapes of traffic, reloads, logins, rotations and the drain of scripts/soak, then syslog;
# - with logrotate's file, no line is lost;
# - where a systemd can be booted in namespaces, the unit as it is: rights, reloads, restarts, the drain.
#
# Root; installs what it needs (Debian).
set -euo pipefail
cd "$(dirname "$0")/.."

MAX_EXPOSURE=1.5
unit=scripts/systemd/adit.service
conf=scripts/adit.conf

missing=()
command -v systemd-analyze >/dev/null || missing+=(systemd)
command -v logrotate >/dev/null || missing+=(logrotate)
command -v ip >/dev/null || missing+=(iproute2)
command -v curl >/dev/null || missing+=(curl)
/usr/bin/python3 -c 'import seccomp' 2>/dev/null || missing+=(python3-seccomp)
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
fi
if [ -z "${ADIT:-}" ]; then
    cargo build --release --locked -p adit
    ADIT=${CARGO_TARGET_DIR:-target}/release/adit
fi

dir=$(mktemp -d)
pids=()
trap '[ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null; rm -rf "$dir"' EXIT
chmod 755 "$dir"
adit=$dir/adit
install -m 755 "$ADIT" "$adit"

ok() { echo "ok    $*"; }
fail() { echo "FAIL  $*"; exit 1; }
eventually() { # COMMAND...: holds within ten seconds, and the proxy runs
    for _ in $(seq 200); do
        "$@" && return
        kill -0 "${pids[0]}" 2>/dev/null || break
        sleep 0.05
    done
    fail "not within ten seconds, or it ended: $*: $(cat "$dir/said")"
}
value() { sed -n "s/^$1=//p" $unit | tail -1; }

# ---- the unit --------------------------------------------------------------------------------------------------------
# `verify` wants the program to be there.
sed "s#/usr/sbin/adit#$adit#" $unit >"$dir/adit.service"
said=$(systemd-analyze verify --man=no "$dir/adit.service" 2>&1) || fail "systemd-analyze verify: $said"
[ -z "$said" ] || fail "systemd-analyze verify: $said"
ok "systemd-analyze verify"

exposure=$(systemd-analyze security --offline=yes --no-pager "$dir/adit.service" 2>/dev/null |
    sed -n 's/.*Overall exposure level for adit.service: \([0-9.]*\).*/\1/p')
awk -v is="$exposure" -v most="$MAX_EXPOSURE" 'BEGIN { exit !(is != "" && is <= most) }' ||
    fail "exposure level $exposure, at most $MAX_EXPOSURE"
ok "exposure level $exposure of at most $MAX_EXPOSURE (10 is everything)"

grace=$("$adit" --help | sed -n 's/^ *--grace S .*\[\([0-9]*\)\]$/\1/p')
[ "$(value TimeoutStopSec)" -gt "$grace" ] || fail "TimeoutStopSec=$(value TimeoutStopSec) is not more than --grace $grace"
: >"$dir/said"
"$adit" --listen 127.0.0.1:0 --access-log off 2>"$dir/said" & pids=($!)
eventually grep -q ' loops\?, at most [0-9]* sessions$' "$dir/said"
sessions=$(sed -n 's/.* loops\?, at most \([0-9]*\) sessions$/\1/p' "$dir/said")
kill "${pids[0]}" && wait "${pids[0]}" && pids=()
[ "$(value LimitNOFILE)" -gt $((3 * sessions)) ] || fail "LimitNOFILE=$(value LimitNOFILE) is little for $sessions sessions"
ok "LimitNOFILE=$(value LimitNOFILE) for $sessions sessions, TimeoutStopSec=$(value TimeoutStopSec) for --grace $grace"

# ---- the configuration file ------------------------------------------------------------------------------------------
[ "$("$adit" --config $conf --check-config)" = ok ] || fail "$conf"
count=0
for option in $("$adit" --help | grep -oE -- '--[a-z][a-z-]*' | sort -u); do
    case $option in
        --config | --check-config | --help | --version | --tls | --through) continue ;; # not for a file
    esac
    grep -qE "^#?${option#--}( |$)" $conf || fail "$conf does not have $option"
    count=$((count + 1))
done
# A line that is commented out is `#word`, a comment is `# word`.
sed -n 's/^#\([a-z]\)/\1/p' $conf >"$dir/commented"
touch "$dir/empty"
while read -r option value; do
    case $option in
        users | *-file) value=$dir/empty ;;
    esac
    printf '%s %s\n' "$option" "$value" >"$dir/one.conf"
    "$adit" --config "$dir/one.conf" --check-config >"$dir/said" 2>&1 || fail "$conf: $option $value: $(cat "$dir/said")"
done <"$dir/commented"
ok "$conf: $count options; its $(wc -l <"$dir/commented") lines that are commented out are fine, too"

# ---- under the unit's filters ----------------------------------------------------------------------------------------
said=$(/usr/bin/python3 scripts/systemd/confined.py --self-test $unit) || fail "the confinement does not confine"
ok "$said"

mkdir "$dir/tmp" "$dir/log"
chown nobody "$dir/tmp" "$dir/log"
chmod 750 "$dir/log"
cp -r scripts/soak scripts/systemd/confined.py "$dir/"
# What the unit does besides: no user, no right but one.
nobody=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
bind=(--bounding-set=-all,+net_bind_service --inh-caps=-all,+net_bind_service --ambient-caps=-all,+net_bind_service)
printf '#!/bin/sh\nexec /usr/bin/python3 %s/confined.py %s/adit.service %s "$@"\n' "$dir" "$dir" "$adit" >"$dir/confined"
chmod 755 "$dir/confined"

"${nobody[@]}" env TMPDIR="$dir/tmp" /usr/bin/python3 "$dir/soak" "$dir/confined" 0 --crowd 300 >"$dir/said" 2>&1 ||
    fail "confined: $(cat "$dir/said")"
ok "confined, it serves all shapes of traffic, reloads, rotates its log and drains"

start() { # OPTION...
    : >"$dir/said" # what the last one said is no sign of this one
    "${nobody[@]}" "${bind[@]}" "$dir/confined" --listen 127.0.0.1:81 --http-port any "$@" 2>"$dir/said" &
    pids=($!)
    eventually grep -q ' loops\?, ' "$dir/said"
}
stop() {
    kill "${pids[0]}"
    wait "${pids[0]}" || fail "confined, it ended with $?: $(cat "$dir/said")"
    pids=()
}
ask() { # A guarded address: an answer and a line without an origin.
    [ "$(curl -s -o "$dir/body" -w '%{http_code}' -x http://127.0.0.1:81 "http://10.0.0.1/$1")" = 403 ] || fail "no answer on port 81"
}
start --access-log syslog
ask syslog
stop
ok "confined, it listens on port 81 and writes to syslog"

# ---- logrotate -------------------------------------------------------------------------------------------------------
log=$dir/log/access.log
start --access-log "$log"
sed "s#/var/log/adit#$dir/log#; s#systemctl kill .*#kill -USR1 ${pids[0]}#" scripts/systemd/adit.logrotate >"$dir/logrotate.conf"
for nth in 1 2 3; do
    ask "$nth"
    eventually grep -q "/$nth " "$log"
    logrotate --force --state "$dir/logrotate.state" "$dir/logrotate.conf" || fail "logrotate"
    eventually test -e "$log"
done
stop
[ "$(zcat -f "$log".* | grep -c ' 403 ')" = 3 ] && [ -e "$log.2.gz" ] || fail "lines are lost: $(ls "$dir/log")"
ok "logrotate turns its log, and no line is lost"

# ---- a systemd of its own --------------------------------------------------------------------------------------------
code=0
# It shall not go on alone if this script is killed.
setpriv --pdeathsig TERM /usr/bin/python3 scripts/systemd/booted.py "$adit" || code=$?
case $code in
    0) ;;
    3) echo "--    not tested: the unit under a systemd of its own" ;;
    *) fail "the unit under a systemd of its own" ;;
esac
