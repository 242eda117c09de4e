# SPDX-License-Identifier: Apache-2.0
"""The machines that are measured (the host itself, QEMU TCG, each Sundog engine), how one is started and how
its output is read.

A machine prints lines that begin with "bench" (guest/main.c). Every measurement stands between "bench-start"
and "bench-clock"; the time between their arrivals here is held against what the guest's clock said.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field

LIBC, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
APPEND = "console=ttyS0 panic=-1"
# Both sides get the same kernel, but show it different processors: without this it would defend itself differently.
NO_MITIGATIONS = "mitigations=off"
QUIET = "quiet"
# The decompressor says that nokaslr is heeded when it begins, and the kernel greets when it has begun: both at
# once on the serial port, by a stock kernel. Few lines more appear at this level.
MARKED = "loglevel=6 earlyprintk=ttyS0 nokaslr"
DECOMPRESSOR_BEGINS = "KASLR disabled"
KERNEL_BEGINS = "Linux version"
# How far a guest's clock may be from ours before ours is taken: a share, and seconds.
CLOCK_SHARE, CLOCK_SECONDS = 0.05, 0.05
INIT, END = "bench-init", "bench-end"
# Seconds for a machine, and for its way to init. A guest that calibrates its clock against a timer may hang when the
# host is too busy meanwhile, so a boot gets some attempts.
LIMIT, BOOT_LIMIT, ATTEMPTS = 600, 90, 3


@dataclass
class Job:
    """What a machine is asked to do once."""
    kernel: str = "fast"     # fast: by the quickest entry; bzimage: through the decompressor, with marks
    initrd: str = "plain"    # plain, or programs: with Debian's programs in it
    memory: str = "512M"
    words: dict = field(default_factory=dict)  # for the guest's init, by the kernel's command line
    more: tuple = ()         # further arguments, for Sundog only


class Native:
    name, label, flags = "native", "native", ""
    missing, boots, ends_itself = None, False, True

    def command(self, setup, job):
        args = [setup["program"], "--target-ms", job.words["bench_ms"], "--repeat", job.words["bench_repeat"]]
        if "bench_only" in job.words:
            args += ["--only", job.words["bench_only"]]
        return [*args, "--root", setup["programs"]] if job.initrd == "programs" else args


class Tcg:
    """QEMU's translator on one of its boards with one of its processor models.

    microvm goes without ACPI: with it there is no clock but the TSC, whose calibration fails on a busy host, and
    then the kernel hangs. Without it a guest cannot switch the machine off.
    """
    name, label, boots = "tcg", "QEMU TCG", True
    BOARDS = {"pc": "pc", "microvm": "microvm,x-option-roms=off,acpi=off"}
    CPUS = ("max", "qemu64")

    def __init__(self, board="pc", cpu="max"):
        self.board, self.cpu = board, cpu
        self.ends_itself = board != "microvm"
        self.program = shutil.which("qemu-system-x86_64")
        self.missing = None if self.program else "qemu-system-x86_64 is not installed"
        self.version = ""
        if self.program:
            shown = subprocess.run([self.program, "--version"], text=True, capture_output=True, check=False)
            self.version = shown.stdout.splitlines()[0]
        self.flags = " ".join(self.switches())

    def switches(self):
        return ["-accel", "tcg", "-M", self.BOARDS[self.board], "-cpu", self.cpu, "-smp", "1", "-nodefaults",
                "-display", "none", "-no-reboot", "-serial", "stdio", "-monitor", "none"]

    def command(self, setup, job):
        # Only pc finds its way into an unpacked kernel without an option ROM of its own.
        kernel = "vmlinux" if job.kernel == "fast" and self.board == "pc" else "vmlinuz"
        return [self.program, *self.switches(), "-m", job.memory, "-kernel", setup[kernel],
                "-initrd", setup[f"initrd_{job.initrd}"], "-append", append(setup, job)]

    def first_instruction(self, setup):
        return [self.program, *self.switches(), "-m", "512M", "-kernel", setup["first"],
                "-initrd", setup["initrd_plain"], "-append", append(setup, Job())]


class Sundog:
    boots = ends_itself = True

    def __init__(self, program, engine, more=(), cpu_model=None):
        self.program, self.engine, self.more = program, engine, list(more)
        self.cpu_model = cpu_model
        self.name, self.label = f"sundog-{engine}", f"Sundog {engine}"
        if cpu_model:
            self.more += ["--cpu-model", cpu_model]
        self.missing = None
        self.flags = " ".join(["--engine", engine, *self.more])

    def probe(self, setup):
        """Why this engine cannot be used, in Sundog's own words; None when it can. Kept in `missing`."""
        if not os.access(self.program, os.X_OK):
            self.missing = f"{self.program} has not been built"
            return self.missing
        try:
            done = subprocess.run([*map(str, self.command(setup, Job())), "--dry-run"], text=True,
                                  stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
            words = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            self.missing = words[-1] if done.returncode else None
        except subprocess.TimeoutExpired:
            self.missing = "a dry run does not end"
        return self.missing

    def base(self, kernel, entry, memory):
        return [self.program, "run", "--engine", self.engine, *self.more, "--memory", memory, "--kernel", kernel,
                "--kernel-entry", entry, "--no-reboot"]

    def command(self, setup, job):
        # The unpacked kernel is Sundog's to find in the packed one.
        entry = "pvh" if job.kernel == "fast" else "bzimage"
        return [*self.base(setup["vmlinuz"], entry, job.memory), "--initrd", setup[f"initrd_{job.initrd}"],
                "--append", append(setup, job), *job.more]

    def first_instruction(self, setup):
        return [*self.base(setup["first"], "bzimage", "512M"), "--initrd", setup["initrd_plain"],
                "--append", append(setup, Job())]


def append(setup, job):
    """The kernel's command line."""
    words = [f"{k}={v}" for k, v in job.words.items()]
    return " ".join([APPEND, *setup["append"], MARKED if job.kernel == "bzimage" else QUIET, *words])


# ---- Running one ----------------------------------------------------------------------------------

@dataclass
class Ended:
    lines: list       # [(seconds since start, text)]
    status: int
    seconds: float
    error: str        # last line of stderr
    stopped: bool     # ended by us, as asked
    came_up: bool     # to init


def die_with_parent():
    """In the child, before the program: nothing goes on when the ruler itself is killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Process:
    """A machine in a process group of its own, that is gone when this is left, however it is left."""

    def __init__(self, command, limit, tied=True):
        self.errors = tempfile.TemporaryFile()
        self.start = time.monotonic()
        self.popen = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=self.errors, start_new_session=True,
                                      preexec_fn=die_with_parent if tied else None)
        self.timer = None
        self.limit(limit)

    def __enter__(self):
        return self

    def limit(self, seconds):
        """From now on it may run for so long."""
        if self.timer:
            self.timer.cancel()
        self.timer = threading.Timer(seconds, self.kill)
        self.timer.daemon = True
        self.timer.start()

    def __exit__(self, *_):
        self.timer.cancel()
        self.kill()
        self.popen.wait()
        self.popen.stdout.close()
        self.errors.close()

    def kill(self):
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def since(self):
        return time.monotonic() - self.start

    def last_words(self):
        self.errors.seek(0)
        words = self.errors.read().decode(errors="replace").strip().splitlines()
        return words[-1] if words else ""


def run(machine, setup, job, limit=LIMIT, stop=None):
    """Runs a machine to its end, or until stop(line, pid) says so; again when its guest does not come to init."""
    if not stop and not machine.ends_itself:
        def stop(line, _pid):
            return line == END

    for attempt in range(ATTEMPTS):
        ended = run_once(machine.command(setup, job), limit, BOOT_LIMIT if machine.boots else limit, stop)
        if ended.came_up or not machine.boots:
            break
        ended.error = f"{ended.error} (no init within {BOOT_LIMIT} s, attempt {attempt + 1})".strip()
    return ended


def run_once(command, limit, boot_limit, stop):
    with Process(command, boot_limit) as p:
        lines, came_up = [], False
        for raw in p.popen.stdout:
            lines.append((p.since(), raw.decode(errors="replace").strip()))
            if lines[-1][1] == INIT:
                came_up = True
                p.limit(limit)
            if stop and stop(lines[-1][1], p.popen.pid):
                return Ended(lines, 0, p.since(), "", True, came_up)
        status = p.popen.wait()
        return Ended(lines, status, p.since(), p.last_words(), False, came_up)


def seconds_to_byte(command, byte, limit):
    """Seconds from the start of the process to this byte of its output; None when it does not come."""
    # Tying it to us would take a millisecond or two of what is measured.
    with Process(command, limit, tied=False) as p:
        while chunk := os.read(p.popen.stdout.fileno(), 4096):
            if byte in chunk:
                return p.since()
    return None


def resident_beside_ram(pid, memory_bytes):
    """Bytes of a VMM's own: resident memory and page tables of its processes, less resident guest memory.

    Guest memory is the mappings that lie side by side, of one backing, and together are as large as it; all
    mappings of the same shared file count as it.
    """
    own = 0
    for group in processes_of(pid):
        try:
            with open(f"/proc/{group}/smaps", encoding="ascii", errors="replace") as f:
                maps = read_smaps(f)
            status = dict(re.findall(r"^(\w+):\s+(\d+) kB$", open(f"/proc/{group}/status").read(), re.M))
        except OSError:
            continue
        runs = []
        for m in maps:
            if runs and runs[-1][-1]["end"] == m["start"] and runs[-1][-1]["backing"] == m["backing"]:
                runs[-1].append(m)
            else:
                runs.append([m])
        ram = [r for r in runs if sum(m["end"] - m["start"] for m in r) >= memory_bytes * 9 // 10
               and sum(m["rss"] for m in r)]
        files = {r[0]["backing"] for r in ram if r[0]["backing"].strip() and "/" in r[0]["backing"]}
        guest = sum(m["rss"] for r in runs for m in r if m["backing"] in files or r in ram)
        own += sum(m["rss"] for m in maps) - guest + int(status.get("VmPTE", 0)) * 1024
    return own


def processes_of(group):
    """Processes of a process group."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.getpgid(int(name)) == group:
                    found.append(int(name))
            except OSError:
                pass
    return found


def read_smaps(lines):
    maps = []
    for line in lines:
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ (\d+) *(.*)$", line):
            maps.append({"start": int(match[1], 16), "end": int(match[2], 16), "rss": 0,
                         "backing": f"{match[3]} {match[4]}" if match[3] != "0" else ""})
        elif line.startswith("Rss:"):
            maps[-1]["rss"] = int(line.split()[1]) * 1024
    return maps


# ---- Reading its output ---------------------------------------------------------------------------

@dataclass
class Output:
    results: dict = field(default_factory=dict)     # workload: [result]
    info: dict = field(default_factory=dict)        # what the machine shows of itself
    skipped: dict = field(default_factory=dict)     # workload: reason
    marks: dict = field(default_factory=dict)       # decompressor, kernel, init: seconds since start
    complaints: list = field(default_factory=list)
    clock: list = field(default_factory=list)       # (guest seconds, host seconds) of each measurement
    ended: bool = False                             # all that was asked for was tried


def clocks_agree(guest, host):
    return abs(guest - host) <= max(CLOCK_SHARE * host, CLOCK_SECONDS)


class Reader:
    """Takes a machine's lines one by one."""

    def __init__(self):
        self.out, self.started, self.last = Output(), {}, {}

    def take(self, at, line):
        word, _, rest = line.partition(" ")
        if word == INIT:
            self.out.marks["init"] = at
        elif word == END:
            self.out.ended = True
        elif word == "bench-start":
            self.started[rest] = at
        elif word == "bench-clock":
            name, seconds = rest.split()
            self.last[name] = (float(seconds), at - self.started.get(name, at))
        elif word == "bench-skip":
            name, _, why = rest.partition(" ")
            self.out.skipped[name] = why
        elif word == "bench-info":
            key, _, value = rest.partition(" ")
            self.out.info[key] = value.strip()
        elif word == "bench-error":
            self.out.complaints.append(line)
        elif word == "bench":
            self.result(rest)
        elif line.startswith(DECOMPRESSOR_BEGINS):
            self.out.marks["decompressor"] = at
        elif KERNEL_BEGINS in line:
            self.out.marks.setdefault("kernel", at)

    def result(self, text):
        match = re.match(r"(\S+) (\S+) (\d+) ([-\d.]+) ([-\d.]+) ([0-9a-f]+) (.*)$", text)
        if not match:
            return
        name, guest, host = match[1], *self.last.get(match[1], (0.0, 0.0))
        r = {"group": match[2], "iterations": int(match[3]), "ns": float(match[4]), "ns_per_unit": float(match[5]),
             "check": match[6], "unit": match[7], "guest_seconds": guest, "host_seconds": host}
        self.out.clock.append((guest, host))
        if not clocks_agree(guest, host) and guest > 0:
            self.out.complaints.append(f"{name}: {guest:.3f} s by the guest's clock, {host:.3f} s by the host's: "
                                       "the host's counts")
            r["ns"] *= host / guest
            r["ns_per_unit"] *= host / guest
        self.out.results.setdefault(name, []).append(r)


def read(ended):
    reader = Reader()
    for at, line in ended.lines:
        reader.take(at, line)
    if not reader.out.ended and not ended.stopped:
        reader.out.complaints.append("the run did not come to its end")
    if ended.status:
        reader.out.complaints.append(f"ended with status {ended.status} after {ended.seconds:.0f} s: {ended.error}")
    return reader.out
