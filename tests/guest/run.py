#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the test guests under Sundog or, as an oracle, under QEMU TCG; each check inside a guest is one test.

run.py [--vmm build/sundog [--engine NAME] | --qemu] [--cpus N] [--filter NAME] [--build DIR] [--jobs N] [--verbose] [-- VMM OPTIONS]
"""
import argparse
import concurrent.futures
import fnmatch
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
import tomllib

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import build  # noqa: E402

QEMU = ("qemu-system-x86_64 -accel tcg -cpu max -M pc -serial stdio -display none -no-reboot"
        " -device isa-debug-exit,iobase=0xf4,iosize=0x4")


class Outcome:
    def __init__(self, guest):
        self.guest, self.passed, self.failed, self.skipped, self.notes = guest, 0, 0, 0, []
        self.seconds = 0.0


def command_for(guest, args, image):
    # A guest that says nothing of processors uses one, however many there are.
    cpus, memory = str(guest.get("cpus", args.cpus)), guest.get("memory", "64M")
    append = ["--append", guest["append"]] if "append" in guest else []
    if "initrd" in guest:
        append += ["--initrd", str(HERE / guest["initrd"])]
    if args.qemu:
        options = [a[1:] if a.startswith("--") else a for a in append]
        return shlex.split(QEMU) + ["-kernel", image, "-smp", cpus, "-m", memory] + options
    engine = ["--engine", args.engine] if args.engine else []
    return [args.vmm, "run", *engine, "--cpus", cpus, "--memory", memory, "--kernel", image, "--device", "debug-exit",
            "--no-reboot", *append, *args.vmm_options, *guest.get("options", [])]


def run_guest(guest, args, out):
    """Runs one guest and judges its exit status, its last line and each of its checks."""
    o = Outcome(guest)
    image = str(out / guest.get("image", guest["name"]))
    wrong = args.wrong.get(guest["name"], []) if args.qemu else []
    want = guest.get("status", 33)
    if args.qemu:
        want = guest.get("qemu_status", want)
    limit = guest.get("limit", 10) * args.slow
    start = time.monotonic()
    process = subprocess.Popen(command_for(guest, args, image), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        text, errors = process.communicate(timeout=limit)
        status = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        text, errors = process.communicate()
        status = "no end within %g s" % limit
    o.seconds = time.monotonic() - start
    lines = [line[:300] for line in text[-1000000:].decode("latin-1").replace("\r", "").splitlines()]
    seen, unexpected = set(), 0
    for line in lines:
        m = re.match(r"(ok|not ok|skip) ([^:]*)(?:: (.*))?$", line)
        if not m:
            continue
        verdict, name, rest = m.groups()
        if name in seen:
            o.notes.append(f"{name}: two checks of this name")
            o.failed += 1
        seen.add(name)
        if verdict == "skip":
            o.skipped += 1
            if args.verbose:
                o.notes.append(f"skip {name}: {rest}")
        elif verdict == "ok":
            o.passed += 1
        elif any(fnmatch.fnmatch(name, w) for w in wrong):
            o.skipped += 1
            unexpected += 1
        else:
            o.failed += 1
            o.notes.append(line)
    if unexpected and want == 33:
        want = 35
    if "status" in guest and not seen:  # a guest without checks of its own is one test: its exit status
        o.passed += status == want
    if want == 126 and len(errors.splitlines()) != 1:
        o.failed += 1
        o.notes.append("a refusal is one line on stderr; these are %d" % len(errors.splitlines()))
    if status != want:
        o.failed += 1
        o.notes.append(f"exit status {status}, expected {want}")
        o.notes += ["  | " + line for line in (errors[-2000:].decode("latin-1").splitlines() + lines)[-6:]]
    elif want in (33, 35) and not (lines and lines[-1].startswith("PASSED")):
        o.failed += 1
        o.notes.append("no PASSED line at the end")
    return o


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--vmm", default=str(HERE.parent.parent / "build" / "sundog"))
    p.add_argument("--engine", help="Sundog's engine (default: the one it takes itself)")
    p.add_argument("--qemu", action="store_true", help="run under QEMU TCG instead")
    p.add_argument("--cpus", type=int, default=1, help="processors of guests that use one")
    p.add_argument("--filter", default="*", help="guests whose name matches (a part, or a pattern)")
    p.add_argument("--build", default=None, help="where the images are built (default: build/guests)")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--slow", type=float, default=float(os.environ.get("GUEST_SLOW", "1")),
                   help="factor on the time limits")
    p.add_argument("--verbose", action="store_true")
    p.add_argument("vmm_options", nargs="*")
    args = p.parse_args()
    if not args.qemu and not os.access(args.vmm, os.X_OK):
        p.error(f"{args.vmm} is not there; build it, or use --qemu")

    if args.qemu and args.engine:
        p.error("--engine is Sundog's; QEMU has its own")

    out = pathlib.Path(args.build or HERE.parent.parent / "build" / "guests")
    build.build(out)
    pattern = args.filter if "*" in args.filter else f"*{args.filter}*"
    data = tomllib.loads((HERE / "guests.toml").read_text())
    args.wrong = {g["name"]: [check for w in data["qemu_wrong"]
                              if any(fnmatch.fnmatch(g["name"], pattern) for pattern in w["guests"])
                              for check in w["checks"]] for g in data["guest"]}
    guests = [g for g in data["guest"] if fnmatch.fnmatch(g["name"], pattern)]
    if args.qemu:
        guests = [g for g in guests if g.get("oracle", True)]
    if not guests:
        p.error(f"no guest matches {args.filter}")
    where = "QEMU TCG" if args.qemu else f"{args.vmm}, engine {args.engine or 'auto'}"
    print("under " + " ".join([where, *args.vmm_options]), flush=True)
    total = [0, 0, 0]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for o in pool.map(lambda g: run_guest(g, args, out), guests):
            print(f"{'FAIL' if o.failed else 'ok':4}  {o.guest['name']:<20} {o.passed:4} passed"
                  f" {o.failed:3} failed {o.skipped:3} skipped  {o.seconds:5.1f} s", flush=True)
            for note in o.notes:
                print("      " + note, flush=True)
            total = [total[0] + o.passed, total[1] + o.failed, total[2] + o.skipped]
    print("%d passed, %d failed, %d skipped" % tuple(total))
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main())
