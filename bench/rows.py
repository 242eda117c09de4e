# SPDX-License-Identifier: Apache-2.0
"""What Sundog has to reach, as data: the rows, what each is measured by, its floor and its goal."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """A bound. native: times the native duration, at most; tcg: times faster than TCG, at least; value: the
    figure itself, at most."""
    of: str
    bound: float
    how: str = "each"        # each: every workload of the row keeps it; geomean: their geometric mean

    def holds(self, figure):
        return figure >= self.bound if self.of == "tcg" else figure <= self.bound

    def words(self, unit=""):
        what = "" if self.how == "each" else "geomean "
        if self.of == "value":
            return f"≤ {self.bound:g} {unit}"
        return f"{what}≤ {self.bound:g} × native" if self.of == "native" else f"{what}≥ {self.bound:g} × TCG"


def native(bound, how="each"):
    return Limit("native", bound, how)


def tcg(bound, how="each"):
    return Limit("tcg", bound, how)


def value(bound):
    return Limit("value", bound)


@dataclass(frozen=True)
class Row:
    id: str
    title: str
    suite: str               # work, programs, boot, memory, start: the kind of run that measures it
    takes: tuple             # groups and names of its workloads
    floor: tuple = ()
    goal: tuple = ()
    either: bool = False     # a workload that keeps one of the limits is good
    unit: str = ""

    def words(self, limits):
        return (" or " if self.either else ", ").join(l.words(self.unit) for l in limits)


SIZES = ("64k", "1m", "16m")
OPS = ("movsb", "movsq", "stosb", "stosq")

ROWS = (
    Row("int", "integer user code", "work", ("int",),
        (native(1.8, "geomean"), native(3), tcg(1)), (native(1.3, "geomean"),)),
    Row("ram", "RAM chase (told apart)", "work", ("ram",)),
    Row("fp", "FP and SIMD", "work", ("fp",),
        (native(1.3, "geomean"), tcg(8, "geomean")), (native(1.05, "geomean"),)),
    Row("vector", "AVX2, AVX-512 (told apart)", "work", ("vector",)),
    Row("call", "recursion, indirect calls and jumps", "work", ("call",), (native(2.5), tcg(4)), (native(1.4),)),
    Row("syscall", "null system call", "work", ("syscall",), (tcg(2.5),), (tcg(5),)),
    Row("page", "fresh page touched", "work", ("fresh_page",), (tcg(3),), (tcg(7),)),
    Row("fork", "fork+exit, fork+exec", "work", ("fork_exit", "fork_exec"), (tcg(2.5),), (tcg(5),)),
    Row("pipe", "pipe switch, two processes, one vcpu", "work", ("pipe_switch",), (tcg(3),), (tcg(12),)),
    Row("string", "string instructions, 64 KiB-16 MiB", "work",
        tuple(f"{op}_{size}" for op in OPS for size in SIZES), (native(1.2),), (native(1.0),)),
    Row("string64m", "string instructions, above", "work", tuple(f"{op}_64m" for op in OPS),
        (native(1.1),), (native(1.0),)),
    Row("simdcopy", "SIMD copy loop", "work", ("copy_sse",), (native(1.4),), (native(1.0),)),
    Row("tick", "timer tick (told apart)", "work", ("tick",)),
    Row("unpack", "stock bzImage: decompressor alone", "boot", ("decompressor",), (tcg(2),), (tcg(5),)),
    Row("boot", "stock bzImage: kernel entry to init", "boot", ("kernel_to_init",), (tcg(2),), (tcg(5),)),
    Row("toinit", "process start to init (told apart)", "boot", ("start_to_init",)),
    Row("programs", "real programs", "programs", ("prog",), (tcg(3), native(1.5)), (tcg(6),), either=True),
    Row("equal", "real programs, equal CPUID", "equal", ("prog",), (tcg(3), native(1.5)), (tcg(6),), either=True),
    Row("memory", "VMM memory beside guest RAM", "memory", ("vmm_memory",), (value(48),), (value(24),), unit="MiB"),
    Row("start", "start to first guest instruction", "start", ("first_instruction",),
        (value(30),), (value(10),), unit="ms"),
)


def geomean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def ratios(row, machine, table):
    """{workload: {native, tcg, value}} of a machine; table: {machine: {workload: ns}} of the row's suite."""
    found = {}
    for name, mine in table.get(machine, {}).items():
        f = {"value": mine}
        for other, key in (("native", "native"), ("tcg", "tcg")):
            theirs = table.get(other, {}).get(name)
            if theirs and theirs > 0 and mine > 0:
                f[key] = mine / theirs if key == "native" else theirs / mine
        found[name] = f
    return found


def figure(limit, found):
    """What a limit is held against: (figure, workload); None when something is missing."""
    values = {name: f.get(limit.of) for name, f in found.items()}
    if not values or any(v is None for v in values.values()):
        return None
    if limit.how == "geomean":
        return geomean(list(values.values())), ""
    worst = (min if limit.of == "tcg" else max)(values, key=values.get)
    return values[worst], worst


def judge(row, limits, found, expected):
    """True, False, or None when it cannot be told; and the names that fail."""
    if not limits:
        return None, []
    if not found or not expected <= set(found):
        return None, sorted(expected - set(found))
    if row.either:
        bad, unknown = [], []
        for name, f in found.items():
            told = [l.holds(f[l.of]) for l in limits if f.get(l.of) is not None]
            if not any(told):
                (bad if len(told) == len(limits) else unknown).append(name)
        return (False, bad) if bad else (None, unknown) if unknown else (True, [])
    verdicts, bad = [], []
    for limit in limits:
        held = figure(limit, found)
        if held is None:
            verdicts.append(None)
        elif limit.how == "each":
            verdicts.append(limit.holds(held[0]))
            bad += [n for n, f in found.items() if not limit.holds(f[limit.of])]
        else:
            verdicts.append(limit.holds(held[0]))
    if False in verdicts:
        return False, list(dict.fromkeys(bad))
    return (None, []) if None in verdicts else (True, [])
