#!/usr/bin/env python3
"""A policy of your own for Ballast, in Python: memory by working sets.

    working_set.py --socket /run/ballast/ballastd.sock [--name NAME] [--deadline-ms MS]
                   [--bad-limit ROUNDS] [--verbose]

It attaches to the daemon, is sent the rows of every round, and answers with targets (PROTOCOL.md,
"External policies"). To make it yours, change decide(): the rest is the same for every policy.
Whatever goes wrong here, the daemon's built-in policy decides that round instead.
"""
import argparse
import json
import socket
import sys

PAGE_BYTES = 4096
ROOM = 1.25  # of its working set a VM is given, so that it can grow until the next round


def working_set_pages(vm):
    """What the VM uses: by sampling, else all it ever touched."""
    if "active_fraction" in vm:
        return vm["active_fraction"] * vm["memory_pages"]
    return vm["memory_pages"] - vm.get("absent_pages", 0)


def decide(available_pages, vms):
    """Targets in pages by VM name, no more than available_pages together. Each gets its working set and some room; where that is too much
    for the host, everybody's part above his min is cut alike; what is left over goes to the large
    working sets, up to max."""
    want = {}
    for vm in vms:
        pages = ROOM * working_set_pages(vm)
        want[vm["name"]] = min(max(pages, vm["min_pages"]), vm["max_pages"])
    mins = sum(vm["min_pages"] for vm in vms)
    above = sum(want.values()) - mins
    room = available_pages - mins  # never negative: the daemon promises it
    part = min(1.0, room / above) if above > 0 else 0.0
    left = max(0.0, room - above)
    weight = sum(want.values())
    targets = {}
    for vm in vms:
        name = vm["name"]
        pages = vm["min_pages"] + part * (want[name] - vm["min_pages"])
        pages += left * want[name] / weight if weight > 0 else 0
        targets[name] = min(int(pages), vm["max_pages"])
    return targets


class Policy:
    """One connection that answers every question with decide()."""

    def __init__(self, path, name, deadline_ms=200, bad_limit=8, verbose=False):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")
        self.verbose = verbose
        self.last_id = 0
        self.lines.readline()  # the daemon's greeting
        self.call("policy.attach", name=name, deadline_ms=deadline_ms, bad_limit=bad_limit)

    def call(self, method, **params):
        self.last_id += 1
        self.send({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params})

    def send(self, message):
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def answer(self, question):
        targets = decide(question["available_pages"], question["vms"])
        self.call("policy.targets", round=question["round"],
                  targets={vm: pages * PAGE_BYTES for vm, pages in targets.items()})
        if self.verbose:
            print(f"round {question['round']}: {targets}", flush=True)

    def run(self):
        """Until the daemon or we are sent away. Returns an exit status."""
        attached = False
        for line in self.lines:
            message = json.loads(line)
            method = message.get("method")
            if method == "policy.rows":
                self.answer(message["params"])
            elif method == "policy.detached":
                print(f"working_set: detached: {message['params']['reason']}", file=sys.stderr)
                return 1
            elif "error" in message:
                print(f"working_set: {message['error']['message']}", file=sys.stderr)
                if not attached:
                    return 1
            attached = attached or "result" in message
        return 0  # the daemon has ended


def main():
    parser = argparse.ArgumentParser(description="memory by working sets")
    parser.add_argument("--socket", default="/run/ballast/ballastd.sock")
    parser.add_argument("--name", default="working-set")
    parser.add_argument("--deadline-ms", type=int, default=200)
    parser.add_argument("--bad-limit", type=int, default=8,
                        help="be sent away after so many late or wrong rounds in a row")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    try:
        return Policy(options.socket, options.name, options.deadline_ms, options.bad_limit,
                      options.verbose).run()
    except OSError as error:
        print(f"working_set: {options.socket}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
