"""What a run is judged by: named checks, each with its value and the band it must lie in.

The scenario's own checks measure a column of the samples over one step; the
others hold for every experiment.
"""
from .scenario import MEASURE


# By a column's last word.
UNITS = {"mib": "MiB", "kib": "KiB", "percent": "%", "pct": "%", "s": "s", "ns": "ns"}


class Check:
    """A named check: value with its unit, band in words, whether it holds."""

    def __init__(self, name, text, value, band, passed, unit=""):
        self.name, self.text, self.value, self.band, self.passed = name, text, value, band, passed
        self.unit = unit

    def as_dict(self):
        return {"name": self.name, "text": self.text, "value": self.value, "unit": self.unit,
                "band": self.band, "pass": self.passed}


def measure(samples, steps, expression):
    """Value of a measure such as "a.balloon_mib max" over the samples of steps; None without any.

    max, min, mean, first and last are of the values in the steps. The others compare with
    the last value before them: rise is the most they rose above it, fall the
    most they fell below it, growth how far the last one lies above it (for counters).
    """
    subject, column, how = MEASURE.match(expression).groups()
    values, before = [], None
    for sample in samples:
        value = sample.get(f"{subject}_{column}")
        if not isinstance(value, (int, float)):
            continue
        if sample["step"] in steps:
            values.append(value)
        elif not values:
            before = value
    if not values:
        return None
    if before is None:
        before = values[0]
    found = {"max": max(values), "min": min(values),
             "mean": sum(values) / len(values), "first": values[0], "last": values[-1],
             "rise": max(values) - before, "fall": before - min(values),
             "growth": values[-1] - before}[how]
    return round(found, 2)


def band_text(check):
    parts = []
    if check.at_least is not None:
        parts.append(f">= {check.at_least:g}")
    if check.at_most is not None:
        parts.append(f"<= {check.at_most:g}")
    return " and ".join(parts)


def noted(outcomes, steps, expression):
    """Value of a measure such as "note.disk_read_kib last": what the last step's workload noted."""
    value = outcomes.get(steps[-1], {}).get("notes", {}).get(MEASURE.match(expression).group(2))
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def of_series(rows, check):
    """Value of a measure such as "series.shared_pct last" over the rows from so many guests on."""
    found = MEASURE.match(check.measure)
    samples = [{"step": "series", f"series_{found.group(2)}": row.get(found.group(2))}
               for row in rows if row["guests"] >= check.from_guests]
    return measure(samples, ["series"], check.measure)


def scenario_checks(scenario, samples, outcomes, rows=(), timed=()):
    """The [check] sections, on the samples, what the workloads noted, the rows of series and timing."""
    checks = []
    for check in scenario.checks:
        if check.measure.startswith("note."):
            value = noted(outcomes, check.step, check.measure)
        elif check.measure.startswith("series."):
            value = of_series(rows, check)
        elif check.measure.startswith("timing."):
            value = measure([{f"timing_{key}": value for key, value in row.items()} | {"step": row["step"]}
                             for row in timed], check.step, check.measure)
        else:
            value = measure(samples, check.step, check.measure)
        passed = (value is not None and
                  (check.at_least is None or value >= check.at_least) and
                  (check.at_most is None or value <= check.at_most))
        unit = UNITS.get(MEASURE.match(check.measure).group(2).rpartition("_")[2], "")
        checks.append(Check(check.name, check.text or check.measure, value, band_text(check), passed,
                            unit))
    return checks


def result_checks(scenario, outcomes, reference, digests):
    """Each workload ended with status 0, its results equal those of the run with
    ample memory and those that the same guest gave before, and digests of files
    equal what was put on the disk."""
    checks, before = [], {}
    for step in scenario.steps:
        if step.run is None:
            continue
        outcome = outcomes.get(step.name, {})
        status = outcome.get("status")
        checks.append(Check(f"{step.name}-ended", f"{step.run} on {step.guest} ended with status 0",
                            status, "0", status == 0))
        results = outcome.get("results", {})
        if step.reference:
            wanted = reference.get(step.run, {}).get("results")
            equal = bool(results) and results == wanted
            checks.append(Check(f"{step.name}-equals-reference",
                                f"results of {step.run} equal those with ample memory",
                                len(results) if equal else f"differs: {results} and {wanted}",
                                "equal", equal))
        for key, value in results.items():
            if key.startswith("digest."):
                wanted = digests.get(key[len("digest."):])
                checks.append(Check(f"{step.name}-{key}", f"{key[7:]} reads as written",
                                    value[:16], (wanted or "no such file")[:16], value == wanted))
            elif (step.guest, key) in before and not step.reference:
                wanted = before[step.guest, key]
                checks.append(Check(f"{step.name}-{key}", f"{key} reads as before", value[:16],
                                    wanted[:16], value == wanted))
            before[step.guest, key] = value
    return checks


def invariant_check(answers):
    """The daemon's answers to host.check, one after each step and one at the end, as a check."""
    violations = [str(violation.get("text")) for answer in answers if answer
                  for violation in answer.get("violations", [])]
    unanswered = sum(answer is None for answer in answers)
    passed = bool(answers) and not unanswered and not violations and \
        all(answer.get("ok") for answer in answers)
    text = f"the invariants hold, checked {len(answers)} times"
    if unanswered:
        text += f", {unanswered} without an answer"
    if violations:
        text += ": " + "; ".join(violations[:3])
    return Check("invariants", text, len(violations), "0 violations", passed)
