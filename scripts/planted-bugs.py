#!/usr/bin/env python3
"""Plants known bugs, one at a time, in a copy of the source and checks that the simulation (tests/sim) finds each.

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
        "(start - wrap) as u32",
        "self.start",
    ),
    (
        "a tunnel waits for storage, which it can do without",
        "src/proto/session/tunnel.rs",
        "Outcome::NoStorage => half.supply = Supply::Scarce,",
        "Outcome::NoStorage => half.supply = Supply::Starved,",
    ),
    (
        "what waits to be passed on is cut off as if it were complete",
        "src/proto/session/ending.rs",
        "|| half.supply != Supply::Plenty",
        "",
    ),
    (
        "what is passed on without being held is not counted",
        "src/proto/session/tunnel.rs",
        "                half.count(count);\n                half.weigh(count, PLENTY_BYTES);",
        "                half.weigh(count, PLENTY_BYTES);",
    ),
    (
        "an address is dialed without being judged",
        "src/proto/session/opening.rs",
        "Verdict::Deny(refusal, rule) => eyeballs.note_denied(refusal, rule),",
        "Verdict::Deny(_, rule) => eyeballs.begin(SocketAddr::new(address, target.port), rule, now),",
    ),
    (
        "the last cause wins instead of the first",
        "src/proto/session/ending.rs",
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
        "*aside.client_left_due.get_or_insert(now.after(CLIENT_LEFT_MS));",
        "*aside.client_left_due.insert(now.after(CLIENT_LEFT_MS));",
    ),
    (
        "a stream that is cut off looks complete",
        "src/proto/session/ending.rs",
        "Some(_) | None => is_tunnel && (is_cut(&self.up) || is_cut(&self.down) || self.greeting_left > 0),",
        "Some(_) | None => false,",
    ),
    (
        "bytes are counted when they are read and again when they are written",
        "src/proto/relay.rs",
        "self.ring.filled(count);",
        "self.ring.filled(count);\n        self.moved += count as u64;",
    ),
    (
        "an idle connection holds up the drain",
        "src/proto/session/ending.rs",
        "self.deadline = self.deadline.min(now.after(DRAIN_IDLE_MS));",
        "",
    ),
    (
        "a refusal keeps the storage of the head",
        "src/proto/session/answer.rs",
        "(ConnectionHeader::KeepAlive, None) | (ConnectionHeader::Close, _) => self.up.ring.clear(),",
        "(ConnectionHeader::KeepAlive, None) | (ConnectionHeader::Close, _) => {}",
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
        "src/proto/session/storage.rs",
        "half.clear();",
        "",
    ),
    (
        "a reset is passed on as an orderly end",
        "src/proto/relay.rs",
        "| Failure::Other(_) => Source::Reset,",
        "| Failure::Other(_) => Source::Ended,",
    ),
    (
        "a client that resets while its credentials are verified is not noticed",
        "src/proto/session.rs",
        "Step::Authenticate,\n                Lookup::Asked => self.watch_client(),",
        "Step::Authenticate,\n                Lookup::Asked => Step::Wait,",
    ),
    (
        "credentials that wait when the policy changes are not asked about anew",
        "src/proto/session.rs",
        "            shown.lookup = Lookup::ToAsk;",
        "            let _ = &shown;",
    ),
    (
        "a client that leaves while its credentials are verified is not given up",
        "src/proto/session/opening.rs",
        "State::Authenticating(_) | State::Reusing | State::Resolving { .. } | State::Dialing(_) => true,",
        "State::Authenticating(_) => false, State::Reusing | State::Resolving { .. } | State::Dialing(_) => true,",
    ),
    (
        "a short fill of a pipe is taken for an empty socket",
        "src/proto/session/tunnel.rs",
        "        let (half, _) = self.half_and_source(side);\n        match outcome {\n            Outcome::Moved(count) => {",
        "        let (half, ready) = self.half_and_source(side);\n        match outcome {\n"
        "            Outcome::Moved(count) => {\n                ready.readable = false;",
    ),
    (
        "who finds no pipe asks for one for ever",
        "src/proto/relay.rs",
        "        self.pace.set_bulk(0);\n",
        "",
    ),
    (
        "an end overtakes the bytes in a pipe",
        "src/proto/relay.rs",
        "self.ring.is_empty() && self.piped == 0",
        "self.ring.is_empty()",
    ),
    (
        "urgent data is waited for at the wrong place",
        "src/proto/relay.rs",
        "if from.readable && self.is_bulk() && !from.urgent => Move::Fill,",
        "if from.readable && self.is_bulk() => Move::Fill,",
    ),
    (
        "a pipe is kept at the end",
        "src/proto/relay.rs",
        "        self.ring.clear();\n        self.piped = 0;",
        "        self.ring.clear();",
    ),
]

# The same for plain HTTP.
HTTP_BUGS = [
    (
        "who waits for storage is told for one direction only",
        "src/proto/session/storage.rs",
        "for half in [&mut self.up, &mut self.down] {\n            if half.is_starved() {",
        "for half in [&mut self.up] {\n            if half.is_starved() {",
    ),
    (
        "a connection on which something has come is kept",
        "src/proto/session/forwarding.rs",
        "(true, true) => Step::Read(Side::Upstream),",
        "(true, true) => Step::Park,",
    ),
    (
        "a connection that its origin ends is kept",
        "src/proto/session/responses.rs",
        "Framing::None | Framing::Length(_) | Framing::Chunked => head.persistence,",
        "Framing::None | Framing::Length(_) | Framing::Chunked => Persistence::Keep,",
    ),
    (
        "what an upstream says before it is asked is taken for the answer",
        "src/proto/session/forwarding.rs",
        "if self.speaks_unasked(http) {",
        "if false {",
    ),
    (
        "a request is sent once more although its answer had begun",
        "src/proto/session/forwarding.rs",
        "                http.retry = Retry::Never;\n                self.up.ring.drained(std::mem::take(&mut http.held));",
        "",
    ),
    (
        "a request with a body is sent twice",
        "src/proto/session/http.rs",
        "if request.is_idempotent() && request.framing == Framing::None {",
        "if request.is_idempotent() {",
    ),
    (
        "a request that changes things is sent twice",
        "src/proto/session/http.rs",
        "if request.is_idempotent() && request.framing == Framing::None {",
        "if request.framing == Framing::None || request.framing == Framing::Length(0) {",
    ),
    (
        "a dead idle connection costs its request",
        "src/proto/session/forwarding.rs",
        "matches!(http.retry, Retry::Once | Retry::Unsent)",
        "false",
    ),
    (
        "of a long head that is sent once more, nothing is left",
        "src/proto/session/http.rs",
        "http.cleared_up += std::mem::take(&mut http.held);",
        "",
    ),
    (
        "an answer that ends with its connection and was reset looks complete",
        "src/proto/session/forwarding.rs",
        "(End::Complete, None) => Answering::Complete,\n"
        "                    (End::Complete, Some(_)) | (End::Cut, _) => Answering::Cut(cut),",
        "(End::Complete, _) => Answering::Complete,\n                    (End::Cut, _) => Answering::Cut(cut),",
    ),
    (
        "an answer whose chunks were taken away looks complete when it was cut",
        "src/proto/session/ending.rs",
        "Some(http) if !is_tunnel => http.end_is_close && !http.awaits_head(),",
        "Some(_) if !is_tunnel => false,",
    ),
    (
        "an idle connection is used by who may not reach its address",
        "src/proto/session/http.rs",
        "Some(Verdict::Deny(..)) | None => false,",
        "Some(Verdict::Deny(..)) | None => true,",
    ),
    (
        "the name that the search list made is not judged for an idle connection",
        "src/proto/session/http.rs",
        "let completed = origin.completed.as_deref();",
        "let completed = None;",
    ),
    (
        "an idle connection is used for another origin",
        "src/proto/pool.rs",
        "idle.hash == hash && idle.origin.target == *target && may(&idle.origin, &idle.connection)",
        "may(&idle.origin, &idle.connection)",
    ),
    (
        "there is always room for one idle connection more",
        "src/proto/pool.rs",
        "self.idle.len() >= self.limits.total",
        "self.idle.len() > self.limits.total",
    ),
    (
        "HTTP/1.0 is sent interim responses",
        "src/proto/session/responses.rs",
        "Version::Http10 => Seen::Dropped,",
        "Version::Http10 => Seen::Interim,",
    ),
    (
        "HTTP/1.0 is sent chunks",
        "src/proto/session/responses.rs",
        "Version::Http10 => Chunks::Strip,",
        "Version::Http10 => Chunks::Keep,",
    ),
    (
        "a 101 is believed that nobody asked for",
        "src/proto/session/responses.rs",
        "let Some(asked_for) = &self.protocols else { return false };",
        "let Some(asked_for) = &self.protocols else { return true };",
    ),
    (
        "a client that was answered early may begin another request in the middle of its body",
        "src/proto/session/responses.rs",
        "if self.end_is_close || draining || !self.request.is_complete() {",
        "if self.end_is_close || draining {",
    ),
    (
        "what a client sends behind the last answer resets it",
        "src/proto/session/forwarding.rs",
        "if may_send {",
        "if false {",
    ),
    (
        "requests that came behind another one are forgotten by a refusal",
        "src/proto/session/answer.rs",
        "(ConnectionHeader::KeepAlive, Some(http)) => self.up.ring.drained(http.take_cleared()),",
        "(ConnectionHeader::KeepAlive, Some(_)) => self.up.ring.clear(),",
    ),
    (
        "requests that came behind another one are looked at when more comes",
        "src/proto/session/http.rs",
        "            self.begin_head(now, policy);\n            self.scan_head(now, policy);",
        "            self.begin_head(now, policy);",
    ),
    (
        "storage that is scarce is given up with requests in it, and nobody is told",
        "src/proto/session/forwarding.rs",
        "self.up.ring.clear();\n                http.client_connection = ConnectionHeader::Close;",
        "self.up.ring.clear();",
    ),
    (
        "a reset is not noticed while an answer is awaited",
        "src/proto/session/forwarding.rs",
        "(false, false, _) => self.watch_both(),",
        "(false, false, _) => Step::Wait,",
    ),
    (
        "more of an answer is read than has gone out",
        "src/proto/session/forwarding.rs",
        "asked && open && self.cleared_down == 0",
        "asked && open",
    ),
    (
        "bytes are counted for the next exchange too",
        "src/proto/session/http.rs",
        "(self.up.moved, self.down.moved, self.full_since) = (0, 0, [None; 2]);",
        "",
    ),
    (
        "a broken upstream breaks the tunnel behind it",
        "src/proto/session/http.rs",
        "        (self.up.sink, self.down.source) = (Sink::Open, Source::Open);\n        let (rule, user)",
        "        let (rule, user)",
    ),
    (
        "a reset behind an upstream's end cuts its answer",
        "src/proto/session/forwarding.rs",
        "                    if source_after(failure) == Source::Reset {\n                        self.reset.get_or_insert(side);",
        "                    {\n                        self.reset.get_or_insert(side);",
    ),
    (
        "an early answer ends with the client's direction",
        "src/proto/session/forwarding.rs",
        "Outcome::Eof if !self.awaits_response() => self.up.sink = Sink::Broken,",
        "",
    ),
    (
        "the time for an answer does not begin again when something moves",
        "src/proto/session/forwarding.rs",
        "                self.deadline = now.after(wait_ms);\n",
        "",
    ),
    (
        "extensions of chunks go on",
        "src/proto/body.rs",
        "self.excess_bytes += 1;\n                filter.take(1, Fate::Dropped);",
        "self.excess_bytes += 1;\n                filter.take(1, Fate::Goes);",
    ),
    (
        "the payload of a chunk is counted from the wrong place",
        "src/proto/body.rs",
        "if self.left == 0 { Place::DataCr } else { Place::Data }",
        "Place::DataCr",
    ),
    (
        "what is taken out of a ring is taken out of the wrong place",
        "src/proto/ring.rs",
        "bytes.copy_within(start + at + count..start + len, start + at);",
        "bytes.copy_within(start + at..start + len - count, start + at);",
    ),
    (
        "upstreams are kept while the proxy drains",
        "src/proto/session/forwarding.rs",
        "            && !self.draining\n",
        "",
    ),
    (
        "a request is its predecessor's user's until it is known whose it is",
        "src/proto/session/http.rs",
        "(self.rule.take(), self.user.take());",
        "(self.rule.take(), self.user.clone());",
    ),
    (
        "what one request shows is taken for a part of what the next one shows",
        "src/proto/session/authenticating.rs",
        "        self.value.clear();",
        "",
    ),
    (
        "credentials that were asked about once are never asked about again",
        "src/proto/session/authenticating.rs",
        "        self.lookup = Lookup::ToAsk;",
        "",
    ),
    (
        "what one user was allowed holds for the next one on the same connection",
        "src/proto/session/authenticating.rs",
        "            if !is_same {",
        "            if false {",
    ),
]

# A client that ends in the middle of its request and of the answer to it.
HASTY_BUGS = [
    (
        "who is met by the end of a client keeps it to himself",
        "src/proto/session/forwarding.rs",
        "Outcome::Eof if !self.awaits_response() => self.up.sink = Sink::Broken,",
        "Outcome::Eof if !self.awaits_response() => {\n"
        "                (self.up.sink, self.client_ready.readable) = (Sink::Broken, false);\n            }",
    ),
]

# Names.
NAME_BUGS = [
    (
        "who asks after a flush is told what was asked before it",
        "src/proto/resolver.rs",
        "        self.by_name.clear();\n",
        "",
    ),
    (
        "who has left is answered",
        "src/proto/resolver.rs",
        "        self.answers.retain(|(asker, _)| *asker != who);\n",
        "",
    ),
    (
        "what is out of date is still believed",
        "src/proto/cache.rs",
        "let fresh = |answer: &'_ Answer| now < answer.expires;",
        "let fresh = |answer: &'_ Answer| now < answer.expires.after(1_000);",
    ),
    (
        "other nameservers leave the cache as it is",
        "src/proto/resolver.rs",
        "let same_answers = new.nameservers == old.nameservers",
        "let same_answers = new.nameservers.len() == old.nameservers.len()",
    ),
    (
        "an answer under another id is believed",
        "src/proto/dns.rs",
        "if header.id != id || !header.is_response {",
        "if !header.is_response {",
    ),
    (
        "the next name of the search list has the tries that the last one has left",
        "src/proto/lookup.rs",
        "        self.tries = 0;\n        self.pause = false;",
        "        self.pause = false;",
    ),
    (
        "one family waits for the other",
        "src/proto/resolver.rs",
        "        if lookup.is_waiting() {\n            self.deliver(at);",
        "        if lookup.is_waiting() {",
    ),
    (
        "there is always room for one more answer over TCP",
        "src/proto/resolver/asking.rs",
        ".sum::<usize>() >= MAX_TCP {",
        ".sum::<usize>() > MAX_TCP {",
    ),
    (
        "a socket that nobody waits on stays open",
        "src/proto/resolver.rs",
        "        for (slot, open) in lookup.open.iter_mut().enumerate() {\n            if std::mem::take(open) {",
        "        for (slot, open) in lookup.open.iter_mut().enumerate() {\n            if slot > 0 && std::mem::take(open) {",
    ),
]

# Limits, credentials, idle connections and new settings.
CROWD_BUGS = [
    (
        "an address that is not dialed yet is not judged by new rules",
        "src/proto/session.rs",
        "            && eyeballs.judge_anew()\n",
        "            && eyeballs.to_start().is_some()\n",
    ),
    (
        "a connection that was dialed under other rules is kept",
        "src/proto/session/forwarding.rs",
        "            && !http.outdated\n",
        "",
    ),
    (
        "there is always room for one connection more to one origin",
        "src/proto/pool.rs",
        ".count() >= self.limits.per_origin {",
        ".count() > self.limits.per_origin {",
    ),
    (
        "a place that the whole proxy has not is taken from the client",
        "src/sys/shared.rs",
        "        if !take_place() {\n            return Admission::Full;\n        }\n        match found {\n"
        "            Ok(at) => counts[at].1 += 1,\n            Err(at) => counts.insert(at, (bits(client), 1)),\n        }\n"
        "        Admission::Granted",
        "        match found {\n"
        "            Ok(at) => counts[at].1 += 1,\n            Err(at) => counts.insert(at, (bits(client), 1)),\n        }\n"
        "        if take_place() { Admission::Granted } else { Admission::Full }",
    ),
    (
        "users who are not in the new file are still known",
        "src/proto/logins.rs",
        "            set.retain(|entry| entry.user.as_ref().is_some_and(|user| new.keeps(old, user)));",
        "            set.retain(|entry| entry.user.is_some());",
    ),
    (
        "credentials that nobody waits for any more keep their place",
        "src/proto/login_queue.rs",
        "            if waiting.askers.is_empty() && waiting.basic.is_some() {",
        "            if waiting.askers.is_empty() && waiting.basic.is_none() {",
    ),
]

# Beyond the limit of sessions, with several loops.
HELD_BUGS = [
    (
        "idle clients give way for somebody who has been served",
        "src/proto/held.rs",
        "        self.question.lower(self.asked_for);\n",
        "        self.question.lower(if self.asked_for > 0 { usize::MAX } else { 0 });\n",
    ),
    (
        "a question outlives those for whom it was asked",
        "src/proto/held.rs",
        "        self.question.lower(self.asked_for);\n",
        "        self.question.lower(self.asked_for.max(1));\n",
    ),
    (
        "who is late gives way all the same",
        "src/proto/plea.rs",
        "        plea.lower(0);\n",
        "",
    ),
    (
        "two loops give the last place both",
        "src/proto/plea.rs",
        "(wanted > 0).then(|| wanted.saturating_sub(count))",
        "Some(wanted.saturating_sub(count))",
    ),
    (
        "what has been given is wanted again",
        "src/proto/plea.rs",
        "self.wanted.fetch_min(wanted, Ordering::AcqRel);",
        "self.wanted.store(wanted, Ordering::Release);",
    ),
    (
        "who gave all that was wanted has nothing more",
        "src/proto/held.rs",
        "Some(Given::All) => self.asked_for = 0,",
        "Some(Given::All) => {}",
    ),
    (
        "what the loop has found for one holds for the next one",
        "src/proto/held.rs",
        "        self.looked_for = self.looked_for.saturating_sub(1);\n",
        "",
    ),
    (
        "a search that is not due yet has found nobody",
        "src/proto/idle_clients.rs",
        "return Search::TooEarly;",
        "return Search::Nobody;",
    ),
    (
        "who has asked since the search gives way",
        "src/proto/idle_clients.rs",
        "|&mut (until, key)| idle_until(key) != Some(until)",
        "|_| false",
    ),
    (
        "a search that will be due is slept through",
        "src/proto/held.rs",
        "(self.looked_for == 0).then_some(search_due);",
        "(self.looked_for == 0 && self.asked_for == 0).then_some(search_due);",
    ),
    (
        "who waits for an answer is held as long as that takes",
        "src/proto/held.rs",
        "is_over || has_looked",
        "is_over && !self.question.is_open() || has_looked",
    ),
    (
        "other loops are asked again at once",
        "src/proto/plea.rs",
        "self.next = now.after(ASK_PAUSE_MS);",
        "self.next = now;",
    ),
    (
        "a client beyond its own limit is held for the other one",
        "src/sys/shared.rs",
        "clients.count(client) + more <= clients.most",
        "clients.count(client) < clients.most || more > 1",
    ),
]

# Of the simulation's worlds.
WORLDS = {
    "every_tunnel_ends_as_it_must": BUGS,
    "every_exchange_ends_as_it_must": HTTP_BUGS,
    "every_end_in_the_middle_ends_as_it_must": HASTY_BUGS,
    "every_name_is_answered_as_it_must": NAME_BUGS,
    "every_crowd_is_served_as_it_must": CROWD_BUGS,
    "everybody_beyond_the_limit_is_answered_as_it_must": HELD_BUGS,
}


def run_simulation(tree, target, world):
    command = ["cargo", "test", "--locked", "--test", "sim", world]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target), "RUST_BACKTRACE": "0"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, errors="replace", timeout=600)


def check_places():
    """Each bug must have its one place, or it proves nothing."""
    lost = 0
    for what, path, right, _ in [bug for bugs in WORLDS.values() for bug in bugs]:
        count = (ROOT / path).read_text().count(right)
        if count != 1:
            print(f"error: {path} has {count} places for the bug {what!r}, must be one: {right!r}")
            lost += 1
    if lost:
        sys.exit(1)


def plant(tree, path, right, wrong):
    file = tree / path
    file.write_text((ROOT / path).read_text().replace(right, wrong))
    return file


def main():
    check_places()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "planted-bugs"
    with tempfile.TemporaryDirectory() as scratch:
        tree = pathlib.Path(scratch)
        for name in ["Cargo.toml", "Cargo.lock", "src", "tests", "bench", "scripts"]:
            source = ROOT / name
            # With new times: cargo would take what the last bug left behind for up to date.
            if source.is_dir():
                shutil.copytree(source, tree / name, copy_function=shutil.copy)
            else:
                shutil.copy(source, tree / name)
        for world in WORLDS:
            clean = run_simulation(tree, target, world)
            if clean.returncode != 0:
                sys.exit(f"error: {world} fails without any bug planted\n{clean.stdout}{clean.stderr}")
        missed = 0
        bugs = [(world, *bug) for world, bugs in WORLDS.items() for bug in bugs]
        for world, what, path, right, wrong in bugs:
            file = plant(tree, path, right, wrong)
            result = run_simulation(tree, target, world)
            shutil.copy(ROOT / path, file)
            # Failing to compile is not being found.
            found = result.returncode != 0 and f"test {world} ... FAILED" in result.stdout
            missed += not found
            print(f"{'found' if found else 'MISSED'}: {what}", flush=True)
            if not found and result.returncode != 0:
                print(result.stderr[-2000:])
        print(f"note: {len(bugs) - missed} of {len(bugs)} planted bugs found")
        sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
