"""What the idle memory tax does to two guests with equal shares: beside the paper's Figure 7 and its rule.

By min-funding revocation both pay the same price in the end (paper, 5.2 and 5.3):
a1 + k (P1 - a1) = a2 + k (P2 - a2), with k = 1 / (1 - tax), a the active and P the allowed memory.
"""
import csv
import os

from .checks import Check

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
    for step, percent, paper in ((tax.before, scenario.host.idle_tax or 0, tax.paper_before),
                                 (tax.after, tax.percent, tax.paper_after)):
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


def checks(scenario, table):
    """The policy's targets obey the rule, at the end of both steps."""
    within = scenario.tax.within_mib
    found = []
    for row in table:
        off = round(abs(row["target_mib"] - row["rule_mib"]), 1)
        found.append(Check(f"rule-{row['step']}-{row['guest']}",
                           f"target of {row['guest']} is what the rule gives for the active memory, tax "
                           f"{row['tax_percent']} %: MiB apart", off, f"<= {within}", off <= within))
    if not found:
        found.append(Check("rule", "both steps were measured", None, "measured", False))
    return found


def write(folder, table):
    """Write tax.csv; the part of the report about it."""
    with open(os.path.join(folder, "tax.csv"), "w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, FIELDS, lineterminator="\n")
        out.writeheader()
        out.writerows(table)
    header = ["step", "tax %", "guest", "holds MiB", "target MiB", "active MiB", "rule MiB", "paper MB",
              "paper, scaled"]
    return [("heading", "Beside the paper's Figure 7"),
            ("table", (header, [[row[key] for key in FIELDS] for row in table])),
            ("text", "Mean of the last samples of each step. The rule is the closed form of equal prices, on "
                     "the active memory as sampled. The paper's values are digitised from its Figure 7 "
                     "(C. A. Waldspurger, Memory Resource Management in VMware ESX Server, OSDI 2002), where "
                     "9.6 and 200.7 MB were in use; scaled to what our guests are allowed together.")]
