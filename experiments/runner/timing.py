"""What copy-on-write timing gives away: an attacker guest guesses which pages a victim guest holds.

The step `held` prints "held INDEX" for each guess that the victim holds; each
step of `probes` what the attacker measured, as experiments/cow-timing/guess.c
describes it. A row of the result for each probe:

    guesses, held              pages guessed, and how many the victim holds
    true_positive_pct          of the held ones, called shared by the attacker
    false_positive_pct         of the others, called shared
    accuracy_pct               of all, called rightly; guessing: 50 with half of them held
    auc_pct                    how often a held page's store takes longer than another's, in percent of
                               all pairs (the area under the ROC curve): what any threshold could
                               tell; guessing: 50
    control_pct                of the attacker's own pages, of which it knows: called rightly
    threshold_ns               over which it calls a page shared
    *_median_ns                held, other: of the guesses; twin, own: of its own pages
"""
import bisect
import csv
import os
import re
import statistics

from .checks import Check
from .report import gnuplot

TIME = re.compile(r"time (guess|twin|own) (\d+) (\d+)(?: (shared|alone))?\Z")
KINDS = {  # how they are drawn: the first ones below the others, and larger
    "held": ("guessed, held by the victim", "lw 3 pt 6 ps 1.0 lc rgb '#d1495b'"),
    "other": ("guessed, not held", "lw 2 pt 7 ps 0.6 lc rgb '#1b6ca8'"),
    "twin": ("own page, held twice", "lw 1 dt 2 pt 4 ps 0.7 lc rgb '#b07d1c'"),
    "own": ("own page, held once", "lw 1 dt 2 pt 8 ps 0.7 lc rgb '#3a7d44'")}
FIELDS = ["step", "guesses", "held", "true_positive_pct", "false_positive_pct", "accuracy_pct", "auc_pct",
          "control_pct", "threshold_ns", "held_median_ns", "other_median_ns", "twin_median_ns",
          "own_median_ns"]
FEWEST_NS, BINS_A_DECADE = 100, 12  # of the plotted distributions


def area_under_roc(positive, negative):
    """How often one of the positive is greater than one of the negative; equal ones count half."""
    ordered = sorted(negative)
    won = sum(bisect.bisect_left(ordered, value) + bisect.bisect_right(ordered, value)
              for value in positive)
    return won / 2 / (len(positive) * len(negative))


class Probe:
    """The stores of one step: times[kind] = [(index, ns, "shared", "alone" or None)]."""

    def __init__(self, step, title, threshold_ns, output, held):
        self.step, self.title, self.threshold_ns = step, title, threshold_ns
        self.times = {kind: [] for kind in KINDS}
        for line in output.splitlines():
            found = TIME.match(line)
            if found:
                kind, index, ns, decided = found.groups()
                if kind == "guess":
                    kind = "held" if int(index) in held else "other"
                self.times[kind].append((int(index), int(ns), decided))

    @property
    def complete(self):
        return all(self.times.values())

    def row(self):
        """The row of the result; of a probe that is not complete, only the step."""
        if not self.complete:
            return {"step": self.step}
        ns = {kind: [time for _, time, _ in times] for kind, times in self.times.items()}
        shared = {kind: sum(decided == "shared" for _, _, decided in self.times[kind])
                  for kind in ("held", "other")}
        held, other = len(ns["held"]), len(ns["other"])
        own_right = sum(time > self.threshold_ns for time in ns["twin"]) + \
            sum(time <= self.threshold_ns for time in ns["own"])
        row = {"step": self.step, "guesses": held + other, "held": held,
               "true_positive_pct": 100 * shared["held"] / held,
               "false_positive_pct": 100 * shared["other"] / other,
               "accuracy_pct": 100 * (shared["held"] + other - shared["other"]) / (held + other),
               "auc_pct": 100 * area_under_roc(ns["held"], ns["other"]),
               "control_pct": 100 * own_right / (len(ns["twin"]) + len(ns["own"])),
               "threshold_ns": self.threshold_ns}
        row.update({f"{kind}_median_ns": statistics.median(times) for kind, times in ns.items()})
        return {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}


def probes(scenario, outcomes):
    """The probes that were made, in their order."""
    lines = outcomes.get(scenario.timing.held, {}).get("output", "").splitlines()
    held = {int(line[5:]) for line in lines if re.match(r"held \d+\Z", line)}
    found = []
    for name in scenario.timing.probes:
        outcome = outcomes.get(name, {})
        threshold = outcome.get("notes", {}).get("threshold_ns", "")
        if threshold.isdigit():
            found.append(Probe(name, outcome["title"], int(threshold), outcome["output"], held))
    return found


def checks(scenario, found):
    """Every probe timed pages of every kind."""
    done, wanted = sum(probe.complete for probe in found), len(scenario.timing.probes)
    return [Check("probes-done", "every probe timed pages of every kind", done, str(wanted),
                  done == wanted)]


def distribution(times):
    """[(ns, percent of the times)] over bins of equal width on a logarithmic scale; ns is a bin's middle."""
    bins, width = {}, 10 ** (1 / BINS_A_DECADE)
    edges = [FEWEST_NS * width ** number for number in range(5 * BINS_A_DECADE + 1)]
    for ns in times:
        at = min(max(bisect.bisect_right(edges, ns) - 1, 0), len(edges) - 1)
        bins[at] = bins.get(at, 0) + 1
    return [(round(edges[at] * width ** 0.5, 1), round(100 * bins.get(at, 0) / len(times), 3))
            for at in range(max(min(bins) - 1, 0), min(max(bins) + 2, len(edges)))]


def write(folder, found):
    """Write the CSV files and the plot; the part of the report about it."""
    found = [probe for probe in found if probe.complete]
    table = [probe.row() for probe in found]
    with open(os.path.join(folder, "timing.csv"), "w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, FIELDS, lineterminator="\n")
        out.writeheader()
        out.writerows(table)
    with open(os.path.join(folder, "timing-stores.csv"), "w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["step", "kind", "index", "ns", "decided"])
        for probe in found:
            for kind, times in probe.times.items():
                out.writerows([probe.step, kind, index, ns, decided or ""] for index, ns, decided in times)
    parts = [("heading", "What the stores gave away")]
    if table and _plot(folder, found):
        parts.append(("image", ("timing", "How long the attacker's first store to a page took, by what the page "
                                          "is; right of the line the attacker says shared")))
    header = ["probe", "guesses", "held", "true positive %", "false positive %", "accuracy %", "AUC %",
              "own pages %", "threshold ns", "held: median ns", "not held", "own, twice", "own, once"]
    parts.append(("table", (header, [[row[key] for key in FIELDS] for row in table])))
    parts.append(("text", "Half of the guesses are held by the victim, so 50 % is what somebody gets right who "
                          "knows nothing. AUC: how often a held page's store takes longer than that of one not "
                          "held, the most that any threshold could make of these times. Own pages: the "
                          "attacker's controls, of which it holds two each or one, called rightly."))
    return parts


def _plot(folder, found):
    script = ["set encoding utf8", "set datafile separator ','", f"set multiplot layout {len(found)},1",
              "set grid back lc '#dddddd'", "set border 3", "set tics nomirror", "set logscale x 10",
              "set xtics ('100 ns' 1e-7, '1 µs' 1e-6, '10 µs' 1e-5, '100 µs' 1e-4, '1 ms' 1e-3, '10 ms' 1e-2)", "set ylabel 'percent of the stores'", "set yrange [0:105]",
              "set key top right noenhanced samplen 2"]
    times = [ns for probe in found for of in probe.times.values() for _, ns, _ in of]
    script.append(f"set xrange [{max(min(times), FEWEST_NS) / 2e9:g}:{max(times) * 2 / 1e9:g}]")
    for number, probe in enumerate(found):
        with open(os.path.join(folder, f"timing-{probe.step}.csv"), "w", encoding="utf-8", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(["kind", "s", "percent"])
            for kind, of in probe.times.items():
                out.writerows([kind, f"{ns / 1e9:g}", share] for ns, share in distribution([t for _, t, _ in of]))
        if number == len(found) - 1:
            script.append("set xlabel 'first store'")
        at = f"{probe.threshold_ns / 1e9:g},graph"
        row = probe.row()
        script += [f"set title '{probe.title}: {row['accuracy_pct']:.1f} % called rightly' noenhanced",
                   f"set arrow 1 from {at} 0 to {at} 1 nohead dt 3 lc '#222222'",
                   f"set label 1 ' called shared →' at {at} 0.93 left",
                   "plot " + ", ".join(
                       f"'timing-{probe.step}.csv' using (strcol(1) eq '{kind}' ? column(2) : NaN):3 "
                       f"with linespoints {style} title '{title}'"
                       for kind, (title, style) in KINDS.items())]
    script.append("unset multiplot")
    return gnuplot(folder, "timing", "\n".join(script), height=300 * len(found))
