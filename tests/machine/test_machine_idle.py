# SPDX-License-Identifier: Apache-2.0
"""An idle machine sleeps: what a guest at its shell costs the host."""

import subprocess
import time

import pytest
from machine import SLOW, boot, command_line, guests  # noqa: F401


def cost(boot, arch, settle, measure, cpus=1):  # noqa: F811
    """The share of one host core that the machine takes, in user and system time."""
    machine = boot(arch, init="shell", cpus=cpus, stdin=subprocess.PIPE)
    machine.wait_for("guest# ")
    time.sleep(settle)
    before, start = machine.cpu_seconds(), time.monotonic()
    time.sleep(measure)
    share = (machine.cpu_seconds() - before) / (time.monotonic() - start)
    print(f"{arch}, {cpus} processors: {share * 100:.2f} % of a core")
    machine.send(b"poweroff -f\n")
    assert machine.end() == 0, machine
    assert machine.stats()["exits"]["hlt"] > 0
    return share


@pytest.mark.skipif(SLOW > 1, reason="a sanitized build is not what is measured")
def test_idle_costs_nothing(boot):  # noqa: F811
    assert cost(boot, "amd64", 10, 20) < 0.01


@pytest.mark.long
@pytest.mark.parametrize("arch,cpus,limit", [("amd64", 1, 0.01), ("i386", 1, 0.01), ("amd64", 4, 0.03)])
def test_idle_costs_nothing_for_long(boot, arch, cpus, limit):  # noqa: F811
    assert cost(boot, arch, 30, 60, cpus) < limit
