#!/usr/bin/env python3
"""No crate of Cargo.lock has a known fault, is unmaintained, or has a licence that we do not take.

    advisories.py               compares Cargo.lock with scripts/advisories.txt, and the licences with the list below
    advisories.py --self-test   what must be found is found

Without a network: the advisories are a snapshot. To renew it, look up each crate of Cargo.lock in the RustSec database and
write down what is there and the date.
"""
import json
import os
import re
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
SNAPSHOT = os.path.join(ROOT, "scripts", "advisories.txt")
OURS = {"adit", "adit-bench", "adit-no-backtrace"}
OTHER_SYSTEMS = re.compile(r"windows|wasi$")
LICENCES = {"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Unlicense",
            "Unicode-3.0", "Zlib"}


def parts(version):
    return tuple(map(int, re.match(r"[0-9.]+", version)[0].split(".")))


def fits(version, requirement):
    """All comparisons of one range, as Cargo's semver does them: a version with fewer parts speaks for all that begin so.
    What is behind a - or + is not looked at."""
    for comparison in filter(None, map(str.strip, requirement.split(","))):
        operator, other = re.fullmatch(r"(>=|<=|>|<|=)\s*([0-9.]+)", comparison).groups()
        other = parts(other)
        beginning = parts(version)[:len(other)]
        if not {">=": beginning >= other, "<=": beginning <= other, ">": beginning > other, "<": beginning < other,
                "=": beginning == other}[operator]:
            return False
    return True


def read_snapshot(text):
    """What is known of each crate, [(id, kind, ranges that are fine)], and what is accepted."""
    known, accepted = {}, {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        crate, what, *rest = line.split(" ", 2)
        if crate == "accept":
            accepted[what] = rest[0]
        elif what == "none":
            known.setdefault(crate, [])
        else:
            kind, ranges = rest[0].split(" ", 1)
            fine = [each for half in ranges.split(";") for each in half.split("|") if each.strip()]
            known.setdefault(crate, []).append((what, kind, fine))
    return known, accepted


def read_lock(text):
    return re.findall(r'^name = "(.*)"\nversion = "(.*)"$', text, re.MULTILINE)


def complaints(lock, known, accepted):
    found, used = [], set()
    for crate, version in lock:
        if crate in OURS or OTHER_SYSTEMS.match(crate):
            continue
        if crate not in known:
            found.append(f"{crate} has not been looked up: see scripts/advisories.txt")
        for identifier, kind, fine in known.get(crate, []):
            if any(fits(version, each) for each in fine):
                continue
            used.add(identifier)
            if identifier not in accepted:
                found.append(f"{crate} {version}: {identifier} ({kind})")
    found += [f"{identifier} is accepted, and there is nothing to accept" for identifier in accepted.keys() - used]
    return found, len(used)


def is_allowed(licence):
    """Of each part, one of the alternatives. (Rather too strict where AND stands in parentheses or beside OR without them.)"""
    for part in re.split(r" AND (?![^(]*\))", licence.replace("/", " OR ")):
        if not LICENCES & set(part.strip("()").split(" OR ")):
            return False
    return True


def licence_complaints(packages):
    return [f"{package['name']} {package['version']}: licence {package['license']}" for package in packages
            if not is_allowed(package["license"] or "none")]


def self_test():
    def ids(crate, version):
        return complaints([(crate, version)], known, {})[0]

    with open(SNAPSHOT) as file:
        known, _ = read_snapshot(file.read())
    assert "RUSTSEC-2024-0019" in ids("mio", "0.8.10")[0] and not ids("mio", "0.8.11")
    assert not ids("mio", "0.7.1")[1:] and "RUSTSEC-2020-0081" in ids("mio", "0.7.1")[0]
    assert ids("slab", "0.4.10") and not ids("slab", "0.4.9") and not ids("slab", "0.4.12")
    assert "unmaintained" in ids("ring", "0.16.20")[1] and not ids("ring", "0.17.14")
    assert ids("generic-array", "0.12.3") and not ids("generic-array", "0.12.4") and ids("generic-array", "0.13.2")
    assert ids("rustls", "0.23.17") and ids("time", "0.3.45") and not ids("time", "0.3.47")
    assert "looked up" in ids("left-pad", "1.0.0")[0] and not ids("windows-sys", "0.1.0")
    assert "nothing to accept" in complaints([], known, {"RUSTSEC-2026-0009": "why"})[0][0]
    assert fits("0.22.9", "<= 0.22") and not fits("0.23.0", "<= 0.22") and fits("1.10.0", "> 1.9.0, < 2")
    assert read_lock('[[package]]\nname = "a"\nversion = "1.0.0+b"\n') == [("a", "1.0.0+b")]
    for licence, allowed in {"MIT": True, "MIT/Apache-2.0": True, "GPL-3.0 OR MIT": True, "MIT AND GPL-3.0": False,
                             "(MIT OR Apache-2.0) AND Unicode-3.0": True, "(MIT OR ISC) AND GPL-3.0": False,
                             "GPL-3.0-only": False, "none": False}.items():
        assert is_allowed(licence) == allowed, licence
    print("note: planted versions and licences are found")


def main():
    with open(SNAPSHOT) as file:
        known, accepted = read_snapshot(file.read())
    with open(os.path.join(ROOT, "Cargo.lock")) as file:
        lock = read_lock(file.read())
    found, count = complaints(lock, known, accepted)
    said = subprocess.run(["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"],
                          cwd=ROOT, capture_output=True, text=True, check=True)
    packages = json.loads(said.stdout)["packages"]
    found += licence_complaints(packages)
    for complaint in found:
        print(complaint)
    print(f"note: {len(lock)} crates, {count} advisories apply to them; licences of {len(packages)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(self_test() if sys.argv[1:] == ["--self-test"] else main())
