# SPDX-License-Identifier: Apache-2.0
"""Which QEMU TCG is measured: the fastest of its usual configurations, found by a short run of each and kept;
and the pair of processor models that show the same to both guests."""

import json

import machines
import rows
from guests import say

# A few workloads of each kind tell the configurations apart.
SAMPLE = "sort,parse,bytecode,stencil,simd,recurse,indirect,syscall,fresh_page,fork_exit,pipe_switch"
DEFAULT = {"work": ("pc", "max"), "programs": ("pc", "max"), "boot": ("pc", "max")}
# Processor model of QEMU: what Sundog calls the same level.
EQUAL_MODELS = {"Nehalem": "v2", "qemu64": "v1"}
# Features, in the kernel's words, that programs or kernels choose their ways by, and that both sides can show. XSAVE
# is not among them: with it and without AVX, Linux hangs under TCG.
TELLING = set("""pni pclmulqdq ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes avx f16c rdrand rdseed lahf_lm abm sse4a
    3dnowprefetch bmi1 bmi2 avx2 erms fsrm adx sha_ni fsgsbase rdtscp smep smap umip pdpe1gb nx clflushopt clwb clzero
    svm misalignsse 3dnow 3dnowext ss ht mmxext fxsr_opt syscall pge""".split())


# Each is tried so often, by turns, and its best counts: what others do on the host shall not choose.
TRIES = 2


def total_ns(results):
    return rows.geomean([min(r["ns"] for r in found) for found in results.values()])


def try_one(tcg, setup, purpose):
    """A figure to be small: geometric mean of durations, or seconds from decompressor to init."""
    words = {"bench_ms": "40", "bench_repeat": "3", "bench_only": SAMPLE}
    job = machines.Job(words=words)
    if purpose == "programs":
        job = machines.Job(initrd="programs", memory="1G", words={**words, "bench_only": "prog"})
    elif purpose == "boot":
        job = machines.Job(kernel="bzimage", words={"bench_only": "none"})
    out = machines.read(machines.run(tcg, setup, job))
    if not out.ended:
        say(f"{tcg.board}, {tcg.cpu}: {out.complaints[-1]}")
        return None
    if purpose == "boot":
        return out.marks.get("init", 0) - out.marks.get("decompressor", 0) or None
    return total_ns(out.results)


def pick_tcg(setup, work, purposes, again, allowed):
    """{purpose: Tcg}. Kept beside the build for one version of QEMU; `allowed`: whether to measure."""
    kept, version = work / "tcg.json", machines.Tcg().version
    try:
        picks = json.loads(kept.read_text())
        picks = picks["picks"] if picks["version"] == version and not again else {}
    except (OSError, ValueError, KeyError):
        picks = {}
    for purpose in purposes:
        if purpose in picks or not allowed:
            continue
        figures = {}
        for board in machines.Tcg.BOARDS:
            for cpu in machines.Tcg.CPUS:
                say(f"which TCG is fastest at {purpose}: {board}, {cpu}")
                figure = try_one(machines.Tcg("pc", cpu), setup, purpose)
                if figure:
                    figures[f"{board} {cpu}"] = figure
        if figures:
            picks[purpose] = {"pick": min(figures, key=figures.get), "figures": figures}
            kept.write_text(json.dumps({"version": version, "picks": picks}, indent=1))
    return {p: machines.Tcg(*picks[p]["pick"].split()) if p in picks else machines.Tcg(*DEFAULT[p])
            for p in purposes}, {p: picks[p]["figures"] for p in purposes if p in picks}


def shown_by(machine, setup):
    return machines.read(machines.run(machine, setup, machines.Job(words={"bench_only": "none"}))).info


def equal_pair(sundog, setup):
    """(Tcg, Sundog, differences) whose guests see the same features as far as both can show them."""
    for qemu, ours in EQUAL_MODELS.items():
        mine = machines.Sundog(sundog.program, sundog.engine, sundog.more, cpu_model=ours)
        if not mine.probe(setup):
            break
    else:
        # Without the option there is one model; QEMU's follows it.
        qemu, mine = "Nehalem", machines.Sundog(sundog.program, sundog.engine, sundog.more)
    info = shown_by(mine, setup)
    # The vendor decides which flaws a kernel sees.
    cpu = plain = f"{qemu},vendor={info.get('vendor', 'AuthenticAMD')}"
    theirs = shown_by(machines.Tcg("pc", cpu), setup)
    want, have = ({f for f in i.get("flags", "").split() if f in TELLING} for i in (info, theirs))
    cpu += "".join(f",+{qemu_name(f)}" for f in sorted(want - have))
    cpu += "".join(f",-{qemu_name(f)}" for f in sorted(have - want))
    tcg = machines.Tcg("pc", cpu)
    flags = shown_by(tcg, setup).get("flags", "").split()
    if not flags:
        return machines.Tcg("pc", plain), mine, [f"a TCG guest does not start with {cpu}; it got {plain}"]
    here = set(info.get("flags", "").split())
    return tcg, mine, [f"only {who}: {' '.join(sorted(f))}" for who, f in
                       (("TCG", set(flags) - here), (mine.label, here - set(flags))) if f]


def qemu_name(flag):
    """QEMU's name of a feature that the kernel names otherwise."""
    dotted = {"sse4_1": "sse4.1", "sse4_2": "sse4.2"}
    return dotted.get(flag, flag.replace("_", "-"))
