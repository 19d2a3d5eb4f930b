#!/usr/bin/env bash
# Builds fully static binaries for routers, for size above all, runs each (under qemu-user where it is for another machine),
# and says which could not be built, and why.
#
#   scripts/build-tiny.sh                    # all that can be had
#   scripts/build-tiny.sh x86_64 mipsel      # these; fails if one of them does: x86_64 aarch64 armv7 mipsel
#
# It also fails when the one for x86_64, built on such a machine, is larger than the limits below.
#
# They are target/tiny/adit-x86_64 and so on. FEATURES="users-sha2" takes the place of the default features; FEATURES= is none.
# The toolchain: the standard library is compiled anew, so its sources are needed. If those of the rustc in the path are not
# there (rustup component add rust-src), Debian's packages rustc-web and rust-web-src are taken, unpacked in target/tiny and not
# installed. The C library is the musl of the Python package ziglang, whose compiler links (ZIG=/path/to/zig: another one).
# On Debian what else is needed gets installed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

ALL="x86_64 aarch64 armv7 mipsel"
ZIGLANG=0.15.2 # later ones have a memory allocator of their own in musl's place
# What holds, for x86_64; the aim for the binary is 320.
MAX_BINARY_KIB=430
MAX_RESIDENT_KIB=500

mkdir -p "${CARGO_TARGET_DIR:-target}/tiny"
out=$(cd "${CARGO_TARGET_DIR:-target}/tiny" && pwd)
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
features=()
[ -z "${FEATURES+set}" ] || features=(--no-default-features --features "$FEATURES")

has_std_sources() { # RUSTC
    [ -f "$("$1" --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ] &&
        RUSTC_BOOTSTRAP=1 "$1" -Zunstable-options -Cpanic=immediate-abort --print cfg >/dev/null
}

debian_package() { # PACKAGE...: installed
    command -v apt-get >/dev/null || { echo "not Debian: install $*"; return 1; }
    dpkg -s "$@" >/dev/null 2>&1 && return
    $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@"
}

debian_rust() { # unpacked, because it cannot be installed beside rustup's or Debian's own rustc
    local root=$out/rustc-web std llvm
    command -v apt-get >/dev/null || { echo "not Debian, and no sources of std: rustup component add rust-src"; return 1; }
    [ -n "$(apt-cache show rust-web-src 2>/dev/null)" ] || $sudo apt-get update -qq
    std=$(apt-cache depends libstd-rust-web-dev | grep -oE 'libstd-rust-web-[0-9][0-9.]*' | head -1)
    [ -n "$std" ] || { echo "this Debian has no rustc-web, and there are no sources of std: rustup component add rust-src"; return 1; }
    llvm=$(apt-cache depends "$std" | grep -oE 'libllvm[0-9]+' | head -1)
    debian_package "$llvm" || return 1
    rm -rf "$root" && mkdir -p "$root/debs" || return 1
    (cd "$root/debs" && apt-get -o APT::Sandbox::User=root download -qq rustc-web libstd-rust-web-dev "$std" rust-web-src) || return 1
    for package in "$root"/debs/*.deb; do dpkg -x "$package" "$root" || return 1; done
    rm -rf "$root/debs"
    # The compiler looks for its library in the system's folders.
    cat >"$root/rustc" <<END || return 1
#!/bin/sh
root='$root'
LD_LIBRARY_PATH=\$(echo "\$root"/usr/lib/*-linux-gnu) exec "\$root/usr/bin/rustc" "\$@"
END
    chmod +x "$root/rustc"
}

rust() {
    if has_std_sources rustc 2>/dev/null; then
        rustc=rustc
        return
    fi
    rustc=$out/rustc-web/rustc
    has_std_sources "$rustc" 2>/dev/null && return
    debian_rust && has_std_sources "$rustc"
}

zig() {
    zig=${ZIG:-$out/ziglang-$ZIGLANG/ziglang/zig}
    if [ -z "${ZIG:-}" ] && [ ! -x "$zig" ]; then
        python3 -m pip --version >/dev/null 2>&1 || debian_package python3-pip || return 1
        python3 -m pip install --quiet --no-deps --target "$out/ziglang-$ZIGLANG" "ziglang==$ZIGLANG" || return 1
    fi
    export ZIG_GLOBAL_CACHE_DIR=$out/zig-cache ZIG_LOCAL_CACHE_DIR=$out/zig-cache
    "$zig" version
}

describe() { # NAME: what rustc and zig call it, and which emulator runs it
    flags=()
    case $1 in
        x86_64) triple=x86_64-unknown-linux-musl cc=(-target x86_64-linux-musl) emulator=qemu-x86_64
            # Not the default on this one: 4 KiB.
            flags=(-Cllvm-args=-enable-machine-outliner=always) ;;
        aarch64) triple=aarch64-unknown-linux-musl cc=(-target aarch64-linux-musl) emulator=qemu-aarch64 ;;
        # Thumb-2 is a quarter smaller.
        armv7) triple=armv7-unknown-linux-musleabihf cc=(-target arm-linux-musleabihf -mcpu=generic+v7a+vfp3d16-d32-neon)
            emulator=qemu-arm flags=(-Ctarget-feature=+thumb-mode) ;;
        mipsel) triple=mipsel-unknown-linux-musl cc=(-target mipsel-linux-musleabi -mcpu=mips32r2+soft_float) emulator=qemu-mipsel ;;
        *) return 1 ;;
    esac
}

linker() { # NAME: one that leaves out of the C library what nobody uses
    local dir=$out/link-$1
    mkdir -p "$dir" || return 1
    # musl's writes the path of a file in /proc, for threads other than the caller's: that brings all of printf, 11 KiB. The
    # standard library names no other thread than the running one.
    cat >"$dir/setname.c" <<'END' || return 1
#include <pthread.h>
#include <sys/prctl.h>
int pthread_setname_np(pthread_t self, const char *name) { (void)self; return prctl(PR_SET_NAME, name); }
END
    "$zig" cc "${cc[@]}" -Os -fno-unwind-tables -fno-asynchronous-unwind-tables -c "$dir/setname.c" -o "$dir/setname.o" || return 1
    {
        echo '#!/bin/sh'
        echo "exec '$zig' cc ${cc[*]} \"\$@\" '$dir/setname.o' -Wl,-T,'$PWD/scripts/link.ld' \\"
        echo "    -fno-unwind-tables -fno-asynchronous-unwind-tables"
    } >"$dir/cc"
    chmod +x "$dir/cc"
}

build() { # NAME
    local variable
    linker "$1" || return 1
    # A panic aborts where it happens and writes nothing: no code for its message, for places in the source, or for unwinding.
    # The position is fixed: a table of 10 KiB less. `{:?}` of our own types, which only -v -v shows, gives their name alone.
    flags+=(-Zunstable-options -Cpanic=immediate-abort -Zlocation-detail=none -Zfmt-debug=shallow -Cforce-unwind-tables=no
        -Crelocation-model=static -Clink-self-contained=no -Cllvm-args=-min-jump-table-entries=8)
    variable=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$triple")
    # RUSTC_BOOTSTRAP: a stable compiler takes unstable flags, as it does when it compiles its own standard library.
    env "${variable}_LINKER=$out/link-$1/cc" "${variable}_RUSTFLAGS=${flags[*]}" RUSTC="$rustc" RUSTC_BOOTSTRAP=1 \
        CARGO_TARGET_DIR="$out/build" cargo build --locked -p adit --profile tiny --target "$triple" "${features[@]}" \
        -Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size || return 1
    cp "$out/build/$triple/tiny/adit" "$out/adit-$1"
}

try() { # NAME: a row of the table
    local log=$out/$1.log run=() bytes ran
    printf '%-8s ' "$1"
    rm -f "$out/adit-$1"
    describe "$1" || { echo "not built: one of $ALL is meant"; return 1; }
    [ -z "$missing" ] || { echo "not built: $missing"; return 1; }
    if ! build "$1" >"$log" 2>&1; then
        echo "not built: $(grep -m1 -E '^error' "$log" || tail -1 "$log") (see $log)"
        return 1
    fi
    bytes=$(stat -c %s "$out/adit-$1")
    printf '%7d bytes, %3d KiB: ' "$bytes" $(((bytes + 1023) / 1024))
    if readelf -lW "$out/adit-$1" | grep -qE 'INTERP|DYNAMIC'; then
        echo "not static"
        return 1
    fi
    if [ "$1" != "$(uname -m)" ]; then
        if ! command -v $emulator >/dev/null && ! debian_package qemu-user >"$log" 2>&1; then
            echo "built and not run: no $emulator (see $log)"
            return 1
        fi
        run=("$emulator")
    fi
    ran=$(scripts/tiny-run.py "${run[@]}" "$out/adit-$1" 2>&1) || { echo "built, does not run: $(tail -1 <<<"$ran")"; return 1; }
    echo "$ran${run[*]:+ under ${run[*]}}"
}

missing=
rust >"$out/rust.log" 2>&1 || missing="no rustc with the sources of its std: $(tail -1 "$out/rust.log")"
zig >"$out/zig.log" 2>&1 || missing="${missing:+$missing; }no C library: $(tail -1 "$out/zig.log")"
[ -n "$missing" ] || echo "$("$rustc" --version), zig $("$zig" version)"

code=0
names=${*:-$ALL}
for name in $names; do try "$name" || [ $# -eq 0 ] || code=1; done
native=$(uname -m)
if [ "$native" = x86_64 ] && [[ " $names " == *" $native "* ]] && [ -x "$out/adit-$native" ]; then
    scripts/footprint.sh "$out/adit-$native" $MAX_BINARY_KIB $MAX_RESIDENT_KIB >"$out/footprint" || code=1
    grep -v '^note: ' "$out/footprint"
fi
exit $code
