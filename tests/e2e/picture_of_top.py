#!/usr/bin/env python3
"""Take the picture of ballastctl top that the README shows: five Debian guests with more than twice the
memory of their host; a balloon, sharing and paging at work.

usage: picture_of_top.py BUILD_FOLDER PICTURE.png      (needs tmux and gnuplot; takes two minutes)

The host is real, and so is the terminal (tmux); its screen is drawn cell by cell, with gnuplot.
"""
import os
import re
import subprocess
import sys
import tempfile
import time

TREE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(TREE, "experiments"))
from runner.agent import Agent  # noqa: E402
from runner.host import Host  # noqa: E402

MIB = 1 << 20
MACHINE = 352 * MIB
WEB = "head -c 40000000 /dev/urandom >/tmp/content; while :; do cat /tmp/content /usr/bin/* | md5sum; sleep 1; done"
SORT = ("rmmod virtio_balloon; while :; do head -c 12000000 /dev/urandom | od -An -tx8 -v >/tmp/lines; "
        "sort -S 60M -o /tmp/sorted /tmp/lines; done")
IDLE = "head -c 90000000 /dev/urandom >/tmp/kept; cat /usr/lib/riscv64-linux-gnu/* | md5sum"
# name, MiB, min, shares, what it does
GUESTS = [("web-1", 160, 40, 2000, WEB), ("web-2", 160, 40, 2000, WEB), ("web-3", 160, 40, 2000, WEB),
          ("sort", 256, 40, 2000, SORT), ("idle", 192, 40, 2000, IDLE)]
COLUMNS, LINES = 178, 16
CELL_WIDTH, CELL_HEIGHT, MARGIN = 7.23, 17, 10
BACKGROUND, FOREGROUND = "#14181c", "#d6d9dc"
COLOURS = {30: "#14181c", 31: "#ff6b6b", 32: "#5fd068", 33: "#f2c94c", 34: "#6ea8fe", 35: "#d685e8",
           36: "#56c8d8", 37: FOREGROUND, 39: FOREGROUND}
BLOCKS = "▁▂▃▄▅▆▇█"


def tmux(*arguments):
    return subprocess.run(["tmux", "-L", f"ballast-{os.getpid()}", "-f", "/dev/null", *arguments],
                          check=True, capture_output=True, text=True).stdout


def cells_of(text):
    """What capture-pane says, as rows of (character, colour, bold, reversed)."""
    rows = []
    for line in text.split("\n")[:LINES]:
        row, colour, bold, reverse = [], 39, False, False
        for match in re.finditer(r"\x1b\[([0-9;]*)m|(.)", re.sub("[\x0e\x0f]", "", line)):
            if match[2]:
                row.append((match[2], colour, bold, reverse))
                continue
            for number in (int(n or 0) for n in match[1].split(";")):
                if number == 0:
                    colour, bold, reverse = 39, False, False
                elif number in (1, 22):
                    bold = number == 1
                elif number in (7, 27):
                    reverse = number == 7
                elif number in COLOURS:
                    colour = number
        rows.append(row)
    return rows


def runs_of(row):
    """(column, text, colour, bold, reversed) of neighbours that look the same; words apart, so that
    each begins on its own column whatever the font does."""
    at = 0
    while at < len(row):
        end = at + 1
        while end < len(row) and row[end][1:] == row[at][1:] and \
                (row[at][3] or (row[end][0] == " ") == (row[at][0] == " ")):
            end += 1
        yield at, "".join(cell[0] for cell in row[at:end]), *row[at][1:]
        at = end


def draw(rows, path):
    """The cells as a PNG, by gnuplot."""
    width = round(COLUMNS * CELL_WIDTH + 2 * MARGIN)
    while rows and not "".join(cell[0] for cell in rows[-1]).strip():
        rows.pop()
    height = len(rows) * CELL_HEIGHT + 2 * MARGIN
    commands = [f'set terminal pngcairo size {width},{height} background rgb "{BACKGROUND}"'
                ' font "DejaVu Sans Mono,9"', f'set output "{path}"',
                "unset border; unset tics; unset key; set lmargin at screen 0; set rmargin at screen 1",
                "set tmargin at screen 1; set bmargin at screen 0",
                f"set xrange [0:{width}]; set yrange [{height}:0]"]

    def box(column, y, columns, fraction, colour):
        x = MARGIN + column * CELL_WIDTH
        commands.append(f'set object rectangle from {x},{y + CELL_HEIGHT} to {x + columns * CELL_WIDTH},'
                        f'{y + CELL_HEIGHT * (1 - fraction)} fc rgb "{colour}" fs solid noborder behind')

    for number, row in enumerate(rows):
        y = MARGIN + number * CELL_HEIGHT
        for column, text, colour, bold, reverse in runs_of(row):
            front = COLOURS[colour]
            if reverse:
                box(column, y, len(text), 1, front)
                front = BACKGROUND
            if text[0] in BLOCKS:
                for i, block in enumerate(text):
                    box(column + i, y, 0.85, (BLOCKS.index(block) + 1) / 9, "#56c8d8")
                continue
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            if text.strip():
                font = ' font "DejaVu Sans Mono Bold,9"' if bold else ""
                commands.append(f'set label "{quoted}" at {MARGIN + column * CELL_WIDTH},'
                                f'{y + CELL_HEIGHT / 2} left noenhanced front tc rgb "{front}"{font}')
    commands.append("plot NaN notitle")
    subprocess.run(["gnuplot"], input="\n".join(commands), text=True, check=True,
                   stderr=subprocess.DEVNULL)


def start(host, images):
    """The guests, at work; their agents."""
    agents = []
    for name, memory, least, shares, _ in GUESTS:
        host.client.call("vm.create", name=name, memory=memory * MIB, min=least * MIB, shares=shares,
                         kernel=f"{images}/Image", initrd=f"{images}/initrd.gz", append="console=ttyS0",
                         disks=[{"path": f"{images}/tools.img", "read_only": True}],
                         sharing_domain="debian")
    for name, *_, work in GUESTS:
        agents.append(Agent(host.vm_file(name, "hvc0.sock")))
        agents[-1].connect(180)
        agents[-1].submit(work)
    return agents


def is_telling(text):
    """Does the screen show what it should: a balloon, pages saved, paging in and out?"""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    shown = {}
    for kind in ("PSHARE", "SWAP", "MEMCTL"):
        line = re.search(rf"^{kind} (.*)$", text, re.M)
        shown.update({f"{kind} {name}": float(value) for value, name in
                      re.findall(r"([0-9.]+) (\S+?)(?:,|\s*$)", line[1])} if line else {})
    sparks = re.findall(rf"[{BLOCKS}]+", text)
    return (len(sparks) == len(GUESTS) and min(map(len, sparks)) >= 24 and
            shown.get("PSHARE saving", 0) > 20 and shown.get("MEMCTL curr", 0) > 30 and
            shown.get("SWAP curr", 0) > 5 and shown.get("SWAP r/s", 0) + shown.get("SWAP w/s", 0) > 0.3)


def main(build, picture):
    images = subprocess.run([os.path.join(TREE, "experiments/guest/build")], check=True,
                            capture_output=True, text=True).stdout.strip().splitlines()[-1]
    with tempfile.NamedTemporaryFile(prefix="ballast-log.") as log:
        host = Host(f"{build}/daemon/ballastd", MACHINE, "esx", 1, 1, log.name)
        try:
            host.client.call("host.set", sample_period_ms=5000, scan_cpu_percent=5)
            agents = start(host, images)
            tmux("new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES), "env", "LC_ALL=C.UTF-8",
                 f"{build}/daemon/ballastctl", "--socket", host.socket_path, "top", "-d", "2")
            end = time.monotonic() + 240
            while not is_telling(text := tmux("capture-pane", "-e", "-p", "-N")):
                if time.monotonic() > end:
                    raise SystemExit(f"picture_of_top: not what was hoped for:\n{text}")
                time.sleep(1)
            for agent in agents:
                agent.close()
            check = host.client.call("host.check")
            assert check["ok"], check
        finally:
            subprocess.run(["tmux", "-L", f"ballast-{os.getpid()}", "kill-server"], check=False,
                           capture_output=True)
            host.stop()
    draw(cells_of(text), picture)
    print(re.sub(r"\x1b\[[0-9;]*m", "", text))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]))
