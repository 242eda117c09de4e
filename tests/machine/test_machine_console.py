# SPDX-License-Identifier: Apache-2.0
"""The console of a whole machine: pipes, files, a terminal with a shell behind it."""

import subprocess

from machine import boot, command_line, guests, terminal  # noqa: F401

PROMPT = "guest# "


def test_lines_through_pipes(boot):  # noqa: F811
    """What goes in comes out turned round: none lost, none twice, whatever the pace."""
    machine = boot("amd64", init="selftest64", append="only=input input=1", stdin=subprocess.PIPE)
    machine.wait_for("INPUT ready")
    lines = [f"line {i} {'x' * (i * 7 % 300)}" for i in range(60)]
    for line in lines[:10]:  # one by one
        machine.send(line.encode() + b"\n")
        machine.wait_for(f"INPUT {line[::-1]}")
    for line in lines[10:]:
        machine.send(line.encode() + b"\n")
    machine.send(b"\n")
    assert machine.end() == 0, machine
    assert [t.removeprefix("INPUT ") for _, t in machine.lines if t.startswith("INPUT ") and t != "INPUT ready"] == [
        line[::-1] for line in lines], machine


def test_input_from_a_file_and_its_end(boot, tmp_path):  # noqa: F811
    """All of it is there before the guest listens; its end leaves the machine running."""
    words = tmp_path / "words"
    words.write_bytes(b"first\nsecond\n\n")
    with open(words, "rb") as stream:
        machine = boot("i386", init="selftest32", append="only=input,x87 input=1", stdin=stream)
        assert machine.end() == 0, machine
    assert "SELFTEST" in machine.text and "not ok" not in machine.text.replace("not ok lines", ""), machine


def test_serial_to_a_file(boot, tmp_path):  # noqa: F811
    out = tmp_path / "console.log"
    machine = boot("amd64", init="selftest64", append="only=simd", options=["--serial", f"file:{out}"])
    assert machine.end() == 0, machine
    assert machine.text == "", machine
    assert b"ok aesenc" in out.read_bytes() and b" passed 0 failed" in out.read_bytes()


def test_no_serial(boot):  # noqa: F811
    machine = boot("amd64", init="selftest64", append="only=simd", options=["--serial", "none"])
    assert machine.end() == 0 and machine.text == "", machine


def test_shell_at_a_terminal(terminal):  # noqa: F811
    """A shell as at a real serial line: commands, job control by Ctrl-C, and poweroff."""
    shell = terminal("amd64", init="shell")
    shell.expect_exact(PROMPT)
    shell.send("echo $((6*7)) answer\n")
    shell.expect("42 answer\r\n")
    shell.expect_exact(PROMPT)
    shell.send("sleep 1000\n")
    shell.expect_exact("sleep 1000")
    shell.send("\x03")
    shell.expect_exact(PROMPT)
    shell.send("cat | hexdump -C\n")
    shell.expect("hexdump -C")
    shell.send("\x16\x01\x01\n\x04")  # Ctrl-V, then Ctrl-A Ctrl-A: one 0x01 for the guest
    shell.expect("00000000  01 0a  ")
    shell.expect_exact(PROMPT)
    shell.send("dd if=/dev/zero bs=1k count=64 2>/dev/null | tr '\\0' 'z' | md5sum; stty size\n")
    shell.expect("[0-9a-f]{32}  -")
    shell.expect_exact(PROMPT)
    shell.send("poweroff -f\n")
    shell.expect_exact("Power down")
    assert shell.wait() == 0


def test_keys_of_the_monitor(terminal):  # noqa: F811
    shell = terminal("i386", init="shell")
    shell.expect_exact(PROMPT)
    shell.send("\x01h")
    shell.expect("Ctrl-A x")
    shell.send("echo still $((1+1))\n")
    shell.expect("still 2")
    shell.send("\x01x")
    assert shell.wait() == 0


def test_much_output(boot):  # noqa: F811
    """A hundred kilobytes: all of it arrives, in order."""
    machine = boot("amd64", init="shell", stdin=subprocess.PIPE)
    machine.wait_for(PROMPT)
    machine.send(b"stty -echo; seq 1 20000; poweroff -f\n")
    assert machine.end() == 0, machine
    numbers = [int(line) for _, line in machine.lines if line.isdigit()]
    assert numbers == list(range(1, 20001)), f"{len(numbers)} lines\n{machine!r}"
