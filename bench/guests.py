# SPDX-License-Identifier: Apache-2.0
"""What runs in the machines: the workloads' program, kernels and initial RAM disks, built or unpacked once."""

import hashlib
import importlib.machinery
import importlib.util
import json
import lzma
import re
import struct
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
COMPILE = ["gcc", "-O2", "-std=gnu17", "-Wall", "-Wextra", "-fno-tree-vectorize",
           # The loops stay as written: no call into a C library that would choose by processor.
           "-fno-tree-loop-distribute-patterns", "-fno-math-errno", "-static"]
# mov edx, 0x3f8; mov al, '!'; out dx, al; hlt; jmp back: the same bytes in 32- and 64-bit code.
SAY_AND_HALT = bytes.fromhex("baf8030000b021eef4ebfd")


class Failure(Exception):
    """Told to the user as one line."""


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def tool(name):
    """A program of tools/ as a module."""
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(TOP / "tools" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def cache_folder():
    return tool("fetch-guests").default_cache()


def newer(out, *sources):
    return out.exists() and all(out.stat().st_mtime >= s.stat().st_mtime for s in sources)


def build_program(work):
    program = work / "sundog-bench"
    sources = sorted((TOP / "bench/guest").glob("*.c"))
    if not newer(program, Path(__file__), *sources, *(TOP / "bench/guest").glob("*.h")):
        done = subprocess.run([*COMPILE, "-o", program, *sources], text=True, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise Failure("the workloads do not compile:\n" + done.stderr)
    return program


def workloads(program):
    """{name: group} of all workloads, in their order."""
    shown = subprocess.run([program, "--list"], text=True, capture_output=True, check=True).stdout
    return {line.split()[0]: line.split()[1] for line in shown.splitlines() if len(line.split()) >= 3}


def instruction_counts(program, work):
    """Instructions of one iteration by workload, kept beside the program that they belong to."""
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    kept = work / "counts.json"
    try:
        old = json.loads(kept.read_text())
        if old["program"] == digest:
            return old["counts"]
    except (OSError, ValueError, KeyError):
        pass
    say("counting the workloads' instructions (once for this build, about half a minute)")
    out = subprocess.run([program, "--count"], text=True, capture_output=True, check=False, timeout=600).stdout
    counts = {m[1]: int(m[2]) for m in re.finditer(r"^bench-count (\S+) (\d+)$", out, re.M)}
    kept.write_text(json.dumps({"program": digest, "counts": counts}))
    return counts


def setup_size(data, path):
    if data[0x202:0x206] != b"HdrS":
        raise Failure(f"{path} is no bzImage")
    return ((data[0x1f1] or 4) + 1) * 512


def unpack_kernel(bzimage, out):
    """The ELF vmlinux inside a bzImage (boot protocol 2.08: payload_offset, payload_length)."""
    if newer(out, bzimage):
        return out
    data = bzimage.read_bytes()
    setup = setup_size(data, bzimage)
    offset, length = struct.unpack_from("<II", data, 0x248)
    payload = data[setup + offset:setup + offset + length]
    if payload[:6] == b"\xfd7zXZ\0":
        image = lzma.LZMADecompressor().decompress(payload)
    elif payload[:4] == b"\x28\xb5\x2f\xfd":
        image = subprocess.run(["zstd", "-dqc"], input=payload, stdout=subprocess.PIPE, check=False).stdout
    else:
        raise Failure(f"{bzimage}: its payload is packed in a way that this script does not know")
    part = out.with_suffix(".part")
    part.write_bytes(image)
    part.replace(out)
    return out


def first_instruction_kernel(bzimage, out):
    """The same bzImage, with code that says one byte and halts at its 32- and its 64-bit entry (boot.txt)."""
    if newer(out, bzimage, Path(__file__)):
        return out
    data = bytearray(bzimage.read_bytes())
    setup = setup_size(data, bzimage)
    for entry in (setup, setup + 0x200):
        data[entry:entry + len(SAY_AND_HALT)] = SAY_AND_HALT
    out.write_bytes(data)
    return out


def initramfs(program, work):
    out = work / "initrd"
    if not newer(out, program):
        subprocess.run([TOP / "tools/mkinitramfs", "--no-busybox", "--init", program, "-o", out], check=True)
    return out
