# SPDX-License-Identifier: Apache-2.0
"""Both stock Debian kernels, by each entry, with a guest program that checks the machine from inside (guest/)."""

import re

import pytest
from machine import SLOW, boot, command_line, guests, host_vendor  # noqa: F401

# What the self test counts at least; fewer would mean that a section was lost.
LEAST_CHECKS = 190


def check_selftest(machine, least=LEAST_CHECKS):
    """It ran to its end, nothing failed, and the machine powered itself off."""
    status = machine.end(limit=600 * SLOW)
    failed = [line for _, line in machine.lines if line.startswith("not ok")]
    assert not failed, "\n".join(failed) + f"\n{machine!r}"
    last = re.search(r"^SELFTEST (\d+) passed (\d+) failed$", machine.text, re.M)
    assert last and int(last[1]) >= least and last[2] == "0", machine
    assert status == 0, machine
    assert machine.errors == b"", machine


def check_clock(machine):
    """Guest time passed as host time did, between two lines."""
    marks = [(at, int(line.split()[2]) / 1e9) for at, line in machine.lines if line.startswith("MARK")]
    (host0, guest0), (host1, guest1) = marks
    host, guest = host1 - host0, guest1 - guest0
    # The host may be busy when a line comes out: its clock may be late at either end.
    assert abs(host - guest) < 1.5, f"{guest:.3f} s in the guest, {host:.3f} s outside"


def check_counters(machine, cpus):
    """The counters of --stats agree with one another and with what such a run must have done."""
    stats = machine.stats()
    assert stats["engine"] == "bt" and stats["cpus"] == cpus and stats["end"] == "poweroff"
    assert stats["seconds"] > 1
    # The translator counts no instructions in real time: these are the interpreter's share.
    assert stats["instructions"] > 1_000_000
    for name in ("units", "links_made", "copied_insns"):
        assert stats["engine_counters"][name] > 1000, name
    assert stats["mips"] == pytest.approx(stats["instructions"] / stats["seconds"] / 1e6, rel=0.01)
    for cause in ("io", "mmio", "hlt", "cpuid", "msr", "cr", "exception"):
        assert stats["exits"][cause] > 0, cause
    for name in ("hidden_faults", "true_faults", "page_walks", "translations", "invalidations", "interrupts_injected"):
        assert stats[name] > 0, name
    assert len(stats["vcpus"]) == cpus
    for name in ("instructions", "hidden_faults", "interrupts_injected"):
        assert sum(v[name] for v in stats["vcpus"]) == stats[name], name
    assert all(v["instructions"] > 10_000 for v in stats["vcpus"])


def run_selftest(boot, arch, bits, cpus, entry, more=""):  # noqa: F811
    machine = boot(arch, init=f"selftest{bits}", cpus=cpus, options=["--kernel-entry", entry],
                   append=f"cpus={cpus} vendor={host_vendor()} {more}")
    check_selftest(machine)
    check_clock(machine)
    check_counters(machine, cpus)


@pytest.mark.parametrize("arch,bits,cpus", [
    ("amd64", 64, 1), ("amd64", 64, 4), ("i386", 32, 1), ("i386", 32, 4),
    ("amd64", 32, 2),  # 32-bit programs on the 64-bit kernel
])
def test_pvh(boot, arch, bits, cpus):  # noqa: F811
    run_selftest(boot, arch, bits, cpus, "pvh")


@pytest.mark.parametrize("arch,bits", [("amd64", 64), ("i386", 32)])
def test_bzimage(boot, arch, bits):  # noqa: F811
    """The kernel unpacks itself."""
    run_selftest(boot, arch, bits, 1, "bzimage", "except=ram")


@pytest.mark.long
@pytest.mark.parametrize("arch,bits,cpus,entry", [
    ("amd64", 64, 2, "auto"), ("amd64", 64, 3, "pvh"), ("amd64", 64, 8, "pvh"), ("i386", 32, 8, "pvh"),
    ("amd64", 64, 4, "bzimage"), ("i386", 32, 4, "bzimage"), ("amd64", 32, 8, "auto"),
])
def test_more_processors(boot, arch, bits, cpus, entry):  # noqa: F811
    run_selftest(boot, arch, bits, cpus, entry)


def check_memory(boot, arch, bits, size, fill):  # noqa: F811
    megabytes = int(size[:-1]) * (1024 if size[-1] == "G" else 1)
    machine = boot(arch, init=f"selftest{bits}", memory=size,
                   append=f"only=ram,kernel-log memory={megabytes} fill={fill}")
    check_selftest(machine, least=3)


@pytest.mark.parametrize("arch,bits,size,fill", [
    ("amd64", 64, "96M", 0), ("i386", 32, "96M", 0), ("amd64", 64, "6G", 400), ("i386", 32, "6G", 200),
])
def test_memory(boot, arch, bits, size, fill):  # noqa: F811
    """`fill` MiB are filled and checked (0: all that is free); a kernel takes from the highest memory first."""
    check_memory(boot, arch, bits, size, fill)


@pytest.mark.long
@pytest.mark.parametrize("arch,bits,size", [
    ("amd64", 64, "128M"), ("amd64", 64, "1G"), ("amd64", 64, "3G"), ("amd64", 64, "3073M"), ("amd64", 64, "6G"), ("i386", 32, "3G"),
    ("i386", 32, "6G"),
])
def test_all_memory(boot, arch, bits, size):  # noqa: F811
    check_memory(boot, arch, bits, size, 0)
