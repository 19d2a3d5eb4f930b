#!/usr/bin/env python3
"""Makes a Markdown table of what was measured, beside the targets, and a plot of it.

    report.py DATA "PEER ..." HEADING [--svg FILE] [--check]

DATA has a line `PEER KEY VALUE` for each value; several of the same key are rounds, of which the median counts. The first peer is
the one that is judged by the targets; columns that begin with its name are no peers. With --check a missed target is a failure.
Of the rows below those are printed for which there are values.
"""

import argparse
import math
import statistics
import sys
from html import escape

LATENCIES = ("p50_us", "p90_us", "p99_us")


def operation(shape, what, target=None):
    """The rows of a shape that counts operations."""
    return [
        (f"{what}: CPU, µs", [f"{shape}_cpu_us"], target),
        ("- a second", [f"{shape}_ops_s"], None),
        ("- latency p50 / p90 / p99, µs", [f"{shape}_{key}" for key in LATENCIES], None),
    ]


def bulk(shape, what, target):
    return [(f"{what}: CPU, s/GB", [f"{shape}_cpu_s_per_gb"], target), ("- GB/s", [f"{shape}_gb_s"], None)]


# A label, the keys of the values, and a target: ("best", at most so many times the best peer), ("haproxy", the same of that peer),
# ("limit", at most so much), or ("own", at most so many times what the first peer has under another key).
ROWS = [
    *operation("connect", "CONNECT, 64-byte echo, close", ("best", 0.85)),
    *operation("roundtrips", "64-byte round trip", ("best", 0.95)),
    *bulk("down", "down", ("haproxy", 0.50)),
    *bulk("up", "up", ("haproxy", 0.50)),
    *bulk("both", "both ways", ("haproxy", 0.75)),
    ("idle tunnel of 2,000: bytes", ["idle-2000_bytes_per_tunnel"], ("limit", 512)),
    ("idle tunnel of 9,000: bytes", ["idle-9000_bytes_per_tunnel"], ("limit", 512)),
    ("- wake-ups while held", ["idle-9000_hold_wakeups"], ("limit", 0)),
    ("- CPU while held, %", ["idle-9000_hold_cpu_percent"], ("limit", 0.01)),
    *operation("1k", "request, kept alive, 1 KiB", ("best", 0.70)),
    *operation("64k", "request, kept alive, 64 KiB", ("best", 0.75)),
    *operation("close", "request, `close`, 1 KiB", ("best", 0.90)),
    ("2,000 slow readers: memory, MiB", ["slow_peak_mib"], ("limit", 64)),
    *operation("slow-connect", "CONNECT beside slow readers", ("own", 1.10, "connect_cpu_us")),
    *operation("slow-roundtrips", "round trip beside slow readers", ("own", 1.10, "roundtrips_cpu_us")),
    *bulk("slow-down", "down beside slow readers", ("own", 1.10, "down_cpu_s_per_gb")),
    *operation("slow-64k", "request of 64 KiB beside slow readers", ("own", 1.10, "64k_cpu_us")),
    ("resident at start, KiB", ["idle-2000_rss_before_kib"], ("limit", 2300)),
    ("binary, KiB", ["binary_kib"], ("limit", 640)),
    ("system calls: CONNECT, 64-byte echo, close", ["connect_syscalls"], ("limit", 20)),
    ("- 64-byte round trip", ["roundtrips_syscalls"], ("limit", 4.3)),
    ("- request, kept alive, 1 KiB", ["1k_syscalls"], ("limit", 4.5)),
    ("- request, `close`, 1 KiB", ["close_syscalls"], None),
    ("- MiB down", ["down_syscalls"], None),
    ("- MiB up", ["up_syscalls"], None),
]
MORE_IS_BETTER = ("_ops_s", "_gb_s")

# What is drawn: times what the first peer takes.
PLOT = [
    ("CONNECT, echo, close", "connect_cpu_us", "µs"),
    ("64-byte round trip", "roundtrips_cpu_us", "µs"),
    ("bulk down", "down_cpu_s_per_gb", "s/GB"),
    ("bulk up", "up_cpu_s_per_gb", "s/GB"),
    ("bulk both ways", "both_cpu_s_per_gb", "s/GB"),
    ("request, 1 KiB", "1k_cpu_us", "µs"),
    ("request, 64 KiB", "64k_cpu_us", "µs"),
    ("request, close", "close_cpu_us", "µs"),
    ("idle tunnel, memory", "idle-9000_bytes_per_tunnel", "bytes"),
]
# Of Okabe and Ito, who chose them so that everybody can tell them apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")


def number(value):
    """Three digits that say something, at least."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}" if digits <= 4 else f"{value:.4f}"


class Report:
    def __init__(self, file, columns):
        values = {}
        for line in open(file, encoding="utf-8"):
            words = line.split()
            if len(words) == 3:  # a run that failed has left no value
                values.setdefault((words[0], words[1]), []).append(float(words[2]))
        self.medians = {key: statistics.median(found) for key, found in values.items()}
        self.columns = columns
        self.own = columns[0]
        self.peers = [column for column in columns if not column.startswith(self.own)]

    def value(self, column, key):
        return self.medians.get((column, key))

    def found(self, key):
        """The peers that have a value, the best first, each as (value, peer)."""
        found = [(value, peer) for peer in self.peers if (value := self.value(peer, key)) is not None]
        return sorted(found, reverse=key.endswith(MORE_IS_BETTER))

    def ratios(self, key):
        """What the first peer has in multiples of each of the others, the best of them first."""
        own = self.value(self.own, key)
        if own is None:
            return ""
        return ", ".join(f"{own / value:.2f} {peer}" for value, peer in self.found(key) if value)

    def verdict(self, key, target):
        """What the target is, and whether it is met (None: nothing to compare with)."""
        kind, most = target[:2]
        own = self.value(self.own, key)
        if kind == "limit":
            text, allowed = f"≤ {most:,}", most
        elif kind == "own":
            other = self.value(self.own, target[2])
            text, allowed = f"≤ {most:.2f} × without", other and most * other
        else:
            other = next((value for value, _ in self.found(key)), None) if kind == "best" else self.value(kind, key)
            text, allowed = f"≤ {most:.2f} × {kind}", other and most * other
        if allowed is None:
            return text, None
        return text, own is not None and own <= allowed

    def table(self):
        """The lines, and whether all targets are met."""
        head = ["medians", *self.columns, f"{self.own} / each peer", "target", "met"]
        lines, good = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"], True
        for label, keys, target in ROWS:
            if not any(self.value(column, key) is not None for column in self.columns for key in keys):
                continue
            cells = [label]
            for column in self.columns:
                found = [self.value(column, key) for key in keys]
                cells.append("" if None in found else " / ".join(map(number, found)))
            cells.append(self.ratios(keys[0]))
            text, met = self.verdict(keys[0], target) if target else ("", None)
            cells += [text, {True: "yes", False: "**no**", None: ""}[met]]
            good &= met is not False
            lines.append(f"| {' | '.join(cells)} |")
        return lines, good

    def svg(self, heading):
        """Bars from the line of the first peer: to the right what costs more, to the left what costs less; a logarithmic scale."""
        rows = [row for row in PLOT if self.value(self.own, row[1])]
        ratios = [
            [(self.value(peer, key) or 0) / self.value(self.own, key) for peer in self.peers] for _, key, _ in rows
        ]
        known = [ratio for row in ratios for ratio in row if ratio > 0]
        low, high = min([0.5, *known]), max([4, *known])
        left, width, bar, gap, top = 200, 600, 8, 12, 84
        scale = width / math.log(high / low)

        def x(ratio):
            return left + math.log(ratio / low) * scale

        height_of_row = bar * len(self.peers) + gap
        bottom = top + height_of_row * len(rows)
        out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {bottom + 44}" font-family="sans-serif" font-size="12">',
            "<style>text{fill:#1f2328}.soft{fill:#59636e}.grid{stroke:#d1d9e0}.one{stroke:#1f2328}"
            "@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.soft{fill:#9198a1}.grid{stroke:#3d444d}.one{stroke:#f0f6fc}}</style>",
            f'<text x="12" y="22" font-size="16" font-weight="bold">What others cost, in multiples of what {escape(self.own)} costs</text>',
            f'<text class="soft" x="12" y="40" font-size="11">{escape(heading)}</text>',
        ]
        at = 12
        for peer, colour in zip(self.peers, COLOURS):
            out.append(f'<rect x="{at}" y="52" width="12" height="12" rx="2" fill="{colour}"/>')
            out.append(f'<text x="{at + 17}" y="62">{escape(peer)}</text>')
            at += 36 + 7 * len(peer)
        for tick in (0.5, 1, 2, 5, 10, 20, 50, 100, 200):
            if low <= tick <= high:
                kind = "one" if tick == 1 else "grid"
                out.append(f'<path class="{kind}" d="M{x(tick):.1f} {top - 6}V{bottom}"/>')
                out.append(f'<text class="soft" x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}×</text>')
        out.append(
            f'<text class="soft" x="{left + width / 2}" y="{bottom + 34}" text-anchor="middle">'
            f"CPU time of the proxy (last: resident memory) in multiples of {escape(self.own)}'s; left of 1× is cheaper</text>"
        )
        for place, ((label, key, unit), row) in enumerate(zip(rows, ratios)):
            y = top + place * height_of_row
            middle = y + bar * len(self.peers) / 2
            own = f"{number(self.value(self.own, key))} {unit}"
            out.append(f'<text x="{left - 12}" y="{middle:.1f}" text-anchor="end">{escape(label)}</text>')
            out.append(
                f'<text class="soft" x="{left - 12}" y="{middle + 13:.1f}" text-anchor="end" font-size="10">{escape(self.own)}: {own}</text>'
            )
            for index, ratio in enumerate(row):
                if ratio > 0:
                    begin, end = sorted((x(1), x(ratio)))
                    top_of_bar = y + index * bar
                    out.append(
                        f'<rect x="{begin:.1f}" y="{top_of_bar}" width="{max(end - begin, 1):.1f}" height="{bar - 1}" fill="{COLOURS[index]}"/>'
                    )
                    out.append(
                        f'<text class="soft" x="{max(x(1), x(ratio)) + 4:.1f}" y="{top_of_bar + bar - 1}" font-size="8">{ratio:.3g}</text>'
                    )
        return "\n".join([*out, "</svg>\n"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("columns")
    parser.add_argument("heading")
    parser.add_argument("--svg")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    report = Report(args.data, args.columns.split())
    lines, good = report.table()
    print(args.heading, "", *lines, sep="\n")
    if args.svg:
        with open(args.svg, "w", encoding="utf-8") as file:
            file.write(report.svg(args.heading))
    if args.check and not good:
        sys.exit("a target is missed")


main()
