"""What the idle memory tax does to two guests with equal shares: beside the paper's Figure 7 and its rule.

By min-funding revocation both pay the same price in the end (paper, 5.2 and 5.3):
a1 + k (P1 - a1) = a2 + k (P2 - a2), with k = 1 / (1 - tax), a the active and P the allowed memory.

What the memory is worth to the guest at work: the notes of its workload in the steps before and after,
    mb_per_s          by its clock
    own_mb_per_s      the same by its own time, which does not go on while other programs have the processor
    reads_per_1000    of its operations, which no clock enters
"""
import csv
import os
import statistics

from .checks import Check
from .report import gnuplot

LAST_SAMPLES = 10  # of a step: what it has settled at
FIELDS = ["step", "tax_percent", "guest", "allocated_mib", "target_mib", "active_mib", "rule_mib",
          "paper_mib", "paper_scaled_mib"]


def closed_form(sum_mib, tax_percent, active, other_active):
    """Memory of a guest by the rule, of what both are allowed together."""
    k = 1 / (1 - tax_percent / 100)
    return (sum_mib + (1 - 1 / k) * (active - other_active)) / 2


def _mean(samples, step, column):
    values = [sample[column] for sample in samples
              if sample["step"] == step and isinstance(sample.get(column), (int, float))][-LAST_SAMPLES:]
    return sum(values) / len(values) if values else None


def rows(scenario, samples):
    """One row for each guest and state: measured, by the rule, the paper's. Empty if not measured."""
    tax, found = scenario.tax, []
    for step, percent, paper in ((tax.before[-1], scenario.host.idle_tax or 0, tax.paper_before),
                                 (tax.after[-1], tax.percent, tax.paper_after)):
        measured = {guest: {column: _mean(samples, step, f"{guest}_{column}")
                            for column in ("allocated_mib", "target_mib", "active_mib")}
                    for guest in (tax.idle, tax.busy)}
        if any(value is None for of in measured.values() for value in of.values()):
            return []
        both = sum(of["target_mib"] for of in measured.values())
        for guest, other, printed in ((tax.idle, tax.busy, paper[0]), (tax.busy, tax.idle, paper[1])):
            row = {"step": step, "tax_percent": percent, "guest": guest, **measured[guest]}
            row["rule_mib"] = closed_form(both, percent, row["active_mib"], measured[other]["active_mib"])
            row["paper_mib"], row["paper_scaled_mib"] = printed, printed * both / sum(paper)
            found.append({key: round(value, 1) if isinstance(value, float) else value
                          for key, value in row.items()})
    return found


def _noted(outcomes, steps, key):
    """What the workload noted in these steps; those without are left out."""
    found = []
    for step in steps:
        try:
            found.append(float(outcomes[step]["notes"][key]))
        except (KeyError, ValueError):
            pass
    return found


def _with_own_rate(outcomes):
    """The outcomes with a note own_mb_per_s where own time is known."""
    found = {}
    for step, outcome in outcomes.items():
        notes, own_s = dict(outcome.get("notes") or {}), (outcome.get("cost") or {}).get("own_s")
        if own_s and "mb_per_s" in notes:
            notes["own_mb_per_s"] = round(float(notes["mb_per_s"]) * max(1.0, outcome["seconds"] / own_s), 2)
        found[step] = {"notes": notes}
    return found


def gain(scenario, outcomes):
    """What the guest at work gained: {note: {"before", "after" (values), "percent" (of the means)}}."""
    found, outcomes = {}, _with_own_rate(outcomes)
    for key in ("mb_per_s", "own_mb_per_s", "reads_per_1000"):
        before, after = (_noted(outcomes, steps, key) for steps in (scenario.tax.before, scenario.tax.after))
        if len(before) == len(scenario.tax.before) and len(after) == len(scenario.tax.after) and sum(before) > 0:
            found[key] = {"before": before, "after": after, "percent": round(
                100 * (statistics.fmean(after) / statistics.fmean(before) - 1), 1)}
    return found


def checks(scenario, table, gained):
    """The policy's targets obey the rule, at the end of both steps; the guest at work is better off."""
    within = scenario.tax.within_mib
    found = []
    for row in table:
        off = round(abs(row["target_mib"] - row["rule_mib"]), 1)
        found.append(Check(f"rule-{row['step']}-{row['guest']}",
                           f"target of {row['guest']} is what the rule gives for the active memory, tax "
                           f"{row['tax_percent']} %: MiB apart", off, f"<= {within}", off <= within))
    if scenario.tax.reads_at_most is not None:
        found.append(_gain_check("busy-reads-less", "how often the guest at work reads its disk for the same work: change",
                                 gained.get("reads_per_1000"), scenario.tax.reads_at_most, False))
    if scenario.tax.gain_at_least is not None:
        found.append(_gain_check("busy-gains", "throughput of the guest at work, by its own time: change",
                                 gained.get("own_mb_per_s"), scenario.tax.gain_at_least, True))
    if not table:
        found.append(Check("rule", "both steps were measured", None, "measured", False))
    return found


def _gain_check(name, text, gained, limit, at_least):
    value = gained and gained["percent"]
    return Check(name, text, value, f"{'>=' if at_least else '<='} {limit:g}",
                 value is not None and (value >= limit if at_least else value <= limit), "%")


def _plot(folder, scenario, table):
    """Memory of both guests over time, and where the rule and the paper's values lie at the end."""
    tax = scenario.tax
    script = ["set datafile separator ','", "set datafile missing ''", "set grid back lc '#dddddd'", "set border 3",
              "set tics nomirror", "set xlabel 'seconds'", "set ylabel 'MiB'", "set yrange [0:*]",
              "set key bmargin center horizontal maxrows 3 samplen 2 noenhanced", "set bmargin 8", "set rmargin 14"]
    curves = []
    for guest, colour in ((tax.idle, "#1b6ca8"), (tax.busy, "#d1495b")):
        curves += [f"'samples.csv' using 'time_s':'{guest}_{column}' with lines {style} lc rgb '{colour}' "
                   f"title '{guest}: {title}'" for column, title, style in (
                       ("allocated_mib", "holds", "lw 3"), ("target_mib", "target", "lw 1 dt 2"),
                       ("active_mib", "active, by sampling", "lw 1"))]
        after = next(row for row in table if row["guest"] == guest and row["step"] == tax.after[-1])
        for row, (key, words) in enumerate((("rule_mib", "rule"), ("paper_scaled_mib", "paper, scaled"))):
            script += [f"set arrow from graph 1,first {after[key]} to graph 1.015,first {after[key]} nohead "
                       f"lw 2 lc rgb '{colour}' {'dt 2' if row else ''}",
                       f"set label '{words} {after[key]:.0f}' at graph 1.02,first {after[key]} font ',9' "
                       f"offset 0,{'-0.6' if row else '0.4'} textcolor rgb '{colour}'"]
    return gnuplot(folder, "tax", "\n".join(script + ["plot " + ", ".join(curves)]))


def _gain_rows(scenario, gained):
    """Rows of the table of what was gained."""
    paper = scenario.tax.paper_gain_percent
    words = {"mb_per_s": "throughput, MB/s", "own_mb_per_s": "throughput by its own time, MB/s", "reads_per_1000": "reads of the disk for 1000 operations"}
    return [(words[key], ", ".join(f"{value:g}" for value in entry["before"]),
             ", ".join(f"{value:g}" for value in entry["after"]), f"{entry['percent']:+g}",
             f"over {paper}" if key != "reads_per_1000" and paper is not None else "") for key, entry in gained.items()]


def write(folder, scenario, table, gained):
    """Write tax.csv and its plot; the part of the report about it."""
    with open(os.path.join(folder, "tax.csv"), "w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, FIELDS, lineterminator="\n")
        out.writeheader()
        out.writerows(table)
    header = ["step", "tax %", "guest", "holds MiB", "target MiB", "active MiB", "rule MiB", "paper MB",
              "paper, scaled"]
    plot = [("image", ("tax", "Both guests: what they hold, their targets, and what sampling takes for active"))] \
        if _plot(folder, scenario, table) else []
    gains = [("table", (["the guest at work", "each run before", "each run after", "change %", "paper %"],
                        _gain_rows(scenario, gained)))] if gained else []
    return [("heading", "Beside the paper's Figure 7")] + plot + [
            ("table", (header, [[row[key] for key in FIELDS] for row in table])),
            ("text", "Mean of the last samples of each step. The rule is the closed form of equal prices, on "
                     "the active memory as sampled. The paper's values are digitised from its Figure 7 "
                     "(C. A. Waldspurger, Memory Resource Management in VMware ESX Server, OSDI 2002), where "
                     "9.6 and 200.7 MB were in use; scaled to what our guests are allowed together.")] + gains
