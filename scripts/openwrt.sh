#!/usr/bin/env bash
# What can be known about the OpenWrt package without an OpenWrt tree.
#
#   scripts/openwrt.sh              # the release binary; ADIT=BINARY takes another
#
# - the init script, under dash and under busybox's ash, makes of /etc/config/adit a configuration file that says every option
#   of `adit --help` with every value as it was, and that the real `adit --check-config` accepts; what cannot be said starts
#   nothing and leaves alone what runs;
# - make reads the package's Makefile, and its rules put the files where they belong.
#
# procd and UCI are stood in for by shell functions here. Installs what it needs (Debian).
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v busybox >/dev/null || missing+=(busybox)
command -v dash >/dev/null || missing+=(dash)
command -v make >/dev/null || missing+=(make)
if [ ${#missing[@]} -gt 0 ]; then
    sudo=''
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
fi
if [ -z "${ADIT:-}" ]; then
    cargo build --release --locked -p adit
    ADIT=${CARGO_TARGET_DIR:-target}/release/adit
fi
adit=$(realpath "$ADIT")
package=$PWD/scripts/openwrt/adit

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
ok() { echo "ok    $*"; }
fail() { echo "FAIL  $*"; exit 1; }

# ---- the init script -------------------------------------------------------------------------------------------------
# A file of /etc/config is what `uci export` prints: shell words. config_list_foreach and config_get_bool do as those of
# OpenWrt's functions.sh do.
cat >"$dir/stand-ins.sh" <<'EOF'
config() { section=$2; }
option() { eval "value_${section}_$1=\$2"; }
list() {
    config_get count "$section" "$1_LENGTH" 0
    option "$1_LENGTH" $((count + 1))
    option "$1_ITEM$((count + 1))" "$2"
}
config_load() { . "$CONFIG_DIR/$1"; }
config_get() { eval "$1=\${value_$2_$3:-\${4:-}}"; }
config_get_bool() {
    config_get "$1" "$2" "$3" "$4"
    eval "case \$$1 in 1 | on | true | yes | enabled) $1=1 ;; 0 | off | false | no | disabled) $1=0 ;; *) $1=$4 ;; esac"
}
config_list_foreach() {
    local section=$1 option=$2 function=$3 nth=0 count item
    shift 3
    config_get count "$section" "${option}_LENGTH" 0 # a plain option has none
    while [ "$nth" -lt "$count" ]; do
        nth=$((nth + 1))
        config_get item "$section" "${option}_ITEM$nth"
        "$function" "$item" "$@"
    done
}
for call in open_instance close_instance set_param append_param add_reload_trigger; do
    eval "procd_$call() { printf '%s' $call >>\"\$SAID\"; printf ' <%s>' \"\$@\" >>\"\$SAID\"; echo >>\"\$SAID\"; }"
done
logger() { printf '%s\n' "$*" >>"$SAID.log"; }
. "$INIT"
start_service || echo "start_service: $?" >>"$SAID"
service_triggers
EOF

run() { # SHELL: start_service with the section in $dir/adit
    rm -f "$dir/said" "$dir/said.log"
    # shellcheck disable=SC2086
    CONFIG_DIR=$dir SAID=$dir/said INIT=$package/files/adit.init ADIT_PROG=$adit ADIT_CONF=$dir/run/adit.conf \
        $1 "$dir/stand-ins.sh" 2>"$dir/complaints" || fail "$1: $(cat "$dir/complaints")"
}
section() { printf "config adit 'main'\n\toption enabled '1'\n%s\n" "$1" >"$dir/adit"; }
said() { grep -qxF -- "$1" "$dir/said" || fail "$shell: the script did not say $1: $(cat "$dir/said")"; }
conf() { grep -qxF -- "$1" "$dir/run/adit.conf" || fail "$shell: no line $1 in $(cat "$dir/run/adit.conf")"; }

# Every option that makes sense in a file, once, with a value that is a fine one, but for those that need a file.
printf 'x:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n' >"$dir/a users' file"
echo '.listed.example' >"$dir/a list"
echo '192.0.2.1 a.example' >"$dir/hosts"
declare -A value=(
    [listen]='[::1]:8080' [loops]=2 [client]=192.0.2.0/24 [users]="$dir/a users' file" [allow]='* user x'
    [deny]='.example.com:8000-8999 from 192.168.1.64/26' [allow-file]="$dir/a list" [deny-file]="$dir/a list"
    [default]=deny [connect-port]=443,8443 [http-port]=any [nameserver]='[2001:db8::1]:53' [hosts]="$dir/hosts" [family]=4
    [bind]=192.0.2.1 [max-sessions]=100 [max-sessions-per-client]=10 [buffer-memory]=16M [access-log]="$dir/log \$HOME \`x\` \"y\" \\z;&|*"
    [log-format]=json [via]='a!b~c'
)
quoted() { printf "'%s'" "${1//\'/\'\\\'\'}"; }
options=$("$adit" --help | sed '/^adit check:/,$d' | grep -oE -- '--[a-z][a-z-]*' | sed 's/^--//' | sort -u |
    grep -vxE 'config|check-config|help|version|tls|through')
all=
for option in $options; do
    case $option in
        listen | client | allow | deny | allow-file | deny-file | nameserver | bind) kind=list ;;
        *) kind=option ;;
    esac
    case $option in
        forwarded | verbose | quiet) is=1 ;;
        grace | *-timeout) is=${value[$option]:-7} ;;
        *) is=${value[$option]:?no value to try for --$option} ;;
    esac
    all+=$(printf '\n\t%s %s %s' $kind "${option//-/_}" "$(quoted "$is")")
done

for shell in dash "busybox ash"; do
    rm -rf "$dir/run"
    section "$all"
    run "$shell"
    [ ! -s "$dir/complaints" ] || fail "$shell: $(cat "$dir/complaints")"
    for option in $options; do
        case $option in
            forwarded | verbose | quiet) conf "$option" ;;
            grace | *-timeout) conf "$option 7" ;;
            *) conf "$option ${value[$option]}" ;;
        esac
    done
    [ "$(grep -vc '^#' "$dir/run/adit.conf")" = "$(wc -w <<<"$options")" ] || fail "$shell: other lines: $(cat "$dir/run/adit.conf")"
    [ "$("$adit" --config "$dir/run/adit.conf" --check-config 2>/dev/null)" = ok ] || fail "$shell: the file is not fine"
    said "set_param <command> <$adit> <--config> <$dir/run/adit.conf>"
    said "append_param <file> <$dir/a users' file>"
    said "append_param <file> <$dir/a list>"
    said "set_param <reload_signal> <HUP>"
    said "set_param <respawn> <3600> <5> <0>"
    said "set_param <term_timeout> <12>"
    said "set_param <no_new_privs> <1>"
    said "add_reload_trigger <adit>"
    ok "$shell: $(wc -w <<<"$options") options reach the proxy with their values as they were"

    section "	list listen '127.0.0.1:1'
	list listen '127.0.0.1:2'
	list deny 'a.example'
	list deny 'b.example from 10.0.0.0/8'
	option client '10.0.0.0/8'
	option verbose '3'
	option forwarded 'off'"
    run "$shell"
    [ "$(grep -v '^#' "$dir/run/adit.conf")" = "listen 127.0.0.1:1
listen 127.0.0.1:2
client 10.0.0.0/8
deny a.example
deny b.example from 10.0.0.0/8
verbose
verbose
verbose" ] || fail "$shell: $(cat "$dir/run/adit.conf")"
    ok "$shell: lists, counts and flags"

    # What is wrong leaves the file of whoever runs alone; without one, nothing is started.
    cp "$dir/run/adit.conf" "$dir/before"
    line_end=$'\n'
    for wrong in "option grace 'soon'" "list deny 'a # b'" "list deny '#a'" "list allow 'a${line_end}default allow'" \
        "option verbose 'x'" "list allow_file '/nowhere'" "option via 'a b'"; do
        section "	$wrong"
        run "$shell"
        cmp -s "$dir/run/adit.conf" "$dir/before" || fail "$shell: $wrong was taken"
        said "set_param <command> <$adit> <--config> <$dir/run/adit.conf>"
        [ -s "$dir/said.log" ] || fail "$shell: nobody was told of $wrong"
        rm "$dir/run/adit.conf"
        run "$shell"
        said "start_service: 1"
        ! grep -q open_instance "$dir/said" || fail "$shell: $wrong was started"
        cp "$dir/before" "$dir/run/adit.conf"
    done
    ok "$shell: what is wrong is told, and changes nothing"

    cp "$package/files/adit.config" "$dir/adit"
    run "$shell"
    ! grep -q open_instance "$dir/said" || fail "$shell: the package's file starts the proxy"
    sed "s/enabled '0'/enabled '1'/" "$package/files/adit.config" >"$dir/adit"
    run "$shell"
    said "set_param <command> <$adit> <--config> <$dir/run/adit.conf>"
    conf "listen 192.168.1.1:8080"
    sed "s/enabled '0'/enabled '1'/; s/^\t#\(option\|list\) /\t\1 /; s#'/etc/adit/users'#'$dir/a users'\\\\''  file'#; s#'/etc/adit/blocklist'#'$dir/a list'#" \
        "$package/files/adit.config" | sed "s#  file'# file'#" >"$dir/adit"
    run "$shell"
    [ ! -s "$dir/complaints" ] || fail "$shell: the commented lines of the package's file: $(cat "$dir/complaints")"
    conf "connect-port 443,8443"
    ok "$shell: the package's /etc/config/adit is fine, with its commented lines, too"
done

# ---- the Makefile ----------------------------------------------------------------------------------------------------
# Of OpenWrt's rules only what this package uses.
mkdir -p "$dir/top/include" "$dir/top/feeds/packages/lang/rust" "$dir/bin" "$dir/top/feeds/adit"
cat >"$dir/top/rules.mk" <<'EOF'
INCLUDE_DIR:=$(TOPDIR)/include
BUILD_DIR:=$(TOPDIR)/build
INSTALL_DIR:=install -d -m0755
INSTALL_BIN:=install -m0755
INSTALL_CONF:=install -m0600
CP:=cp -fpR
EOF
cat >"$dir/top/include/package.mk" <<'EOF'
PKG_BUILD_DIR?=$(BUILD_DIR)/$(PKG_NAME)-$(PKG_VERSION)
PKG_INSTALL_DIR?=$(PKG_BUILD_DIR)/ipkg-install
define BuildPackage
  $(eval $(call Package/$(1)))
  all:
	$(call Build/Prepare)
	$(INSTALL_DIR) $(PKG_INSTALL_DIR)/bin && cp $(ADIT) $(PKG_INSTALL_DIR)/bin/adit
	$(call Package/$(1)/install,$(TOPDIR)/root)
	@echo '$(TITLE)|$(SECTION)|$(CATEGORY)|$(DEPENDS)|$(USERID)|$(PKG_VERSION)|$(strip $(Package/$(1)/conffiles))'
endef
EOF
echo 'define RustBinPackage
endef
RUST_ARCH_DEPENDS:=@(aarch64||arm||mipsel||x86_64)' >"$dir/top/feeds/packages/lang/rust/rust-package.mk"
# As feeds are: by way of symbolic links.
ln -s "$package" "$dir/top/feeds/adit/adit"
facts=$(cd "$dir/top/feeds/adit/adit" && make --warn-undefined-variables -s TOPDIR="$dir/top" ADIT="$adit" all 2>"$dir/complaints") ||
    fail "make: $(cat "$dir/complaints")"
! grep -v 'undefined variable .\(TITLE\|DEPENDS\)' "$dir/complaints" | grep . || fail "make complains"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
[ "$facts" = "Small, strict HTTP forward proxy|net|Network|@(aarch64||arm||mipsel||x86_64)|adit:adit|$version|/etc/config/adit /etc/adit/" ] ||
    fail "the Makefile says $facts"
installed=$(cd "$dir/top/root" && find . -type f -printf '%m %P\n' | sort -k2)
[ "$installed" = "600 etc/config/adit
755 etc/init.d/adit
755 usr/sbin/adit" ] || fail "installed: $installed"
"$dir/top/root/usr/sbin/adit" --version | grep -q " $version\$" || fail "another version than $version"
(cd "$dir/top/build/adit-$version" && cargo metadata --locked --offline --no-deps --format-version 1 >/dev/null) || fail "cargo cannot build from the copy"
ok "make: version $version, files in their places"
