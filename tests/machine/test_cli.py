# SPDX-License-Identifier: Apache-2.0
"""The command line: each sentence about it is a test here."""

import json
import os
import pty
import re
import signal
import subprocess
import termios
import threading
import time

import pytest
from conftest import LIMIT, SLOW, TOP
from pexpect import fdpexpect

OPTIONS = ["--kernel", "--initrd", "--append", "--kernel-entry", "--cpus", "--memory", "--engine", "--code-cache", "--engine-off",
           "--warm", "--verify-code", "--trace-blocks", "--perf-map", "--count", "--serial", "--device", "--no-reboot", "--timeout", "--stats",
           "--verbose", "--dry-run"]
PASSES = ["merge", "chain", "indirect", "strip", "superblock", "simd", "string", "system", "adapt"]


def guest_run(kernel, word, *more):
    return ["run", "--kernel", kernel, "--append", word, "--memory", "32M", *more]


def one_line(ended):
    """A refusal: status 126, nothing on stdout, one line on stderr that begins with the program's name."""
    assert ended.status == 126, ended
    assert ended.out == b"", ended
    text = ended.err.decode()
    assert text.startswith("sundog: ") and text.endswith("\n") and text.count("\n") == 1, ended
    return text


# --- commands ------------------------------------------------------------------------------------------------------------------


def test_version(run):
    ended = run("version")
    assert ended.status == 0 and re.fullmatch(rb"sundog \d+\.\d+\.\d+\n", ended.out), ended


@pytest.mark.parametrize("how", [["--help"], ["help"], ["-h"], ["run", "--help"]])
def test_help_teaches(run, how):
    ended = run(*how)
    text = ended.out.decode()
    assert ended.status == 0 and ended.err == b""
    for option in OPTIONS:
        assert f"  {option}" in text
    assert "sundog run --kernel vmlinuz --initrd" in text and "Exit status" in text and "Ctrl-A x" in text
    assert ",".join(PASSES) in text
    assert max(len(line) for line in text.splitlines()) <= 110


def test_help_lists_the_engines_there_are(run):
    doctor = run("doctor").out.decode().split("\nengines", 1)[1].split("/dev/kvm")[0]
    engines = re.findall(r"^  (\w+) ", doctor, re.M)
    assert "interp" in engines
    help_text = run("run", "--help").out.decode()
    assert re.search(r"--engine NAME .*\n +" + ", ".join(engines) + "\n", help_text), help_text


def test_manual_names_every_option_and_pass():
    manual = (TOP / "docs" / "man" / "sundog.1").read_text().replace("\\-", "-")
    for word in [*OPTIONS, *PASSES]:
        assert re.search(r"\\fB%s\b|\.B %s\b" % (word, word), manual), word


def test_doctor_names_engines_and_speed(run):
    ended = run("doctor")
    text = ended.out.decode()
    assert ended.status == 0, ended
    assert re.search(r"^  interp ", text, re.M) and "usable" in text and "/dev/kvm" in text
    assert re.search(r"measured \d+ million guest instructions", text), text


@pytest.mark.parametrize("args", [[], ["fly"], ["doctor", "now"], ["version", "--long"], ["help", "me"]])
def test_wrong_command(run, args):
    one_line(run(*args))


# --- options -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args, names", [
    (["--kernel"], "--kernel"),
    (["--frobnicate"], "--frobnicate"),
    (["kernel.elf"], "kernel.elf"),
    (["--no-reboot=yes"], "--no-reboot"),
    (["--cpus", "0"], "--cpus 0"), (["--cpus", "9"], "--cpus 9"), (["--cpus", "two"], "--cpus two"), (["--cpus", ""], "--cpus"),
    (["--cpus", "1x"], "--cpus"), (["--cpus", "-1"], "--cpus"), (["--cpus", "99999999999999999999"], "--cpus"),
    (["--memory", "0"], "--memory"), (["--memory", "512"], "--memory"), (["--memory", "12Q"], "--memory"),
    (["--memory", "1MM"], "--memory"), (["--memory", "-1M"], "--memory"), (["--memory", "3000001"], "--memory"),
    (["--memory", "18446744073709551616"], "--memory"), (["--memory", "18014398509481985K"], "--memory"),
    (["--memory", "4096G"], "--memory"), (["--memory", "M"], "--memory"), (["--memory", "0x2000000"], "--memory"),
    (["--engine", "warp"], "warp"), (["--engine", ""], "--engine"),
    (["--serial", "com3"], "--serial com3"), (["--serial", "file:"], "--serial"), (["--serial", "file:/no/such/dir/x"], "/no/such/dir/x"),
    (["--device", "gpu"], "--device gpu"), (["--device", "debug-exit,"], "--device"), (["--device", "debug-exit,port="], "--device"),
    (["--device", "debug-exit,port=65536"], "--device"), (["--device", "debug-exit,irq=1"], "--device"),
    (["--device", "debug-exit,port=0x"], "--device"), (["--device", "debug-exit2"], "--device"),
    (["--device", "debug-exit,port=0x3f8"], "0x3f8"),
    (["--code-cache", "32"], "--code-cache"), (["--code-cache", "12Q"], "--code-cache"), (["--code-cache", "1023K"], "1M to 2G"),
    (["--code-cache", "2049M"], "1M to 2G"), (["--code-cache=32M", "--code-cache=32M"], "--code-cache is given twice"),
    (["--engine-off", "warp"], ", ".join(PASSES)), (["--engine-off", "merge,warp"], "'warp'"), (["--engine-off", "merge,"], "''"),
    (["--engine-off="], "''"), (["--engine-off", "chai"], "'chai'"), (["--engine-off", "x" * 5000], "xxx"),
    (["--warm", "-1"], "--warm -1"), (["--warm", "256"], "255"), (["--warm", "much"], "--warm much"),
    (["--verify-code", "some"], "all, sample or off"), (["--trace-blocks="], "--trace-blocks"),
    (["--trace-blocks=/no/such/dir/x"], "/no/such/dir/x"), (["--perf-map=yes"], "--perf-map"),
    (["--engine", "interp", "--code-cache", "32M"], "--code-cache"), (["--engine", "interp", "--engine-off", "merge"], "--engine-off"),
    (["--engine", "interp", "--warm", "0"], "--warm"), (["--verify-code", "all", "--engine", "interp"], "--verify-code"),
    (["--engine", "interp", "--trace-blocks", "blocks.txt"], "--trace-blocks"), (["--engine", "interp", "--perf-map"], "--perf-map"),
    (["--timeout", "0"], "--timeout"), (["--timeout", "soon"], "--timeout"), (["--timeout", "-5"], "--timeout"),
    (["--timeout", "1e9"], "--timeout"), (["--timeout", "99999999999999999999"], "--timeout"),
    (["--kernel-entry", "efi"], "--kernel-entry efi"), (["--kernel-entry", "bzimage"], "bzimage"),
    (["--initrd", ""], "--initrd"), (["--initrd", "/no/such/initrd"], "/no/such/initrd"),
    (["--stats="], "--stats"), (["--stats=/no/such/dir/x"], "/no/such/dir/x"),
    (["--append", "again"], "--append is given twice"), (["--cpus", "2", "--cpus", "2"], "--cpus is given twice"),
    (["--serial", "none", "--serial", "stdio"], "--serial is given twice"),
])
def test_wrong_option(run, cli_guest, args, names):
    assert names in one_line(run(*guest_run(cli_guest, "power-off"), *args))


def test_kernel_is_needed(run):
    assert "--kernel is missing" in one_line(run("run", "--memory", "64M"))


def test_control_bytes_in_names_stay_on_one_line(run):
    one_line(run("run", "--kernel", "/no/such\n\x1b[2Jfile"))


@pytest.mark.parametrize("size, shown", [("32M", "32M"), ("32768K", "32M"), ("33554432", "32M"), ("1G", "1G"), ("32m", "32M"),
                                         ("2052K", "2052K")])
def test_sizes(run, cli_guest, size, shown):
    ended = run("run", "--kernel", cli_guest, "--memory", size, "--dry-run")
    assert ended.status == 0 and f"memory: {shown}\n" in ended.out.decode(), ended


def test_value_after_equals_sign(run, cli_guest):
    ended = run("run", "--kernel=" + cli_guest, "--memory=32M", "--append=a=b c", "--dry-run")
    assert ended.status == 0 and b"append: a=b c\n" in ended.out, ended


def test_dry_run_runs_nothing(run, cli_guest, tmp_path):
    log = tmp_path / "log"
    ended = run(*guest_run(cli_guest, "exit=3", "--device", "debug-exit,port=0xf4", "--serial", f"file:{log}", "--dry-run",
                           "--no-reboot", "--verbose", "--engine", "interp"))
    text = ended.out.decode()
    assert ended.status == 0 and "hello" not in text and not log.exists(), ended
    for line in ["engine: interp", "cpus: 1", f"kernel: {cli_guest}", "initrd: none", "append: exit=3", "device: debug-exit,port=0xf4",
                 "no-reboot: yes"]:
        assert line + "\n" in text


def test_dry_run_shows_what_the_translator_is_told(run, cli_guest, tmp_path):
    trace = tmp_path / "blocks"
    told = run(*guest_run(cli_guest, "power-off", "--code-cache", "2048K", "--engine-off", "chain,merge", "--warm", "0", "--verify-code",
                          "sample", "--trace-blocks", trace, "--perf-map", "--count", "--dry-run"))
    untold = run(*guest_run(cli_guest, "power-off", "--dry-run"))
    assert told.status == 0 and untold.status == 0, told
    shown = {"code-cache": "2M", "engine-off": "merge,chain", "warm": "0", "verify-code": "sample", "trace-blocks": trace, "perf-map": "yes",
             "count": "yes"}
    normal = {"code-cache": "default", "engine-off": "none", "warm": "default", "verify-code": "default", "trace-blocks": "none",
              "perf-map": "no", "count": "no"}
    for name in shown:
        assert f"\n{name}: {shown[name]}\n" in told.out.decode()
        assert f"\n{name}: {normal[name]}\n" in untold.out.decode()
    assert not trace.exists()


@pytest.mark.parametrize("size", ["1M", "2G"])
def test_bounds_of_the_code_cache_belong_to_it(run, cli_guest, size):
    ended = run(*guest_run(cli_guest, "power-off", "--code-cache", size, "--dry-run"))
    assert ended.status == 0 and f"code-cache: {size}\n" in ended.out.decode(), ended


def test_trace_of_blocks_is_written_where_asked(run, cli_guest, tmp_path):
    trace = tmp_path / "blocks"
    ended = run(*guest_run(cli_guest, "power-off", "--trace-blocks", trace))
    assert ended.status == 0 and trace.exists(), ended


def test_dry_run_reads_everything(run, cli_guest, tmp_path):
    bad = tmp_path / "bad"
    bad.write_bytes(b"this is no kernel\n" * 100)
    assert str(bad) in one_line(run("run", "--kernel", bad, "--dry-run"))
    assert "/no/such" in one_line(run("run", "--kernel", cli_guest, "--initrd", "/no/such", "--dry-run"))


# --- files that are not what they should be --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [
    lambda p: p.write_bytes(b""),
    lambda p: p.write_bytes(b"\x7fELF"),
    lambda p: p.write_bytes(b"\x7fELF" + bytes(60)),
    lambda p: p.write_bytes(bytes(4096)),
    lambda p: p.write_bytes(b"#!/bin/sh\nexit 0\n"),
    lambda p: p.mkdir(),
    lambda p: p.symlink_to("/dev/null"),
    lambda p: p.symlink_to("/no/such/file"),
    lambda p: p.symlink_to("/dev/zero"),
], ids=["empty", "elf-magic", "elf-zeros", "zeros", "script", "folder", "dev-null", "dangling", "dev-zero"])
def test_no_kernel(run, tmp_path, make):
    path = tmp_path / "kernel"
    make(path)
    assert str(path) in one_line(run("run", "--kernel", path, "--memory", "32M"))


def test_truncated_kernel(run, cli_guest, tmp_path):
    whole = open(cli_guest, "rb").read()
    path = tmp_path / "kernel"
    for length in range(4, min(len(whole), 4096), 97):
        path.write_bytes(whole[:length])
        one_line(run("run", "--kernel", path, "--memory", "32M"))


def test_initrd_larger_than_memory(run, guest_cache, tmp_path):
    path = tmp_path / "initrd"
    with open(path, "wb") as f:
        f.truncate(1 << 30)
    assert str(path) in one_line(run("run", "--kernel", guest_cache / "amd64" / "vmlinuz", "--initrd", path, "--memory", "256M"))


def test_kernel_through_a_pipe(run, guest_cache, tmp_path):
    """Nobody knows how long it is before it has ended."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with subprocess.Popen(f"cat {guest_cache / 'amd64' / 'vmlinuz'} > {path}", shell=True):
        ended = run("run", "--kernel", path, "--kernel-entry", "bzimage", "--dry-run")
    assert ended.status == 0, ended


# --- exit statuses ---------------------------------------------------------------------------------------------------------------


def test_power_off(run, cli_guest):
    ended = run(*guest_run(cli_guest, "power-off"))
    assert (ended.status, ended.out, ended.err) == (0, b"hello\r\n", b""), ended


def test_reset_ends_with_no_reboot(run, cli_guest):
    ended = run(*guest_run(cli_guest, "reset", "--no-reboot"))
    assert (ended.status, ended.out) == (0, b"hello\r\n"), ended


@pytest.mark.parametrize("word", ["reset", "crash"])
def test_reset_boots_again(sundog, cli_guest, word):
    with subprocess.Popen([sundog, *guest_run(cli_guest, word)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as p:
        for _ in range(5):
            assert p.stdout.readline() == b"hello\r\n"
        p.kill()


@pytest.mark.parametrize("value", [0, 1, 16, 63, 127, 128, 255, 1000])
def test_debug_exit(run, cli_guest, value):
    ended = run(*guest_run(cli_guest, f"exit={value}", "--device", "debug-exit"))
    assert ended.status == (value << 1 | 1) & 0xff and ended.out == b"hello\r\n", ended


def test_debug_exit_at_another_port(run, cli_guest):
    assert run(*guest_run(cli_guest, "exit-at-0x501=4", "--device", "debug-exit,port=0x501")).status == 9


def test_debug_exit_is_absent_unless_asked_for(run, cli_guest):
    assert run(*guest_run(cli_guest, "exit=3 power-off")).status == 0


def test_crash(run, cli_guest):
    ended = run(*guest_run(cli_guest, "crash", "--no-reboot"))
    assert ended.status == 102 and ended.out == b"hello\r\n", ended
    assert re.fullmatch(rb"sundog: guest crashed: triple fault[^\n]*\n", ended.err), ended


@pytest.mark.parametrize("word", ["spin", "halt", "flood=0"])
@pytest.mark.parametrize("cpus", ["1", "4"])
def test_timeout(run, cli_guest, word, cpus):
    begin = time.monotonic()
    ended = run(*guest_run(cli_guest, word, "--timeout", "1", "--cpus", cpus), stdout=subprocess.DEVNULL)
    assert ended.status == 124 and b"--timeout" in ended.err, ended
    assert 1 <= time.monotonic() - begin < 15 * SLOW


# --- statistics ------------------------------------------------------------------------------------------------------------------


def check_stats(stats):
    assert stats["engine"] in ("bt", "interp") and stats["cpus"] == len(stats["vcpus"])
    assert stats["instructions"] > 50 and stats["seconds"] > 0
    memory = stats["host_memory"]
    assert 0 < memory["guest_ram"] < memory["rss"] and memory["page_tables"] > 0
    assert memory["beside_guest_ram"] == memory["rss"] + memory["page_tables"] - memory["guest_ram"]
    assert 0 < stats["start_to_first_instruction_ms"] < 1000 * LIMIT
    assert stats["exits"]["io"] > 5
    for name in ["mips", "hidden_faults", "true_faults", "tracing_faults", "translations", "chained", "invalidations",
                 "interrupts_injected", "unimplemented"]:
        assert name in stats
    assert sum(v["instructions"] for v in stats["vcpus"]) == stats["instructions"]


def test_stats_on_stderr(run, cli_guest):
    ended = run(*guest_run(cli_guest, "power-off", "--stats", "--cpus", "2"))
    assert ended.status == 0 and ended.out == b"hello\r\n", ended
    check_stats(json.loads(ended.err))


def test_stats_in_a_file(run, cli_guest, tmp_path):
    path = tmp_path / "stats"
    ended = run(*guest_run(cli_guest, "exit=3", "--device", "debug-exit", f"--stats={path}"))
    assert ended.status == 7 and ended.err == b"", ended
    stats = json.loads(path.read_text())
    check_stats(stats)
    assert stats["end"] == "debug-exit"


def test_unimplemented_is_counted_by_name(run, cli_guest):
    ended = run(*guest_run(cli_guest, "exit=3 power-off", "--stats"))
    assert json.loads(ended.err)["unimplemented"].get("port_write 0xf4") == 1, ended


# --- console ---------------------------------------------------------------------------------------------------------------------


def test_serial_file(run, cli_guest, tmp_path):
    log = tmp_path / "log"
    ended = run(*guest_run(cli_guest, "power-off", "--serial", f"file:{log}"))
    assert (ended.status, ended.out, log.read_bytes()) == (0, b"", b"hello\r\n"), ended


def test_serial_none(run, cli_guest):
    ended = run(*guest_run(cli_guest, "power-off", "--serial", "none"))
    assert (ended.status, ended.out, ended.err) == (0, b"", b""), ended


def test_debug_port_speaks_on_stderr_when_verbose(run, cli_guest):
    quiet = run(*guest_run(cli_guest, "debug-port power-off"))
    loud = run(*guest_run(cli_guest, "debug-port power-off", "--verbose"))
    assert quiet.err == b"" and b"sundog: debug port: spoken at the debug port\n" in loud.err
    assert quiet.out == loud.out == b"hello\r\n"


def test_pipes(sundog, cli_guest):
    with subprocess.Popen([sundog, *guest_run(cli_guest, "echo")], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as p:
        assert p.stdout.readline() == b"hello\r\n" and p.stdout.readline() == b"ready\r\n"
        text = bytes(range(32, 127)) * 300 + b"\n"  # far more than the receiver holds
        feeder = threading.Thread(target=lambda: (p.stdin.write(text), p.stdin.flush()))
        feeder.start()
        assert p.stdout.readline() == text
        feeder.join()
        p.stdin.write(b"\x01\x01\n")
        p.stdin.flush()
        assert p.stdout.readline() == b"\x01\n"
        p.stdin.write(b"\x01x")
        p.stdin.flush()
        assert p.wait(LIMIT) == 0


@pytest.mark.parametrize("stdin", [subprocess.DEVNULL, None], ids=["null", "closed"])
def test_no_stdin(sundog, cli_guest, stdin):
    done = subprocess.run([sundog, *guest_run(cli_guest, "power-off")], stdin=stdin, stdout=subprocess.PIPE, timeout=LIMIT, check=False,
                          preexec_fn=None if stdin else lambda: os.close(0))
    assert (done.returncode, done.stdout) == (0, b"hello\r\n")


def test_stdin_from_a_file(run, cli_guest, tmp_path):
    keys = tmp_path / "keys"
    keys.write_bytes(b"typed\n\x01x")
    with open(keys, "rb") as f:
        assert run(*guest_run(cli_guest, "echo"), stdin=f).status == 0


@pytest.mark.parametrize("fd", [1, 2])
def test_closed_output(sundog, cli_guest, fd):
    done = subprocess.run([sundog, *guest_run(cli_guest, "power-off")], stdin=subprocess.DEVNULL, timeout=LIMIT, check=False,
                          preexec_fn=lambda: os.close(fd))
    assert done.returncode == 0


def test_slow_reader_loses_nothing(sundog, cli_guest):
    lines = 60000  # 540 kB: more than the ring and the pipe hold
    with subprocess.Popen([sundog, *guest_run(cli_guest, f"flood={lines} power-off")], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as p:
        with pytest.raises(subprocess.TimeoutExpired):
            p.wait(3)  # nobody reads: it cannot end
        out = p.stdout.read()
        assert p.wait(LIMIT) == 0
    assert out == b"hello\r\n" + b"".join(b"%08d\n" % n for n in range(lines))


def test_stuck_reader_does_not_hold_up_a_timeout(sundog, cli_guest):
    with subprocess.Popen([sundog, *guest_run(cli_guest, "flood=0", "--timeout", "1")], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        _, status, usage = os.wait4(p.pid, 0)  # of this child alone: others had more memory
        p.returncode = os.waitstatus_to_exitcode(status)
    assert p.returncode == 124
    assert usage.ru_maxrss < (400 << 10) * SLOW


def test_reader_goes_away(sundog, cli_guest):
    with subprocess.Popen([sundog, *guest_run(cli_guest, "flood=0")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as p:
        p.stdout.readline()
        p.stdout.close()
        assert p.wait(LIMIT) == 126
        assert b"stdout" in p.stderr.read()


def test_full_disk(run, cli_guest):
    with open("/dev/full", "wb") as full:
        ended = run(*guest_run(cli_guest, "flood=0"), stdout=full)
    assert ended.status == 126 and b"No space left" in ended.err, ended


def test_shared_stdout_stays_blocking(sundog, cli_guest):
    """O_NONBLOCK belongs to the description that the shell shares with us."""
    reader, writer = os.pipe()
    subprocess.run([sundog, *guest_run(cli_guest, "power-off")], stdin=subprocess.DEVNULL, stdout=writer, timeout=LIMIT, check=True)
    assert os.get_blocking(writer)
    os.close(reader)
    os.close(writer)


# --- terminal --------------------------------------------------------------------------------------------------------------------


class Terminal:
    """The program on a terminal of its own, whose settings can be looked at from outside."""

    def __init__(self, sundog, *args):
        self.main, self.sub = pty.openpty()
        self.before = termios.tcgetattr(self.sub)
        self.child = subprocess.Popen([sundog, *args], stdin=self.sub, stdout=self.sub, stderr=self.sub, start_new_session=True)
        self.screen = fdpexpect.fdspawn(self.main, timeout=LIMIT)

    def restored(self):
        return termios.tcgetattr(self.sub) == self.before

    def end(self):
        status = self.child.wait(LIMIT)
        assert self.restored()
        return status


@pytest.fixture
def terminal(sundog, cli_guest):
    made = []

    def make(word, *more):
        t = Terminal(sundog, *guest_run(cli_guest, word, *more))
        made.append(t)
        t.screen.expect_exact("ready\r\n" if "echo" in word else "hello\r\n")
        return t

    yield make
    for t in made:
        t.child.kill()
        t.child.wait()
        os.close(t.main)
        os.close(t.sub)


def test_terminal_is_raw_and_restored(terminal):
    t = terminal("echo")
    assert not termios.tcgetattr(t.sub)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    t.screen.send("a\x03\x1a\r")  # Ctrl-C and Ctrl-Z belong to the guest
    t.screen.expect_exact("a\x03\x1a\r")
    t.screen.send("\x01x")
    assert t.end() == 0


def test_escape_keys(terminal):
    t = terminal("echo")
    t.screen.send("\x01h")
    t.screen.expect_exact("Ctrl-A x")
    t.screen.expect_exact("Ctrl-A Ctrl-A")
    t.screen.send("\x01\x01!")
    t.screen.expect_exact("\x01!")
    t.screen.send("\x01x")
    assert t.end() == 0


def test_escape_works_while_the_guest_does_not_listen(terminal):
    t = terminal("spin")
    t.screen.send("x" * 6000)
    t.screen.send("\x01x")
    assert t.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGSEGV, signal.SIGABRT,
                                    signal.SIGBUS, signal.SIGFPE, signal.SIGILL])
@pytest.mark.parametrize("word", ["echo", "halt"])
def test_signals_restore_the_terminal(terminal, number, word):
    t = terminal(word)
    assert not t.restored()
    t.child.send_signal(number)
    # A sanitizer has a handler of its own behind ours; it ends the program with its own status.
    assert t.end() in ([-number, 99] if SLOW > 1 else [-number])


@pytest.mark.parametrize("word, status", [("power-off", 0), ("exit=2", 5), ("crash", 102)])
def test_ends_restore_the_terminal(terminal, word, status):
    t = terminal(word, "--device", "debug-exit", "--no-reboot")
    assert t.end() == status


def test_stop_and_continue(terminal):
    t = terminal("echo")
    t.child.send_signal(signal.SIGTSTP)
    os.waitpid(t.child.pid, os.WUNTRACED)
    assert t.restored()
    t.child.send_signal(signal.SIGCONT)
    limit = time.monotonic() + LIMIT
    while t.restored():  # it takes the terminal again
        assert time.monotonic() < limit
    t.screen.send("on\r")
    t.screen.expect_exact("on\r")
    t.screen.send("\x01x")
    assert t.end() == 0


def test_nohup_is_respected(sundog, cli_guest):
    with subprocess.Popen([sundog, *guest_run(cli_guest, "echo")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as p:
        p.stdout.readline()
        p.send_signal(signal.SIGHUP)
        p.stdin.write(b"alive\n")
        p.stdin.flush()
        assert p.stdout.readline() == b"ready\r\n" and p.stdout.readline() == b"alive\n"
        p.terminate()
        assert p.wait(LIMIT) == -signal.SIGTERM


# --- an idle guest costs nothing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", ["1", "8"])
def test_halted_guest_is_free(sundog, cli_guest, cpus):
    with subprocess.Popen([sundog, *guest_run(cli_guest, "halt", "--cpus", cpus)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as p:
        p.stdout.readline()

        def used():
            fields = open(f"/proc/{p.pid}/stat").read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        time.sleep(0.5)
        begin = used()
        time.sleep(4)
        spent = used() - begin
        p.kill()
    assert spent <= 0.02
