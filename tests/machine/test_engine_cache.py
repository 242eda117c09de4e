# SPDX-License-Identifier: Apache-2.0
"""The translator's caches in whole machines: bounds by the counters of --stats, a small code cache, passes left out."""

import json
import re
import subprocess
import sys

import pytest
from machine import BOOT_LIMIT, SLOW, TOP, boot, command_line, guests  # noqa: F401

PASSES = ("merge", "chain", "indirect", "strip", "superblock", "simd", "string", "system", "adapt")

# Processes that take turns all the time: pipes between programs that each start anew.
SWITCHES = """
i=0
while [ $i -lt 30 ]; do
  x=$(seq 1 40 | cat | tac | cat | awk '{s+=$1} END {print s}')
  [ "$x" = 820 ] || echo WRONG $x
  i=$((i+1))
done
echo SWITCHES $i
"""


@pytest.fixture(scope="session", autouse=True)
def translator(run):
    if b"bt" not in run("run", "--help").out.split(b"--engine NAME")[1].split(b"--code-cache")[0]:
        pytest.skip("no translator in this build")


def shell(boot, script, arch="amd64", cpus=1, options=()):  # noqa: F811
    """Runs the script in a guest's shell, then powers off; (machine, counters of all processors)."""
    machine = boot(arch, init="shell", cpus=cpus, stdin=subprocess.PIPE, options=["--engine", "bt", *options])
    machine.wait_for("guest# ")
    for line in filter(None, script.splitlines()):
        machine.send(line.encode() + b"\n")
    machine.send(b"echo END $((6 * 7)); poweroff -f\n")
    assert machine.end(limit=2 * BOOT_LIMIT) == 0, machine
    assert "END 42" in machine.text, machine
    assert not re.search(r"^WRONG|stack smashing|invalid pointer|Segmentation|Aborted", machine.text, re.M), machine
    return machine, machine.stats()["engine_counters"]


@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_context_switches_keep_the_cache(boot, arch):  # noqa: F811
    """A change of address space neither empties the code cache nor translates anew what is shared."""
    machine, n = shell(boot, SWITCHES, arch)
    assert "SWITCHES 30" in machine.text, machine
    print({k: n[k] for k in ("units", "guest_bytes", "cache_flushes", "contexts_recycled", "units_dropped", "lookup_misses")})
    # The cache of the usual size holds all of it: it is emptied when the processor starts.
    assert n["cache_flushes"] <= 4
    assert n["cache_flushes"] == n["flushes_state"] + n["flushes_memory"] + n["flushes_full"]
    assert n["evictions"] == 0 and n["flushes_memory"] == 0 and n["flushes_full"] == 0
    # Each program is an address space: some 180 of them, each with its user and kernel contexts.
    assert n["contexts_recycled"] < 6_000
    assert n["units"] < 120_000


def test_user_code_runs_as_copies(boot):  # noqa: F811
    _, n = shell(boot, SWITCHES, options=["--count"])
    print({k: n[k] for k in ("user_insns", "user_copied", "kernel_insns", "kernel_copied")})
    assert n["user_insns"] > 5_000_000
    assert n["user_copied"] > 0.95 * n["user_insns"]
    assert n["kernel_copied"] > 0.8 * n["kernel_insns"]


def test_what_keeps_failing_is_called(sundog, tmp_path_factory, tmp_path):
    """The guest adapt64 does the same access to a device, over a page's end or beside code thousands of times, and rewrites code as often."""
    folder, stats = tmp_path_factory.getbasetemp() / "engine-guests", tmp_path / "stats.json"
    guest_kernels(sundog, folder, "adapt64", f"--stats={stats}")
    n = json.loads(stats.read_text())["engine_counters"]
    print({k: n[k] for k in ("units", "made_calls", "made_alone", "let_off", "calls", "fills_failed", "units_sealed", "units_unsealed",
                             "units_rewritten")})
    assert n["made_calls"] >= 4, "nothing was found that keeps failing"
    assert n["let_off"] >= 1, "nobody was let off"
    assert n["calls"] > 100_000 and n["fills_failed"] < 5_000
    assert n["units_unsealed"] > 10_000, "units do not outlive stores beside them"
    assert n["units"] < 5_000, "what is rewritten all the time is translated all the time"


@pytest.mark.parametrize("cpus", [1, 2])
def test_small_code_cache(boot, cpus):  # noqa: F811
    """Full again and again, on each processor, and nothing goes wrong."""
    machine, n = shell(boot, SWITCHES, cpus=cpus, options=["--code-cache", "1M"])
    assert "SWITCHES 30" in machine.text, machine
    assert n["evictions"] > 20, "a cache of 1 MiB was never full: nothing is tested"


@pytest.mark.parametrize("name", [*PASSES, ",".join(PASSES)])
def test_load_without(boot, name):  # noqa: F811
    """A kernel and programs of all kinds, with a pass left out, and with all."""
    machine = boot("amd64", init="load", cpus=2, options=["--engine", "bt", "--engine-off", name])
    assert machine.end(limit=2 * BOOT_LIMIT) == 0 and "LOAD DONE" in machine.text, machine


def guest_kernels(sundog, folder, filters, *options):
    done = subprocess.run([sys.executable, TOP / "tests/guest/run.py", "--vmm", sundog, "--engine", "bt",
                           "--build", folder, "--filter", filters, "--", *options], stdout=subprocess.PIPE, text=True, timeout=300 * SLOW, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("name", [*PASSES, ",".join(PASSES)])
def test_guests_without(sundog, tmp_path_factory, name):
    """Guest kernels of our own, with a pass left out, and with all."""
    folder = tmp_path_factory.getbasetemp() / "engine-guests"
    guest_kernels(sundog, folder, "smc*", "--engine-off", name, "--warm", "0")


def test_guests_in_a_small_cache(sundog, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "engine-guests"
    guest_kernels(sundog, folder, "smc*", "--code-cache", "1M", "--warm", "0")
