# SPDX-License-Identifier: Apache-2.0
"""A whole machine as a test sees it: its guest, its console line by line with the time of each, its end.

`boot` is the fixture: boot("amd64", init="selftest64", append="...") starts a machine, and what a test leaves running is ended.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pexpect
import pytest
from conftest import SLOW, TOP

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "guest"))
import build  # noqa: E402

# Seconds for a kernel to come to its init, on a host that has other things to do as well.
BOOT_LIMIT = 180 * SLOW
APPEND = "console=ttyS0 quiet panic=-1"


def host_vendor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("vendor_id"):
            return line.split()[-1]
    return ""


class Machine:
    """One run of `sundog run`. Its console is read by a thread, so that no guest waits for a test."""

    def __init__(self, command, stats, **streams):
        self.stats_path, self.lines, self.partial = stats, [], b""
        self.change = threading.Condition()
        self.closed = False
        self.process = subprocess.Popen(command, stdin=streams.get("stdin", subprocess.DEVNULL),
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.errors = b""
        self.readers = [threading.Thread(target=t, daemon=True) for t in (self._read_console, self._read_errors)]
        for r in self.readers:
            r.start()

    def _read_console(self):
        while True:
            data = os.read(self.process.stdout.fileno(), 65536)
            now = time.monotonic()
            with self.change:
                *whole, self.partial = (self.partial + data).split(b"\n")
                self.lines += [(now, line.decode("utf-8", "replace").rstrip("\r")) for line in whole]
                self.closed = not data
                self.change.notify_all()
            if not data:
                return

    def _read_errors(self):
        self.errors = self.process.stderr.read()

    @property
    def text(self):
        return "\n".join(line for _, line in self.lines) + self.partial.decode("utf-8", "replace")

    def __repr__(self):
        return (f"status {self.process.poll()}\n--- console's end\n{self.text[-3000:]}\n--- stderr\n"
                f"{self.errors.decode('utf-8', 'replace')[-1000:]}")

    def wait_for(self, what, count=1, limit=BOOT_LIMIT):
        """Waits until `what` has been printed `count` times."""
        end = time.monotonic() + limit
        with self.change:
            while self.text.count(what) < count:
                left = end - time.monotonic()
                assert left > 0 and not self.closed, f"no {count} times {what!r}\n{self!r}"
                self.change.wait(left)

    def send(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end(self, limit=BOOT_LIMIT):
        """Waits for the end; the exit status."""
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail(f"no end within {limit} s\n{self!r}")
        for r in self.readers:
            r.join(10)
        return status

    def stats(self):
        return json.loads(self.stats_path.read_text())

    def cpu_seconds(self):
        """User and system time of the whole process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for r in self.readers:
            r.join(10)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


class Guests:
    """Kernels from the cache, and initramfs made of them."""

    def __init__(self, cache, folder):
        self.cache, self.folder = cache, folder

    def kernel(self, arch):
        path = self.cache / arch / "vmlinuz"
        if not path.exists():
            pytest.fail(f"{path} is not there; run tools/fetch-guests")
        return path

    def initrd(self, arch, init):
        out = self.folder / f"{arch}-{init}.cpio"
        if not out.exists():
            command = [TOP / "tools" / "mkinitramfs", "--arch", arch, "-o", out]
            if init == "shell":
                command += ["--init", HERE / "guest" / "shell-init"]
            elif init == "load":
                program = build.build(self.folder, 32 if arch == "i386" else 64)
                command += ["--init", HERE / "guest" / "load-init", "--add", f"{program}:/bin/selftest"]
            else:
                command += ["--no-busybox", "--init", build.build(self.folder, int(init.removeprefix("selftest")))]
            subprocess.run(list(map(str, command)), check=True)
        return out


@pytest.fixture(scope="session")
def guests(guest_cache, tmp_path_factory):
    return Guests(guest_cache, tmp_path_factory.mktemp("guests"))


@pytest.fixture
def command_line(sundog, guests):
    """command_line(arch, init, ...): the words of a run."""

    def words(arch, *, init, append="", cpus=1, memory="512M", options=()):
        # The self test knows one processor in full; what the host's shows is another machine's matter.
        if init.startswith("selftest") and "--cpu-model" not in options:
            options = ["--cpu-model", "v2", *options]
        return [sundog, "run", "--cpus", str(cpus), "--memory", memory, "--kernel", str(guests.kernel(arch)),
                "--initrd", str(guests.initrd(arch, init)), "--append", f"{APPEND} {append}".strip(), *map(str, options)]

    return words


@pytest.fixture
def boot(command_line, tmp_path):
    """boot(arch, init=..., append=..., cpus=, memory=, options=): a machine, with --no-reboot unless told otherwise."""
    machines = []

    def start(arch, *, no_reboot=True, stdin=subprocess.DEVNULL, options=(), **how):
        stats = tmp_path / f"stats{len(machines)}.json"
        more = [*options, f"--stats={stats}", *(["--no-reboot"] if no_reboot else [])]
        machines.append(Machine(command_line(arch, options=more, **how), stats, stdin=stdin))
        return machines[-1]

    yield start
    for m in machines:
        m.kill()


@pytest.fixture
def terminal(command_line):
    """terminal(arch, ...): the same at a pseudo-terminal, by pexpect."""
    children = []

    def start(arch, *, options=(), **how):
        words = command_line(arch, options=["--no-reboot", *options], **how)
        child = pexpect.spawn(words[0], words[1:], timeout=BOOT_LIMIT, encoding="utf-8", codec_errors="replace", echo=False)
        children.append(child)
        return child

    yield start
    for c in children:
        c.close(force=True)
