#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whole machines in lockstep on two engines: the test guests, and Debian's kernels with programs of all kinds.

run.py [--lockstep build/lockstep] [--filter NAME] [--long] [--passes] [--list] [-- LOCKSTEP OPTIONS]

Each machine is one test, and passes when both engines agree to its end. The guests of tests/guest are compared with
single instructions of the interpreter, the kernels with its blocks, to the end of the load that is their init. --long adds the
kernels by way of their own unpacker and more of them on two processors, --passes each of the others with each pass of the
translator left out.
The first test plants a difference, which must be found to the instruction.
"""

import argparse
import concurrent.futures
import fnmatch
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
GUESTS = HERE.parent / "guest"
sys.path.insert(0, str(GUESTS))
import build  # noqa: E402

APPEND = "console=ttyS0 panic=-1"
LOAD = HERE.parent / "machine" / "guest"
# What the guests of tests/guest may take; those that never end are as good a test up to here.
GUEST_LIMIT = "60M"
# Every unit is verified, too.
VERIFIED = ["--verify", "1"]
# Nanoseconds a thousand instructions: time flies for them, since they wait for timers.
GUEST_PACE = "10000"
# Lines of a failed machine that are shown.
SHOWN = 120


class Case:
    """One machine: a name, options of lockstep, and the exit status and text that are right."""

    def __init__(self, name, *options, limit=600, status=0, text=""):
        self.name, self.options, self.limit, self.status, self.text = name, list(options), limit, status, text
        self.vary = not status and limit <= 600  # also with passes left out


def guest_cases(out):
    for guest in tomllib.loads((GUESTS / "guests.toml").read_text())["guest"]:
        if guest.get("status") == 126:
            continue  # refused before it runs
        options = ["--kernel", str(out / guest.get("image", guest["name"])), "--cpus", str(guest.get("cpus", 1)),
                   "--memory", guest.get("memory", "64M"), "--debug-exit", "--whole", "--single", "--slice", "32K",
                   "--pace", GUEST_PACE, "--limit", GUEST_LIMIT, *VERIFIED]
        if "append" in guest:
            options += ["--append", guest["append"]]
        if "initrd" in guest:
            options += ["--initrd", str(GUESTS / guest["initrd"])]
        yield Case(guest["name"], *options)


def planted_case(out):
    return Case("planted", "--kernel", str(out / "exceptions64"), "--memory", "16M", "--debug-exit", "--slice", "64K",
                "--engine-b", "interp", "--plant", "150001", status=1, text="equal after 150000 instructions, different after 150001:")


def kernel_cases(work, long):
    cache = subprocess.run([TOP / "tools" / "fetch-guests", "--print"], capture_output=True, text=True,
                           check=True).stdout.strip()
    subprocess.run([sys.executable, LOAD / "build.py", work], check=True, stdout=subprocess.DEVNULL)
    for arch, bits in ("amd64", 64), ("i386", 32):
        kernel = Path(cache) / arch / "vmlinuz"
        if not kernel.exists():
            print(f"skip  {arch}: no kernel in the cache; tools/fetch-guests gets it", flush=True)
            continue
        initrd = work / f"{arch}.cpio"
        subprocess.run([TOP / "tools" / "mkinitramfs", "--arch", arch, "--init", LOAD / "load-init",
                        "--add", f"{work}/selftest{bits}:/bin/selftest", "-o", initrd], check=True)
        machine = ["--kernel", str(kernel), "--initrd", str(initrd), "--append", APPEND, "--memory", "256M", *VERIFIED]
        load = ["--kernel-entry", "pvh", "--until", "LOAD DONE"]
        yield Case(f"debian-{arch}", *machine, *load, text="text shown")
        if arch == "amd64" or long:
            yield Case(f"debian-{arch}-smp", *machine, *load, "--cpus", "2", text="text shown")
        if long:
            yield Case(f"debian-{arch}-unpacked", *machine, "--kernel-entry", "bzimage", "--until", "Run /init", limit=3600)
            yield Case(f"debian-{arch}-tlb", *machine, *load, "--whole", "--slice", "8M", text="text shown", limit=3600)


def passes(lockstep):
    """The translator's passes by name; none when this build has no translator."""
    text = subprocess.run([lockstep, "--help"], capture_output=True, text=True, check=True).stdout
    engines = re.search(r"^engines: (.*)$", text, re.M).group(1).split()
    return re.search(r"^passes: (.*)$", text, re.M).group(1).split() if "bt" in engines else []


def run_case(case, args):
    command = [args.lockstep, *case.options, *args.options]
    start = time.monotonic()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=case.limit * args.slow)
        status, text = done.returncode, done.stdout.decode("latin-1")
    except subprocess.TimeoutExpired as e:
        status, text = f"no end within {case.limit * args.slow:g} s", (e.stdout or b"").decode("latin-1")
    return status == case.status and case.text in text, status, text, time.monotonic() - start, command


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lockstep", default=str(TOP / "build" / "lockstep"))
    p.add_argument("--filter", default="*", help="machines whose name matches (a part, or a pattern)")
    p.add_argument("--build", default=str(TOP / "build" / "guests"), help="where the test guests are built")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--slow", type=float, default=float(os.environ.get("GUEST_SLOW", "1")), help="factor on the time limits")
    p.add_argument("--long", action="store_true")
    p.add_argument("--passes", action="store_true")
    p.add_argument("--list", action="store_true", help="only print the command lines")
    p.add_argument("options", nargs="*")
    args = p.parse_args()
    if not os.access(args.lockstep, os.X_OK):
        p.error(f"{args.lockstep} is not there; build it")
    out = Path(args.build)
    build.build(out)
    with tempfile.TemporaryDirectory() as work:
        return run_all(args, out, Path(work))


def run_all(args, out, work):
    pattern = args.filter if "*" in args.filter else f"*{args.filter}*"
    cases = [c for c in (planted_case(out), *kernel_cases(work, args.long), *guest_cases(out))
             if fnmatch.fnmatch(c.name, pattern)]
    if args.passes:
        cases += [Case(f"{c.name}, {name} off", *c.options, "--off", name, limit=c.limit, status=c.status, text=c.text)
                  for name in passes(args.lockstep) for c in cases if c.vary]
    if args.list:
        for c in cases:
            print(f"{c.name}: {' '.join([args.lockstep, *c.options, *args.options])}")
        return 0
    total = [0, 0]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for case, (ok, status, text, seconds, command) in zip(cases, pool.map(lambda c: run_case(c, args), cases)):
            total[not ok] += 1
            lines = text.splitlines()
            summary = next((line for line in reversed(lines) if line.startswith("equal: ")), "")
            print(f"{'ok' if ok else 'FAIL':4}  {case.name:<24} {seconds:6.1f} s  {summary[7:]}", flush=True)
            if not ok:
                print(f"      status {status}, expected {case.status}: {' '.join(map(str, command))}")
                print("\n".join("      | " + line for line in lines[-SHOWN:]), flush=True)
    print(f"{total[0]} passed, {total[1]} failed, 0 skipped")
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main())
