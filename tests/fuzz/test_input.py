# SPDX-License-Identifier: Apache-2.0
"""Bad kernels, initrds and options, given to the whole program as users would: a clear line and status 126, or a guest that ends
as guests may. Never a crash, never a hang, nothing from a sanitizer.

SUNDOG_ASAN names the program (default: build-asan/sundog); SUNDOG_FUZZ_SEED and SUNDOG_FUZZ_RUNS choose other or more random ones.
"""

import os
import random
import re
import struct
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("SUNDOG_FUZZ_SEED", "1"))
RUNS = int(os.environ.get("SUNDOG_FUZZ_RUNS", "60"))
# Seconds a guest may run, and seconds after which the program hangs.
GUEST_SECONDS, LIMIT = "0.3", 120
GUEST_ENDS = (0, 102, 124)
ENV = {**os.environ, "ASAN_OPTIONS": "exitcode=99:allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}


@pytest.fixture(scope="session")
def sundog():
    path = Path(os.environ.get("SUNDOG_ASAN", TOP / "build-asan" / "sundog"))
    if not path.exists():
        pytest.fail(f"{path} is not there; run make asan")
    return str(path)


@pytest.fixture(scope="session")
def vmlinuz():
    """The stock kernels; their absence is no reason to test nothing else."""
    cache = subprocess.run([TOP / "tools" / "fetch-guests", "--print"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [p.read_bytes() for p in sorted(Path(cache.strip()).glob("*/vmlinuz"))]


def judge(status, out, err, refused=None):
    """What must hold of every end; `refused`: whether it has to be a refusal."""
    said = err.decode("utf-8", "replace")
    shown = f"status {status}\nstdout: {out[-500:]!r}\nstderr: {said[-3000:]}"
    assert status >= 0 and status != 99 and "Sanitizer" not in said and "runtime error" not in said, shown
    if status == 126:
        lines = [line for line in said.splitlines() if not line.startswith("sundog: warning")]
        assert lines and all(re.match(r"sundog: \S", line) for line in lines), shown
        assert all(line.isprintable() for line in lines) and out == b"", shown
    else:
        assert status in GUEST_ENDS, shown
    if refused is not None:
        assert (status == 126) == refused, shown
        if refused:
            assert len(said.splitlines()) == 1, shown


def run(sundog, *args, limit=LIMIT):
    done = subprocess.run([sundog, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=limit, check=False, env=ENV)
    return done.returncode, done.stdout[:100000], done.stderr[:100000]


def run_guest(sundog, kernel, *more):
    return run(sundog, "run", "--kernel", kernel, "--memory", "64M", "--no-reboot", "--timeout", GUEST_SECONDS, *more)


# --- small kernels of each kind ------------------------------------------------------------------------------------------------


def multiboot(code=b"\xf4\xeb\xfd"):
    """An ELF file with a Multiboot header; its code halts."""
    at, load = 0x100, 0x100000
    header = struct.pack("<III", 0x1BADB002, 3, -(0x1BADB002 + 3) & 0xFFFFFFFF)
    body = header + code
    elf = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 2, 3, 1, load + len(header), 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, at, load, load, len(body), len(body) + 4096, 7, 4096)
    return (elf + segment).ljust(at, b"\0") + body


def pvh(code=b"\xf4\xeb\xfd"):
    """An ELF file with the PVH note."""
    at, load, note_at = 0x100, 0x100000, 0xC0
    elf = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, load, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, at, load, load, len(code), len(code) + 4096, 4096)
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", load)
    notes = struct.pack("<IIQQQQQQ", 4, 4, note_at, 0, 0, len(note), len(note), 4)
    return ((elf + segment + notes).ljust(note_at, b"\0") + note).ljust(at, b"\0") + code


KINDS = {"multiboot": multiboot, "pvh": pvh}


@pytest.mark.parametrize("kind", KINDS)
def test_small_kernels_run(sundog, tmp_path, kind):
    """What is mutated below is good as it is."""
    kernel = tmp_path / "kernel"
    kernel.write_bytes(KINDS[kind]())
    status, out, err = run_guest(sundog, kernel)
    judge(status, out, err)
    assert status == 124, (status, err)


# --- files that are no kernels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, data", [
    ("empty", b""), ("one byte", b"\x7f"), ("text", b"#!/bin/sh\necho no kernel\n"), ("zeros", bytes(100000)), ("ones", b"\xff" * 100000),
    ("ELF's first bytes", b"\x7fELF"), ("gzip", b"\x1f\x8b\x08" + bytes(50)), ("half a header", bytes(0x1FE) + b"\x55\xaaHdr"),
])
def test_not_a_kernel(sundog, tmp_path, name, data):
    kernel = tmp_path / name
    kernel.write_bytes(data)
    judge(*run_guest(sundog, kernel), refused=True)


@pytest.mark.parametrize("path", ["/nonexistent", "/", "/proc/self/mem", "/dev/null", "/dev/tty-nothing", "/proc/version", "", "a" * 5000])
def test_kernel_paths(sundog, path):
    judge(*run_guest(sundog, path), refused=True)


def test_huge_kernel(sundog, tmp_path):
    """Sparse: 8 TiB that nobody could read, with and without a kernel's first bytes."""
    for start in (b"", multiboot(), pvh()):
        kernel = tmp_path / "huge"
        with open(kernel, "wb") as f:
            f.write(start)
            f.truncate(1 << 43)
        judge(*run_guest(sundog, kernel), refused=True)


def test_endless_files(sundog, tmp_path):
    kernel = tmp_path / "kernel"
    kernel.write_bytes(multiboot())
    judge(*run_guest(sundog, "/dev/zero"), refused=True)
    for initrd in ("/dev/zero", "/nonexistent", "/"):
        judge(*run_guest(sundog, kernel, "--initrd", initrd), refused=True)


def test_kernel_from_a_pipe(sundog):
    """Sizes are not known beforehand then: read to the end, whole or not."""
    for data, refused in ((pvh(), False), (pvh()[:100], True), (b"", True)):
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
            cat.stdin.write(data)
            cat.stdin.close()
            done = subprocess.run([sundog, "run", "--kernel", "/proc/self/fd/0", "--serial", "none", "--timeout", GUEST_SECONDS],
                                  stdin=cat.stdout, capture_output=True, timeout=LIMIT, check=False, env=ENV)
        judge(done.returncode, done.stdout, done.stderr, refused=refused)


def test_initrds(sundog, tmp_path, vmlinuz):
    if not vmlinuz:
        pytest.skip("no stock kernel in the cache")
    kernel, initrd = tmp_path / "vmlinuz", tmp_path / "initrd"
    kernel.write_bytes(vmlinuz[0])
    initrd.write_bytes(b"")
    judge(*run_guest(sundog, kernel, "--initrd", initrd))
    initrd.write_bytes(os.urandom(100000))
    judge(*run_guest(sundog, kernel, "--initrd", initrd))
    with open(initrd, "wb") as f:
        f.truncate(1 << 30)  # more than there is memory
    judge(*run_guest(sundog, kernel, "--initrd", initrd), refused=True)


# --- truncated and mutated -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_truncated(sundog, tmp_path, kind):
    kernel, whole = tmp_path / "kernel", KINDS[kind]()
    for length in sorted({0, 1, 4, 15, 16, 51, 52, 63, 64, 83, 84, 119, 120, 175, 176, 191, 200, 255, len(whole) - 1} - {len(whole)}):
        kernel.write_bytes(whole[:length])
        judge(*run_guest(sundog, kernel), refused=True)


def test_truncated_vmlinuz(sundog, tmp_path, vmlinuz):
    kernel = tmp_path / "vmlinuz"
    for whole in vmlinuz:
        for length in (0x1F0, 0x200, 0x263, 0x1000, 0x4000, len(whole) // 2):
            kernel.write_bytes(whole[:length])
            judge(*run_guest(sundog, kernel), refused=True)
        kernel.write_bytes(whole[:-1])  # a signature may stand at the end, which no loader looks at
        judge(*run_guest(sundog, kernel))


TELLING = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x100000, 0x7FFFFFFF, 0x80000000, 0xBFFFF000, 0xFFFFF000, 0xFFFFFFFF, 1 << 32, 1 << 40,
           1 << 63, (1 << 64) - 4096, (1 << 64) - 1]


def mutate(rng, data, head):
    """Changes a few places, most of them among the first `head` bytes."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(min(head, len(data)) if rng.random() < 0.9 else len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.randrange(256)
        else:
            value = rng.choice(TELLING).to_bytes(8, "little")[: rng.choice([1, 2, 4, 8])]
            data[at : at + len(value)] = value[: len(data) - at]
    return bytes(data)


@pytest.mark.parametrize("run_number", range(RUNS))
def test_mutated(sundog, tmp_path, run_number):
    rng = random.Random(f"{SEED} {run_number}")
    kernel = tmp_path / "kernel"
    # Code of random bytes runs in the guest: it may do what it likes there.
    code = bytes(rng.randrange(256) for _ in range(64)) if rng.random() < 0.5 else b"\xf4\xeb\xfd"
    kernel.write_bytes(mutate(rng, KINDS[rng.choice(sorted(KINDS))](code), 0x100))
    more = rng.choice([[], ["--kernel-entry", "pvh"], ["--kernel-entry", "bzimage"], ["--append", "x" * rng.choice([1, 2047, 2048, 100000])],
                       ["--cpus", "4"], ["--initrd", str(kernel)], ["--device", "debug-exit,port=0x501"], ["--verbose"]])
    status, out, err = run_guest(sundog, kernel, *more)
    if "--device" in more and status % 2:
        return  # random code may even find that port
    if "--verbose" in more and status != 126:
        err = b""
    judge(status, out, err)


@pytest.mark.parametrize("run_number", range(max(RUNS // 10, 1)))
def test_mutated_vmlinuz(sundog, tmp_path, vmlinuz, run_number):
    if not vmlinuz:
        pytest.skip("no stock kernel in the cache")
    rng = random.Random(f"vmlinuz {SEED} {run_number}")
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(mutate(rng, vmlinuz[run_number % len(vmlinuz)], 0x280 if rng.random() < 0.8 else 0x100000))
    judge(*run_guest(sundog, kernel, *rng.choice([[], ["--kernel-entry", "bzimage"]])))


# --- options -----------------------------------------------------------------------------------------------------------------------


VALUES = ["", " ", "0", "-1", "1", "9", "99999999999999999999", "0x10", "1e9", "4097", "2M", "2.5M", "1T", "512G", "513G", "8388607T", "auto",
          "none", "stdio", "file:", "file:/", "file:/nonexistent/x", "debug-exit", "debug-exit,", "debug-exit,port=", "debug-exit,port=65536",
          "debug-exit,port=0x3f8", "%s%n%s", "\x1b[2J", "\xff\xfe", "x" * 100000, "a,b,c,,,", "--kernel", "-", "merge,chain",
          "merge,,", "all", "interp"]
OPTIONS = ["--engine", "--cpus", "--memory", "--kernel", "--initrd", "--append", "--serial", "--device", "--no-reboot", "--timeout", "--stats",
           "--code-cache", "--engine-off", "--warm", "--verify-code", "--trace-blocks", "--verbose", "--dry-run", "--kernel-entry", "--help", "--nothing", "-k", "--"]


@pytest.mark.parametrize("run_number", range(RUNS))
def test_options(sundog, tmp_path, run_number):
    """Any options with any values: a refusal with a line, or a run."""
    rng = random.Random(f"options {SEED} {run_number}")
    kernel = tmp_path / "kernel"
    kernel.write_bytes(multiboot())
    words = ["run", "--timeout", GUEST_SECONDS, "--kernel", kernel] if rng.random() < 0.8 else [rng.choice(["run", "doctor", "version", "", "RUN"])]
    for _ in range(rng.randint(1, 4)):
        option, value = rng.choice(OPTIONS), rng.choice(VALUES)
        words += rng.choice([[option, value], [f"{option}={value}"], [option], [value]])
    # What writes files writes here.
    words = [w if not isinstance(w, str) else w.replace("--stats=-", f"--stats={tmp_path}/s") for w in words]
    done = subprocess.run([sundog, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
                          timeout=LIMIT, check=False, env=ENV)
    status, out, err = done.returncode, done.stdout, done.stderr
    if status == 0 and words[0] != "run" or "--help" in map(str, words) or any(str(w).startswith("--help") for w in words):
        assert status in (0, 126), (status, out, err)
        return
    if status != 126:
        # Help, statistics and verbose lines are words that were asked for.
        assert status in GUEST_ENDS and b"Sanitizer" not in err, (status, out, err)
    else:
        judge(status, out, err, refused=True)
