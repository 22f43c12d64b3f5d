"""A series: the same guests, 1, 2, ... at a time, all doing the same workload, with and without sharing.

For every number of guests those missing are started, all do the workload so many
rounds at once, then the host is watched until what sharing has saved no longer
changes; with settle_cpu_percent the scanner is given more of a processor for that
time than in the rounds. A row of the result for each number:

    guests, memory_mib      and together configured with so much
    shared_mib              memory of guests that maps a shared frame or the zero frame
    saved_mib               frames that are free because of that ("reclaimed" in the paper)
    zero_mib                the part of it that is pages of zeroes
    *_pct                   the same, percent of memory_mib
    saved_of_shared_pct     saved_mib in percent of shared_mib
    saved_rise_pct          saved_pct less that of the row before
    runs_per_minute         workloads ended per minute, by the clock
    cpu_seconds             processor time of daemon and workers for one workload, median of the rounds
    plain_*                 the last two on a host that does not share
    throughput_change_pct   of what a processor second brings, with sharing against without
    noise_pct               how far the rounds of one host lie apart, the worse of both hosts
    beyond_noise_pct        what of the change noise does not explain
    clock_change_pct        of runs_per_minute; where other programs compete, this tells about them
    paper_*                 what the paper found with so many guests

Both hosts do the same work in the same order; what the workloads answer must be
equal in all guests and rounds of both.
"""
import csv
import os
import statistics
import time

from .checks import Check
from .report import gnuplot
from .session import SessionError

ZERO, SAVED, SHARED = "#edae49", "#3a7d44", "#1b6ca8"
SETTLED_MIB = 0.5


class Series:
    """The rows of one host, and the different answers of its workloads."""

    def __init__(self):
        self.rows, self.answers = [], []


def _settle(session, series):
    """Wait until the saved memory has not changed for a while; whether it came to that."""
    until = time.monotonic() + series.settle_limit
    seen, since = None, time.monotonic()
    while time.monotonic() < until:
        session.wait(0.5)
        saved = session.recorder.samples[-1].get("host_saved_mib") if session.recorder.samples else None
        if saved is None:
            return False
        if seen is None or abs(saved - seen) > SETTLED_MIB:
            seen, since = saved, time.monotonic()
        elif time.monotonic() - since >= series.settle:
            return True
    return False


def _work(session, names, workload, found):
    """One round; keeps answers that differ from those known."""
    for name, outcome in zip(names, session.run(names, workload)):
        if outcome["status"] != 0:
            raise SessionError(f"guest {name}: {workload.name} ended with status {outcome['status']}: "
                               f"{outcome['output'][-300:].strip()}")
        if outcome["results"] not in found.answers:
            found.answers.append(outcome["results"])


def run(session, scenario, progress, sharing, after_each):
    """Do the series on the session's host. after_each() is called behind every number of guests."""
    series, found = scenario.series, Series()
    workload = scenario.workloads[series.workload]
    running = 0
    for count in series.counts:
        session.recorder.step = f"guests-{count}"
        session.recorder.note("step", f"{count} guests")
        names, new = series.guests[:count], series.guests[running:count]
        session.start(new)
        running = count
        _work(session, new, workload, found)  # reads from their disks what the rounds find in memory
        costs, began = [], time.monotonic()
        for _ in range(series.rounds):
            cpu = session.cpu_seconds()
            _work(session, names, workload, found)
            costs.append((session.cpu_seconds() - cpu) / count)
        seconds = time.monotonic() - began
        row = {"guests": count, "seconds": round(seconds, 2),
               "runs_per_minute": round(60 * count * series.rounds / seconds, 2),
               "cpu_seconds": round(statistics.median(costs), 3),
               "noise_pct": _spread_pct(costs)}
        if sharing:
            if series.settle_cpu_percent is not None:
                session.host.client.call("host.set", scan_cpu_percent=series.settle_cpu_percent)
            row["settled"] = _settle(session, series)
            if series.settle_cpu_percent is not None:
                session.host.client.call("host.set", scan_cpu_percent=scenario.host.scan_cpu_percent)
            row.update(_memory(session, scenario, count))
        found.rows.append(row)
        after_each()
        progress.say(f"{count} guests: " + (f"{row['shared_pct']} % shared, {row['saved_pct']} % saved, "
                                            if sharing else "without sharing, ") +
                     f"{row['cpu_seconds']} processor seconds a workload")
    return found


def _memory(session, scenario, count):
    total = sum(guest.memory for guest in scenario.guests
                if guest.name in scenario.series.guests[:count]) / (1 << 20)
    row, sample = {"memory_mib": total}, session.recorder.samples[-1]
    for name in ("shared", "saved", "zero"):
        value = sample.get(f"host_{name}_mib")
        row[f"{name}_mib"] = value
        row[f"{name}_pct"] = None if value is None else round(100 * value / total, 2)
    return row


def _paper(scenario):
    """{guests: {column: value}} of the digitised figure."""
    if not scenario.series.paper:
        return {}
    with open(os.path.join(scenario.folder, scenario.series.paper), encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {int(row["n_vms"]): {
            "paper_shared_pct": float(row["shared_pct"]), "paper_saved_pct": float(row["reclaimed_pct"]),
            "paper_zero_pct": round(100 * float(row["zero_mb"]) / float(row["vm_mem_mb"]), 2)}
            for row in rows}


def _spread_pct(values):
    """How far they lie apart, percent of their median."""
    middle = statistics.median(values)
    return round(100 * (max(values) - min(values)) / middle, 2) if middle else 0.0


def _change_pct(now, before):
    return round(100 * (now / before - 1), 2) if before else None


def rows(scenario, shared, plain):
    """The rows of both hosts as one table. plain: None when the series ran with sharing only."""
    paper, joined = _paper(scenario), []
    for index, row in enumerate(shared.rows):
        row = dict(row)
        if row["saved_mib"] is not None and row["shared_mib"]:
            row["saved_of_shared_pct"] = round(100 * row["saved_mib"] / row["shared_mib"], 2)
        if joined and row["saved_pct"] is not None and joined[-1]["saved_pct"] is not None:
            row["saved_rise_pct"] = round(row["saved_pct"] - joined[-1]["saved_pct"], 2)
        if plain and index < len(plain.rows):
            before = plain.rows[index]
            row["plain_cpu_seconds"], row["plain_runs_per_minute"] = \
                before["cpu_seconds"], before["runs_per_minute"]
            row["throughput_change_pct"] = _change_pct(before["cpu_seconds"], row["cpu_seconds"])
            row["noise_pct"] = max(row["noise_pct"], before["noise_pct"])
            if row["throughput_change_pct"] is not None:
                row["beyond_noise_pct"] = round(
                    max(0.0, abs(row["throughput_change_pct"]) - row["noise_pct"]), 2)
            row["clock_change_pct"] = _change_pct(row["runs_per_minute"], before["runs_per_minute"])
        row.update(paper.get(row["guests"], {}))
        joined.append(row)
    return joined


def checks(scenario, shared, plain):
    """All was run, and all answers are equal."""
    answers = list(shared.answers)
    answers += [answer for answer in plain.answers if answer not in answers] if plain else []
    done = len(shared.rows) + (len(plain.rows) if plain else 0)
    wanted = len(scenario.series.counts) * (2 if plain else 1)
    return [
        Check("series-done", "every number of guests was run", done, str(wanted), done == wanted),
        Check("answers-equal", "different answers of the workload in all guests and rounds, with and "
              "without sharing", len(answers), "1", len(answers) == 1 and bool(answers[0]))]


COLUMNS = ["guests", "memory_mib", "shared_mib", "saved_mib", "zero_mib", "shared_pct", "saved_pct",
           "zero_pct", "saved_of_shared_pct", "saved_rise_pct", "settled", "seconds", "runs_per_minute",
           "cpu_seconds", "plain_runs_per_minute", "plain_cpu_seconds", "throughput_change_pct",
           "noise_pct", "beyond_noise_pct", "clock_change_pct", "paper_shared_pct", "paper_saved_pct", "paper_zero_pct"]


def write(folder, scenario, table):
    """Write series.csv and its plots; the part of the report about them."""
    with open(os.path.join(folder, "series.csv"), "w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
        out.writeheader()
        out.writerows({key: value for key, value in row.items() if value is not None} for row in table)
    parts = [("heading", "With more and more guests")]
    for name, caption in _plots(folder, scenario):
        parts.append(("image", (name, caption)))
    header = ["guests", "memory MiB", "shared %", "saved %", "zero %", "saved of shared %",
              "throughput %", "noise %", "by the clock %"]
    keys = ["guests", "memory_mib", "shared_pct", "saved_pct", "zero_pct", "saved_of_shared_pct",
            "throughput_change_pct", "noise_pct", "clock_change_pct"]
    if scenario.series.paper:
        header += ["paper: shared %", "saved %", "zero %"]
        keys += ["paper_shared_pct", "paper_saved_pct", "paper_zero_pct"]
    parts.append(("table", (header, [["" if row.get(key) is None else row[key] for key in keys]
                                     for row in table])))
    if scenario.series.paper:
        parts.append(("text", "The paper's values are digitised from its Figure 4: C. A. Waldspurger, Memory "
                              "Resource Management in VMware ESX Server, OSDI 2002; \"saved\" is its "
                              "\"reclaimed\". Throughput: change by sharing of what a processor second "
                              "of daemon and workers brings; beside it how far equal rounds lie "
                              "apart, and the change by the clock."))
    return parts


def _plots(folder, scenario):
    made = []
    axes = ["set datafile separator ','", "set datafile missing ''", "set grid back lc '#dddddd'",
            "set border 3", "set tics nomirror", "set xlabel 'guests'",
            f"set xrange [0.5:{scenario.series.counts[-1] + 0.5}]", "set xtics 1"]
    script = axes + ["set ylabel 'percent of the memory of all guests'", "set yrange [0:100]",
                     "set key bmargin center horizontal samplen 2", "set bmargin 7"]
    curves = [("shared", "shared", SHARED), ("saved", "saved (reclaimed)", SAVED),
              ("zero", "saved by pages of zeroes", ZERO)]
    plots = [f"'series.csv' using 'guests':'{column}_pct' with linespoints lw 3 pt 7 lc rgb '{colour}' "
             f"title '{title}'" for column, title, colour in curves]
    if scenario.series.paper:
        plots += [f"'series.csv' using 'guests':'paper_{column}_pct' with linespoints lw 1 pt 6 dt 2 "
                  f"lc rgb '{colour}' title 'paper: {title}'" for column, title, colour in curves]
    if gnuplot(folder, "series", "\n".join(script + ["plot " + ", ".join(plots)])):
        made.append(("series", "Memory shared and saved, by the number of guests" +
                     ("; dashed: the paper's, digitised from its Figure 4" if scenario.series.paper else "")))
    if scenario.series.without_sharing:
        script = axes + ["set ylabel 'workloads a minute'", "set yrange [0:*]", "set key bottom right",
                         f"plot 'series.csv' using 'guests':'plain_runs_per_minute' with linespoints lw 2 "
                         f"pt 6 dt 2 lc rgb '{SHARED}' title 'without sharing', "
                         f"'series.csv' using 'guests':'runs_per_minute' with linespoints lw 3 pt 7 "
                         f"lc rgb '{SAVED}' title 'with sharing'"]
        if gnuplot(folder, "throughput", "\n".join(script)):
            made.append(("throughput", "Workloads ended a minute, all guests together, by the clock"))
    return made
