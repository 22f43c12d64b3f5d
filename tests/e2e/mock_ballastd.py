#!/usr/bin/env python3
"""Stands in for ballastd in the runner's tests: the same options, socket and files.

Its guests are threads that answer the agent protocol: `sh .../workloads/NAME`
prints the results that MOCK_RESULTS (JSON, {name: output}) gives, with a new
number each time for COUNTER in them; rmmod takes the balloon driver away.
MOCK_FAULT is what happens instead when crunch runs on b: "die" (the daemon ends),
"restart" (the guest starts anew), "hang". While crunch runs, memory moves by a
fixed script: from guest a's balloon while it has a driver, else by paging. Guests of one
sharing domain share half of their memory while sharing is on, as one frame for all.
"""
import argparse
import json
import os
import signal
import socket
import sys
import threading
import time

MIB_PAGES = 256


class Vm:
    """A guest: figures for its row, and its agent on hvc0.sock."""

    def __init__(self, host, params):
        self.host, self.name = host, params["vm" if "vm" in params else "name"]
        self.memory_pages = params["memory"] // 4096
        self.domain = params.get("sharing_domain")
        self.driver, self.balloon, self.paged, self.swap_in, self.swap_out = True, 0, 0, 0, 0
        folder = os.path.join(host.run_dir, "vms", self.name)
        os.makedirs(folder)
        open(os.path.join(folder, "serial.log"), "wb").close()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(os.path.join(folder, "hvc0.sock"))
        self.listener.listen(1)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.listener.accept()
            with connection.makefile("rwb") as stream:
                stream.write(b"ready 1\n")
                stream.flush()
                for line in stream:
                    number, command = line.decode().strip().split(" ", 1)
                    fault = os.environ.get("MOCK_FAULT") if "crunch" in command else None
                    if fault == "die":
                        os._exit(9)
                    if fault == "restart":
                        stream.write(b"ready 1\n")
                        stream.flush()
                    if fault:
                        continue
                    status, output = self.command(command)
                    answer = "".join(f"{number}> {text}\n" for text in output.splitlines())
                    stream.write(f"{answer}{number}! {status}\n".encode())
                    stream.flush()

    def command(self, command):
        words = command.split()
        if words[0] == "rmmod":
            self.driver, self.balloon = False, 0
        if words[0] == "sh":
            name = os.path.basename(words[1])
            self.host.work(self, name)
            results = json.loads(os.environ.get("MOCK_RESULTS", "{}"))
            if name not in results:
                return 1, f"no results for {name}"
            self.host.answered += 1
            return 0, results[name].replace("COUNTER", str(self.host.answered))
        return 0, "65536" if "meminfo" in command else ""

    def row(self):
        held = self.memory_pages - self.balloon - self.paged
        return {"name": self.name, "state": "running", "memory_pages": self.memory_pages,
                "allocated_pages": held, "balloon_pages": self.balloon, "paged_pages": self.paged,
                "balloon_target_pages": self.balloon, "balloon_driver": self.driver,
                "target_pages": held, "swap_in_pages": self.swap_in, "swap_out_pages": self.swap_out,
                "overhead": {"total_bytes": 5 << 20},
                "guest": {"free_memory_bytes": 64 << 20} if self.driver else {}}


class MockHost:
    def __init__(self, arguments):
        self.run_dir, self.machine_pages = arguments.run_dir, int(arguments.machine_memory) // 4096
        self.vms, self.sharing, self.answered = {}, False, 0

    def work(self, vm, name):
        """Memory moves from the first guest while another works, and back when it reads."""
        first = next(iter(self.vms.values()))
        if name == "crunch" and vm is not first:
            for _ in range(8):
                if first.driver:
                    first.balloon += 8 * MIB_PAGES
                else:
                    first.paged += 8 * MIB_PAGES
                    first.swap_out += 8 * MIB_PAGES
                time.sleep(0.05)
        elif vm is first:
            time.sleep(0.15)
            first.balloon = 0
            first.swap_in += first.paged
            first.paged = 0
            time.sleep(0.15)

    def rows(self):
        promised = sum(vm.memory_pages for vm in self.vms.values())
        sharers = [vm.memory_pages // 2 for vm in self.vms.values() if vm.domain and self.sharing]
        sharers = sharers if len(sharers) > 1 else []
        return {"time_ns": time.monotonic_ns(),
                "host": {"machine_pages": self.machine_pages, "free_pages": 8 * MIB_PAGES,
                         "granted_pages": self.machine_pages - 8 * MIB_PAGES, "state": "soft",
                         "shared_references": sum(sharers), "zero_references": MIB_PAGES,
                         "saved_pages": sum(sharers[1:]) + MIB_PAGES,
                         "overcommit_ratio": promised / self.machine_pages},
                "vms": [vm.row() for vm in self.vms.values()]}

    def call(self, client, method, params):
        if method == "vm.create":
            self.vms[params["name"]] = Vm(self, params)
            return {"vm": params["name"]}
        if method == "host.set":
            self.sharing = params.get("sharing", self.sharing)
            return self.rows()["host"]
        if method == "vm.list":
            return {"vms": [{"name": name, "state": "running"} for name in self.vms]}
        if method == "vm.stats":
            return self.vms[params["vm"]].row()
        if method == "host.stats":
            return self.rows()["host"]
        if method == "sharing.stats":
            return {"cpu_ns": 0, "cow_breaks": 0, "table_bytes": 1 << 20, "reference_bytes": 0,
                    "bitmap_bytes": 0, "breaks_bytes": 0}
        if method == "host.check":
            return {"ok": True, "violations": [], "counts": {}}
        if method == "stats.subscribe":
            threading.Thread(target=self.stream, args=(client, params["interval_ms"]),
                             daemon=True).start()
            return {"subscription": 1}
        if method == "events.subscribe":
            return {"subscription": 2}
        raise ValueError("Method not found")

    def stream(self, client, interval_ms):
        while True:
            send(client, {"jsonrpc": "2.0", "method": "stats.rows", "params": self.rows()})
            time.sleep(interval_ms / 1000)

    def serve(self, client):
        send(client, {"jsonrpc": "2.0", "method": "hello",
                      "params": {"server": "ballastd", "version": "0", "protocol": 1,
                                 "capabilities": []}})
        with client.makefile("rb") as stream:
            for line in stream:
                request = json.loads(line)
                answer = {"jsonrpc": "2.0", "id": request["id"]}
                try:
                    answer["result"] = self.call(client, request["method"], request["params"])
                except ValueError as error:
                    answer["error"] = {"code": -32601, "message": str(error)}
                send(client, answer)


LOCK = threading.Lock()


def send(client, message):
    with LOCK:
        try:
            client.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass


def main():
    parser = argparse.ArgumentParser()
    for option in ("machine-memory", "socket", "run-dir", "policy", "period-ms", "random-seed"):
        parser.add_argument(f"--{option}", required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    host = MockHost(arguments)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(arguments.socket)
    listener.listen(8)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=host.serve, args=(client,), daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
