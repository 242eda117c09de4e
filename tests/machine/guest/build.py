#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds the self-checking guest program: build.py DIR makes DIR/selftest64 and DIR/selftest32 when they are not fresh."""
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# No red zone: some checks push. Low addresses: some checks jump to 32-bit code.
FLAGS = ("-std=gnu17 -D_GNU_SOURCE -O2 -g -static -no-pie -fno-pie -mno-red-zone -msse2 -fcf-protection=none -fno-strict-aliasing -pthread"
         " -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wno-unused-result").split()


def build(out, bits):
    """The program's path; built under another name first, so that it is whole or not there."""
    target = pathlib.Path(out) / f"selftest{bits}"
    sources = sorted(HERE.glob("*.c"))
    newest = max(p.stat().st_mtime_ns for p in [*sources, *HERE.glob("*.h"), HERE / "build.py"])
    if target.exists() and target.stat().st_mtime_ns > newest:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}")
    command = [os.environ.get("GUEST_CC", "gcc"), f"-m{bits}", *FLAGS, *map(str, sources), "-o", str(part), "-lm"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}\n(32-bit programs need Debian's gcc-multilib)")
    sys.stderr.write(done.stdout)
    part.rename(target)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    for width in (64, 32):
        print(build(sys.argv[1], width))
