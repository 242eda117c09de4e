# SPDX-License-Identifier: Apache-2.0
"""Whole-machine tests: the program under test, its guests, and one way to run it.

SUNDOG names the program (default: build/sundog). Waits are for text or for the end, never for time; limits only end a hang.
"""

import os
import signal
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
# A sanitized build is slower; nothing but the limits knows.
SLOW = 10 if os.environ.get("SUNDOG_SANITIZED") else 1
LIMIT = int(os.environ.get("LIMIT", 60)) * SLOW

FREESTANDING = ["-m32", "-march=i586", "-O1", "-ffreestanding", "-fno-pic", "-fno-pie", "-fno-stack-protector",
                "-fno-asynchronous-unwind-tables", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none",
                "-Wl,-z,noexecstack,--no-warn-rwx-segments"]

# A job in the background of a script has these ignored, and so would have what is started here.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)


class Ended:
    """What a run left: its status (negative: the signal that ended it) and its words."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    def __repr__(self):
        return f"status {self.status}\nstdout: {self.out[-2000:]!r}\nstderr: {self.err[-2000:]!r}"


@pytest.fixture(scope="session")
def sundog():
    """The path of the program under test."""
    path = Path(os.environ.get("SUNDOG", TOP / "build" / "sundog"))
    if not path.exists():
        pytest.fail(f"{path} is not there; run make")
    return str(path.resolve())


@pytest.fixture(scope="session")
def run(sundog):
    """run("doctor") or run("run", "--kernel", ...): runs to the end and returns what it left."""

    def runner(*args, stdin=b"", limit=LIMIT, **more):
        more["input" if isinstance(stdin, bytes) else "stdin"] = stdin
        done = subprocess.run([sundog, *map(str, args)], stdout=more.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE,
                              timeout=limit, check=False, **more)
        return Ended(done.returncode, done.stdout or b"", done.stderr)

    return runner


@pytest.fixture(scope="session")
def cli_guest(tmp_path_factory):
    """The path of the kernel that cli_guest.c describes."""
    out = tmp_path_factory.mktemp("guest") / "cli_guest.elf"
    script = out.with_suffix(".ld")
    script.write_text("ENTRY(_start) SECTIONS { . = 0x100000; .text : { *(.multiboot) *(.text*) } "
                      ".rodata : { *(.rodata*) } .data : { *(.data*) } .bss : { *(.bss*) *(COMMON) } "
                      "/DISCARD/ : { *(.note*) *(.comment*) *(.eh_frame*) } }")
    source = Path(__file__).with_name("cli_guest.c")
    subprocess.run(["gcc", *FREESTANDING, "-Wl,-T," + str(script), "-o", str(out), str(source)], check=True)
    return str(out)


@pytest.fixture(scope="session")
def guest_cache():
    """The folder with the Debian guests (tools/fetch-guests)."""
    done = subprocess.run([TOP / "tools" / "fetch-guests", "--print"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())
