"""Sampling of active memory against the truth: a program of ours steps through amounts of memory (Figure 6).

The program (fig6/toucher.c) touches so many MiB again and again; each step lasts so many periods of
sampling, by the VM's own time. The daemon counts all pages that a period touches beside those of its
sample (count_touched), so every period has an estimate and a truth. A row of the result a period:

    period, step, steady       number; of the section's steps; 1 if the toucher was there before it began
    toucher_mib                what the toucher was told
    touched_mib                the truth: all pages of the VM that were touched in the period
    sampled, sample_touched    n and t
    sampled_mib                t / n of the VM's memory
    deviation                  (t - n f) / sqrt(n f (1 - f)), f the truth's part of the VM's memory
    chance                     how likely t is as far off, or farther, if the sample is a fair one
    slow_mib, fast_mib         the two averages at its end
    estimate_mib               the largest of slow, fast and next, as the policy saw it at its end
    paper_toucher_mb, paper_estimate_mb   of the paper's Figure 6, half a minute a period
"""
import csv
import math
import os
import statistics
import time

from .checks import Check
from .report import gnuplot
from .session import SessionError
from .sizes import MIB

COLUMNS = ["period", "step", "steady", "toucher_mib", "touched_mib", "sampled", "sample_touched", "sampled_mib",
           "deviation", "chance", "slow_mib", "fast_mib", "estimate_mib", "paper_toucher_mb", "paper_estimate_mb"]
FOLDER = "/run/toucher"
SLOWEST_PERIOD = 20  # times its length, by the clock; then something is wrong
LEAST_CHANCE = 1e-6  # of one period
LEAST_DISTANCE_MIB = 25  # of an average from what it goes to, to tell how fast
STEADY = 2  # periods of each step at least, after the one in which the toucher has come there
TRUTH, ESTIMATE, TOUCHER, SLOW, FAST = "#3a7d44", "#d1495b", "#222222", "#1b6ca8", "#edae49"


def binomial_tail(touched, sampled, fraction):
    """How likely a fair sample is as far on this side of what is expected, or farther."""
    if fraction <= 0 or fraction >= 1:
        return 1.0 if touched == round(sampled * fraction) else 0.0
    upwards = touched > sampled * fraction
    span = range(touched, sampled + 1) if upwards else range(0, touched + 1)
    return min(1.0, math.fsum(
        math.exp(math.lgamma(sampled + 1) - math.lgamma(k + 1) - math.lgamma(sampled - k + 1) +
                 k * math.log(fraction) + (sampled - k) * math.log1p(-fraction)) for k in span))


class Periods:
    """The daemon's rows of one guest as they come: those in which a period was over."""

    def __init__(self, recorder, guest, memory_mib):
        self._recorder, self._guest, self._memory_mib = recorder, guest, memory_mib
        self._seen = 0
        self._last = None
        self.rows = []
        self.take(0, 0, False)
        self.rows.clear()  # what was before is not of the steps

    def take(self, toucher_mib, step, steady):
        """Take what has come since; how many periods have ended."""
        ended, samples = 0, self._recorder.samples
        while self._seen < len(samples):
            sample, self._seen = samples[self._seen], self._seen + 1
            get = lambda column: sample.get(f"{self._guest}_{column}")  # noqa: E731
            number = get("sample_periods")
            if number is None or number == self._last:
                continue
            first, self._last = self._last is None, number
            if first or get("touched_mib") is None or not get("last_sample_pages"):
                continue
            ended += 1
            self.rows.append(self._row(get, toucher_mib, step, steady))
        return ended

    def _row(self, get, toucher_mib, step, steady):
        n, t, truth = get("last_sample_pages"), get("last_sample_touched_pages"), get("touched_mib")
        f = truth / self._memory_mib
        spread = math.sqrt(n * f * (1 - f))
        return {"period": 0, "step": step, "steady": int(steady), "toucher_mib": toucher_mib,
                "touched_mib": truth, "sampled": n, "sample_touched": t, "sampled_mib": round(t / n * self._memory_mib, 2),
                "deviation": round((t - n * f) / spread, 2) if spread else 0.0,
                "chance": float(f"{binomial_tail(t, n, f):.2g}"),
                "slow_mib": get("active_slow_mib"), "fast_mib": get("active_fast_mib"),
                "estimate_mib": get("active_mib")}


def run(session, scenario, progress):
    """Do the steps in the guest; the rows."""
    touch = scenario.touch
    guest = next(guest for guest in scenario.guests if guest.name == touch.guest)
    periods = Periods(session.recorder, guest.name, guest.memory / MIB)
    session.recorder.step = "toucher"
    session.guest_command(guest.name, f"mkdir -p {FOLDER} && echo 0 >{FOLDER}/mib", 30)
    job = session.submit(guest.name, f"/disk/own/programs/{touch.program} {FOLDER}/mib")
    for number, (mib, count) in enumerate(touch.steps, 1):
        session.recorder.note("step", f"toucher: {mib} MiB for {count} periods")
        progress.say(f"the toucher touches {mib} MiB")
        session.guest_command(guest.name, f"echo {mib} >{FOLDER}/new && mv {FOLDER}/new {FOLDER}/mib", 30)
        until = time.monotonic() + (count + STEADY) * SLOWEST_PERIOD * scenario.host.sample_period
        ended, since, there, asked = 0, 0, False, None  # periods over, and over since the toucher is there
        while ended < count or since < STEADY:
            session.wait(scenario.sample_interval / 2)
            news = periods.take(mib, number, since > 0)
            ended, since = ended + news, since + (news if there else 0)
            if not there and asked and asked.ended:
                there, asked = asked.output.strip() == str(mib), None
            if not there and not asked:
                asked = session.submit(guest.name, f"cat {FOLDER}/mib.done")
            if job.ended:
                raise SessionError(f"the toucher ended with status {job.status}: {job.output[-300:].strip()}")
            if time.monotonic() > until:
                raise SessionError(f"periods of sampling last {SLOWEST_PERIOD} times as long as they should")
    session.guest_command(guest.name, f"echo end >{FOLDER}/mib", 30)
    if not job.wait(60) or job.status != 0:
        raise SessionError(f"the toucher ended with status {job.status}: {job.output[-300:].strip()}")
    for number, row in enumerate(periods.rows, 1):
        row["period"] = number
    _beside_paper(scenario, periods.rows)
    return periods.rows


def _beside_paper(scenario, rows):
    """Give each row the paper's values at the same place of the same step, if the steps are the paper's."""
    if not scenario.touch.paper:
        return
    with open(os.path.join(scenario.folder, scenario.touch.paper), encoding="utf-8", newline="") as file:
        paper = list(csv.DictReader(line for line in file if line[0] != "#"))
    amounts = [float(mib) for mib, count in scenario.touch.steps for _ in range(count)]
    if amounts != [float(row["toucher_mb"]) for row in paper]:
        return
    begin = 0
    for number, (_, count) in enumerate(scenario.touch.steps, 1):
        for index, row in enumerate((row for row in rows if row["step"] == number), 1):
            for key in ("toucher", "estimate"):
                row[f"paper_{key}_mb"] = float(paper[begin + min(index, count) - 1][f"{key}_mb"])
        begin += count


def steps(rows):
    """What became of each step: where truth and estimate stood at its end, and how fast they came there."""
    found = []
    for number in sorted({row["step"] for row in rows}):
        own = [row for row in rows if row["step"] == number]
        before = next((row for row in reversed(rows) if row["step"] == number - 1), None)
        last = own[-1]
        entry = {"step": number, "periods": len(own), "toucher_mib": last["toucher_mib"],
                 "touched_mib": last["touched_mib"], "estimate_mib": last["estimate_mib"],
                 "paper_toucher_mb": last.get("paper_toucher_mb"), "paper_estimate_mb": last.get("paper_estimate_mb"),
                 "rise_periods": None, "decay": None}
        if before:
            if last["toucher_mib"] > before["toucher_mib"]:
                half = (last["touched_mib"] + before["touched_mib"]) / 2
                came = [next((index for index, row in enumerate(own) if row[key] >= half), math.inf)
                        for key in ("touched_mib", "estimate_mib")]
                entry["rise_periods"] = max(0, came[1] - came[0])
            else:
                entry["decay"] = _decay([row for row in own if row["steady"]])
        found.append(entry)
    return found


def _decay(own):
    """By which factor the slow average's distance from the truth shrinks a period, fitted; None if it never
    stands out from what chance does."""
    if len(own) < 4:
        return None
    floor = sum(row["touched_mib"] for row in own) / len(own)
    points = []
    for index, row in enumerate(own):
        above = row["slow_mib"] - floor
        if above < LEAST_DISTANCE_MIB:
            break
        points.append((index, math.log(above)))
    if len(points) < 4:
        return None
    middle = [sum(values) / len(points) for values in zip(*points)]
    slope = sum((x - middle[0]) * (y - middle[1]) for x, y in points) / sum((x - middle[0]) ** 2 for x, _ in points)
    return round(math.exp(slope), 3)


def checks(scenario, rows):
    """The steps were followed, the sample is a fair one, the averages decay as their gains say."""
    touch = scenario.touch
    table = steps(rows)
    wanted = sum(count for _, count in touch.steps)
    found = [Check("periods-seen", "periods of sampling with their truth", len(rows), f">= {wanted}", len(rows) >= wanted)]
    if not rows:
        return found
    steady = [row for row in rows if row["steady"]]
    idle = min(row["touched_mib"] for row in rows)
    off = max((abs(row["touched_mib"] - row["toucher_mib"] - idle) for row in steady), default=None)
    found.append(Check("truth-is-the-toucher", "pages touched in a steady period lie so far, at most, from what the "
                       "toucher touches and the least the guest touches without it", off and round(off, 1),
                       f"<= {touch.truth_mib}", off is not None and off <= touch.truth_mib, "MiB"))
    least = min(row["chance"] for row in rows)
    found.append(Check("sample-within-chance", "the sample farthest from the truth: its chance, by the binomial "
                       "distribution", least, f">= {LEAST_CHANCE:g}", least >= LEAST_CHANCE))
    spread = sum(row["deviation"] ** 2 for row in rows) / len(rows)
    most = round(1 + 4 * math.sqrt(2 / len(rows)) + 0.2, 2)
    found.append(Check("sample-spread", "mean square of the samples' distances from the truth, in standard deviations",
                       round(spread, 2), f"<= {most}", spread <= most))
    below = min(row["estimate_mib"] - row["fast_mib"] for row in rows)
    found.append(Check("estimate-is-the-largest", "the estimate is never below the fast average", round(below, 2),
                       ">= -0.1", below >= -0.1, "MiB"))
    slowest = max((entry["rise_periods"] for entry in table if entry["rise_periods"] is not None), default=None)
    found.append(Check("rises-followed", "periods from when the truth has come half of the way up until the estimate "
                       "has, in the slowest step", slowest, f"<= {touch.rise_periods}", slowest is not None and slowest <= touch.rise_periods))
    decays = [entry["decay"] for entry in table if entry["decay"] is not None and entry["toucher_mib"] == 0]
    wrong = max((abs(decay - touch.decay) for decay in decays), default=None)
    found.append(Check("decay", "factor a period by which the slow average comes down to nothing: how far from "
                       f"1 - gain = {touch.decay:g}", wrong and round(wrong, 3),
                       f"<= {touch.decay_within}", wrong is not None and wrong <= touch.decay_within))
    return found


def _shown(value):
    return "" if value is None else value


def write(folder, scenario, rows):
    """Write touch.csv and its plots; the part of the report about them."""
    with open(os.path.join(folder, "touch.csv"), "w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        out.writeheader()
        out.writerows(rows)
    parts = [("heading", "Sampling beside the truth, and beside the paper's Figure 6")]
    parts += [("image", (name, caption)) for name, caption in _plots(folder, rows)]
    header = ["step", "periods", "toucher MiB", "touched MiB (truth)", "estimate MiB", "periods to half way up",
              "decay a period", "paper: toucher MB", "estimate MB"]
    parts.append(("table", (header, [[_shown(entry[key]) for key in (
        "step", "periods", "toucher_mib", "touched_mib", "estimate_mib", "rise_periods", "decay", "paper_toucher_mb",
        "paper_estimate_mb")] for entry in steps(rows)])))
    off = [row["deviation"] for row in rows]
    parts.append(("text", f"{len(rows)} samples: their distances from the truth, in standard deviations of the binomial "
                          f"distribution, have the mean {statistics.fmean(off):+.2f} and the spread "
                          f"{statistics.pstdev(off):.2f}; the farthest is {max(off, key=abs):+.2f}."))
    parts.append(("text", "Values at the end of each step. The truth is every page of the guest that was touched in the "
                          "period, counted by the monitor beside the sample; the estimate is what the policy goes by, "
                          "the largest of three averages. The paper's values are digitised from its Figure 6 "
                          "(C. A. Waldspurger, Memory Resource Management in VMware ESX Server, OSDI 2002): a Windows "
                          "guest, 30 s a period, which zeroes pages that a program gives back; hence its peaks after a "
                          "step down. Linux zeroes pages when it hands them out."))
    return parts


def _plots(folder, rows):
    made = []
    axes = ["set datafile separator ','", "set datafile missing ''", "set grid back lc '#dddddd'", "set border 3",
            "set tics nomirror", "set xlabel 'periods of sampling'", "set ylabel 'MiB'", "set yrange [0:*]",
            "set key bmargin center horizontal samplen 2", "set bmargin 7"]

    def curve(column, title, style):
        return f"'touch.csv' using 'period':'{column}' with {style} title '{title}'"

    toucher = curve("toucher_mib", "toucher", f"steps lw 2 lc rgb '{TOUCHER}'")
    truth = curve("touched_mib", "touched: the truth", f"linespoints lw 2 pt 7 ps 0.5 lc rgb '{TRUTH}'")
    curves = [toucher, truth, curve("estimate_mib", "estimate", f"linespoints lw 3 pt 5 ps 0.5 lc rgb '{ESTIMATE}'")]
    if rows[0].get("paper_estimate_mb") is not None:
        curves.append(curve("paper_estimate_mb", "paper: estimate, MB", f"lines lw 1 dt 2 lc rgb '{ESTIMATE}'"))
    if gnuplot(folder, "touch", "\n".join(axes + ["plot " + ", ".join(curves)])):
        made.append(("touch", "What the toucher touches, what the guest touched in all, and what sampling makes of it" +
                     ("; dashed: the paper's estimate, digitised from its Figure 6" if len(curves) > 3 else "")))
    curves = [truth, curve("sampled_mib", "one sample", "points pt 6 ps 0.8 lc rgb '#888888'"),
              curve("slow_mib", "slow average", f"steps lw 2 lc rgb '{SLOW}'"),
              curve("fast_mib", "fast average", f"steps lw 2 lc rgb '{FAST}'")]
    if gnuplot(folder, "averages", "\n".join(axes + ["plot " + ", ".join(curves)])):
        made.append(("averages", "The samples and the two averages made of them"))
    return made
