# SPDX-License-Identifier: Apache-2.0
"""The translator under a seccomp policy: no memory that is writable and executable, none that becomes executable, nothing a VMM has no use for."""

import ctypes
import signal
import struct
import subprocess
import sys

import pytest
from machine import BOOT_LIMIT, command_line, guests  # noqa: F401

ARCH_X86_64, ALLOW, KILL = 0xC000003E, 0x7FFF0000, 0x80000000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
MMAP, MPROTECT, PKEY_MPROTECT = 9, 10, 329
WRITE, EXEC = 2, 4
# ptrace, mount and friends, modules, other processes' memory, tracing, namespaces, keys, BPF, io_uring, userfaultfd, identity.
NEVER = (101, 105, 106, 113, 114, 117, 119, 155, 161, 165, 166, 169, 175, 176, 246, 248, 250, 272, 298, 308, 310, 311, 313, 321, 322, 323, 425)


def policy():
    """Struct sock_filter by struct sock_filter: code, jumps if true and if false, operand."""
    load, equal, and_, ret = 0x20, 0x15, 0x54, 0x06
    arch, number, third = 4, 0, 32  # offsets in struct seccomp_data
    rows = [(load, 0, 0, arch), (equal, 1, 0, ARCH_X86_64), (ret, 0, 0, KILL), (load, 0, 0, number)]
    for nr in NEVER:
        rows += [(equal, 0, 1, nr), (ret, 0, 0, KILL)]
    rows += [
        (equal, 6, 0, MMAP), (equal, 2, 0, MPROTECT), (equal, 1, 0, PKEY_MPROTECT), (ret, 0, 0, ALLOW),
        (load, 0, 0, third), (and_, 0, 0, EXEC), (equal, 4, 3, 0),  # what is there already becomes executable
        (load, 0, 0, third), (and_, 0, 0, WRITE | EXEC), (equal, 0, 1, WRITE | EXEC),  # both at once
        (ret, 0, 0, KILL), (ret, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *row) for row in rows)


def under_policy():
    libc = ctypes.CDLL(None, use_errno=True)
    program = policy()
    held = ctypes.create_string_buffer(program, len(program))
    words = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(held))
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, words, 0, 0)):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


@pytest.mark.parametrize("what, dies", [
    ("import mmap; mmap.mmap(-1, 4096, prot=3)", False),
    ("import mmap; mmap.mmap(-1, 4096, prot=5)", False),
    ("import mmap; mmap.mmap(-1, 4096, prot=7)", True),
    ("import ctypes, mmap; m = mmap.mmap(-1, 4096); libc = ctypes.CDLL(None); "
     "libc.mprotect(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(m))), 4096, 1)", False),
    ("import ctypes, mmap; m = mmap.mmap(-1, 4096); libc = ctypes.CDLL(None); "
     "libc.mprotect(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(m))), 4096, 5)", True),
    ("import ctypes; ctypes.CDLL(None).ptrace(0, 0, 0, 0)", True),
])
def test_policy_bites(what, dies):
    done = subprocess.run([sys.executable, "-c", what], preexec_fn=under_policy, check=False, timeout=60)
    assert done.returncode == (-signal.SIGSYS if dies else 0)


@pytest.mark.parametrize("engine", ["bt", "interp"])
def test_guest_under_policy(command_line, engine):  # noqa: F811
    """A stock kernel with programs on two processors, from start to power-off."""
    words = command_line("amd64", init="load", cpus=2, options=["--engine", engine, "--no-reboot"])
    done = subprocess.run(words, preexec_fn=under_policy, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          check=False, timeout=2 * BOOT_LIMIT)
    assert done.returncode == 0 and b"LOAD DONE" in done.stdout, (done.returncode, done.stdout[-1500:], done.stderr)
