#!/usr/bin/env python3
"""The rules of the house that the compiler does not know: who may import whom, and what `proto` may not touch.

    scripts/layers.py [ROOT]       check the sources under ROOT (default: this repository)
    scripts/layers.py --self-test  prove that planted violations are caught, and that innocent code is not

A new file is added to LAYERS below, in the row above everything that it imports. Files in a folder named like a listed
file (`proto/session/answer.rs` beside `proto/session.rs`) are parts of it: they stand in its row and may import each
other. Test modules (`#[cfg(test)]`, also in their own file), comments and strings do not count. Paths must name the module itself: an import through a re-export or of a whole
parent (`use crate::proto;`, `use super::*;`) would hide what is used, so it is an error.
"""
import re
import sys
import tempfile
from pathlib import Path

# A file imports only from rows with a smaller number. Whole numbers are the design's layers, halves steps within one.
LAYERS = """
0    proto/tick proto/unix_time proto/ring proto/target proto/reply proto/hosts proto/resolv_conf proto/guard proto/base64 proto/proxy_status
0.5  proto/tls_probe proto/failure proto/deadlines proto/body proto/users proto/credentials proto/plea proto/idle_clients
0.7  proto/fields proto/scan proto/x509 proto/logins
1    proto/head proto/response proto/rules proto/relay proto/dns proto/login_queue proto/held
1.5  proto/cache proto/servers proto/verdict
1.7  proto/lookup
2    proto/resolver proto/eyeballs proto/onward proto/pool
3    proto/session
3.5  proto/access_line
4    config
4.1  sys/clock
4.2  sys/syslog sys/files
4.5  sys/output
5    sys/stream sys/watch sys/access_log sys/names
5.2  sys/shared sys/pipes
5.5  sys/accept sys/dial sys/signals sys/name_files sys/list_files sys/logins
5.6  sys/listening sys/settings
5.8  sys/sockets
5.9  sys/check
6    sys/event_loop
6.5  sys/supervisor
7    main
"""
# Maps hold declarations only (`mod`, `pub use`), so they stand outside the layers.
MAPS = {"lib", "proto/mod", "sys/mod"}
# Roots of crates: each forbids unsafe code. (scripts/no-backtrace denies it, and says where it takes an attribute.)
ROOTS = ["src/lib.rs", "src/main.rs", "bench/src/main.rs", "scripts/build.rs"]
CRATE_NAMES = {"crate", "adit"}

SOCKET_TYPES = r"\b(TcpStream|TcpListener|UdpSocket|UnixStream|UnixListener|UnixDatagram|ToSocketAddrs)\b"
# What `proto` may not name: input and output, clocks, threads, the log.
IMPURE = [
    (r"\bmio\b", "mio"),
    (r"\bsocket2\b", "socket2"),
    (r"\brustix\b", "rustix"),
    (r"\bsignal_hook\b", "signal_hook"),
    (r"\benv_logger\b", "env_logger"),
    (r"\blog::|^log$", "log::"),
    (r"\bstd::thread\b", "std::thread"),
    (r"\bstd::(fs|env|process|os)\b", "the file system, the environment or processes"),
    (r"\bio::(stdin|stdout|stderr)\b", "a standard stream"),
    (SOCKET_TYPES, "a socket type"),
    (r"\bInstant::now\b", "Instant::now"),
    (r"\bSystemTime\b", "SystemTime"),
    (r"\b(e?print(ln)?|dbg)!", "a print macro"),
]
MAX_FILE_LINES = 500  # of code: no blank lines, no comments, no tests
MAX_FUNCTION_LINES = 60  # likewise; a warning only


def table():
    rows = [line.split() for line in LAYERS.strip().splitlines()]
    return {name: float(row[0]) for row in rows for name in row[1:]}


# ---- reading Rust ----------------------------------------------------------------------------------------------------

TOKEN = re.compile(
    r"""(?P<line>//[^\n]*)
      | (?P<block>/\*)
      | (?P<raw>\b(?:b|c)?r(?P<hash>\#*)"(?:.|\n)*?"(?P=hash))
      | (?P<str>\b(?:b|c)?"(?:\\(?:.|\n)|[^"\\])*"|"(?:\\(?:.|\n)|[^"\\])*")
      | (?P<char>\bb?'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\'\n])'|'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\'\n])')""",
    re.X,
)


def spaces(text):
    return re.sub(r"[^\n]", " ", text)


def without_comments_and_literals(text):
    out, pos = [], 0
    while match := TOKEN.search(text, pos):
        start, end = match.span()
        if match.group("block"):  # block comments nest
            depth, end = 1, start + 2
            while depth and end < len(text):
                two = text[end : end + 2]
                depth += (two == "/*") - (two == "*/")
                end += 2 if two in ("/*", "*/") else 1
        out += [text[pos:start], spaces(text[start:end])]
        pos = end
    return "".join(out) + text[pos:]


def item_end(code, pos):
    """Where the item that starts at `pos` ends: behind its `;`, or behind its balanced braces."""
    depth = 0
    for i in range(pos, len(code)):
        if code[i] in "{([":
            depth += 1
        elif code[i] in "})]":
            depth -= 1
            if depth == 0 and code[i] == "}":
                return i + 1
        elif code[i] == ";" and depth == 0:
            return i + 1
    return len(code)


def without_tests(code):
    while match := re.search(r"#\[cfg\((?:test|all\(test\b[^\]]*)\)\]", code):
        end = item_end(code, match.end())
        code = code[: match.start()] + spaces(code[match.start() : end]) + code[end:]
    return code


def expand(tree):
    """`a::{b, c::{self, d}}` -> a::b, a::c, a::c::d"""
    tree = tree.strip()
    brace = tree.find("{")
    if brace < 0:
        path = re.sub(r"\s+as\s+\w+$", "", tree)
        return [re.sub(r"\s+", "", path).removesuffix("::self")]
    head, inner = tree[:brace], tree[brace + 1 : tree.rindex("}")]
    parts, depth, start = [], 0, 0
    for i, char in enumerate(inner + ","):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append(inner[start:i])
            start = i + 1
    return [path for part in parts if part.strip() for path in expand(head + part.strip())]


def inline_modules(code):
    found = []
    for match in re.finditer(r"\bmod\s+(\w+)\s*\{", code):
        found.append((match.start(), item_end(code, match.start()), match.group(1)))
    return found


def named_paths(code):
    """All (position, path) that the code names: `use` trees spelled out, and paths inside expressions and types."""
    for match in re.finditer(r"\buse\s+([^;]+);", code):
        for path in expand(match.group(1)):
            yield match.start(), path.removeprefix("::")
    rest = re.sub(r"\buse\s+[^;]+;", lambda m: spaces(m.group()), code)
    for match in re.finditer(r"(?<![\w:$])(?:::\s*)?[A-Za-z_]\w*(?:\s*::\s*\w+)+!?|\b\w+!", rest):
        yield match.start(), re.sub(r"\s+", "", match.group()).removeprefix("::")


# ---- judging ---------------------------------------------------------------------------------------------------------


class Source:
    def __init__(self, root, path):
        self.name = str(path.relative_to(root / "src").with_suffix(""))
        self.shown = str(path.relative_to(root))
        bare = without_comments_and_literals(path.read_text())
        self.code = without_tests(bare)
        folder = "/".join(self.module_at(0))
        outlined = re.findall(r"#\[cfg\(test\)\]\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;", bare)
        self.test_files = {f"{folder}/{name}".lstrip("/") for name in outlined}

    def at(self, pos):
        return f"{self.shown}:{self.code.count(chr(10), 0, pos) + 1}"

    def module_at(self, pos):
        outer = [] if self.name in ("main", "lib") else self.name.removesuffix("/mod").split("/")
        return outer + [name for start, end, name in inline_modules(self.code) if start < pos < end]

    def absolute(self, pos, path):
        """The path from the crate's root, or None when it does not lead into this crate."""
        parts = path.rstrip("!").split("::")
        if parts[0] in CRATE_NAMES:
            return parts[1:]
        if parts[0] not in ("super", "self"):
            return None
        here = self.module_at(pos)
        while parts and parts[0] in ("super", "self"):
            if parts.pop(0) == "super":
                here = here[:-1]
        return here + parts


def module_of(parts, layers):
    """The listed file that the path lies in; a file's folder of parts counts as the file."""
    for length in range(len(parts), 0, -1):
        if "/".join(parts[:length]) in layers:
            return "/".join(parts[:length])
    return None


def import_errors(source, unit, layers):
    own = layers[unit]
    for pos, path in named_paths(source.code):
        parts = source.absolute(pos, path)
        if parts is None:
            continue
        target = module_of(parts, layers)
        if target is None:
            yield f"{source.at(pos)}: `{path}` names no file of the layer table: name the module itself"
        elif target != unit and layers[target] >= own:
            yield f"{source.at(pos)}: {unit} (layer {own:g}) imports {target} (layer {layers[target]:g})"


def purity_errors(source):
    for pos, path in named_paths(source.code):
        for pattern, what in IMPURE:
            if re.search(pattern, path):
                yield f"{source.at(pos)}: `{path}`: proto may not name {what}"
    paths = {m.span() for m in re.finditer(r"(?:\w+\s*::\s*)+\w+|\buse\s+[^;]+;", source.code)}
    for match in re.finditer(SOCKET_TYPES, source.code):  # a socket type without a path before it
        if not any(start <= match.start() < end for start, end in paths):
            yield f"{source.at(match.start())}: `{match.group()}`: proto may not name a socket type"


def map_errors(source):
    rest = re.sub(r"#!?\[[^\]]*\]|\bpub\s*\(\s*crate\s*\)|\bpub\b|\bmod\s+\w+\s*;|\buse\s+[^;]+;", "", source.code)
    if rest.strip():
        yield f"{source.shown}: a map holds only `mod` and `pub use` lines, found `{rest.split()[0]}`"


def length_findings(source):
    lines = sum(1 for line in source.code.splitlines() if line.strip())
    if lines > MAX_FILE_LINES:
        yield "error", f"{source.shown}: {lines} lines of code, at most {MAX_FILE_LINES}"
    for match in re.finditer(r"\bfn\s+(\w+)", source.code):
        body = source.code[match.start() : item_end(source.code, match.start())]
        lines = sum(1 for line in body.splitlines() if line.strip())
        if lines > MAX_FUNCTION_LINES:
            yield "warning", f"{source.at(match.start())}: fn {match.group(1)} has {lines} lines, over {MAX_FUNCTION_LINES}"


def check(root):
    """-> (errors, warnings, number of files)"""
    layers, errors, warnings = table(), [], []
    sources = [Source(root, path) for path in sorted((root / "src").rglob("*.rs"))]
    test_files = set().union(*(source.test_files for source in sources))
    for source in sources:
        if any(source.name == name or source.name.startswith(name + "/") for name in test_files):
            continue
        unit = module_of(source.name.split("/"), layers)
        if source.name in MAPS:
            errors += map_errors(source)
        elif unit is None:
            errors.append(f"{source.shown}: not in the layer table (scripts/layers.py)")
        else:
            errors += import_errors(source, unit, layers)
        if source.name.startswith("proto/"):
            errors += purity_errors(source)
        for kind, text in length_findings(source):
            (errors if kind == "error" else warnings).append(text)
    for name in ROOTS:
        path = root / name
        if path.exists() and "#![forbid(unsafe_code)]" not in path.read_text():
            errors.append(f"{name}: #![forbid(unsafe_code)] is missing")
    return errors, warnings, len(sources)


# ---- the proof -------------------------------------------------------------------------------------------------------

PLANTS = [  # file, content, what the error says (None: there must be none)
    ("proto/head", "use crate::proto::target::Target;\nuse std::net::IpAddr;", None),
    ("proto/head", "use super::{target::Target, ring};\nfn f() { ring::x(); super::tick::y() }", None),
    ("proto/head", "// mio::Poll, std::thread\n/* /* log::x */ mio */ const A: &str = \"mio::x \\\" log::y\";", None),
    ("proto/head", "const A: &[u8] = br#\"std::thread::spawn \" \"#; const C: char = '\"'; fn f<'a>(x: &'a u8) {}", None),
    ("proto/head", "#[cfg(test)]\nmod tests { use super::*; use crate::proto::session::S; use std::thread; }", None),
    ("proto/head", "mod inner { use super::Thing; use super::super::ring::Ring; } struct Thing;", None),
    ("proto/head", "const V: &str = env!(\"CARGO_PKG_VERSION\"); fn mio_like() { catalog::log_it() }", None),
    ("main", "use adit::{config, sys::event_loop::run};", None),
    ("proto/head", "use mio::Poll;", "may not name mio"),
    ("proto/head", "fn f() { ::mio::Poll::new(); }", "may not name mio"),
    ("proto/head", "use {std::fmt, socket2 as s};", "may not name socket2"),
    ("proto/head", "fn f() { log::debug!(\"x\") }", "may not name log::"),
    ("proto/head", "use log;", "may not name log::"),
    ("proto/head", "use std::{fmt, thread::{self, spawn}};", "may not name std::thread"),
    ("proto/head", "use std::net::{IpAddr, TcpStream};", "may not name a socket type"),
    ("proto/head", "fn f(s: &UdpSocket) {}", "may not name a socket type"),
    ("proto/head", "fn f(s: std::net::TcpListener) {}", "may not name a socket type"),
    ("proto/head", "fn f() { Instant :: now(); }", "may not name Instant::now"),
    ("proto/head", "use std::time::SystemTime;", "may not name SystemTime"),
    ("proto/head", "fn f() { eprintln!(\"x\") }", "may not name a print macro"),
    ("proto/head", "mod inner { fn f() { std::fs::read(p) } }", "the file system"),
    ("proto/head", "use crate::proto::session::Session;", "imports proto/session (layer 3)"),
    ("proto/head", "use crate::proto::{ring, rules::Rules};", "imports proto/rules (layer 1)"),
    ("proto/head", "use super::{ring, resolver};", "imports proto/resolver (layer 2)"),
    ("proto/head", "fn f() -> crate::config::Config { g() }", "imports config (layer 4)"),
    ("proto/head", "mod inner { use super::super::session::S; }", "imports proto/session"),
    ("proto/head", "use super::*;", "names no file of the layer table"),
    ("proto/head", "use crate::proto;", "names no file of the layer table"),
    ("proto/head", "use crate::Shortcut;", "names no file of the layer table"),
    ("config", "use crate::sys::dial;", "imports sys/dial (layer"),
    ("sys/dial", "use crate::sys::event_loop::Loop;", "imports sys/event_loop (layer 6)"),
    ("sys/dial", "use super::accept;", "imports sys/accept (layer"),
    ("sys/unheard_of", "fn f() {}", "not in the layer table"),
    ("proto/mod", "pub mod head; fn f() {}", "a map holds only"),
    ("lib", "pub mod proto;", "forbid(unsafe_code)] is missing"),
    ("proto/session/answer", "use super::{Session, words::Word}; use super::super::ring::Ring; use super::*;", None),
    ("proto/session/answer", "use crate::config::Config;", "proto/session (layer"),
    ("proto/session/answer", "fn f() { std::thread::spawn(g); }", "may not name std::thread"),
    ("proto/session/answer", "fn f() { super::super::super::sys::dial::x() }", "imports sys/dial"),
    ("proto/session/tests", "use super::*; use std::thread; use crate::config::C;", None),
    ("proto/session/tests/more", "use super::*; use std::thread;\n" + "fn f() {}\n" * (MAX_FILE_LINES + 1), None),
    ("proto/ring", "fn f() {}\n" * (MAX_FILE_LINES + 1), "lines of code"),
]


def self_test():
    failed = 0
    for name, content, expected in PLANTS:
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            start = {"lib": "#![forbid(unsafe_code)]\npub mod proto;", "main": "#![forbid(unsafe_code)]\n", "proto/mod": "pub mod head;"}
            start["proto/session"] = "mod answer;\n#[cfg(test)]\nmod tests;"
            content = "#![forbid(unsafe_code)]\n" + content if name == "main" else content
            for file, text in (start | {name: content}).items():
                path = root / "src" / f"{file}.rs"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            errors, _, _ = check(root)
        good = not errors if expected is None else any(expected in error for error in errors)
        if not good:
            failed += 1
            print(f"self-test: {name}: {content[:70]!r}: expected {expected!r}, got {errors}", file=sys.stderr)
    print(f"{len(PLANTS) - failed} passed, {failed} failed")
    return 1 if failed else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    errors, warnings, files = check(root)
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr)
    for text in errors:
        print(f"error: {text}", file=sys.stderr)
    print(f"{files} files, {len(errors)} errors, {len(warnings)} warnings")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
