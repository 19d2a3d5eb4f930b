#!/usr/bin/env python3
"""Plants known bugs, one at a time, in a copy of the source and checks that the simulation (tests/sim.rs) finds each.

A simulation that finds nothing proves little unless it is known to find what is there. Run by scripts/check.sh; a bug
whose place in the source has changed must be planted anew here.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# What the bug does to the proxy, file, the right code, the wrong code.
BUGS = [
    (
        "a short read hides the end that came with it",
        "src/proto/relay.rs",
        "if count < offered && !from.read_closed && !from.urgent {",
        "if count < offered && !from.urgent {",
    ),
    (
        "a socket that is read empty is taken for a full one",
        "src/proto/session/tunnel.rs",
        "Outcome::Blocked => ready.readable = false,",
        "Outcome::Blocked => (ready.readable, ready.writable) = (false, false),",
    ),
    (
        "readiness that comes while the session waits is forgotten",
        "src/proto/relay.rs",
        "self.readable |= news.readable;",
        "self.readable = news.readable && !self.readable;",
    ),
    (
        "a partial write is not accounted for",
        "src/proto/ring.rs",
        "((self.start as usize + count) % RING_BYTES) as u32",
        "self.start",
    ),
    (
        "who waits for storage is told for one direction only",
        "src/proto/session.rs",
        "self.down.starved = false;",
        "",
    ),
    (
        "an address is dialed without being judged",
        "src/proto/session/opening.rs",
        "Verdict::Deny(refusal, rule) => eyeballs.note_denied(refusal, rule),",
        "Verdict::Deny(_, rule) => eyeballs.begin(SocketAddr::new(address, target.port), rule, now),",
    ),
    (
        "the last cause wins instead of the first",
        "src/proto/session.rs",
        "self.end.get_or_insert(reason);",
        "self.end = Some(reason);",
    ),
    (
        "a client that leaves is not noticed",
        "src/proto/session.rs",
        "self.client_ready.add(news);\n        self.arm_client_left(now);",
        "self.client_ready.add(news);",
    ),
    (
        "a new state keeps the old deadline",
        "src/proto/session.rs",
        "self.deadline = now.after(timeout_ms);",
        "",
    ),
    (
        "an end is never passed on",
        "src/proto/relay.rs",
        "(Sink::Open, Source::Ended) => Move::ShutdownWrite,",
        "(Sink::Open, Source::Ended) => Move::Nothing,",
    ),
    (
        "a reset is not noticed while nothing is read",
        "src/proto/session/opening.rs",
        "if self.client_ready.error { Step::TakeError(Side::Client) } else { Step::Wait }",
        "Step::Wait",
    ),
    (
        "a reset is not noticed while the other side takes nothing",
        "src/proto/session/tunnel.rs",
        "(Move::Nothing, Move::Nothing, _) => self.watch_both(),",
        "(Move::Nothing, Move::Nothing, _) => Step::Wait,",
    ),
    (
        "the grace of a client that leaves starts again with each state",
        "src/proto/session/opening.rs",
        "*self.client_left_due.get_or_insert(now.after(CLIENT_LEFT_MS));",
        "*self.client_left_due.insert(now.after(CLIENT_LEFT_MS));",
    ),
    (
        "a stream that is cut off looks complete",
        "src/proto/session.rs",
        "self.cut = is_cut(&self.up) || is_cut(&self.down) || self.greeting_left > 0;",
        "",
    ),
    (
        "bytes are counted when they are read and again when they are written",
        "src/proto/relay.rs",
        "self.ring.filled(count);",
        "self.ring.filled(count);\n        self.moved += count as u64;",
    ),
    (
        "an idle connection holds up the drain",
        "src/proto/session.rs",
        "self.deadline = self.deadline.min(now.after(DRAIN_IDLE_MS));",
        "",
    ),
    (
        "a refusal keeps the storage of the head",
        "src/proto/session/answer.rs",
        "self.up.ring.clear();",
        "",
    ),
    (
        "an attempt that is not started yet is asked for its outcome",
        "src/proto/eyeballs.rs",
        "self.to_start != Some(*place)",
        "true",
    ),
    (
        "a failed attempt leaves the next one waiting for ever",
        "src/proto/eyeballs.rs",
        "self.start_at = self.start_at.map(|due| due.min(now));",
        "self.start_at = None;",
    ),
    (
        "storage is kept at the end",
        "src/proto/session.rs",
        "self.up.ring.clear();\n            self.down.ring.clear();",
        "",
    ),
    (
        "a reset is passed on as an orderly end",
        "src/proto/relay.rs",
        "| Failure::Other(_) => Source::Reset,",
        "| Failure::Other(_) => Source::Ended,",
    ),
]


def run_simulation(tree, target):
    command = ["cargo", "test", "--locked", "--test", "sim"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target), "RUST_BACKTRACE": "0"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=600)


def plant(tree, path, right, wrong):
    file = tree / path
    text = (ROOT / path).read_text()
    if text.count(right) != 1:
        sys.exit(f"error: {path} has {text.count(right)} places for the bug {right!r}, must be one")
    file.write_text(text.replace(right, wrong))
    return file


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "planted-bugs"
    with tempfile.TemporaryDirectory() as scratch:
        tree = pathlib.Path(scratch)
        for name in ["Cargo.toml", "Cargo.lock", "src", "tests", "bench"]:
            source = ROOT / name
            # With new times: cargo would take what the last bug left behind for up to date.
            if source.is_dir():
                shutil.copytree(source, tree / name, copy_function=shutil.copy)
            else:
                shutil.copy(source, tree / name)
        clean = run_simulation(tree, target)
        if clean.returncode != 0:
            sys.exit(f"error: the simulation fails without any bug planted\n{clean.stdout}{clean.stderr}")
        missed = 0
        for what, path, right, wrong in BUGS:
            file = plant(tree, path, right, wrong)
            result = run_simulation(tree, target)
            shutil.copy(ROOT / path, file)
            # Failing to compile is not being found.
            found = result.returncode != 0 and "test every_seed_ends_as_it_must ... FAILED" in result.stdout
            missed += not found
            print(f"{'found' if found else 'MISSED'}: {what}")
            if not found and result.returncode != 0:
                print(result.stderr[-2000:])
        print(f"note: {len(BUGS) - missed} of {len(BUGS)} planted bugs found")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
