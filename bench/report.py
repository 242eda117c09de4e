# SPDX-License-Identifier: Apache-2.0
"""From samples to medians, the table of rows with its verdicts, the table of workloads, and the JSON."""

import datetime
import json
import os
import re
import statistics
from pathlib import Path

import rows
from guests import TOP

VERDICT = {True: "pass", False: "FAIL", None: "-"}
GOAL = {True: "reached", False: "not yet", None: "-"}


def figure_and_spread(values, statistic):
    figure = statistic(values)
    return figure, (max(values) - min(values)) / figure if figure else 0.0


def medians(samples, counts, statistic=statistics.median):
    """{suite: {machine: {workload: figures}}} from {suite: {machine: {workload: [result]}}}."""
    table = {}
    for suite, machines in samples.items():
        for machine, workloads in machines.items():
            for name, found in workloads.items():
                mid, spread = figure_and_spread([f["ns_per_unit"] for f in found], statistic)
                ns = statistic([f["ns"] for f in found])
                table.setdefault(suite, {}).setdefault(machine, {})[name] = {
                    "group": found[0]["group"], "unit": found[0]["unit"], "check": found[0]["check"],
                    "ns": ns, "ns_per_unit": mid, "spread": spread, "samples": len(found),
                    "mips": counts[name] * 1e3 / ns if counts.get(name) and ns > 0 else None}
    return table


def differing_checks(samples):
    """Workloads whose result is not the same wherever and whenever it was computed."""
    seen = {}
    for machines in samples.values():
        for workloads in machines.values():
            for name, found in workloads.items():
                seen.setdefault(name, set()).update(f["check"] for f in found)
    return sorted(name for name, checks in seen.items() if len(checks) > 1)


# ---- The machine ----------------------------------------------------------------------------------

def machine_line():
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", info, re.M)
    flags = set((re.search(r"^flags\s*: (.*)$", info, re.M) or ["", ""])[1].split())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) // 1048576
    where = " (itself a virtual machine)" if "hypervisor" in flags else ""
    return (f"{model[1] if model else 'unknown processor'}, {os.cpu_count()} processors, {memory} GiB, "
            f"Linux {os.uname().release}{where}, load {os.getloadavg()[0]:.1f}")


def mitigations(info):
    """What the guest's kernel does about flaws; that it does nothing is one thing, whatever the reason."""
    return {k.partition("/")[2]: v if v.startswith("Mitigation") else "nothing done"
            for k, v in info.items() if k.startswith("mitigation/")}


def mitigation_differences(infos, sundogs):
    """What TCG's guest and each Sundog guest show differently: ["NAME: A on X, B on Y"]."""
    found = []
    theirs = mitigations(infos.get("tcg", {}))
    for m in sundogs:
        ours = mitigations(infos.get(m.name, {}))
        if theirs and ours:
            found += [f"{k}: \"{theirs.get(k, 'not listed')}\" on TCG, \"{ours.get(k, 'not listed')}\" on {m.label}"
                      for k in sorted(theirs.keys() | ours.keys()) if theirs.get(k) != ours.get(k)]
    return found


# ---- Words ----------------------------------------------------------------------------------------

def scale(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(ns) >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def amount(f):
    return f"{f['ns_per_unit']:.3g} MiB" if f["unit"] == "MiB" else scale(f["ns_per_unit"])


def ratio(x):
    if x is None:
        return "-"
    return f"{x:.0f}x" if x >= 100 else f"{x:.1f}x" if x >= 10 else f"{x:.2f}x"


def lay_out(table):
    """Prints cells in columns; the first row is the head, None an empty line."""
    widths = [max(len(r[i]) for r in table if r) for i in range(len(table[0]))]
    for i, cells in enumerate(table):
        if cells is None:
            print()
            continue
        print("  ".join(c.ljust(w) for c, w in zip(cells, widths)).rstrip())
        if i == 0:
            print("  ".join("-" * w for w in widths))


# ---- The table of rows ----------------------------------------------------------------------------

def spoken(of, found):
    """A row's ratios in a few words: the geometric mean, and the worst with its name."""
    values = {n: f[of] for n, f in found.items() if f.get(of) is not None}
    if not values:
        return "-"
    worst = (min if of == "tcg" else max)(values, key=values.get)
    if len(values) == 1:
        return ratio(values[worst])
    return f"{ratio(rows.geomean(list(values.values())))}, worst {ratio(values[worst])} {worst}"


def evaluate(chosen, table, machine):
    """[{row, found, floor, goal, bad}] for one Sundog."""
    result = []
    for row, names in chosen:
        suite = {m: {n: in_unit(row, f) for n, f in w.items() if n in names}
                 for m, w in table.get(row.suite, {}).items()}
        found = rows.ratios(row, machine, suite)
        floor, bad = rows.judge(row, row.floor, found, names)
        goal, _ = rows.judge(row, row.goal, found, names)
        result.append({"row": row, "found": found, "floor": floor, "goal": goal, "bad": bad,
                       "missing": sorted(names - set(found))})
    return result


def in_unit(row, f):
    """The figure as the row's limits mean it: milliseconds and MiB where it has a unit, else nanoseconds."""
    return f["ns_per_unit"] / 1e6 if row.unit == "ms" else f["ns_per_unit"]


def print_rows(chosen, rows_in_full, table, machine):
    evaluated = evaluate(chosen, table, machine.name)
    lines = [["row", "floor", "x native", "faster than TCG", "floor", "goal", "failing, or not measured"]]
    for e in evaluated:
        row, found = e["row"], e["found"]
        if row.unit:
            shown = ", ".join(f"{f['value']:.3g} {row.unit}" for f in found.values()) or "-"
        else:
            shown = spoken("native", found)
        title = row.title if len(found) + len(e["missing"]) == rows_in_full[row.id] else f"{row.title} (part)"
        lines.append([title, row.words(row.floor), shown, spoken("tcg", found), VERDICT[e["floor"]],
                      GOAL[e["goal"]], ", ".join(e["bad"] or e["missing"])])
    print(f"\n{machine.label} ({machine.flags})")
    lay_out(lines)
    told = [e["floor"] for e in evaluated if e["row"].floor]
    print(f"floors: {told.count(True)} hold, {told.count(False)} do not, {told.count(None)} could not be told")
    return evaluated


# ---- The table of workloads -----------------------------------------------------------------------

def print_workloads(figures, machines, title):
    """One suite: {machine: {workload: figures}}."""
    shown = [m for m in machines if figures.get(m.name)]
    sundogs = [m for m in shown if m.name.startswith("sundog")]
    names = list(dict.fromkeys(n for m in shown for n in figures[m.name]))
    if not names:
        return
    with_rate = [m for m in sundogs if any(f["mips"] for f in figures[m.name].values())]
    heads = [title, "per"] + [m.label for m in shown]
    heads += [f"{m.label}/native" for m in shown if m.name != "native" and "native" in figures]
    heads += [f"TCG/{m.label}" for m in sundogs if "tcg" in figures]
    heads += [f"{m.label} M/s" for m in with_rate]

    def over(a, b, name):
        x, y = (figures.get(m, {}).get(name, {}).get("ns_per_unit") for m in (a, b))
        return ratio(x / y if x and y and x > 0 and y > 0 else None)

    lines = [heads]
    for name in names:
        first = next(figures[m.name][name] for m in shown if name in figures[m.name])
        cells = [name, first["unit"]]
        for m in shown:
            f = figures[m.name].get(name)
            cells.append(f"{amount(f)} ±{f['spread'] * 50:.0f}%" if f else "-")
        cells += [over(m.name, "native", name) for m in shown if m.name != "native" and "native" in figures]
        cells += [over("tcg", m.name, name) for m in sundogs if "tcg" in figures]
        rates = [figures[m.name].get(name, {}).get("mips") for m in with_rate]
        lines.append(cells + [f"{r:.0f}" if r else "" for r in rates])
    print()
    lay_out(lines)


# ---- JSON -----------------------------------------------------------------------------------------

def plain(evaluated):
    return [{"row": e["row"].id, "title": e["row"].title, "floor": e["row"].words(e["row"].floor),
             "goal": e["row"].words(e["row"].goal), "floor_holds": e["floor"], "goal_reached": e["goal"],
             "failing": e["bad"], "missing": e["missing"], "ratios": e["found"],
             "geomean_native": rows.geomean([f["native"] for f in e["found"].values() if f.get("native")]),
             "geomean_tcg": rows.geomean([f["tcg"] for f in e["found"].values() if f.get("tcg")])}
            for e in evaluated]


def write_json(result, path=None):
    if path is None:
        folder = TOP / "bench/results"
        folder.mkdir(exist_ok=True)
        path = folder / f"{datetime.datetime.now():%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(result, indent=1, default=str) + "\n")
    return path
