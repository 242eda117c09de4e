# SPDX-License-Identifier: Apache-2.0
"""Other systems: kernels in the manner of teaching ones (teaching/), and Debian's kernel told to use older hardware."""

import subprocess
from pathlib import Path

import pytest
from conftest import FREESTANDING, LIMIT
from machine import SLOW, boot, command_line, guests  # noqa: F401

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


@pytest.mark.long
@pytest.mark.parametrize("arch,bits,cpus,words", [
    ("amd64", 64, 2, "noapic"), ("amd64", 64, 2, "nolapic"), ("amd64", 64, 2, "nosmp clocksource=acpi_pm no-kvmclock"),
    ("amd64", 64, 2, "tsc=unstable no-kvmclock"),
    ("amd64", 64, 4, "clocksource=kvm-clock tsc=unstable"), ("amd64", 64, 2, "lapic=notscdeadline no-kvmclock nohlt"),
    ("amd64", 64, 2, "pti=on nosmap nosmep nox2apic nopcid"), ("amd64", 64, 2, "mitigations=off idle=poll earlyprintk=ttyS0"),
    ("i386", 32, 2, "noapic nolapic"), ("i386", 32, 4, "clocksource=acpi_pm lapic=notscdeadline no-kvmclock"),
])
def test_kernel_told_otherwise(boot, arch, bits, cpus, words):  # noqa: F811
    """The clocks, interrupt controllers and protections that a kernel uses only when told to. What the words take away is not
    looked for."""
    machine = boot(arch, init=f"selftest{bits}", cpus=cpus,
                   append=f"cryptomgr.notests except=processor,clocks,kernel-log,hotplug {words}")
    status = machine.end(limit=300 * SLOW)
    assert status == 0 and " 0 failed" in machine.text, machine
