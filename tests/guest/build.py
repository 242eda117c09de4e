#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds the test guests: build.py DIR [NAME...]. What guests.toml lists, into DIR/NAME."""
import concurrent.futures
import os
import pathlib
import struct
import subprocess
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
LIBRARY = sorted((HERE / "lib").glob("*.[cS]"))
HEADERS = sorted((HERE / "lib").glob("*.h")) + [HERE / "lib" / "guest.ld", HERE / "build.py"]
FLAGS = ("-std=gnu17 -O2 -g -ffreestanding -fno-pic -fno-pie -fno-stack-protector"
         " -fno-asynchronous-unwind-tables -fno-strict-aliasing -fcf-protection=none"
         " -mgeneral-regs-only -mno-red-zone"
         " -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wimplicit-fallthrough"
         " -Wno-missing-field-initializers -Wno-override-init").split()


def run(*command):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    if done.returncode or done.stdout:
        sys.stderr.write(" ".join(map(str, command)) + "\n" + done.stdout)
    if done.returncode:
        raise SystemExit(1)


def fresh(target, sources):
    return target.exists() and all(target.stat().st_mtime_ns > s.stat().st_mtime_ns for s in sources)


def draft(target):
    """Where a file is made before it takes its name in one step: two test stages may build at once."""
    return target.with_name(f".{target.name}.{os.getpid()}")


def compile_one(source, target, bits):
    if not fresh(target, [source, *HEADERS]):
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("GUEST_CC", "gcc")
        run(compiler, f"-m{bits}", *FLAGS, "-I", HERE / "lib", "-c", source, "-o", draft(target))
        draft(target).replace(target)
    return target


def link(name, source, bits, library, out):
    main = compile_one(source, out / f"obj{bits}" / (name + ".o"), bits)
    target = out / name
    if fresh(target, [main, *library, HERE / "lib" / "guest.ld"]):
        return
    emulation = {32: "elf_i386", 64: "elf_x86_64"}[bits]
    linked = target.with_suffix(".elf")
    flat = draft(target)
    run("ld", "-m", emulation, "-z", "max-page-size=4096", "-z", "noexecstack", "--no-warn-rwx-segments",
        "-T", HERE / "lib" / "guest.ld", main, *library, "-o", draft(linked))
    run("objcopy", "-O", "elf32-i386", draft(linked), flat)
    draft(linked).replace(linked)
    flat.replace(target)


def mutate(image, kind):
    """A broken copy of a good image: what a VMM has to refuse."""
    data = bytearray(image)
    header = data.index(struct.pack("<I", 0x1BADB002))
    segments = struct.unpack_from("<I", data, 28)[0]
    if kind == "checksum":
        data[header + 8] ^= 1
    elif kind == "truncated":
        data = data[:0x1800]
    elif kind == "high":
        struct.pack_into("<II", data, segments + 8, 0xE0000000, 0xE0000000)
    elif kind == "empty":
        data = bytearray()
    elif kind == "text":
        data = bytearray(b"this is no kernel\n" * 1000)
    elif kind == "entry":
        struct.pack_into("<I", data, 24, 0xE0000000)
    else:
        raise SystemExit(f"{kind}: no such mutation")
    return bytes(data)


def link_guest(guest, library, out):
    image = guest.get("image", guest["name"])
    link(image, HERE / guest["source"], guest["bits"], library, out)
    if "mutate" in guest:
        broken = draft(out / image)
        broken.write_bytes(mutate((out / (image + ".elf")).read_bytes(), guest["mutate"]))
        broken.replace(out / image)


def build(out, names=()):
    """Builds all guests (or those named) that guests.toml lists."""
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    guests = tomllib.loads((HERE / "guests.toml").read_text())["guest"]
    wanted = {g.get("image", g["name"]): g for g in guests if not names or g["name"] in names}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = {bits: list(pool.map(lambda s, b=bits: compile_one(s, out / f"obj{b}" / (s.name + ".o"), b),
                                       LIBRARY))
                   for bits in sorted({g["bits"] for g in wanted.values()})}
        list(pool.map(lambda g: link_guest(g, objects[g["bits"]], out), wanted.values()))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    build(sys.argv[1], sys.argv[2:])
