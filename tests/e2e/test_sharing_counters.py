#!/usr/bin/env python3
"""The page of the counters of sharing, executed on the real daemon with workers whose pages have
contents of known multiplicity; and ballastctl sharing over the same.

usage: test_sharing_counters.py FOLDER_OF_PROGRAMS SHARING_WORKER COUNTERS.md FOLDER_OF_PROTOCOL_TESTS
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAMS, WORKER, PAGE = map(os.path.abspath, sys.argv[1:4])
sys.path.insert(0, sys.argv[4])
from ballast_socket import Client  # noqa: E402
from page_examples import differs, read_examples  # noqa: E402

TIMEOUT_S = 60
PAGE_BYTES = 4096
MIB = 1 << 20


class Counters(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ballast-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.socket = self.folder + "/run/ballastd.sock"
        self.daemon = subprocess.Popen(
            [os.path.join(PROGRAMS, "ballastd"), "--machine-memory", "64MiB", "--run-dir",
             self.folder + "/run", "--overhead", "1MiB", "--policy", "static"],
            stdin=subprocess.DEVNULL, env={**os.environ, "BALLAST_WORKER": WORKER})
        self.addCleanup(self.end)
        self.until(lambda: os.path.exists(self.socket))
        self.client = Client(self.socket, timeout=TIMEOUT_S)
        self.addCleanup(self.client.close)
        self.client.result("host.set", scan_cpu_percent=100, scan_pass_ms=20,
                           scan_min_pages_per_second=1000000, scan_max_pages_per_second=1000000)

    def end(self):
        self.daemon.send_signal(signal.SIGTERM)
        try:
            self.assertEqual(self.daemon.wait(timeout=TIMEOUT_S), 0)
        finally:
            if self.daemon.returncode is None:
                self.daemon.kill()
                self.daemon.wait()

    def until(self, condition):
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            self.assertLess(time.monotonic(), end, "did not happen in time")
            time.sleep(0.02)

    def settle(self, references, frames):
        """Wait until so much is shared and nothing is under way."""
        def settled():
            stats = self.client.result("sharing.stats")
            return (stats["shared_references"], stats["shared_frames"], stats["asked_pages"],
                    stats["pending_frames"], stats["waiting_pages"]) == (references, frames, 0, 0, 0)
        self.until(settled)

    def make_vms(self):
        for name, domain, pages in [("web1", "shop", "pages=200 content=mod:100 write=5"),
                                    ("web2", "shop", "pages=600 content=mod:300"),
                                    ("db", None, "pages=300 content=zero")]:
            options = {"sharing_domain": domain} if domain else {}
            self.client.result("vm.create", name=name, memory="16MiB", min="4MiB",
                               kernel="/dev/null", append=pages, **options)
        self.until(lambda: self.client.result("sharing.stats")["zero_references"] == 300)
        self.settle(800, 300)

    def store(self):
        os.kill(self.client.result("vm.stats", vm="web1")["pid"], signal.SIGUSR1)
        self.until(lambda: self.client.result("sharing.stats")["cow_breaks"] == 5)
        self.settle(795, 300)

    def leave(self):
        self.client.result("vm.set", vm="web1", sharing_domain=None)
        self.until(lambda: self.client.result("vm.stats", vm="web1")["shared_references"] == 190)
        self.settle(790, 395)

    def check_sums(self):
        """What the page says adds up does."""
        stats = self.client.result("sharing.stats")
        pairs = self.client.result("sharing.pairs")["pairs"]
        vms = stats["vms"]
        self.assertEqual(stats["saved_pages"], stats["shared_references"] - stats["shared_frames"] +
                         stats["zero_references"] - stats["asked_pages"])
        self.assertEqual(stats["net_saved_bytes"], stats["saved_pages"] * PAGE_BYTES - sum(
            stats[name] for name in ("table_bytes", "reference_bytes", "bitmap_bytes", "breaks_bytes")))
        frames = 64 * MIB // PAGE_BYTES
        self.assertTrue(16 * frames <= stats["table_bytes"] <= 20.1 * frames)
        for name in ("shared_references", "zero_references", "cow_breaks", "false_matches",
                     "shared_total", "hashed_pages", "covered_pages"):
            self.assertEqual(stats[name], sum(vm[name] for vm in vms), name)
        self.assertAlmostEqual(sum(pair["saved_pages"] for pair in pairs),
                               stats["shared_references"] - stats["shared_frames"], places=6)
        charges = sum(vm["shared_charge_pages"] for vm in vms)
        self.assertTrue(0 <= stats["shared_frames"] - charges < len(vms))
        self.assertTrue(0 <= sum(vm["shared_saved_pages"] for vm in vms) - stats["saved_pages"]
                        < len(vms))
        for vm in vms:
            self.assertGreater(vm["cpu_ns"], 0)
        self.assertLessEqual(sum(vm["cpu_ns"] for vm in vms), stats["cpu_ns"])
        host = self.client.result("host.stats")
        self.assertEqual((host["shared_pages"], host["saved_pages"]),
                         (stats["shared_frames"], stats["saved_pages"]))
        self.assertTrue(self.client.result("host.check")["ok"])

    def execute(self, text):
        """The examples of a part of the page."""
        count = 0
        for example in read_examples(text):
            for direction, line in example:
                if direction == "-->":
                    self.client.send_bytes(line.encode() + b"\n")
                    continue
                actual = self.client.receive()
                difference = differs(json.loads(line), actual)
                self.assertIsNone(difference, f"{difference}\n{line}\n{actual}")
                count += 1
        return count

    def test_the_page_says_what_happens(self):
        with open(PAGE) as file:
            page = file.read()
        parts = re.split(r"(?m)^##+ (.*)$", page)
        steps = {"An example with numbers": self.make_vms,
                 "web1 stores to 5 of its pages": self.store,
                 "web1 leaves the domain": self.leave}
        count = 0
        for heading, text in zip(parts[1::2], parts[2::2]):
            if heading in steps:
                steps.pop(heading)()
                self.check_sums()
            count += self.execute(text)
        self.assertEqual(steps, {})
        self.assertGreaterEqual(count, 8)
        for name in self.members():
            self.assertTrue(f"`{name}`" in page, f"{name} is not explained on the page")

    def members(self):
        """Names of numbers that the page must explain: all that are not settings or the scanner's
        own business, which PROTOCOL.md explains."""
        stats = self.client.result("sharing.stats")
        host = {"shared_frames", "shared_references", "zero_references", "saved_pages",
                "asked_pages", "net_saved_bytes", "table_bytes", "reference_bytes", "bitmap_bytes",
                "breaks_bytes", "cpu_ns", "cow_breaks", "false_matches", "hashed_pages",
                "covered_pages", "shared_total", "shares", "protects", "unshares",
                "copies"}
        vm = {"shared_charge_pages", "shared_saved_pages", "dropped"}
        self.assertLessEqual(host, set(stats))
        self.assertLessEqual(vm, set(stats["vms"][0]))
        return host | vm

    def ctl(self, *arguments):
        done = subprocess.run([os.path.join(PROGRAMS, "ballastctl"), "--socket", self.socket,
                               *map(str, arguments)], capture_output=True, text=True,
                              timeout=TIMEOUT_S)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_provenance_names_who_and_since_when(self):
        self.make_vms()
        page = self.client.result("sharing.page", vm="web1", ppn=3)
        self.assertTrue(page["shared"])
        frame = self.client.result("sharing.frame", mpn=page["mpn"])
        self.assertEqual((frame["kind"], frame["references"], frame["hint"]), ("shared", 4, False))
        self.assertEqual(sorted((one["vm"], one["ppn"]) for one in frame["sharers"]),
                         [("web1", 3), ("web1", 103), ("web2", 3), ("web2", 303)])
        hows = sorted(one["how"] for one in frame["sharers"])
        self.assertEqual(frame["how"], "hint")  # the first of all pages of a content is one
        self.assertGreaterEqual(hows.count("hint"), 1)
        self.assertLessEqual(set(hows), {"hint", "shared"})
        first = min(one["since_ns"] for one in frame["sharers"])
        self.assertEqual(frame["since_ns"], first)
        self.assertTrue(0 < first < frame["time_ns"])
        self.assertEqual(self.client.result("sharing.page", vm="db", ppn=3)["how"], "zero")
        zero = self.client.result("sharing.frame",
                                  mpn=self.client.result("sharing.page", vm="db", ppn=3)["mpn"])
        self.assertEqual((zero["kind"], zero["references"], len(zero["sharers"]), zero["how"]),
                         ("zero", 300, 64, "zero"))
        # Whoever leaves, the frame has been shared since it was.
        self.store()
        again = self.client.result("sharing.frame", mpn=page["mpn"])
        self.assertEqual((again["references"], again["since_ns"]), (3, frame["since_ns"]))
        self.assertEqual({one["how"] for one in again["sharers"]} - set(hows), set())
        breaks = self.client.result("sharing.breaks")
        self.assertEqual([one["ppn"] for one in breaks["breaks"]], [4, 3, 2, 1, 0])
        self.assertEqual(breaks["breaks"][1]["mpn"], page["mpn"])
        self.assertEqual(breaks["breaks"][1]["how"], page["how"])
        self.assertTrue(first <= breaks["breaks"][1]["time_ns"] <= breaks["time_ns"])
        private = self.client.result("sharing.frame", mpn=0)
        self.assertIn(private["kind"], ("free", "private", "shared"))

    def test_ballastctl_shows_it(self):
        self.make_vms()
        text = self.ctl("sharing")
        self.assertRegex(text, r"(?m)^saved_pages +800 \(3\.1 MiB\)$")
        self.assertRegex(text, r"(?m)^VM +DOMAIN +ON +SHARED +ZERO +CHARGE +SAVED +CPU +BREAKS +FALSE$")
        self.assertRegex(text, r"(?m)^web2 +shop +yes +2\.3 MiB +0 B +1000 KiB +1\.4 MiB +\d+\.\d{3} s +0 +0$")
        self.assertRegex(text, r"(?m)^db +- +yes +0 B +1\.2 MiB +0 B +1\.2 MiB ")
        self.assertEqual(self.ctl("sharing", "pairs"),
                         "A     B     FRAMES  SAVED-PAGES  BREAKS\n"
                         "web1  web1     100         50.0       0\n"
                         "web1  web2     100        200.0       0\n"
                         "web2  web2     300        250.0       0\n")
        mpn = json.loads(self.ctl("sharing", "page", "web2", 7, "--json"))["mpn"]
        self.assertRegex(self.ctl("sharing", "page", "web2", 7), rf"(?m)^mpn +{mpn}$")
        text = self.ctl("sharing", "frame", mpn)
        self.assertRegex(text, r"(?m)^kind +shared$")
        self.assertRegex(text, r"(?m)^VM +PPN +SHARED-FOR +FOUND$")
        self.assertRegex(text, r"(?m)^web2 +307 +\d+\.\d{3} s +(hint|shared)$")
        zero = json.loads(self.ctl("sharing", "page", "db", 0, "--json"))["mpn"]
        self.assertRegex(self.ctl("sharing", "frame", zero), r"\nthe first 64 of 300 references\n\Z")
        self.store()
        text = self.ctl("sharing", "breaks", "--limit=2")
        self.assertEqual(len(text.splitlines()), 3)
        self.assertRegex(text, r"(?m)^ *\d+\.\d{3} s +web1 +4 +\d+ +- +\d+\.\d{3} s +(hint|shared)$")
        self.assertEqual(len(json.loads(self.ctl("sharing", "breaks", "--json"))["breaks"]), 5)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[5:]])
