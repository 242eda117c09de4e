# SPDX-License-Identifier: Apache-2.0
"""How a whole machine ends, and the status that tells it."""

import subprocess

import pytest
from machine import boot, command_line, guests  # noqa: F401


def test_reboot_ends_with_no_reboot(boot):  # noqa: F811
    machine = boot("amd64", init="selftest64", append="only=none end=reboot")
    assert machine.end() == 0, machine
    assert machine.stats()["end"] == "reset" and machine.text.count("SELFTEST") == 1, machine


@pytest.mark.parametrize("how", [
    "acpi",
    pytest.param("kbd", marks=pytest.mark.long),
    pytest.param("pci", marks=pytest.mark.long),
])
def test_reboot_starts_again(boot, how):  # noqa: F811
    """By the reset register, the keyboard controller, port 0xcf9: the same kernel again, until the user ends it."""
    machine = boot("amd64", init="selftest64", append=f"only=none end=reboot reboot={how}", no_reboot=False, stdin=subprocess.PIPE)
    machine.wait_for("SELFTEST 0 passed 0 failed", count=2)
    machine.send(b"\x01x")
    assert machine.end() == 0, machine


def test_reboot_i386(boot):  # noqa: F811
    machine = boot("i386", init="selftest32", append="only=none end=reboot")
    assert machine.end() == 0 and machine.stats()["end"] == "reset", machine


def test_panic(boot):  # noqa: F811
    """panic=-1: the kernel resets the machine at once."""
    machine = boot("amd64", init="selftest64", append="only=none end=panic")
    assert machine.end() == 0, machine
    assert "Kernel panic - not syncing: Attempted to kill init!" in machine.text, machine


def test_no_init_is_a_panic(boot):  # noqa: F811
    machine = boot("amd64", init="selftest64", append="rdinit=/nothing")
    assert machine.end() == 0, machine
    assert "Kernel panic - not syncing" in machine.text, machine


@pytest.mark.parametrize("arch,bits", [("amd64", 64), pytest.param("i386", 32, marks=pytest.mark.long)])
def test_triple_fault(boot, arch, bits):  # noqa: F811
    """reboot=t: the kernel empties its IDT and executes INT3."""
    machine = boot(arch, init=f"selftest{bits}", append="only=none end=reboot reboot=triple")
    assert machine.end() == 102, machine
    assert machine.stats()["end"] == "crash" and b"triple fault" in machine.errors, machine


def test_triple_fault_resets(boot):  # noqa: F811
    machine = boot("amd64", init="selftest64", append="only=none end=reboot reboot=triple", no_reboot=False, stdin=subprocess.PIPE)
    machine.wait_for("SELFTEST 0 passed 0 failed", count=2)
    machine.send(b"\x01x")
    assert machine.end() == 0, machine


def test_timeout(boot):  # noqa: F811
    machine = boot("amd64", init="selftest64", append="end=stay only=none", options=["--timeout", "0.5"])
    assert machine.end() == 124, machine
    assert b"--timeout" in machine.errors and machine.errors.count(b"\n") == 1, machine


def test_debug_exit(boot):  # noqa: F811
    """A Linux program writes 21 to the port: (21 << 1) | 1."""
    machine = boot("amd64", init="selftest64", append="only=none end=debug-exit", options=["--device", "debug-exit"])
    assert machine.end() == 43, machine


def test_no_debug_exit_without_the_device(boot):  # noqa: F811
    machine = boot("amd64", init="selftest64", append="only=none end=debug-exit")
    assert machine.end() == 0, machine
    stats = machine.stats()
    assert stats["end"] == "poweroff" and any("0xf4" in name for name in stats["unimplemented"]), stats["unimplemented"]


def test_two_machines_at_once(boot):  # noqa: F811
    """They share nothing."""
    machines = [boot("amd64", init="selftest64", append="except=ram,rtc", memory="256M") for _ in range(2)]
    for m in machines:
        assert m.end() == 0, m
        assert " passed 0 failed" in m.text and "not ok" not in m.text, m
