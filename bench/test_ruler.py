# SPDX-License-Identifier: Apache-2.0
"""The ruler's own arithmetic: verdicts, clocks, memory. Run: pytest bench"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import machines  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402

ROW = {row.id: row for row in rows.ROWS}


def judged(row, native, tcg, ours, limits="floor"):
    table = {"native": native, "tcg": tcg, "sundog-bt": ours}
    found = rows.ratios(ROW[row], "sundog-bt", {m: f for m, f in table.items() if f})
    return rows.judge(ROW[row], getattr(ROW[row], limits), found, set(ours or native))


def test_a_mean_does_not_hide_one_that_is_too_slow():
    good = {"sort": 1.5, "hash": 1.5}
    assert judged("int", {"sort": 1, "hash": 1}, {"sort": 2, "hash": 2}, good) == (True, [])
    assert judged("int", {"sort": 1, "hash": 1}, {"sort": 9, "hash": 9}, {"sort": 3.1, "hash": 1}) == (False, ["sort"])
    assert judged("int", {"sort": 1, "hash": 1}, {"sort": 9, "hash": 9}, {"sort": 2, "hash": 2}) == (False, [])
    assert judged("int", {"sort": 1, "hash": 1}, {"sort": 1.4, "hash": 9}, good) == (False, ["sort"])


def test_one_of_two_limits_is_enough_for_a_program():
    assert judged("programs", {"gzip": 1, "gcc": 1}, {"gzip": 1.5, "gcc": 6}, {"gzip": 1.4, "gcc": 2}) == (True, [])
    assert judged("programs", {"gzip": 1, "gcc": 1}, {"gzip": 4, "gcc": 6}, {"gzip": 1.6, "gcc": 2}) == (False, ["gzip"])


def test_what_was_not_measured_is_not_a_pass():
    assert judged("syscall", {"syscall": 1}, {}, {"syscall": 1})[0] is None
    assert judged("syscall", {"syscall": 1}, {"syscall": 9}, {})[0] is None
    assert judged("programs", {"gzip": 1}, {}, {"gzip": 9})[0] is None


def test_values_are_held_against_their_unit():
    figure = report.in_unit(ROW["start"], {"ns_per_unit": 29e6})
    assert figure == 29 and ROW["start"].floor[0].holds(figure) and not ROW["start"].goal[0].holds(figure)


def lines(guest_seconds):
    reader = machines.Reader()
    reader.take(1.0, "bench-start sort")
    reader.take(2.0, f"bench-clock sort {guest_seconds}")
    reader.take(2.0, f"bench sort int 10 {guest_seconds * 1e8} {guest_seconds * 1e8} 00ff number")
    return reader.out


def test_a_guest_whose_clock_is_slow_does_not_look_fast():
    honest, slow = lines(0.99), lines(0.5)
    assert not honest.complaints and honest.results["sort"][0]["ns"] == 0.99e8
    assert slow.complaints and slow.results["sort"][0]["ns"] == 1e8


def test_boots_are_told_by_their_marks():
    reader = machines.Reader()
    for at, line in ((1, "KASLR disabled: 'nokaslr' on cmdline."), (3, "[    0.000000] Linux version 6.1"),
                     (4, "Linux version"), (7, "bench-init")):
        reader.take(at, line)
    assert reader.out.marks == {"decompressor": 1, "kernel": 3, "init": 7}


def test_different_results_are_seen():
    def found(check):
        return {"sort": [{"check": check}]}

    assert report.differing_checks({"work": {"native": found("1"), "tcg": found("1")}}) == []
    assert report.differing_checks({"work": {"native": found("1"), "tcg": found("2")}}) == ["sort"]


def test_smaps_are_read():
    text = ("7f00-8f00 rw-s 00000000 00:01 42   /memfd:ram (deleted)\nSize: 4 kB\nRss:   8 kB\n"
            "9f00-af00 rw-p 00000000 00:00 0 \nRss:   4 kB\n")
    maps = machines.read_smaps(text.splitlines())
    assert [(m["rss"], m["backing"]) for m in maps] == [(8192, "42 /memfd:ram (deleted)"), (4096, "")]
