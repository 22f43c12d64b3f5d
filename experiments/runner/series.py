"""A series: the same guests, 1, 2, ... at a time, all doing the same workload, with and without sharing.

Two hosts stand side by side, one that shares and one that does not. For every number
of guests those missing are started on both; then come the rounds: all guests of one
host do the workload at once while the other host is idle, then those of the other, in
turns, so that what else the machine does meets both alike. After the rounds the host
that shares is watched until what sharing has saved no longer changes; with
settle_cpu_percent the scanner is given more of a processor for that time than in the
rounds. A row of the result for each number:

    guests, memory_mib      and together configured with so much
    shared_mib              memory of guests that maps a shared frame or the zero frame
    saved_mib               frames that are free because of that ("reclaimed" in the paper)
    zero_mib                the part of it that is pages of zeroes
    *_pct                   the same, percent of memory_mib
    saved_of_shared_pct     saved_mib in percent of shared_mib
    zero_of_saved_pct       zero_mib in percent of saved_mib
    saved_rise_pct          saved_pct less that of the row before
    cpu_seconds             processor time of daemon and workers for one workload, median of the rounds
    runs_per_minute         workloads ended per minute of all guests together, by the clock
    throughput              workloads per minute of processor time; _low, _high: worst and best round
    plain_*                 the last three of the host that does not share
    throughput_change_pct   of throughput by sharing, median of the pairs of rounds; _low, _high: of the pairs
    clock_change_pct        of runs_per_minute; where other programs compete, this tells about them
    sharing_cpu_pct         the daemon's time for sharing in the rounds, percent of cpu_seconds
    breaks_per_run          pages copied since a guest stored to them, for each workload
    overhead_mib            memory beside the guest's own that one guest costs, mean of the guests
    tables_mib              memory of the host's records of sharing
    paper_*                 what the paper found with so many guests

What the workloads answer must be equal in all guests and rounds of both hosts.
"""
import csv
import os
import statistics
import time

from .checks import Check
from .report import gnuplot
from .session import SessionError
from .sizes import MIB

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


class _Side:
    """One of the two hosts: its session, and what its rounds of one number of guests took."""

    def __init__(self, session, found):
        self.session, self.found = session, found

    def begin(self, running, count, series, workload):
        """Start the guests that are missing; they read from their disks what the rounds find in memory."""
        self.session.recorder.step = f"guests-{count}"
        self.session.recorder.note("step", f"{count} guests")
        self.names = series.guests[:count]
        self.session.start(series.guests[running:count])
        _work(self.session, series.guests[running:count], workload, self.found)
        self.costs, self.seconds = [], 0.0

    def round(self, workload):
        cpu, began = self.session.cpu_seconds(), time.monotonic()
        _work(self.session, self.names, workload, self.found)
        self.seconds += time.monotonic() - began
        self.costs.append((self.session.cpu_seconds() - cpu) / len(self.names))

    def row(self):
        runs = len(self.names) * len(self.costs)
        return {"seconds": round(self.seconds, 2), "runs_per_minute": round(60 * runs / self.seconds, 2),
                "cpu_seconds": round(statistics.median(self.costs), 3),
                "throughput": _a_minute(statistics.median(self.costs)),
                "throughput_low": _a_minute(max(self.costs)), "throughput_high": _a_minute(min(self.costs))}


def run(session, plain, scenario, progress, after_each):
    """Do the series on the session's host, and on that of `plain`, which does not share, unless it is None.

    after_each() is called behind every number of guests. (Series of the one, Series of the other or None)."""
    series, workload = scenario.series, scenario.workloads[scenario.series.workload]
    sides = [_Side(session, Series())] + ([_Side(plain, Series())] if plain else [])
    sharing, running = sides[0], 0
    for count in series.counts:
        for side in sides:
            side.begin(running, count, series, workload)
        running = count
        spent_ns = breaks = 0
        for number in range(series.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                before = _sharing_stats(session)
                side.round(workload)
                if side is sharing:
                    after = _sharing_stats(session)
                    spent_ns += after.get("cpu_ns", 0) - before.get("cpu_ns", 0)
                    breaks += after.get("cow_breaks", 0) - before.get("cow_breaks", 0)
        row = {"guests": count, **sharing.row(),
               "sharing_cpu_pct": round(100 * spent_ns / 1e9 / (sum(sharing.costs) * count or 1), 2),
               "breaks_per_run": round(breaks / (count * series.rounds), 1)}
        if series.settle_cpu_percent is not None:
            session.host.client.call("host.set", scan_cpu_percent=series.settle_cpu_percent)
        row["settled"] = _settle(session, series)
        if series.settle_cpu_percent is not None:
            session.host.client.call("host.set", scan_cpu_percent=scenario.host.scan_cpu_percent)
        row.update(_memory(session, scenario, count))
        sharing.found.rows.append(row)
        if plain:
            changes = [100 * (there / here - 1) for here, there in zip(sharing.costs, sides[1].costs) if here]
            row.update(_spread("throughput_change_pct", changes))
            sides[1].found.rows.append({"guests": count, **sides[1].row()})
        after_each()
        progress.say(f"{count} guests: {row['shared_pct']} % shared, {row['saved_pct']} % saved, "
                     f"{row['cpu_seconds']} processor seconds a workload" +
                     (f", {sides[1].row()['cpu_seconds']} without sharing" if plain else ""))
    return [side.found for side in sides] + ([] if plain else [None])


def _a_minute(seconds):
    return round(60 / seconds, 2) if seconds else None


def _sharing_stats(session):
    return session.host.client.call("sharing.stats")


def _spread(name, values):
    """Median, smallest and largest of what was measured, as columns."""
    if not values:
        return {}
    return {name: round(statistics.median(values), 2), f"{name}_low": round(min(values), 2),
            f"{name}_high": round(max(values), 2)}


def _memory(session, scenario, count):
    total = sum(guest.memory for guest in scenario.guests
                if guest.name in scenario.series.guests[:count]) / (1 << 20)
    row, sample = {"memory_mib": total}, session.recorder.samples[-1]
    for name in ("shared", "saved", "zero"):
        value = sample.get(f"host_{name}_mib")
        row[f"{name}_mib"] = value
        row[f"{name}_pct"] = None if value is None else round(100 * value / total, 2)
    overheads = [sample.get(f"{guest}_overhead_mib") for guest in scenario.series.guests[:count]]
    if overheads and None not in overheads:
        row["overhead_mib"] = round(sum(overheads) / count, 2)
    stats = _sharing_stats(session)
    parts = [stats.get(f"{part}_bytes") for part in ("table", "reference", "bitmap", "breaks")]
    if None not in parts:
        row["tables_mib"] = round(sum(parts) / MIB, 2)
    return row


def _paper(scenario):
    """{guests: {column: value}} of the digitised figure."""
    if not scenario.series.paper:
        return {}
    with open(os.path.join(scenario.folder, scenario.series.paper), encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {int(row["n_vms"]): {
            "paper_shared_pct": round(float(row["shared_pct"]), 1),
            "paper_saved_pct": round(float(row["reclaimed_pct"]), 1),
            "paper_zero_pct": round(100 * float(row["zero_mb"]) / float(row["vm_mem_mb"]), 1)}
            for row in rows}


def _change_pct(now, before):
    return round(100 * (now / before - 1), 2) if before else None


def rows(scenario, shared, plain):
    """The rows of both hosts as one table. plain: None when the series ran with sharing only."""
    paper, joined = _paper(scenario), []
    for index, row in enumerate(shared.rows):
        row = dict(row)
        if row["saved_mib"] is not None and row["shared_mib"]:
            row["saved_of_shared_pct"] = round(100 * row["saved_mib"] / row["shared_mib"], 2)
        if row["saved_mib"]:
            row["zero_of_saved_pct"] = round(100 * row["zero_mib"] / row["saved_mib"], 2)
        if joined and row["saved_pct"] is not None and joined[-1]["saved_pct"] is not None:
            row["saved_rise_pct"] = round(row["saved_pct"] - joined[-1]["saved_pct"], 2)
        if plain and index < len(plain.rows):
            before = plain.rows[index]
            row.update({f"plain_{key}": before[key] for key in ("cpu_seconds", "runs_per_minute", "throughput",
                                                                "throughput_low", "throughput_high")})
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
           "zero_pct", "saved_of_shared_pct", "zero_of_saved_pct", "saved_rise_pct", "settled", "seconds",
           "cpu_seconds", "runs_per_minute", "throughput", "throughput_low", "throughput_high",
           "plain_cpu_seconds", "plain_runs_per_minute", "plain_throughput", "plain_throughput_low",
           "plain_throughput_high", "throughput_change_pct", "throughput_change_pct_low",
           "throughput_change_pct_high", "clock_change_pct", "sharing_cpu_pct", "breaks_per_run",
           "overhead_mib", "tables_mib", "paper_shared_pct", "paper_saved_pct", "paper_zero_pct"]


def _columns(table, columns):
    """A part of the report: the rows as a table of these (title, key)."""
    return ("table", ([title for title, _ in columns],
                      [["" if row.get(key) is None else row[key] for _, key in columns] for row in table]))


def write(folder, scenario, table):
    """Write series.csv and its plots; the part of the report about them."""
    with open(os.path.join(folder, "series.csv"), "w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
        out.writeheader()
        out.writerows({key: value for key, value in row.items() if value is not None} for row in table)
    parts = [("heading", "With more and more guests")]
    for name, caption in draw(folder, scenario):
        parts.append(("image", (name, caption)))
    paper = [("paper: shared %", "paper_shared_pct"), ("saved %", "paper_saved_pct"),
             ("zero %", "paper_zero_pct")] if scenario.series.paper else []
    parts.append(_columns(table, [("guests", "guests"), ("memory MiB", "memory_mib"), ("shared %", "shared_pct"),
                                  ("saved %", "saved_pct"), ("zero %", "zero_pct"),
                                  ("saved of shared %", "saved_of_shared_pct")] + paper))
    if scenario.series.paper:
        parts.append(("text", "The paper's values are digitised from its Figure 4: C. A. Waldspurger, Memory "
                              "Resource Management in VMware ESX Server, OSDI 2002; \"saved\" is its "
                              "\"reclaimed\". Its guests had 40 MB each and little of it free; ours have more, "
                              "and what a guest has not used yet is pages of zeroes."))
    parts.append(("heading", "What it costs"))
    plain = [("s without sharing", "plain_cpu_seconds"), ("throughput %", "throughput_change_pct"),
             ("worst pair", "throughput_change_pct_low"), ("best pair", "throughput_change_pct_high"),
             ("by the clock %", "clock_change_pct")] if scenario.series.without_sharing else []
    parts.append(_columns(table, [("guests", "guests"), ("processor s a workload", "cpu_seconds")] + plain +
                          [("of it for sharing %", "sharing_cpu_pct"), ("copies a workload", "breaks_per_run"),
                           ("overhead a guest MiB", "overhead_mib"), ("tables MiB", "tables_mib")]))
    parts.append(("text", "Throughput: change by sharing of what a processor second of daemon and workers brings, "
                          "median of the pairs of rounds, in which both hosts do the same in turns; by the clock, "
                          "other programs of the machine count too. Of it for sharing: what the daemon spends on "
                          "looking for equal pages while the guests work. Copies: stores to shared pages. Overhead: "
                          "memory beside the guest's own, of daemon and worker. Tables: the host's records of "
                          "sharing, for all its memory."))
    return parts


def _are_measured(folder, columns):
    """Has each of these columns a value? Rounds that are over within a tick of the processor's clock leave none,
    and gnuplot draws nothing at all where one curve is empty."""
    with open(os.path.join(folder, "series.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return all(any(row[column] for row in rows) for column in columns)


def draw(folder, scenario):
    """Draw what series.csv in the folder holds: [(name of the picture, caption)]."""
    made = []
    axes = ["set datafile separator ','", "set datafile missing ''", "set grid back lc '#dddddd'",
            "set border 3", "set tics nomirror", "set xlabel 'guests'",
            f"set xrange [0.5:{scenario.series.counts[-1] + 0.5}]", "set xtics 1"]
    script = axes + ["set ylabel 'percent of the memory of all guests'", "set yrange [0:100]",
                     "set key bmargin center horizontal samplen 2 width -2 maxcols 3", "set bmargin 7"]
    curves = [("shared", "shared", SHARED), ("saved", "saved", SAVED), ("zero", "zeroes", ZERO)]
    plots = [f"'series.csv' using 'guests':'{column}_pct' with linespoints lw 3 pt 7 lc rgb '{colour}' "
             f"title '{title}'" for column, title, colour in curves]
    if scenario.series.paper:
        plots = [plot for pair in zip(plots, (
            f"'series.csv' using 'guests':'paper_{column}_pct' with linespoints lw 1 pt 6 dt 2 "
            f"lc rgb '{colour}' title 'paper: {title}'" for column, title, colour in curves)) for plot in pair]
    if gnuplot(folder, "series", "\n".join(script + ["plot " + ", ".join(plots)])):
        made.append(("series", "Memory shared, saved (the paper's \"reclaimed\"), and the part saved as pages of "
                               "zeroes, by the number of guests" +
                     ("; dashed: the paper's, digitised from its Figure 4" if scenario.series.paper else "")))
    if scenario.series.without_sharing:
        script = ["set multiplot layout 1,2"] + axes + ["set yrange [0:*]", "set key bottom left samplen 2"]
        for prefix, title, shift, style, colour in (("plain_", "without sharing", -0.08, "pt 6 dt 2", SHARED),
                                                    ("", "with sharing", 0.08, "pt 7", SAVED)):
            at = f"'series.csv' using (column('guests')+{shift})"
            script += [f"bars{shift > 0:d} = \"{at}:'{prefix}throughput':'{prefix}throughput_low':"
                       f"'{prefix}throughput_high' with yerrorbars lw 1 pt 0 lc rgb '{colour}' notitle, "
                       f"{at}:'{prefix}throughput' with linespoints lw 2 {style} lc rgb '{colour}' "
                       f"title '{title}'\"",
                       f"clock{shift > 0:d} = \"'series.csv' using 'guests':'{prefix}runs_per_minute' with "
                       f"linespoints lw 2 {style} lc rgb '{colour}' title '{title}'\""]
        by_processor = ["set ylabel 'workloads a minute of processor time'", "eval 'plot '.bars0.', '.bars1"]
        script += by_processor if _are_measured(folder, ("throughput", "plain_throughput")) else []
        script += ["set ylabel 'workloads a minute by the clock'", "set key bottom right",
                   "eval 'plot '.clock0.', '.clock1", "unset multiplot"]
        if gnuplot(folder, "throughput", "\n".join(script)):
            made.append(("throughput", "All guests together: workloads for each minute of processor time, median, worst "
                                       "and best round, and workloads a minute by the clock, to which other "
                                       "programs of the machine belong too"))
    return made
