# Sourced by clients.sh: the rows for programs that read the access log. The same requests go through proxies that write in
# different formats, and through Squid itself.
# shellcheck shell=bash disable=SC2154 # what clients.sh has set is read here

reads() { # PROGRAM WHAT COMMAND...: the command must succeed
    (set -e; "${@:3}") >"$work/row.log" 2>&1 </dev/null
    local code=$?
    if [ $code -eq 0 ]; then
        passed=$((passed + 1))
        row "$1" "$2" ok
        return
    fi
    failed=$((failed + 1))
    row "$1" "$2" "FAILED (code $code)"
    sed 's/^/    /' "$work/row.log"
}

requests() { # eleven, of every kind; what they answer is the other rows' business
    local url
    for url in "small" "nothing" "part1"; do curl_ -o /dev/null "http://origin.test:$plain/$url"; done
    curl_ -o /dev/null -X POST -d a=b "http://origin.test:$plain/small"
    curl_ -o /dev/null -I "http://other.test:$plain/small"
    curl_ -o /dev/null "https://origin.test:$tls/small"
    curl_ -o /dev/null "http://denied.test:$plain/small"
    curl_ -o /dev/null "https://denied.test:$tls/small"
    curl_ -o /dev/null "http://origin.test:$closed/"
    curl_ -o /dev/null "https://origin.test:$closed/"
    # Leaves while it waits for the answer.
    curl_ -o /dev/null -m 0.5 "http://origin.test:$silent/"
} 2>/dev/null

start_silent() { # takes connections, and that is all
    python3 -c 'import signal, socket, sys; s = socket.create_server(("127.0.0.1", int(sys.argv[1]))); signal.pause()' "$silent" &
    pids+=($!)
    wait_for_port "$silent" silent
}

nonsense() { printf 'nonsense\r\n\r\n' | t nc.openbsd -N "${proxy%:*}" "${proxy##*:}" >/dev/null; }

written() { # NAME OPTIONS...: the requests through a proxy with these options; sets access
    start_proxy "$1" --hosts "$work/hosts" --deny denied.test "${@:2}"
    requests
    nonsense
    kill -TERM "$proxy_pid"
    wait "$proxy_pid"
}

# The service's name keeps it apart from any other Squid on this machine. It leaves root by itself.
start_squid() {
    mkdir -p "$work/squid"
    cat >"$work/squid.conf" <<CONF
http_port 127.0.0.1:$squid
acl denied dstdomain denied.test
http_access deny denied
http_access allow all
access_log stdio:$work/squid/access.log squid
cache deny all
cache_store_log none
cache_log $work/squid/cache.log
coredump_dir $work/squid
pid_filename none
netdb_filename none
pinger_enable off
hosts_file $work/hosts
visible_hostname squid.test
shutdown_lifetime 0 seconds
CONF
    if [ "$(id -u)" = 0 ]; then
        chmod 711 "$work"
        chown proxy "$work/squid"
    fi
    PATH=$PATH:/usr/sbin squid -n "adit$$" -N -f "$work/squid.conf" 2>"$work/squid.err" &
    squid_pid=$!
    pids+=("$squid_pid")
    wait_for_port "$squid" squid
}

written_by_squid() {
    start_squid
    proxy=127.0.0.1:$squid
    requests
    nonsense
    kill -TERM "$squid_pid"
    wait "$squid_pid"
}

# Lines without what differs from run to run (time, duration, size), what we do not tell (content type), and what we do otherwise:
# Squid says 503 where we say 502, names the method of what is no request, and notes connections without a request.
shapes() { # FILE
    sed -E 's/^[0-9]{10}\.[0-9]{3} {1,6}[0-9]+ /TIME MS /; s/ [0-9]+ ([^ ]+ [^ ]+ [^ ]+ HIER)/ SIZE \1/; s/ [^ ]+$/ TYPE/; s#/50[0-9] #/50x #
        s/ [^ ]+ error:invalid-request/ - error:invalid-request/; /transaction-end-before-headers/d' "$1" | sort
}
squid_same() {
    shapes "$work/squid/access.log" >"$work/squid.shapes"
    shapes "$work/log-squid.access" >"$work/own.shapes"
    [ "$(wc -l <"$work/own.shapes")" -eq 12 ] || { cat "$work/log-squid.access"; return 1; }
    diff "$work/squid.shapes" "$work/own.shapes"
}

# Without the line that has no method and the one that has no status: goaccess wants both.
goaccess_reads() { # FILE OPTIONS...: ten requests are understood, and counted by their status
    local seen
    grep -v 'error:invalid-request\|/000 ' "$1" >"$work/goaccess.log"
    goaccess "$work/goaccess.log" --no-global-config --no-progress -o "$work/goaccess.json" "${@:2}"
    jq -e '.general.valid_requests == 10 and .general.failed_requests == 0' "$work/goaccess.json" || { jq .general "$work/goaccess.json"; return 1; }
    seen=$(jq -r '.status_codes.data[].items[] | "\(.data[:3]) \(.hits.count)"' "$work/goaccess.json" | sort | xargs)
    [ "$seen" = "200 4 403 2 404 1 405 1 502 2" ] || { echo "statuses and their counts: $seen"; return 1; }
}
goaccess_file() {
    goaccess_reads "$work/log-squid.access" --log-format='%x.%^ %~%L %h %^/%s %b %m %U' --datetime-format=%s --date-format=%s --time-format=%s
}
goaccess_syslog() { # what it calls SQUID is that format behind the frame of a syslog file
    sed 's/^/Nov 20 15:04:05 box adit[7]: /' "$work/log-squid.access" >"$work/log-squid.syslog"
    goaccess_reads "$work/log-squid.syslog" --log-format=SQUID
}
calamaris_reads() {
    calamaris <"$work/log-squid.access" >"$work/out"
    grep -E '^lines parsed: +lines +12 *$' "$work/out" && grep -E '^invalid lines: +lines +0 *$' "$work/out"
}

json_python() {
    python3 - "$work/log-json.access" "$work/log-adit.access" <<'PY'
import json, sys
records = [json.loads(line) for line in open(sys.argv[1])]
assert len(records) == 12 and len({tuple(record) for record in records}) == 1, records
numbers = ("client_port", "up", "down", "total")
assert all(type(record[key]) is int for record in records for key in numbers), records
assert all(record[key] is None or type(record[key]) is int for record in records for key in ("status", "via_port", "dns", "dial"))
told = sorted((r["method"] or "-", r["target"] or "-", str(r["status"] or "-"), r["rule"] or "-", r["end"]) for r in records)
lines = (line.split() for line in open(sys.argv[2]))
wanted = sorted((w[3], w[4], w[5], w[7].removeprefix("rule="), w[13].removeprefix("end=")) for w in lines)
assert told == wanted, (told, wanted)
PY
}
json_jq() { [ "$(jq -r 'select(.status == 403) | .rule' "$work/log-json.access" | sort | uniq -c | xargs)" = "2 deny:denied.test" ]; }

# ---- fail2ban --------------------------------------------------------------------------------------------------------

readme_filter() { # NAME: the filter of that name, as the README has it
    mkdir -p "$work/filter.d"
    cp /etc/fail2ban/filter.d/common.conf "$work/filter.d/"
    awk -v head="# /etc/fail2ban/filter.d/$1.conf" '$0 == head { on = 1 } /^```/ { on = 0 } on' README.md >"$work/filter.d/$1.conf"
    [ -s "$work/filter.d/$1.conf" ]
}
banned() { # FILTER LOG WANTED...: whom it would count, in order. The machine's own time zone must not matter.
    local zone seen
    readme_filter "$1"
    for zone in UTC America/New_York; do
        seen=$(TZ=$zone fail2ban-regex --out ip "$2" "$work/filter.d/$1.conf")
        [ "$(xargs <<<"$seen")" = "${*:3}" ] || { echo "$zone: $seen"; TZ=$zone fail2ban-regex -v "$2" "$work/filter.d/$1.conf"; return 1; }
    done
}
# Written by hand, as no IPv6 network is needed then: two wrong logins, one request without credentials, one that tries to look
# like a wrong login, and an origin's own 407.
sample() { # FORMAT
    case $1 in
        adit) cat <<'LINES' ;;
2026-11-20T15:04:05.123Z 192.0.2.3:53122 - CONNECT example.org:443 407 via=- rule=users:wrong up=0 down=413 dns=- dial=- total=1234567 end=http_request_denied
2026-11-20T15:04:05.124Z [2001:db8::1]:53122 - GET http://example.org/ 407 via=- rule=users:wrong up=0 down=413 dns=- dial=- total=0 end=http_request_denied
2026-11-20T15:04:05.125Z 192.0.2.4:53122 - CONNECT example.org:443 407 via=- rule=users up=0 down=413 dns=- dial=- total=0 end=http_request_denied
2026-11-20T15:04:05.126Z 192.0.2.5:53122 - GET http://a.test/192.0.2.9:1/407/via=-/rule=users:wrong 407 via=- rule=users up=0 down=413 dns=- dial=- total=0 end=http_request_denied
2026-11-20T15:04:05.127Z 192.0.2.6:53122 alice GET http://a.test/rule=users:wrong 407 via=198.51.100.1:80 rule=default up=99 down=413 dns=- dial=1 total=2 end=done
LINES
        squid) cat <<'LINES' ;;
1795187045.123 1234567 192.0.2.3 TCP_DENIED/407 413 CONNECT example.org:443 ? HIER_NONE/- -
1795187045.124      0 2001:db8::1 TCP_DENIED/407 413 GET http://example.org/ ? HIER_NONE/- -
1795187045.125      0 192.0.2.4 TCP_DENIED/407 413 CONNECT example.org:443 - HIER_NONE/- -
1795187045.126      0 192.0.2.5 TCP_DENIED/407 413 GET http://a.test/TCP_DENIED/407/?/HIER_NONE - HIER_NONE/- -
1795187045.127      2 192.0.2.6 TCP_MISS/407 413 GET http://a.test/ alice HIER_DIRECT/198.51.100.1 -
LINES
    esac
}
sample_banned() { # FORMAT FILTER
    sample "$1" >"$work/sample"
    banned "$2" "$work/sample" 192.0.2.3 2001:db8::1
}
syslog_banned() {
    sample adit | sed 's/^/Nov 20 15:04:05 box adit[7]: /' >"$work/sample"
    banned adit-syslog "$work/sample" 192.0.2.3 2001:db8::1
}

# Once without credentials, as every client begins; twice with wrong ones; once with right ones.
logins() { # FORMAT
    local credentials
    printf 'alice:{SHA}%s\n' "$(printf secret | openssl dgst -sha1 -binary | base64)" >"$work/users"
    start_proxy "logins-$1" --hosts "$work/hosts" --users "$work/users" --log-format "$1"
    for credentials in '' alice:wrong mallory:secret alice:secret; do
        curl_ -o /dev/null -w '%{http_code}\n' ${credentials:+-U "$credentials"} "http://origin.test:$plain/small"
    done >"$work/logins-$1.statuses"
    kill -TERM "$proxy_pid"
    wait "$proxy_pid"
}
logins_banned() { # FORMAT FILTER
    [ "$(xargs <"$work/logins-$1.statuses")" = "407 407 407 200" ] || { cat "$work/logins-$1.statuses" "$work/logins-$1.access"; return 1; }
    banned "$2" "$work/logins-$1.access" 127.0.0.1 127.0.0.1
}

log_rows() {
    start_silent
    written log-squid --log-format squid
    written log-json --log-format json
    written log-adit
    written_by_squid
    reads squid "the same requests, the same lines as its own" squid_same
    reads goaccess "--log-format squid, a file" goaccess_file
    reads goaccess "--log-format squid, through syslog" goaccess_syslog
    reads calamaris "--log-format squid" calamaris_reads
    reads python "--log-format json: the facts of the adit format" json_python
    reads jq "--log-format json" json_jq
    reads fail2ban "who tried wrong credentials" sample_banned adit adit
    reads fail2ban "who tried wrong credentials, --log-format squid" sample_banned squid adit-squid
    reads fail2ban "who tried wrong credentials, through syslog" syslog_banned
    logins adit
    logins squid
    reads fail2ban "curl's logins, two of them wrong" logins_banned adit adit
    reads fail2ban "curl's logins, --log-format squid" logins_banned squid adit-squid
}
