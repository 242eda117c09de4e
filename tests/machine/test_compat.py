# SPDX-License-Identifier: Apache-2.0
"""Other systems: kernels in the manner of teaching ones (teaching/), and Debian's kernel told to use older hardware."""

import subprocess
from pathlib import Path

import pytest
from conftest import FREESTANDING, LIMIT
from machine import SLOW, boot, guests  # noqa: F401

TEACHING = Path(__file__).with_name("teaching")
PASSED = 0x10 << 1 | 1
SECTIONS = ("ENTRY(_start) SECTIONS {{ . = {base} + 0x200000; .text : AT(ADDR(.text) - {base}) {{ *(.multiboot) *(.text*) }} "
            ".rodata : AT(ADDR(.rodata) - {base}) {{ *(.rodata*) }} .data : AT(ADDR(.data) - {base}) {{ *(.data*) }} "
            ".bss : AT(ADDR(.bss) - {base}) {{ *(.bss*) *(COMMON) }} /DISCARD/ : {{ *(.note*) *(.comment*) *(.eh_frame*) }} }}")


def elf(out, name, base):
    """A kernel linked at `base` + 2 MiB and loaded at 2 MiB."""
    script, target = out / (name + ".ld"), out / (name + ".elf")
    script.write_text(SECTIONS.format(base=base))
    subprocess.run(["gcc", "-Wall", "-Wextra", "-std=gnu17", "-mgeneral-regs-only", *FREESTANDING, f"-Wl,-T,{script}",
                    "-o", target, TEACHING / (name + ".c")], check=True)
    return target


def flat(out, name):
    """A file without a format, for a header that gives the addresses."""
    target = out / (name + ".bin")
    subprocess.run(["gcc", *FREESTANDING, "-Wl,-Ttext=0x200000,--oformat=binary", "-o", target, TEACHING / (name + ".S")],
                   check=True)
    return target


@pytest.fixture(scope="session")
def teaching(tmp_path_factory):
    out = tmp_path_factory.mktemp("teaching")
    return {"aout": flat(out, "aout"), "higherhalf": elf(out, "higherhalf", "0xc0000000"), "smp": elf(out, "smp", "0")}


@pytest.mark.parametrize("kernel,cpus,words", [
    ("aout", 1, b"ten ticks\n"), ("higherhalf", 1, b"higher half\n"), ("higherhalf", 4, b"higher half\n"),
    ("smp", 1, b"1 processors\n"), ("smp", 4, b"4 processors\n"), ("smp", 8, b"8 processors\n"),
])
def test_teaching_kernel(run, teaching, kernel, cpus, words):
    ended = run("run", "--kernel", teaching[kernel], "--cpus", cpus, "--memory", "16M", "--append", "tick",
                "--device", "debug-exit", "--no-reboot", "--timeout", LIMIT - 5)
    assert ended.status == PASSED and ended.out.endswith(words) and ended.err == b"", ended
