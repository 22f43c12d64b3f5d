#!/usr/bin/env python3
"""Take the picture of ballastctl top that the README shows: five Debian guests with more than twice the
memory of their host; balloons, sharing and paging at work.

usage: picture_of_top.py BUILD_FOLDER PICTURE.png      (needs tmux and gnuplot; takes a minute or two)

The host is real, and so is the terminal (tmux); its screen is drawn cell by cell, with gnuplot. The guests'
images are those of experiments/guest/build (BALLAST_IMAGES names the folder instead).

What is to be seen lasts, so that the moment of the picture does not matter: first the guests fill their page
caches from a disk, which balloons can take; then `sort`, without a balloon driver, needs more than its shares
pay for. It is paged out, and held at its target from then on (daemon/policy/reclaim.h), so it goes on paging.
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
LIMIT_S = 600  # for each stage; they take a minute together


def cached(skip_mib, mib):
    """Read a part of the disk once; the page cache keeps it while somebody has the disk open."""
    return (f"exec 3</dev/vdb; dd bs=1M skip={skip_mib} count={mib} <&3 >/dev/null; "
            "sleep 1000000 >/dev/null 2>&1 &")


WEB = "while :; do cat /tmp/content /usr/bin/[a-f]* /usr/lib/riscv64-linux-gnu/* | md5sum; sleep 4; done"
SORT = ("rmmod virtio_balloon; head -c 10000000 /dev/urandom | od -An -tx8 -v >/tmp/lines; "
        "while :; do sort -S 70M -o /tmp/sorted /tmp/lines; sleep 1; done")
# name, MiB, min, shares, how it fills its memory, what it does then
GUESTS = [("archive", 192, 40, 2000, cached(1, 143), "true")]
GUESTS += [(f"web-{n}", 160, 40, shares,
            f"head -c 10000000 /dev/urandom >/tmp/content; {cached(116 + n * 28, 28)}", WEB)
           for n, shares in ((1, 2000), (2, 2000), (3, 500))]
GUESTS += [("sort", 256, 40, 1000, "true", SORT)]
DISK_MIB = 228
CALM_SAMPLES = 10  # of top, before sort begins
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


def write_disk(file):
    """Bytes that nothing else holds, behind some zeroes: a disk without a file system."""
    file.write(bytes(MIB))
    for _ in range(DISK_MIB - 1):
        file.write(os.urandom(MIB))
    file.flush()


def start(host, images, disk):
    """The guests, with their memory filled; their agents by name."""
    agents, filling = {}, []
    for name, memory, least, shares, *_ in GUESTS:
        host.client.call("vm.create", name=name, memory=memory * MIB, min=least * MIB, shares=shares,
                         kernel=f"{images}/Image", initrd=f"{images}/initrd.gz", append="console=ttyS0",
                         disks=[{"path": f"{images}/tools.img", "read_only": True},
                                {"path": disk, "read_only": True}],
                         sharing_domain="debian")
    for name, *_, fill, _ in GUESTS:
        agents[name] = Agent(host.vm_file(name, "hvc0.sock"))
        agents[name].connect(LIMIT_S)
        filling.append(agents[name].submit(fill))
    for job in filling:
        if not job.wait(LIMIT_S) or job.status != 0:
            raise SystemExit(f"picture_of_top: '{job.command}': status {job.status}\n{job.output}")
    return agents


def screen():
    return tmux("capture-pane", "-e", "-p", "-N")


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def histories(text):
    return re.findall(rf"[{BLOCKS}]+", plain(text))


def missing(text):
    """What the screen should show, and the README says beside it, and it does not."""
    saved = re.search(r"^PSHARE .* ([0-9.]+) saving", plain(text), re.M)
    lines = [line.split() for line in plain(text).split("\n")]
    titles = next((line for line in lines if line[:1] == ["NAME"]), [])
    rows = {line[0]: dict(zip(titles, line)) for line in lines if len(line) == len(titles)}
    sparks = histories(text)

    def of(name, title):
        value = rows.get(name, {}).get(title, "-")
        return 0 if value == "-" else float(value)

    wanted = {
        "every VM with its whole history": len(sparks) == len(GUESTS) and min(map(len, sparks)) >= 24,
        "a history that moves": any(BLOCKS.index(max(spark)) - BLOCKS.index(min(spark)) >= 2 for spark in sparks),
        "archive's balloon": of("archive", "MCTLSZ") > 20,
        "web-3's balloon": of("web-3", "MCTLSZ") > 10,
        "sort paged out": of("sort", "SWCUR") > 5,
        "sort paging in and out": min(of("sort", "SWR/s"), of("sort", "SWW/s")) >= 0.2,
        "memory saved by sharing": saved and float(saved[1]) > 20,
    }
    return [what for what, there in wanted.items() if not there]


def until(lacking):
    """The first screen of which lacking(screen) is empty."""
    end = time.monotonic() + LIMIT_S
    while what := lacking(text := screen()):
        if time.monotonic() > end:
            raise SystemExit(f"picture_of_top: not on the screen: {', '.join(what)}\n{plain(text)}")
        time.sleep(1)
    return text


def is_calm(text):
    return [] if min(map(len, histories(text) or [""])) >= CALM_SAMPLES else ["a history's beginning"]


def main(build, picture):
    images = os.environ.get("BALLAST_IMAGES") or subprocess.run(
        [os.path.join(TREE, "experiments/guest/build")], check=True, capture_output=True,
        text=True).stdout.strip().splitlines()[-1]
    with tempfile.NamedTemporaryFile(prefix="ballast-log.") as log, \
            tempfile.NamedTemporaryFile(prefix="ballast-disk.") as disk:
        write_disk(disk)
        host = Host(f"{build}/daemon/ballastd", MACHINE, "esx", 1, 1, log.name)
        try:
            host.client.call("host.set", sample_period_ms=5000, scan_cpu_percent=5)
            agents = start(host, images, disk.name)
            tmux("new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES), "env", "LC_ALL=C.UTF-8",
                 f"{build}/daemon/ballastctl", "--socket", host.socket_path, "top", "-d", "2")
            for name, *_, work in GUESTS:
                if name == "sort":
                    until(is_calm)
                agents[name].submit(work)
            text = until(missing)
            for agent in agents.values():
                agent.close()
            check = host.client.call("host.check")
            assert check["ok"], check
        finally:
            subprocess.run(["tmux", "-L", f"ballast-{os.getpid()}", "kill-server"], check=False,
                           capture_output=True)
            host.stop()
    draw(cells_of(text), picture)
    print(plain(text))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]))
