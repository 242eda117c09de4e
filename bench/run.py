#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The ruler: the same small workloads natively, under QEMU TCG and under each Sundog engine.

One static program is run as a process on the host and as the init of the same Debian kernel with the same
command line in each machine, in interleaved rounds. Prints a table for people and writes JSON.

    bench/run.py [--rounds 3] [--engines interp] [--only int] [--skip native,tcg] [--no-boot]
    bench/run.py --mips        million guest instructions a second of each engine, integer workloads only

Times are medians over the rounds; a spread is (max - min) / median. Instruction counts come from
single-stepping the program on the host, once for each build of it; each round of a REP counts as one.
"""

import argparse
import datetime
import hashlib
import importlib.machinery
import importlib.util
import json
import lzma
import math
import os
import re
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
APPEND = "console=ttyS0 quiet panic=-1"
MEMORY = "512M"
COMPILE = ["gcc", "-O2", "-std=gnu17", "-Wall", "-Wextra", "-fno-tree-vectorize",
           # The loops stay as written: no call into a C library that would choose by processor.
           "-fno-tree-loop-distribute-patterns", "-fno-math-errno", "-static"]
GROUPS = {"int": "integer", "fp": "floating point, SIMD", "mem": "memory", "sys": "kernel", "time": "timer"}
# Seconds for one machine, boot included.
LIMIT = 600
# The host's and a guest's idea of the same duration may differ by this much before it is reported.
CLOCK_TOLERANCE = 0.05


class Failure(Exception):
    """Told to the user as one line."""


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def cache_folder():
    loader = importlib.machinery.SourceFileLoader("fetch_guests", str(TOP / "tools/fetch-guests"))
    sys.dont_write_bytecode = True
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fetch_guests", loader))
    loader.exec_module(module)
    return module.default_cache()


# ---- What is run ----------------------------------------------------------------------------------

def build_program(work):
    program = work / "sundog-bench"
    sources = sorted((TOP / "bench/guest").glob("*.c"))
    newest = max(p.stat().st_mtime for p in [*sources, *(TOP / "bench/guest").glob("*.h"), Path(__file__)])
    if not program.exists() or program.stat().st_mtime < newest:
        done = subprocess.run([*COMPILE, "-o", program, *sources], text=True, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise Failure("the workloads do not compile:\n" + done.stderr)
    return program


def instruction_counts(program, work):
    """Instructions of one iteration by workload, kept beside the program that they belong to."""
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    kept = work / "counts.json"
    try:
        old = json.loads(kept.read_text())
        if old["program"] == digest:
            return old["counts"]
    except (OSError, ValueError, KeyError):
        pass
    say("counting the workloads' instructions (once for this build, about half a minute)")
    out = subprocess.run([program, "--count"], text=True, capture_output=True, check=False, timeout=600).stdout
    counts = {m[1]: int(m[2]) for m in re.finditer(r"^bench-count (\S+) (\d+)$", out, re.M)}
    kept.write_text(json.dumps({"program": digest, "counts": counts}))
    return counts


def unpack_kernel(bzimage, out):
    """The ELF vmlinux inside a bzImage (boot protocol 2.08: payload_offset, payload_length), xz only."""
    data = bzimage.read_bytes()
    if out.exists() and out.stat().st_mtime >= bzimage.stat().st_mtime:
        return out
    if data[0x202:0x206] != b"HdrS":
        raise Failure(f"{bzimage} is no bzImage")
    setup = ((data[0x1f1] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", data, 0x248)
    payload = data[setup + offset:setup + offset + length]
    if payload[:6] == b"\xfd7zXZ\0":
        image = lzma.LZMADecompressor().decompress(payload)
    elif payload[:4] == b"\x28\xb5\x2f\xfd":
        image = subprocess.run(["zstd", "-dqc"], input=payload, stdout=subprocess.PIPE, check=False).stdout
    else:
        raise Failure(f"{bzimage}: its payload is packed in a way that this script does not know")
    part = out.with_suffix(".part")
    part.write_bytes(image)
    part.replace(out)
    return out


def initramfs(program, work):
    out = work / "initrd"
    subprocess.run([TOP / "tools/mkinitramfs", "--no-busybox", "--init", program, "-o", out], check=True)
    return out


# ---- Machines -------------------------------------------------------------------------------------

class Native:
    name, label = "native", "native"
    missing = None

    def command(self, setup, words, _kernel):
        args = [setup["program"]]
        if "bench_only" in words:
            args += ["--only", words["bench_only"]]
        return [*args, "--target-ms", words["bench_ms"]]


class Tcg:
    name, label = "tcg", "QEMU TCG"

    def __init__(self):
        self.program = shutil.which("qemu-system-x86_64")
        self.missing = None if self.program else "qemu-system-x86_64 is not installed"
        self.version = ""
        if self.program:
            shown = subprocess.run([self.program, "--version"], text=True, capture_output=True, check=False)
            self.version = shown.stdout.splitlines()[0]

    def command(self, setup, words, kernel):
        return [self.program, "-accel", "tcg", "-M", "pc", "-cpu", "max", "-smp", "1", "-m", MEMORY,
                "-display", "none", "-no-reboot", "-serial", "stdio", "-monitor", "none", "-nodefaults",
                "-kernel", setup[kernel], "-initrd", setup["initrd"], "-append", append(words)]


class Sundog:
    def __init__(self, program, engine, setup):
        self.program, self.engine = program, engine
        self.name, self.label = f"sundog-{engine}", f"Sundog {engine}"
        self.missing = self.probe(setup)

    def probe(self, setup):
        """Why this engine cannot be used, in Sundog's own words; None when it can."""
        if not os.access(self.program, os.X_OK):
            return f"{self.program} has not been built"
        try:
            done = subprocess.run([*self.command(setup, {}, "vmlinuz"), "--dry-run"], text=True,
                                  stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            return "a dry run does not end"
        if done.returncode:
            words = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            return words[-1]
        return None

    def command(self, setup, words, kernel, *more):
        entry = "pvh" if kernel == "vmlinux" else "bzimage"
        # The unpacked kernel is Sundog's to find in the packed one.
        return [self.program, "run", "--engine", self.engine, "--memory", MEMORY, "--kernel", setup["vmlinuz"],
                "--kernel-entry", entry, "--initrd", setup["initrd"], "--append", append(words), "--no-reboot",
                *more]


def append(words):
    return " ".join([APPEND, *(f"{k}={v}" for k, v in words.items())])


def run_machine(command, limit=LIMIT):
    """Runs one machine to its end: [(seconds since start, line)], status, seconds."""
    lines = []
    start = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=errors, start_new_session=True)

        def kill():
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit, kill)
        timer.start()
        try:
            for raw in process.stdout:
                lines.append((time.monotonic() - start, raw.decode(errors="replace").strip()))
            status = process.wait()
        except BaseException:
            kill()
            process.wait()
            raise
        finally:
            timer.cancel()
        errors.seek(0)
        words = errors.read().decode(errors="replace").strip().splitlines()
    return lines, status, time.monotonic() - start, words[-1] if words else ""


def read_results(lines):
    """{workload: result}, seconds to init, and complaints, from a machine's output."""
    results, complaints, boot, started = {}, [], None, {}
    for at, line in lines:
        if line == "bench-init":
            boot = at
        elif match := re.match(r"bench-start (\S+)$", line):
            started[match[1]] = at
        elif match := re.match(r"bench (\S+) (\S+) (\d+) ([-\d.]+) ([-\d.]+) ([0-9a-f]+) (.*)$", line):
            name, count, each = match[1], int(match[3]), float(match[4])
            results[name] = {"group": match[2], "iterations": count, "ns": each, "ns_per_unit": float(match[5]),
                             "check": match[6], "unit": match[7]}
            took = at - started.get(name, at)
            claimed = each * count / 1e9
            if match[2] != "time" and took > 0.1 and abs(took - claimed) > max(CLOCK_TOLERANCE * took, 0.02):
                complaints.append(f"{name}: the guest measured {claimed:.3f} s of its time, the host {took:.3f} s")
        elif line.startswith("bench-error"):
            complaints.append(line)
    if not any(line == "bench-end" for _, line in lines):
        complaints.append("the run did not come to its end")
    return results, boot, complaints


# ---- Figures --------------------------------------------------------------------------------------

def median_and_spread(values):
    mid = statistics.median(values)
    return mid, (max(values) - min(values)) / mid if mid else 0.0


def geomean(values):
    values = [v for v in values if v and v > 0]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def machine_line():
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", info, re.M)
    flags = set((re.search(r"^flags\s*: (.*)$", info, re.M) or ["", ""])[1].split())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) // 1048576
    where = " (itself a virtual machine)" if "hypervisor" in flags else ""
    return (f"{model[1] if model else 'unknown processor'}, {os.cpu_count()} processors, {memory} GiB, "
            f"Linux {os.uname().release}{where}, load {os.getloadavg()[0]:.1f}")


def mitigations():
    folder = Path("/sys/devices/system/cpu/vulnerabilities")
    try:
        said = {p.name: p.read_text().strip() for p in sorted(folder.iterdir())}
    except OSError:
        return "unknown"
    return ", ".join(name for name, text in said.items() if text.startswith("Mitigation")) or "none"


def scale(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def ratio(x):
    if x is None:
        return "-"
    return f"{x:.0f}x" if x >= 100 else f"{x:.1f}x" if x >= 10 else f"{x:.2f}x"


def summarise(rounds, counts):
    """Medians: {machine: {workload: figures}}."""
    table = {}
    for machine, runs in rounds.items():
        names = dict.fromkeys(name for run in runs for name in run)
        table[machine] = {}
        for name in names:
            found = [run[name] for run in runs if name in run]
            ns, spread = median_and_spread([f["ns"] for f in found])
            unit_ns = statistics.median(f["ns_per_unit"] for f in found)
            table[machine][name] = {**found[0], "ns": ns, "ns_per_unit": unit_ns, "spread": spread,
                                    "mips": counts[name] * 1e3 / ns if counts.get(name) and ns > 0 else None}
    return table


def differing_checks(table):
    """Workloads whose result is not the same on all machines."""
    names = {name for figures in table.values() for name in figures}
    return sorted(n for n in names if len({f[n]["check"] for f in table.values() if n in f}) > 1)


def print_table(table, machines):
    shown = [m for m in machines if m.name in table]
    sundogs = [m for m in shown if m.name.startswith("sundog")]
    names = list(dict.fromkeys(n for m in shown for n in table[m.name]))
    heads = ["workload", "per"] + [m.label for m in shown]
    heads += [f"{m.label}/native" for m in shown if m.name != "native" and "native" in table]
    heads += [f"{m.label}/TCG" for m in sundogs if "tcg" in table]
    heads += [f"{m.label} M/s" for m in sundogs]

    def ns(machine, name, key="ns_per_unit"):
        return table.get(machine, {}).get(name, {}).get(key)

    def over(a, b, name):
        x, y = ns(a, name), ns(b, name)
        return x / y if x and y and x > 0 and y > 0 else None

    def row(name):
        unit = next(table[m.name][name]["unit"] for m in shown if name in table[m.name])
        cells = [name, unit]
        for m in shown:
            if name in table[m.name]:
                cells.append(f"{scale(ns(m.name, name))} ±{table[m.name][name]['spread'] * 50:.0f}%")
            else:
                cells.append("failed")
        if "native" in table:
            cells += [ratio(over(m.name, "native", name)) for m in shown if m.name != "native"]
        if "tcg" in table:
            cells += [ratio(over(m.name, "tcg", name)) for m in sundogs]
        return cells + [f"{ns(m.name, name, 'mips'):.0f}" if ns(m.name, name, "mips") else "" for m in sundogs]

    def mean_row(group, label):
        mine = [n for n in names if any(table[m.name].get(n, {}).get("group") == group for m in shown)]
        cells = [f"= {label}", "geometric mean"] + [""] * len(shown)
        if "native" in table:
            cells += [ratio(geomean([over(m.name, "native", n) for n in mine])) for m in shown if m.name != "native"]
        if "tcg" in table:
            cells += [ratio(geomean([over(m.name, "tcg", n) for n in mine])) for m in sundogs]
        rates = [geomean([ns(m.name, n, "mips") for n in mine]) for m in sundogs]
        return cells + [f"{r:.0f}" if r else "" for r in rates]

    rows = [heads]
    for group, label in GROUPS.items():
        mine = [n for n in names if any(table[m.name].get(n, {}).get("group") == group for m in shown)]
        if mine:
            rows += [row(n) for n in mine]
            rows += [mean_row(group, label), None]
    widths = [max(len(r[i]) for r in rows if r) for i in range(len(heads))]
    for i, cells in enumerate(rows):
        if not cells:
            print()
            continue
        print("  ".join(c.ljust(w) if k < 2 else c.rjust(w) for k, (c, w) in enumerate(zip(cells, widths))).rstrip())
        if i == 0:
            print("  ".join("-" * w for w in widths))


# ---- The two modes --------------------------------------------------------------------------------

def bench(args, setup, machines, work):
    counts = instruction_counts(setup["program"], work) if args.counts else {}
    words = {"bench_ms": str(args.target_ms)}
    if args.only:
        words["bench_only"] = args.only
    usable = [m for m in machines if not m.missing]
    rounds = {m.name: [] for m in usable}
    boots, complaints = {}, {}
    for n in range(args.rounds):
        for m in usable:
            say(f"round {n + 1} of {args.rounds}: {m.label}")
            lines, status, seconds, error = run_machine(m.command(setup, words, "vmlinux"), args.limit)
            results, boot, said = read_results(lines)
            rounds[m.name].append(results)
            if boot is not None:
                boots.setdefault((m.name, "pvh"), []).append(boot)
            if status:
                said.append(f"ended with status {status} after {seconds:.0f} s: {error}")
            complaints.setdefault(m.label, []).extend(f"round {n + 1}: {s}" for s in said)
    if args.boot:
        for m in usable:
            if m.name != "native":
                say(f"boot as bzImage: {m.label}")
                lines, status, _, error = run_machine(m.command(setup, {"bench_only": "none"}, "vmlinuz"), args.limit)
                _, boot, said = read_results(lines)
                if boot is not None:
                    boots.setdefault((m.name, "bzimage"), []).append(boot)
                if status:
                    said.append(f"ended with status {status}: {error}")
                complaints.setdefault(m.label, []).extend(f"bzImage boot: {s}" for s in said)

    table = summarise(rounds, counts)
    print(f"machine: {machine_line()}")
    print(f"guest: Linux {setup['release']}, \"{append(words)}\", {MEMORY}, 1 processor; host mitigations: {mitigations()}")
    for m in machines:
        if m.name == "tcg" and not m.missing:
            print(f"tcg: {m.version}, -M pc -cpu max")
    print(f"{args.rounds} rounds, medians; ± is half the spread; M/s is million guest instructions a second\n")
    print_table(table, machines)
    if boots:
        print("boot (seconds from process start to init):")
        for m in usable:
            said = [f"{entry} {statistics.median(v):.2f}" for (name, entry), v in boots.items() if name == m.name]
            if said:
                print(f"  {m.label:14} {', '.join(said)}")
    for m in machines:
        if m.missing:
            print(f"{m.label}: not available: {m.missing}")
    bad = differing_checks(table)
    if bad:
        print(f"RESULTS DIFFER between machines: {', '.join(bad)}")
    for label, said in complaints.items():
        for text in said:
            print(f"note: {label}: {text}")
    write_json({
        "machine": machine_line(), "kernel": setup["release"], "append": append(words), "rounds": args.rounds,
        "counts": counts, "medians": table, "samples": rounds,
        "boot": [{"machine": n, "entry": e, "seconds": v} for (n, e), v in boots.items()],
        "missing": {m.name: m.missing for m in machines if m.missing}, "complaints": complaints,
        "differing": bad,
    })
    return 1 if bad else 0


def mips(args, setup, machines):
    """Whole-machine rate from Sundog's own count: a run of the integer workloads less a run of the bare boot."""
    status = 0
    for m in machines:
        if not isinstance(m, Sundog):
            continue
        if m.missing:
            print(f"{m.label}: not available: {m.missing}")
            status = 1
            continue
        figures = {}
        for what in ("none", "int"):
            with tempfile.NamedTemporaryFile() as stats:
                words = {"bench_only": what, "bench_ms": str(args.target_ms)}
                command = m.command(setup, words, "vmlinux", f"--stats={stats.name}")
                say(f"{m.label}: {'boot only' if what == 'none' else 'integer workloads'}")
                _, code, _, error = run_machine(command, args.limit)
                try:
                    figures[what] = json.loads(Path(stats.name).read_text())
                except ValueError:
                    raise Failure(f"{m.label} wrote no statistics (status {code}: {error})") from None
        boot, both = figures["none"], figures["int"]
        print(f"{m.label}: boot {boot['instructions'] / 1e6:.0f} M instructions in {boot['seconds']:.2f} s, "
              f"{boot['instructions'] / boot['seconds'] / 1e6:.1f} M/s; integer workloads "
              f"{(both['instructions'] - boot['instructions']) / (both['seconds'] - boot['seconds']) / 1e6:.1f} M/s")
    return status


def write_json(result):
    folder = TOP / "bench/results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{datetime.datetime.now():%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(result, indent=1, default=str) + "\n")
    print(f"\nall figures: {path.relative_to(TOP)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sundog", type=Path, default=TOP / "build/sundog", help="the program to measure")
    parser.add_argument("--engines", default="interp", help="Sundog engines, comma-separated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--target-ms", type=int, default=300, help="how long one measurement lasts")
    parser.add_argument("--only", help="groups or workloads, comma-separated")
    parser.add_argument("--skip", default="", help="machines to leave out: native, tcg")
    parser.add_argument("--no-boot", dest="boot", action="store_false", help="leave out the bzImage boots")
    parser.add_argument("--no-counts", dest="counts", action="store_false", help="do without instruction counts")
    parser.add_argument("--limit", type=int, default=LIMIT, help="seconds for one machine")
    parser.add_argument("--mips", action="store_true", help="only the rate of each engine")
    args = parser.parse_args()
    if args.rounds < 1 or args.target_ms < 1:
        parser.error("--rounds and --target-ms want at least 1")

    work = TOP / "build/bench"
    work.mkdir(parents=True, exist_ok=True)
    guest = cache_folder() / "amd64"
    if not (guest / "vmlinuz").is_file():
        raise Failure("no guest kernel in the cache: run tools/fetch-guests")
    program = build_program(work)
    setup = {"program": program, "initrd": initramfs(program, work), "vmlinuz": guest / "vmlinuz",
             "vmlinux": unpack_kernel(guest / "vmlinuz", work / "vmlinux"),
             "release": (guest / "release").read_text().strip()}
    skipped = args.skip.split(",")
    machines = [m for m in (Native(), Tcg()) if m.name not in skipped]
    machines += [Sundog(args.sundog, engine, setup) for engine in args.engines.split(",") if engine]
    return mips(args, setup, machines) if args.mips else bench(args, setup, machines, work)


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
