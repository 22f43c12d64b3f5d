#!/usr/bin/env python3
"""Benchmark: our interpreter against QEMU's TCG on the same kernel and initramfs.

usage: engine.py BALLAST_VMM [--rounds N] [--images DIR]

Each round boots one guest on each engine, one after the other. The guest's init
runs the paces given on its command line and says on the serial console when one
ends; times are taken here: processor time of all processes of the engine, which
other work on the machine disturbs least, and time on the wall beside it. The
best of the rounds counts, on either side. While the guest of ours then sleeps,
its worker's processor time and memory are read.

Prints one JSON line a figure. Exit status 1 when a figure misses its bar.
"""
import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACES = [
    ("shell_loop", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"),
    ("sha256sum", "dd if=/dev/zero bs=64k count=256 2>/dev/null | sha256sum >/dev/null"),
    ("fork_exec", "i=0; while [ $i -lt 300 ]; do /bin/busybox true; i=$((i+1)); done"),
]
BOOT_BAR, MEAN_BAR = 3.5, 4.0
OVERHEAD_BAR_MIB, IDLE_BAR_PERCENT = 16, 2
IDLE_SETTLE_S, IDLE_WATCH_S = 4, 10
LIMIT_S = 240
MIB = 1 << 20


class BenchError(Exception):
    """A guest did not get through its paces."""


def command_line():
    """The guest's kernel command line: every pace, each end said aloud, then a sleep."""
    paces = "; ".join(f"{work}; echo pace {name}" for name, work in PACES)
    return f'console=ttyS0 quiet ballast.modules=virtio_mmio ballast.run="{paces}; sleep 60"'


def engines(vmm, images):
    kernel = ["-m", "256", "-kernel", f"{images}/Image", "-initrd", f"{images}/initrd.gz",
              "-append", command_line()]
    return {"ballast": [vmm] + kernel,
            "qemu": ["qemu-system-riscv64", "-M", "virt", "-accel", "tcg", "-smp", "1", "-display", "none",
                     "-monitor", "none", "-serial", "stdio"] + kernel}


class Run:
    """A guest under an engine, and when it said what."""

    def __init__(self, command):
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, start_new_session=True)
        self.output = b""
        watchdog = threading.Timer(LIMIT_S, self.process.kill)
        watchdog.daemon = True
        watchdog.start()

    def until(self, word):
        """Read until a line begins with this word; the time then: (processor, wall) in seconds."""
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise BenchError(f"the guest ended before '{word}':\n"
                                 + self.output[-2000:].decode("utf-8", "replace"))
            self.output += line
            if line.lstrip().startswith(word.encode()):
                return (sum(map(cpu_seconds, self.pids())), time.monotonic() - self.began)

    def pids(self):
        return [self.process.pid] + children(self.process.pid)

    def paces(self):
        """{pace: (processor, wall) seconds}, boot included."""
        took = {"boot": self.until("guest: init")}
        last = self.until("guest: up")
        for name, _ in PACES:
            now = self.until(f"pace {name}")
            took[name] = (now[0] - last[0], now[1] - last[1])
            last = now
        return took

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process.stdin.close()


def children(pid):
    """Process ids of the children."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
            found += [int(child) for child in file.read().split()]
    return found


def cpu_seconds(pid):
    """User and system time of a process."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_by_source(pid):
    """Bytes resident for a worker beside its guest's memory, by source."""
    found = {"anonymous": 0, "stacks": 0, "shared region": 0, "program, written": 0, "page tables": 0}
    kind = None
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as file:
        for line in file:
            head = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)", line)
            if head:
                kind = mapping_kind(head.group(1).strip())
                continue
            name, _, amount = line.partition(":")
            if kind == "shared region" and name == "Rss":
                found[kind] += int(amount.split()[0]) * 1024
            elif kind in ("anonymous", "stacks", "program, written") and \
                    name in ("Private_Dirty", "Private_Clean") and not (
                        kind == "program, written" and name == "Private_Clean"):
                found[kind] += int(amount.split()[0]) * 1024
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("VmPTE:"):
                found["page tables"] = int(line.split()[1]) * 1024
    return found


def mapping_kind(path):
    if path.startswith("/memfd:"):
        return "guest memory" if "machine" in path else "shared region"
    if path.startswith("[stack"):
        return "stacks"
    if path.startswith("/"):
        return "program, written"
    return None if path in ("[vdso]", "[vvar]", "[vsyscall]") else "anonymous"


def idle(run):
    """Percent of a core and memory by source of the processes that run an idle guest."""
    worker = children(run.process.pid)
    if not worker:
        raise BenchError("ballast-vmm has no worker")
    time.sleep(IDLE_SETTLE_S)
    before = sum(map(cpu_seconds, run.pids()))
    time.sleep(IDLE_WATCH_S)
    percent = (sum(map(cpu_seconds, run.pids())) - before) / IDLE_WATCH_S * 100
    return percent, memory_by_source(worker[0])


class Figures:
    """Prints figures; remembers whether one missed its bar."""

    def __init__(self):
        self.missed = []

    def put(self, name, value, unit, bar=None, **more):
        line = {"name": name, "value": round(value, 3), "unit": unit}
        line.update({key: round(item, 3) if isinstance(item, float) else item
                     for key, item in more.items()})
        if bar is not None:
            line["bar"] = bar
            judged = line.get("ratio", line["value"])
            if judged > bar:
                self.missed.append(f"{name}: {judged} is over {bar}")
        print(json.dumps(line), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("vmm")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--images")
    arguments = parser.parse_args()
    images = arguments.images
    if not images:
        done = subprocess.run([os.path.join(TREE, "experiments", "guest", "build")],
                              stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            print("the guest's images could not be built", file=sys.stderr)
            return 1
        images = done.stdout.strip().splitlines()[-1]
    best = {"ballast": {}, "qemu": {}}
    try:
        for number in range(arguments.rounds):
            for engine, command in engines(arguments.vmm, images).items():
                run = Run(command)
                try:
                    for name, took in run.paces().items():
                        best[engine][name] = min(took, best[engine].get(name, took))
                    if engine == "ballast" and number == arguments.rounds - 1:
                        percent, sources = idle(run)
                finally:
                    run.end()
    except (BenchError, OSError) as error:
        print(f"engine: {error}", file=sys.stderr)
        return 1
    figures = Figures()
    ratios = []
    for name, (value, wall) in best["ballast"].items():
        peer, peer_wall = best["qemu"][name]
        ratios.append(value / peer)
        figures.put(f"engine.{name}", value, "s", BOOT_BAR if name == "boot" else None, peer="qemu-tcg",
                    peer_value=peer, ratio=value / peer, wall_s=wall, peer_wall_s=peer_wall)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    figures.put("engine.geometric_mean", mean, "times qemu-tcg", MEAN_BAR, peer="qemu-tcg", ratio=mean)
    for source, value in sources.items():
        figures.put(f"worker.overhead.{source.replace(', ', '_').replace(' ', '_')}", value / MIB, "MiB")
    figures.put("worker.overhead", sum(sources.values()) / MIB, "MiB", OVERHEAD_BAR_MIB)
    figures.put("guest.idle", percent, "percent of a core", IDLE_BAR_PERCENT)
    for text in figures.missed:
        print(f"engine: {text}", file=sys.stderr)
    return 1 if figures.missed else 0


if __name__ == "__main__":
    sys.exit(main())
