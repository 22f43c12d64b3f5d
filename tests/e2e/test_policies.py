#!/usr/bin/env python3
"""Debian guests beyond memory under every policy, one of a program outside too: shares, tax and policy change while
they run.

usage: test_policies.py BUILD_DIR/daemon [unittest arguments]

Two guests of 192 MiB with Debian's own kernel on 256 MiB of machine memory. Both fill their page
cache from a disk; one goes on reading it, the other sleeps. Without the guest's images
(guest_images.py) the test is skipped.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from guest_images import TREE, images_or_skip

sys.path.insert(0, os.path.join(TREE, "tests", "protocol"))
from ballast_socket import Client  # noqa: E402

PROGRAMS = sys.argv[1]
WORKING_SET = os.path.join(TREE, "daemon", "policy", "examples", "working_set.py")
LIMIT_S = 240
MIB = 256  # pages


class Policies(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ballast-policies-")
        self.addCleanup(shutil.rmtree, self.folder)
        disk = os.path.join(self.folder, "disk.img")
        with open(disk, "wb") as file:
            file.truncate(140 << 20)
        run = os.path.join(self.folder, "run")
        self.log = open(os.path.join(self.folder, "log"), "wb")
        self.addCleanup(self.log.close)
        self.daemon = subprocess.Popen(
            [os.path.join(PROGRAMS, "ballastd"), "--machine-memory", "256MiB", "--run-dir", run,
             # A disk of zeroes would be shared and cost nothing.
             "--sharing", "off", "--overhead", "1MiB", "--policy", "esx",
             "--idle-tax-percent", "0", "--period-ms", "500", "--sample-pages", "400",
             "--sample-period-ms", "2000", "--active-trigger-percent", "5"],
            stdin=subprocess.DEVNULL, stderr=self.log)
        self.addCleanup(self.end)
        path = os.path.join(run, "ballastd.sock")
        self.until("the daemon is up", lambda: os.path.exists(path))
        self.client_path = path
        self.client = Client(path, timeout=60)
        self.addCleanup(self.client.socket.close)
        for name, then in (("busy", "while :; do cat /dev/vda; done"), ("idle", "sleep 100000")):
            self.call("vm.create", name=name, memory="192MiB", min="48MiB",
                      kernel=os.path.join(IMAGES, "Image"),
                      initrd=os.path.join(IMAGES, "initrd.gz"),
                      append=f'console=ttyS0 ballast.run="(cat /dev/vda; {then}) >/dev/null"',
                      disks=[{"path": disk, "read_only": True}])
        # What they have touched is more than half of what there is, so it must be divided.
        self.until("both have filled their memory", lambda: all(
            self.row(name)["memory_pages"] - self.row(name)["absent_pages"] > 150 * MIB
            for name in ("busy", "idle")))
        self.until("both are sampled", lambda: all(
            "active_pages" in self.row(name) for name in ("busy", "idle")))

    def end(self):
        self.daemon.terminate()
        try:
            self.daemon.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
        self.assertEqual(self.daemon.returncode, 0)

    def call(self, method, **params):
        return self.client.result(method, **params)

    def row(self, name):
        return self.call("vm.stats", vm=name)

    def targets(self):
        """Both of one moment: rounds of the policy go on meanwhile."""
        self.client.send([{"jsonrpc": "2.0", "id": name, "method": "vm.stats", "params": {"vm": name}}
                          for name in ("busy", "idle")])
        rows = {answer["id"]: answer["result"] for answer in self.client.receive()}
        return rows["busy"]["target_pages"], rows["idle"]["target_pages"]

    def until(self, what, condition):
        end = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > end:
                rows = {name: self.row(name) for name in ("busy", "idle")}
                self.fail(f"not in time: {what}\n{rows}\n{self.call('host.stats')}")
            time.sleep(0.1)

    def trigger(self, wanted):
        """A decision of that trigger is on record for both guests' targets."""
        for name in ("busy", "idle"):
            found = self.call("decisions.explain", vm=name, limit=20)["decisions"]
            self.assertIn(wanted, [one["trigger"] for one in found])

    def sound(self):
        """The invariants hold, what is promised fits, and both guests live."""
        self.assertTrue(self.call("host.check")["ok"])
        host = self.call("host.stats")
        self.assertLessEqual(sum(self.targets()), host["machine_pages"])
        for name in ("busy", "idle"):
            row = self.row(name)
            self.assertEqual(row["state"], "running")
            self.assertLessEqual(row["min_pages"], row["target_pages"])
            self.assertLessEqual(row["target_pages"], row["max_pages"])

    def test_shares_tax_and_policy_change_while_guests_run(self):
        def apart():
            busy, idle = self.targets()
            return abs(busy - idle)
        self.until("equal shares and no tax give equal memory", lambda: apart() <= 1)
        self.sound()

        # Shares: what the poorer guest holds beyond its part is taken from it, and moves.
        self.call("vm.set", vm="busy", shares=3 * self.row("idle")["shares"])
        self.until("memory goes by shares", lambda: self.targets()[0] >= 2.5 * self.targets()[1])
        # Not down to its target: a host that is high again takes nothing that nobody needs.
        self.until("and moves", lambda: self.row("idle")["allocated_pages"]
                   < 0.7 * self.row("busy")["allocated_pages"])
        self.trigger("vm-setting")
        self.sound()
        self.call("vm.set", vm="busy", shares=self.row("idle")["shares"])
        self.until("and back", lambda: apart() <= 1)

        # Tax: idle memory costs four times as much, and the guest that sleeps has most of it.
        self.call("host.set", idle_tax_percent=75)
        self.until("the idle guest is taxed", lambda: self.targets()[0] > 1.25 * self.targets()[1])
        self.trigger("host-setting")
        # What either was when it filled its memory wears off.
        self.until("the guest that sleeps is seen idle", lambda: self.row("idle")["active_pages"]
                   < self.row("busy")["active_pages"])
        self.sound()
        # ... unless it has a tax of its own
        self.call("vm.set", vm="idle", idle_tax_percent=0)
        self.until("it is not taxed", lambda: self.targets()[0] < 1.25 * self.targets()[1])
        self.call("vm.set", vm="idle", idle_tax_percent=None)
        self.call("host.set", idle_tax_percent=0)
        self.until("equal again", lambda: apart() <= 1)

        for policy in ("static", "proportional", "esx"):
            before = self.call("host.stats")["policy_runs"]
            self.call("host.set", policy=policy)
            self.until(f"{policy} decides", lambda: self.call("host.stats")["policy_runs"]
                       > before + 3 and self.call("host.stats")["policy_active"] == policy)
            if policy == "static":
                self.assertEqual(self.targets(), (192 * MIB, 192 * MIB))
                self.assertTrue(self.call("host.check")["ok"])
            else:
                self.until("both policies divide it equally", lambda: apart() <= 1)
                self.sound()

        # A program outside decides, by working sets, and the built-in policy once it is gone.
        program = subprocess.Popen([sys.executable, WORKING_SET, "--socket", self.client_path,
                                    "--deadline-ms", "5000"], stdin=subprocess.DEVNULL, stderr=self.log)
        try:
            self.until("the program decides", lambda: self.call("host.stats")["policy_active"]
                       .startswith("external:"))
            self.until("the idle guest's working set is small",
                       lambda: self.targets()[0] > 1.25 * self.targets()[1])
            self.until("and memory moves", lambda: self.row("idle")["allocated_pages"]
                       < self.row("busy")["allocated_pages"])
            self.sound()
        finally:
            program.kill()
            program.wait()
        self.until("it is gone", lambda: self.call("host.stats")["policy_active"] == "esx")
        self.until("the built-in policy divides it equally", lambda: apart() <= 1)
        self.sound()


if __name__ == "__main__":
    IMAGES = images_or_skip()
    unittest.main(argv=[sys.argv[0]] + sys.argv[2:], verbosity=2)
