#!/usr/bin/env python3
"""Benchmark: what the scanner of page sharing costs a busy guest, at its default rates.

usage: sharing_slowdown.py BALLASTD [--pairs N] [--block SECONDS] [--images DIR]

One Debian guest repeats a job for processor and memory: copy a file, hash the
copy, count in the shell, remove the copy. Blocks of time with scanning and without
take turns (off on, on off, ...). Measured is the processor time of the VM's
worker, all threads, for one job: what the guest spends on faults of pages that the
scanner protected is in it, and so is the thread that protects and compares, while
which the guest may have to stand. Wall time is not used: it tells more about what
else runs.

Slowdown: of each pair of neighbouring blocks what a job costs more, times the jobs a
second: processor time that the scanner takes from the guest a second, which is the
slowdown of a guest that has a core for itself. (The scanner goes by time on the
wall. A guest that the machine lets run a fifth of the time only pays the same for
fewer jobs; "of_its_time" says how much of what it had.) The median of the pairs, with
the quartiles beside it. Exit status 1 when it misses its bar.
"""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
JOB = ("dd if=/dev/urandom of=/tmp/a bs=64k count=32 2>/dev/null; n=0; while :; do cp /tmp/a /tmp/b; "
       "sha256sum /tmp/b >/dev/null; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; rm /tmp/b; "
       "n=$((n+1)); echo job $n; done")
BAR_PERCENT = 1.0
WARM_JOBS = 10
LIMIT_S = 180


class BenchError(Exception):
    """The host or its guest did not do what they should."""


class Host:
    """A daemon with one VM."""

    def __init__(self, program):
        self.folder = tempfile.mkdtemp(prefix="ballast-bench-")
        self.socket = socket.socket(socket.AF_UNIX)
        self.process = subprocess.Popen([program, "--machine-memory", "320MiB", "--run-dir", self.folder],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self, images):
        self.wait(self.connects, "socket")
        self.lines = self.socket.makefile("rw", encoding="utf-8")
        self.call("vm.create", name="guest", memory="192MiB", min="192MiB", kernel=f"{images}/Image",
                  initrd=f"{images}/initrd.gz",
                  append=f'console=ttyS0 quiet ballast.modules=virtio_mmio ballast.run="{JOB}"')
        self.wait(lambda: self.pid() > 0, "worker")
        self.worker = self.pid()

    def connects(self):
        try:
            self.socket.connect(os.path.join(self.folder, "ballastd.sock"))
            return True
        except OSError:
            return False

    def wait(self, condition, what):
        until = time.monotonic() + LIMIT_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > until:
                raise BenchError(f"no {what}")
            time.sleep(0.05)

    def call(self, method, **params):
        self.lines.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + "\n")
        self.lines.flush()
        answer = {}
        while "id" not in answer:  # the daemon's events come in between
            answer = json.loads(self.lines.readline())
        if "error" in answer:
            raise BenchError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def pid(self):
        return self.call("vm.stats", vm="guest").get("pid") or 0

    def jobs(self):
        """Jobs done, as the guest's console has it."""
        try:
            with open(os.path.join(self.folder, "vms/guest/serial.log"), "rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 400))
                lines = file.read().split(b"\n")[:-1]
        except OSError:
            return 0
        numbers = [int(line.split()[1]) for line in lines if line.startswith(b"job ")]
        return numbers[-1] if numbers else 0

    def cpu_ns(self):
        """Processor time of the worker, all threads."""
        total = 0
        for task in os.listdir(f"/proc/{self.worker}/task"):
            with open(f"/proc/{self.worker}/task/{task}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
        return total

    def next_job(self):
        """Wait for the end of a job: (jobs, processor time) then."""
        before = self.jobs()
        until = time.monotonic() + LIMIT_S
        while True:
            now = self.jobs()
            if now > before:
                return now, self.cpu_ns()
            if self.process.poll() is not None or time.monotonic() > until:
                raise BenchError("the guest's job does not end")
            time.sleep(0.002)

    def block(self, sharing, seconds):
        """Processor time a job in a block of time, and jobs a second."""
        self.call("host.set", sharing=sharing)
        first = self.next_job()
        begin = time.monotonic()
        until = begin + seconds
        last = first
        while time.monotonic() < until or last[0] == first[0]:
            last = self.next_job()
        jobs = last[0] - first[0]
        return (last[1] - first[1]) / jobs, jobs / (time.monotonic() - begin)

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def images_of(arguments):
    if arguments.images:
        return arguments.images
    done = subprocess.run([os.path.join(TREE, "experiments", "guest", "build")], stdout=subprocess.PIPE,
                          text=True)
    if done.returncode != 0:
        raise BenchError("the guest's images could not be built")
    return done.stdout.strip().splitlines()[-1]


def measure(host, pairs, seconds):
    """Of each pair in percent: the slowdown of a guest with a core, and the ratio of job times."""
    host.wait(lambda: host.jobs() >= WARM_JOBS, "jobs")
    host.block(True, seconds)
    slowdowns = []
    for number in range(pairs):
        order = (False, True) if number % 2 == 0 else (True, False)
        took = {sharing: host.block(sharing, seconds) for sharing in order}
        more_ns = took[True][0] - took[False][0]
        slowdowns.append((more_ns * took[True][1] / 1e9 * 100, more_ns / took[False][0] * 100))
    return slowdowns


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ballastd")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--block", type=float, default=6)
    parser.add_argument("--images")
    arguments = parser.parse_args()
    host = None
    try:
        images = images_of(arguments)
        host = Host(arguments.ballastd)
        host.start(images)
        slowdowns = measure(host, max(arguments.pairs, 2), arguments.block)
        stats = host.call("sharing.stats")
    except (BenchError, OSError, ValueError) as error:
        print(f"sharing_slowdown: {error}", file=sys.stderr)
        return 1
    finally:
        if host:
            host.end()
    low, middle, high = statistics.quantiles([row[0] for row in slowdowns], n=4)
    of_its_time = statistics.median(row[1] for row in slowdowns)
    print(json.dumps({"name": "sharing guest slowdown", "value": round(middle, 3), "unit": "%",
                      "spread": [round(low, 3), round(high, 3)], "pairs": len(slowdowns),
                      "of_its_time": round(of_its_time, 3), "peer": "scanner off", "peer_value": 0, "ratio": None,
                      "bar": BAR_PERCENT}))
    print(json.dumps({"name": "sharing pages hashed meanwhile", "value": stats.get("hashed_pages"),
                      "unit": "pages", "peer": None, "peer_value": None, "ratio": None, "bar": None}))
    return 1 if middle >= BAR_PERCENT else 0


if __name__ == "__main__":
    sys.exit(main())
