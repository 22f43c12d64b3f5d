"""The report of a run: plots by gnuplot from samples.csv, report.md and report.html."""
import html
import os
import subprocess

from .sizes import MIB, mib

MOST_PLOTTED = 5  # guests with a plot of their own; of more, what they hold together is shown
COLOURS = ["#1b6ca8", "#d1495b", "#3a7d44", "#edae49", "#6a4c93"]


def gnuplot(folder, name, script, height=560):
    """Make NAME.svg and NAME.png in the folder; False when gnuplot cannot."""
    for terminal, extension in ((f"svg size 1000,{height} dynamic font 'sans,13' background '#ffffff'", "svg"),
                                (f"pngcairo size 1000,{height} font 'sans,11'", "png")):
        text = f"set terminal {terminal}\nset output '{name}.{extension}'\n{script}\n"
        try:
            done = subprocess.run(["gnuplot"], input=text, text=True, cwd=folder, capture_output=True)
        except FileNotFoundError:
            return False
        if done.returncode != 0:
            return False
    return True


def _frame(steps, top, title, ylabel):
    """Axes, and the steps as shaded bands with their names above."""
    end_s = steps[-1][2] if steps else 1
    lines = ["set datafile separator ','", "set datafile missing ''", f"set title '{title}' offset 0,3 noenhanced",
             "set xlabel 'seconds'", f"set ylabel '{ylabel}'", "set grid back lc '#dddddd'",
             "set key bmargin center horizontal noenhanced samplen 2", "set tics nomirror", "set border 3",
             f"set xrange [0:{max(end_s, 1):.0f}]", f"set yrange [0:{top:.0f}]", "set tmargin 7", "set bmargin 6", "set rmargin 10"]
    for number, (name, begin, end) in enumerate(steps):
        if number % 2 == 0:
            lines.append(f"set object rectangle from {begin},graph 0 to {end},graph 1 behind "
                         "fc '#f2f2f2' fs solid noborder")
        if end - begin >= 0.015 * end_s:
            lines.append(f"set label '{name}' at {begin},graph 1.02 rotate by 22 font ',10' noenhanced")
    return lines


def step_spans(samples):
    """(step, begin, end) in seconds, from the samples."""
    spans = []
    for sample in samples:
        if spans and spans[-1][0] == sample["step"]:
            spans[-1] = (sample["step"], spans[-1][1], sample["time_s"])
        else:
            if spans:
                spans[-1] = (spans[-1][0], spans[-1][1], sample["time_s"])
            spans.append((sample["step"], sample["time_s"], sample["time_s"]))
    return spans


def plots(folder, scenario, samples):
    """Names of the plots made, with captions."""
    made = []
    steps = step_spans(samples)
    host = scenario.host.memory / (1 << 20)
    few = len(scenario.guests) <= MOST_PLOTTED
    for guest in scenario.guests if few else []:
        name = guest.name
        curves = [("allocated_mib", "held", "lw 3", 0), ("balloon_mib", "balloon", "lw 2", 1),
                  ("paged_mib", "paged out", "lw 2", 3), ("guest_free_mib", "free in the guest", "lw 2", 2),
                  ("target_mib", "target", "lw 1 dt 2", 4)]
        script = _frame(steps, guest.memory / (1 << 20) * 1.02, f"Guest {name}", "MiB")
        script.append("plot " + ", ".join(
            f"'samples.csv' using 'time_s':'{name}_{column}' with lines {style} "
            f"lc rgb '{COLOURS[colour]}' title '{title}'" for column, title, style, colour in curves))
        if gnuplot(folder, f"guest-{name}", "\n".join(script)):
            made.append((f"guest-{name}", f"Guest {name}: memory it holds, its balloon, what is paged "
                                          "out, and what it says is free. Its target binds only "
                                          "while free memory of the host is short"))
    if not few:
        return _plot_many(folder, steps, samples)
    script = _frame(steps, host * 1.02, "Host", "MiB") + \
        ["set y2range [-0.2:8]", "set y2tics ('high' 0, 'soft' 1, 'hard' 2, 'low' 3)",
         "set y2label 'state'"]
    script.append("plot " + ", ".join(
        [f"'samples.csv' using 'time_s':'{guest.name}_allocated_mib' with lines lw 3 "
         f"lc rgb '{COLOURS[number % len(COLOURS)]}' title 'held by {guest.name}'"
         for number, guest in enumerate(scenario.guests)] +
        [f"'samples.csv' using 'time_s':'host_free_mib' with lines lw 2 lc rgb '{COLOURS[2]}' "
         "title 'free'",
         f"'samples.csv' using 'time_s':'host_worst_state_level' axes x1y2 with steps lw 2 "
         f"lc rgb '{COLOURS[3]}' title 'worst state'"]))
    if gnuplot(folder, "host", "\n".join(script)):
        made.insert(0, ("host", "The host: memory held by each guest, free memory, and the state "
                                "of free memory"))
    return made


def _plot_many(folder, steps, samples):
    """One plot of what all guests hold and what sharing saves, where the guests are many."""
    curves = [("granted_mib", "held by guests, not shared", COLOURS[0]), ("saved_mib", "saved by sharing", COLOURS[2]),
              ("zero_mib", "of it pages of zeroes", COLOURS[3])]
    values = [sample.get(f"host_{column}") or 0 for sample in samples for column, _, _ in curves]
    script = _frame(steps, max(values + [1]) * 1.1, "Host", "MiB")
    script.append("plot " + ", ".join(f"'samples.csv' using 'time_s':'host_{column}' with lines lw 2 "
                                      f"lc rgb '{colour}' title '{title}'" for column, title, colour in curves))
    if not gnuplot(folder, "host", "\n".join(script)):
        return []
    return [("host", "The host: memory that only one guest uses, and what sharing saves, all guests together")]


def overhead_table(overheads):
    """A row for each guest, a column for each source of its overhead, MiB."""
    sources = list(dict.fromkeys(source for of in overheads.values() for source, value in (of or {}).items()
                                 if isinstance(value, (int, float))))
    rows = [[guest] + [f"{of[source] / MIB:.2f}" if isinstance(of.get(source), (int, float)) else ""
                       for source in sources] for guest, of in overheads.items() if of]
    titles = [source.replace("_bytes", "").replace("_", " ") + " MiB" for source in sources]
    return (["guest"] + titles, rows) if sources else None


def _table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
              for row in rows]
    return lines


def cost_rows(summary):
    """A row for each step in which a guest worked: what the shortage of memory cost it."""
    rows = []
    for name, outcome in summary["steps"].items():
        if not outcome.get("run"):
            continue
        cost = outcome.get("cost", {})
        ample_s = (summary["reference"].get(outcome["run"]) or {}).get("seconds") \
            if outcome.get("reference") else None
        rows.append((name, outcome["guest"], outcome["seconds"], ample_s if ample_s else "",
                     f"{outcome['seconds'] / ample_s:.2f}" if ample_s else "",
                     f"{mib(cost.get('swap_out_pages', 0)):.1f}", f"{mib(cost.get('swap_in_pages', 0)):.1f}",
                     f"{cost.get('vcpu_wait_ns', 0) / 1e9:.2f}"))
    return rows


def overcommitment(ratio):
    return f"{(ratio - 1) * 100:.0f} % overcommitted" if ratio > 1 else f"{ratio * 100:.0f} % of the host's"


def sections(scenario, summary, manifest, made, parts):
    """The report as a list of (kind, content): heading, text, table (header, rows), image. parts: what stands before the plots."""
    verdict = "every check passed" if summary["pass"] else \
        f"{sum(not check['pass'] for check in summary['checks'])} checks failed"
    out = [("heading", scenario.title),
           ("text", f"Scenario {scenario.name}, seed {scenario.seed}: **{verdict}** in "
                    f"{summary['seconds']:.0f} s. A host of {scenario.host.memory >> 20} MiB, "
                    f"policy {scenario.host.policy}, "
                    f"{len(scenario.guests)} guests with "
                    f"{sum(guest.memory for guest in scenario.guests) >> 20} MiB together "
                    f"({overcommitment(scenario.overcommit_ratio)}).")]
    if summary.get("error"):
        out.append(("text", f"The run ended early: {summary['error']}"))
    costs = cost_rows(summary)
    if costs:
        out += [("heading", "What it cost"),
                ("text", "Work in the guests: its time here and, for work that was also done on a host of "
                         f"{scenario.reference.memory >> 20} MiB, where nothing is short, its time there. "
                         "The guest's own pages that moved to and from the swap file meanwhile, and how long "
                         "its processor stood still for memory."
                 if scenario.reference else
                 "Work in the guests: its time, the guest's own pages that moved to and from the swap file "
                 "meanwhile, and how long its processor stood still for memory."),
                ("table", (["step", "guest", "seconds", "with ample memory", "ratio", "paged out, MiB",
                            "paged in, MiB", "waited for memory, s"], costs))]
    out += parts + [("image", image) for image in made]
    out.append(("heading", "Checks"))
    out.append(("table", (["check", "what", "value", "unit", "band", ""],
                          [(check["name"], check["text"], check["value"], check["unit"], check["band"],
                            "pass" if check["pass"] else "FAIL") for check in summary["checks"]])))
    if summary["steps"]:
        out.append(("heading", "Steps"))
        out.append(("table", (["step", "what", "seconds", "status"],
                              [(name, outcome["title"], outcome["seconds"], outcome.get("status", ""))
                               for name, outcome in summary["steps"].items()])))
    overheads = overhead_table(summary.get("overhead_bytes") or {})
    if overheads:
        out += [("heading", "Overhead beside guest memory"), ("table", overheads)]
    out.append(("heading", "Where it ran"))
    host = manifest["host"]
    guest = manifest["guest_packages"]["packages"]
    kernel = next((f"{name} {version}" for name, version in guest.items()
                   if name.startswith("linux-image")), "?")
    out.append(("table", (["", ""], [("Ballast", manifest["version"]), ("host", host["cpu"]),
                                     ("host kernel", host["kernel"]), ("guest kernel", kernel),
                                     ("began", manifest["began"])])))
    return out


def markdown(parts):
    lines, level = [], "#"
    for kind, content in parts:
        if kind == "heading":
            lines += [f"{level} {content}", ""]
            level = "##"
        elif kind == "text":
            lines += [content, ""]
        elif kind == "image":
            lines += [f"![{content[1]}]({content[0]}.png)", "", f"*{content[1]}*", ""]
        else:
            lines += _table(*content) + [""]
    return "\n".join(lines)


STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:1040px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:14px}td,th{border-bottom:1px solid #ddd;padding:.3em .7em;
text-align:left;vertical-align:top;overflow-wrap:anywhere}.FAIL{color:#b00020;font-weight:bold}.pass{color:#2e7d32}
figure{margin:1.5em 0}img{max-width:100%}figcaption{color:#666;font-size:14px}"""


def page(title, parts):
    """The same as one HTML page, plots beside it."""
    out = [f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
           f"<style>{STYLE}</style>"]
    level = 1
    for kind, content in parts:
        if kind == "heading":
            out.append(f"<h{level}>{html.escape(content)}</h{level}>")
            level = 2
        elif kind == "text":
            pieces = html.escape(content).split("**")
            out.append("<p>" + "".join(f"<b>{piece}</b>" if number % 2 else piece
                                       for number, piece in enumerate(pieces)) + "</p>")
        elif kind == "image":
            out.append(f"<figure><img src='{content[0]}.svg' alt='{html.escape(content[1])}'>"
                       f"<figcaption>{html.escape(content[1])}</figcaption></figure>")
        else:
            header, rows = content
            out.append("<table><tr>" + "".join(f"<th>{html.escape(cell)}" for cell in header))
            for row in rows:
                out.append("<tr>" + "".join(
                    f"<td{' class=' + str(cell) if cell in ('pass', 'FAIL') else ''}>"
                    f"{html.escape(str(cell))}" for cell in row))
            out.append("</table>")
    return "\n".join(out) + "\n"


def write(folder, scenario, summary, manifest, samples, parts=()):
    """Write plots, report.md and report.html into the folder."""
    made = plots(folder, scenario, samples) if samples else []
    parts = sections(scenario, summary, manifest, made, list(parts))
    with open(os.path.join(folder, "report.md"), "w", encoding="utf-8") as file:
        file.write(markdown(parts))
    with open(os.path.join(folder, "report.html"), "w", encoding="utf-8") as file:
        file.write(page(scenario.title, parts))
