#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The ruler: the same work natively, under QEMU TCG and under each Sundog engine, side by side in one run.

    bench/run.py [--engines interp,bt] [--rounds 3]       every row of the table
    bench/run.py --rows int,syscall --quick               some rows, fast: groups and workloads are names, too
    bench/run.py --list                                   names of rows and workloads
    bench/run.py --mips                                   million guest instructions a second of each engine

Machines take turns, round by round. Figures are medians; ± is half the spread, (max - min) / 2 / median. What a
guest's clock says is held against the host's; where they differ, the host's counts. docs/performance.md says
what each row means.
"""

import argparse
import json
import os
import shlex
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
import choose  # noqa: E402
import guests  # noqa: E402
import machines  # noqa: E402
import programs  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
from guests import Failure, TOP, say  # noqa: E402

PROGRAMS_MEMORY = "1G"
MEMORY_BYTES = 512 << 20
# Seconds that a booted guest idles before its VMM's memory is looked at.
SETTLE = 0.5
STARTS = 5
# Best first.
ENGINES = ("bt", "interp")
# Names that the boot, memory and start suites give to what they measure.
MEASURED_HERE = {"decompressor": "boot", "kernel_to_init": "boot", "start_to_init": "boot",
                 "vmm_memory": "memory", "first_instruction": "start"}


def one(group, unit, amount, per=1.0):
    """A result of our own making, in the form of a workload's."""
    return {"group": group, "unit": unit, "check": "", "ns": amount * per, "ns_per_unit": amount * per}


# ---- What is chosen -------------------------------------------------------------------------------

def choose_rows(text, known):
    """[(row, names)]: the rows, each with the workloads that are to be measured for it."""
    all_names = [(row, {n for n, g in known.items() if n in row.takes or g in row.takes}
                  | {n for n in row.takes if n in MEASURED_HERE}) for row in rows.ROWS]
    if not text:
        return all_names
    wanted, chosen = {w for w in text.split(",") if w}, []
    for row, names in all_names:
        part = names if row.id in wanted else {n for n in names if n in wanted or known.get(n) in wanted}
        # A program's name means the programs as they are; "equal" has to be named.
        if part and (row.id != "equal" or row.id in wanted):
            chosen.append((row, part))
        wanted -= {row.id} | {n for n in names if n in wanted} | {known.get(n) for n in names}
    if wanted:
        raise Failure(f"no row, group or workload named {', '.join(sorted(wanted))}; --list names them")
    return chosen


def print_names(known):
    for row, names in choose_rows(None, known):
        print(f"{row.id:10} {row.title}: {', '.join(n for n in [*known, *MEASURED_HERE] if n in names)}")


# ---- The suites -----------------------------------------------------------------------------------

class Session:
    """One run of the ruler: what is measured, on which machines, and the samples so far."""

    def __init__(self, args, setup, chosen):
        self.args, self.setup, self.chosen = args, setup, chosen
        self.suites = list(dict.fromkeys(row.suite for row, _ in chosen))
        self.samples, self.infos, self.complaints, self.skipped = {}, {}, {}, {}
        self.clock = {}

    def names(self, suite):
        return {n for row, names in self.chosen if row.suite == suite for n in names}

    def words(self, suite):
        return {"bench_ms": str(self.args.target_ms), "bench_repeat": str(self.args.repeat),
                "bench_only": ",".join(sorted(self.names(suite)))}

    def add(self, suite, machine, name, result):
        self.samples.setdefault(suite, {}).setdefault(machine.name, {}).setdefault(name, []).append(result)

    def complain(self, machine, suite, texts):
        self.complaints.setdefault(machine.label, []).extend(f"{suite}: {t}" for t in texts)

    def workloads(self, suite, machine, job):
        out = machines.read(machines.run(machine, self.setup, job, self.args.limit))
        for name, found in out.results.items():
            for result in found:
                self.add(suite, machine, name, result)
        for name, why in out.skipped.items():
            self.skipped.setdefault(f"{suite} {name}", {})[machine.label] = why
        self.infos.setdefault(machine.name, {}).update(out.info)
        self.clock.setdefault(machine.label, []).extend(out.clock)
        self.complain(machine, suite, out.complaints)

    def suite_work(self, machine):
        self.workloads("work", machine, machines.Job(words=self.words("work")))

    def suite_programs(self, machine):
        job = machines.Job(initrd="programs", memory=PROGRAMS_MEMORY, words=self.words("programs"))
        self.workloads("programs", machine, job)

    def suite_equal(self, machine):
        job = machines.Job(initrd="programs", memory=PROGRAMS_MEMORY, words=self.words("equal"))
        self.workloads("equal", machine, job)

    def boot_marks(self, machine, kernel):
        job = machines.Job(kernel=kernel, words={"bench_only": "none"})
        ended = machines.run(machine, self.setup, job, stop=lambda line, _: line == machines.INIT)
        out = machines.read(ended)
        self.complain(machine, "boot", out.complaints)
        return out.marks

    def suite_boot(self, machine):
        if machine.name == "native":
            return
        wanted = self.names("boot")
        if wanted & {"decompressor", "kernel_to_init"}:
            m = self.boot_marks(machine, "bzimage")
            for name, a, b in (("decompressor", "decompressor", "kernel"), ("kernel_to_init", "kernel", "init")):
                if name in wanted and a in m and b in m:
                    self.add("boot", machine, name, one("boot", "boot", m[b] - m[a], 1e9))
        if "start_to_init" in wanted:
            # The unpacked kernel is the faster way, and pc is the board that takes it.
            m = self.boot_marks(machines.Tcg("pc", machine.cpu) if machine.name == "tcg" else machine, "fast")
            if "init" in m:
                self.add("boot", machine, "start_to_init", one("boot", "boot", m["init"], 1e9))

    def suite_memory(self, machine):
        if machine.name == "native":
            return
        found = []

        def look(line, pid):
            if line != machines.END:
                return False
            time.sleep(SETTLE)
            found.append(machines.resident_beside_ram(pid, MEMORY_BYTES))
            return True

        job = machines.Job(words={"bench_only": "none", "bench_idle": "1"})
        ended = machines.run(machine, self.setup, job, stop=look)
        if found:
            self.add("memory", machine, "vmm_memory", one("memory", "MiB", found[0] / (1 << 20)))
        else:
            self.complain(machine, "memory", [f"no guest came up: {ended.error}"])

    def suite_start(self, machine):
        if machine.name == "native":
            return
        for _ in range(STARTS):
            took = machines.seconds_to_byte(machine.first_instruction(self.setup), b"!", 60)
            if took is None:
                self.complain(machine, "start", ["the first instruction did not speak"])
                return
            self.add("start", machine, "first_instruction", one("start", "start", took, 1e9))


def machines_of(session, sundogs, skipped):
    """{suite: [machine]}, the picks' figures, and the pairs' differences."""
    args, setup = session.args, session.setup
    ours = [s for s in sundogs if not s.missing]
    base = [] if "native" in skipped else [machines.Native()]
    if "tcg" in skipped or machines.Tcg().missing:
        return {suite: [*base, *ours] for suite in session.suites if suite != "equal"}, {}, []
    purpose = {"work": "work", "programs": "programs", "equal": "programs"}
    wanted = list(dict.fromkeys(purpose.get(s, "boot") for s in session.suites))
    if args.tcg:
        board, _, cpu = args.tcg.partition(",")
        if board not in machines.Tcg.BOARDS or not cpu:
            raise Failure(f"--tcg {args.tcg}: want BOARD,CPU with a board of {', '.join(machines.Tcg.BOARDS)}")
        picks, figures = {p: machines.Tcg(board, cpu) for p in wanted}, {}
    else:
        picks, figures = choose.pick_tcg(setup, setup["work"], wanted, args.pick, not args.quick)
    found, differences = {}, []
    for suite in session.suites:
        pick = picks[purpose.get(suite, "boot")]
        if suite != "equal":
            found[suite] = [*base, pick, *ours]
            continue
        found[suite] = list(base)
        for n, s in enumerate(ours):
            say(f"processor models that show the same: {s.label}")
            tcg, mine, said = choose.equal_pair(s, setup)
            found[suite] += [mine] if n else [tcg, mine]
            differences += said
    return found, figures, differences


def measure(session, by_suite):
    for n in range(session.args.rounds):
        for suite in session.suites:
            for machine in by_suite.get(suite, []):
                if machine.name == "native" and suite not in ("work", "programs", "equal"):
                    continue
                say(f"round {n + 1} of {session.args.rounds}, {suite}: {machine.label}")
                getattr(session, f"suite_{suite}")(machine)


def print_head(args, setup, by_suite, picked, seconds):
    line = machines.append(setup, machines.Job())
    print(f"machine: {report.machine_line()}")
    print(f"guest: Linux {setup['release']}, \"{line}\"; the rows of the bzImage with \"{machines.MARKED}\" instead "
          f"of \"{machines.QUIET}\"; 1 processor, 512M (programs: {PROGRAMS_MEMORY})")
    used = {}
    for suite, found in by_suite.items():
        for m in found:
            if isinstance(m, machines.Tcg):
                used.setdefault(f"{m.version}: {m.flags}", []).append(suite)
    for flags, suites in used.items():
        print(f"TCG at {', '.join(suites)}: {flags}")
    for purpose, figures in picked.items():
        best = min(figures.values())
        print(f"TCG tried at {purpose}: " + ", ".join(f"{k} {v / best:.2f}x" for k, v in figures.items()))
    print(f"{args.rounds} rounds of {args.target_ms} ms x {args.repeat}, {'minima' if args.best else 'medians'}; "
          f"{seconds:.0f} s")


def notes_of(session, sundogs, pair_differences):
    notes = [f"mitigations differ: {d}" for d in report.mitigation_differences(session.infos, sundogs)]
    notes += [f"features differ in the pair of equal CPUID: {d}" for d in pair_differences]
    notes += [f"{name} left out on {', '.join(f'{m} ({why})' for m, why in where.items())}"
              for name, where in session.skipped.items()]
    notes += [f"{label}: {text}" for label, said in session.complaints.items() for text in dict.fromkeys(said)]
    for label, clocks in session.clock.items():
        guest, host = (sum(c[i] for c in clocks) for i in (0, 1))
        notes.append(f"clock of {label}: {guest:.2f} s by its own, {host:.2f} s by the host's, over {len(clocks)} "
                     "measurements")
    return notes


def bench(args, setup, sundogs, chosen, known):
    session = Session(args, setup, chosen)
    by_suite, picked, pair_differences = machines_of(session, sundogs, args.skip.split(","))
    counts = {}
    if args.counts and "work" in session.suites:
        counts = guests.instruction_counts(setup["program"], setup["work"])
    started = time.monotonic()
    measure(session, by_suite)

    table = report.medians(session.samples, counts, min if args.best else statistics.median)
    differing = report.differing_checks(session.samples)
    print_head(args, setup, by_suite, picked, time.monotonic() - started)
    usable = [s for s in sundogs if not s.missing]
    in_full = {row.id: len(names) for row, names in choose_rows(None, known)}
    evaluated = {s.name: report.print_rows(chosen, in_full, table, s) for s in usable}
    for suite in session.suites:
        report.print_workloads(table.get(suite, {}), by_suite.get(suite, []), suite)
    print()
    for s in sundogs:
        if s.missing:
            print(f"{s.label}: not available: {s.missing}")
    if differing:
        print(f"RESULTS DIFFER between machines: {', '.join(differing)}")
    notes = notes_of(session, usable, pair_differences)
    for n in notes:
        print(f"note: {n}")
    path = report.write_json({
        "machine": report.machine_line(), "kernel": setup["release"],
        "append": machines.append(setup, machines.Job()), "rounds": args.rounds, "target_ms": args.target_ms,
        "repeat": args.repeat, "statistic": "minimum" if args.best else "median",
        "machines": {suite: {m.name: m.flags for m in found} for suite, found in by_suite.items()},
        "tcg_tried": picked, "rows": {name: report.plain(e) for name, e in evaluated.items()}, "medians": table,
        "samples": session.samples, "info": session.infos, "notes": notes, "differing": differing,
        "missing": {s.name: s.missing for s in sundogs if s.missing},
    }, args.json)
    print(f"\nall figures: {os.path.relpath(path)}")
    failed = any(e["floor"] is False for found in evaluated.values() for e in found)
    return 1 if differing or not usable or (args.gate and failed) else 0


# ---- Rates ----------------------------------------------------------------------------------------

def mips(args, setup, sundogs):
    """Whole-machine rate from Sundog's own count: a run of the integer workloads less a run of the bare boot."""
    status = 0
    for m in sundogs:
        if m.missing:
            print(f"{m.label}: not available: {m.missing}")
            status = 1
            continue
        figures = {}
        for what in ("none", "int"):
            with tempfile.NamedTemporaryFile() as stats:
                words = {"bench_only": what, "bench_ms": str(args.target_ms)}
                job = machines.Job(words=words, more=(f"--stats={stats.name}",))
                say(f"{m.label}: {'boot only' if what == 'none' else 'integer workloads'}")
                ended = machines.run(m, setup, job, args.limit)
                try:
                    figures[what] = json.loads(Path(stats.name).read_text())
                except ValueError:
                    raise Failure(f"{m.label} wrote no statistics (status {ended.status}: {ended.error})") from None
        boot, both = figures["none"], figures["int"]
        print(f"{m.label}: boot {boot['instructions'] / 1e6:.0f} M instructions in {boot['seconds']:.2f} s, "
              f"{boot['instructions'] / boot['seconds'] / 1e6:.1f} M/s; integer workloads "
              f"{(both['instructions'] - boot['instructions']) / (both['seconds'] - boot['seconds']) / 1e6:.1f} M/s")
    return status


# ---- The command line -----------------------------------------------------------------------------

def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vmm", "--sundog", type=Path, default=TOP / "build/sundog", help="the program to measure")
    parser.add_argument("--vmm-args", default="", help="more arguments for it, in one string")
    parser.add_argument("--engines", help="Sundog engines, comma-separated (default: all that are usable; --quick: "
                        "the first usable of " + ", ".join(ENGINES) + ")")
    parser.add_argument("--rows", "--only", help="rows, groups or workloads, comma-separated")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--target-ms", type=int, help="how long one measurement lasts")
    parser.add_argument("--best", action="store_true", help="minima, not medians: for a machine that others use")
    parser.add_argument("--repeat", type=int, help="measurements of a workload in a round")
    parser.add_argument("--quick", action="store_true", help="one short round, no instruction counts, TCG as kept")
    parser.add_argument("--skip", default="", help="machines to leave out: native, tcg")
    parser.add_argument("--tcg", metavar="BOARD,CPU", help="this TCG instead of the fastest")
    parser.add_argument("--pick", action="store_true", help="find the fastest TCG anew")
    parser.add_argument("--mitigations", choices=("on", "off"), default="off",
                        help="of the guests' kernels: off (default) on both sides, or as each kernel chooses")
    parser.add_argument("--no-counts", dest="counts", action="store_false", help="do without instruction counts")
    parser.add_argument("--limit", type=int, default=machines.LIMIT, help="seconds for one machine")
    parser.add_argument("--json", type=Path, help="where the figures go (default: bench/results/TIME.json)")
    parser.add_argument("--gate", action="store_true", help="exit status 1 when a floor does not hold")
    parser.add_argument("--list", action="store_true", help="names of rows and workloads")
    parser.add_argument("--mips", action="store_true", help="only the rate of each engine")
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.target_ms = args.target_ms or (60 if args.quick else 300)
    args.repeat = args.repeat or (3 if args.quick else 1)
    args.counts = args.counts and not args.quick
    if min(args.rounds, args.target_ms, args.repeat) < 1:
        parser.error("--rounds, --target-ms and --repeat want at least 1")
    return args


def prepare(args):
    """Everything that runs, built where it is missing: {what: path}."""
    work = args.vmm.resolve().parent / "bench"
    work.mkdir(parents=True, exist_ok=True)
    guest = guests.cache_folder() / "amd64"
    if not (guest / "vmlinuz").is_file():
        raise Failure("no guest kernel in the cache: run tools/fetch-guests")
    program = guests.build_program(work)
    append = [] if args.mitigations == "on" else [machines.NO_MITIGATIONS]
    return {"work": work, "append": append, "program": program, "initrd_plain": guests.initramfs(program, work),
            "vmlinuz": guest / "vmlinuz", "vmlinux": guests.unpack_kernel(guest / "vmlinuz", work / "vmlinux"),
            "first": guests.first_instruction_kernel(guest / "vmlinuz", work / "first-instruction"),
            "release": (guest / "release").read_text().strip()}


def engines(args, setup):
    """The Sundogs to measure. One that was named stays in the list when it cannot be used."""
    named = [e for e in (args.engines or "").split(",") if e]
    found = [machines.Sundog(args.vmm, engine, shlex.split(args.vmm_args)) for engine in named or ENGINES]
    for s in found:
        s.probe(setup)
    if named:
        return found
    usable = [s for s in found if not s.missing]
    return (usable[:1] if args.quick else usable) or found[-1:]


def main():
    args = arguments()
    setup = prepare(args)
    known = guests.workloads(setup["program"])
    if args.list:
        print_names(known)
        return 0
    sundogs = engines(args, setup)
    if args.mips:
        return mips(args, setup, sundogs)
    chosen = choose_rows(args.rows, known)
    if any(row.suite in ("programs", "equal") for row, _ in chosen):
        setup["programs"] = programs.fetch(guests.cache_folder())
        setup["initrd_programs"] = programs.initramfs(setup["programs"], setup["program"],
                                                      setup["work"] / "initrd-programs")
    return bench(args, setup, sundogs, chosen, known)


def interrupted(_number, _frame):
    raise KeyboardInterrupt


if __name__ == "__main__":
    # A machine under measurement is ended with us.
    signal.signal(signal.SIGTERM, interrupted)
    try:
        sys.exit(main())
    except Failure as e:
        say(str(e))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
