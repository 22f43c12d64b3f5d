#!/usr/bin/env python3
"""ballastctl top over the real control socket and a supervisor without workers.

usage: test_top.py BALLASTCTL RPC_TEST_SERVER CLASS
"""
import csv
import io
import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "protocol"))
from ballast_socket import Server  # noqa: E402
from small_terminal import Terminal  # noqa: E402

CTL, SERVER = (os.path.abspath(path) for path in sys.argv[1:3])


class WithServer(unittest.TestCase):
    def setUp(self):
        self.start_server()

    def start_server(self):
        self.server = Server(SERVER)
        self.addCleanup(self.end_server, self.server)
        self.client = self.server.client()
        self.addCleanup(self.client.close)

    def end_server(self, server):
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
        server.process.stdin.close()
        server.process.stdout.close()
        server.folder.cleanup()

    def create(self, name, memory="1GiB", **options):
        self.client.result("vm.create", name=name, memory=memory, kernel="/k", **options)

    def batch(self, *arguments, status=0):
        done = subprocess.run([CTL, "--socket", self.server.path, "top", "-b", *arguments],
                              capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(done.returncode, status, done.stderr)
        self.said = done.stderr
        return list(csv.DictReader(io.StringIO(done.stdout)))


class Batch(WithServer):
    def test_a_line_a_vm_and_sample(self):
        self.create("busy-a")
        self.create("plain", "256MiB", shares=77, min="64MiB")
        rows = self.batch("-n", "3", "-d", "0.2")
        self.assertEqual([row["NAME"] for row in rows], ["busy-a", "plain"] * 3)
        plain = rows[-1]
        self.assertEqual((plain["MEMSZ"], plain["SHARES"], plain["MIN"], plain["STATE"]),
                         ("256.000", "77", "64.000", "running"))
        self.assertEqual((plain["HOST_STATE"], plain["HOST_PMEM"]), ("high", "1024.000"))
        self.assertEqual([plain[f"OVERCOMMIT_{m}M"] for m in (1, 5, 15)], ["0.250", "0.500", "0.250"],
                         "as the daemon has them, not as long as this program runs")
        self.assertRegex(plain["TIME"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")

    def test_rates_are_what_happened_between_two_samples(self):
        self.create("busy-a")
        rows = self.batch("-n", "4", "-d", "0.3", "-f", "NAME,SWR/s,SWW/s")
        self.assertEqual((rows[0]["SWR/s"], rows[0]["SWW/s"]), ("-", "-"), "one sample, no rate")
        for row in rows[1:]:  # 1000 and 2000 pages a second
            self.assertAlmostEqual(float(row["SWR/s"]), 1000 / 256, delta=0.3)
            self.assertAlmostEqual(float(row["SWW/s"]), 2000 / 256, delta=0.6)

    def test_what_means_nothing_is_a_dash(self):
        self.create("v", memory="64MiB")
        row = self.batch("-n", "1", "-f", "all")[0]
        self.assertEqual((row["GAVAIL"], row["SWR/s"], row["BLKD"]), ("-", "-", "no"))
        self.assertEqual(row["GFREE"], "100.000")
        self.assertGreater(len(row), 40)

    def test_a_host_without_vms_has_a_line_too(self):
        row = self.batch("-n", "1")[0]
        self.assertEqual((row["NAME"], row["MEMSZ"], row["HOST_FREE"]), ("-", "-", "1024.000"))

    def test_order_and_filter(self):
        for name, memory in (("web-2", "64MiB"), ("web-1", "128MiB"), ("db", "96MiB")):
            self.create(name, memory)
        names = lambda *arguments: [row["NAME"] for row in self.batch("-n", "1", *arguments)]
        self.assertEqual(names(), ["db", "web-1", "web-2"])
        self.assertEqual(names("-s", "-name"), ["web-2", "web-1", "db"])
        self.assertEqual(names("-s", "MEMSZ"), ["web-1", "db", "web-2"])
        self.assertEqual(names("-s", "-MEMSZ", "--filter", "WEB"), ["web-2", "web-1"])

    def test_mistakes_are_told(self):
        for arguments in (["-f", "NAME,COLOUR"], ["-s", "COLOUR"], ["-d", "0"], ["-d", "nan"],
                          ["-n", "0"], ["-F", "x" * 64], ["what"], ["-z"], ["-d"], ["-f", ""]):
            self.assertEqual(self.batch(*arguments, status=2), [])
            self.assertRegex(self.said, r"\Aballastctl: [^\n]+\n\Z", arguments)

    def test_a_daemon_that_is_not_there(self):
        self.end_server(self.server)
        self.assertEqual(self.batch("-n", "1", status=3), [])
        self.assertIn("connect to the daemon", self.said)


class Screen(WithServer):
    def open(self, *arguments, lines=24, columns=120, **environment):
        terminal = Terminal([CTL, "--socket", self.server.path, "top", "-d", "0.2", *arguments],
                            lines, columns, environment)
        self.addCleanup(terminal.close)
        return terminal

    def test_the_host_and_its_vms(self):
        self.create("busy-a", "4GiB")
        self.create("web", "256MiB")
        terminal = self.open()
        text = terminal.wait_for(r"(?m)^web +running +256\.0")
        self.assertRegex(text, r"state high .*policy proportional .*VMs 2 .*overcommit avg: 3\.25")
        self.assertRegex(text, r"(?m)^PMEM +1024\.0 total, +1024\.0 free")
        self.assertRegex(text, r"(?m)^VMKMEM +61\.4 minfree, +41\.0 soft, +20\.5 hard, +10\.2 low, .* high state$")
        for name in ("PSHARE", "SWAP", "ZIP", "MEMCTL"):
            self.assertRegex(text, rf"(?m)^{name} ")
        self.assertRegex(text, r"(?m)^NAME +STATE +MEMSZ +GRANT +SZTGT +TCHD +MCTLSZ")
        self.assertRegex(text, r"(?m)^busy-a +running +4096\.0 +2560\.0 +4096\.0 ")
        terminal.wait_for(r"(?m)^SWAP .* 3\.\d r/s, +7\.\d w/s")
        terminal.press("q")
        self.assertEqual(terminal.wait_end(), 0)

    def test_filter_sort_and_fields_by_keys(self):
        for i in range(3):
            self.create(f"web-{i}", f"{128 - 32 * i}MiB")
        self.create("db", "512MiB")
        terminal = self.open()
        terminal.wait_for(r"(?s)db .*web-0 .*web-1 .*web-2 ")
        terminal.press("r")
        terminal.wait_for(r"(?s)web-2 .*web-1 .*web-0 .*\ndb ")
        terminal.press("/web\n")
        terminal.wait_for(r"(?m)^db ", absent=True)
        terminal.wait_for(r"VMs with 'web' only")
        terminal.press("\x1b")
        terminal.wait_for(r"(?m)^db ")
        terminal.press("f")
        terminal.wait_for(r"(?m)^>\[x\] NAME .*\n \[x\] STATE ")
        terminal.press("\x1bOB ")  # down to STATE, hide it
        terminal.wait_for(r"\[ \] STATE")
        terminal.press("\x1bOBs\n")  # down to MEMSZ, sort by it
        text = terminal.wait_for(r"(?s)web-2 .*web-1 .*web-0 .*\ndb ")
        self.assertRegex(text, r"(?m)^NAME +MEMSZ")
        terminal.press("h")
        terminal.wait_for(r"any key leaves it")
        terminal.press("xq")
        self.assertEqual(terminal.wait_end(), 0)

    def test_the_history_grows(self):
        self.create("busy-a")
        terminal = self.open("-f", "NAME,HISTORY")
        terminal.wait_for("(?m)^busy-a +\u2587{4,}$")
        plain = self.open("-f", "NAME,HISTORY", LC_ALL="C")
        plain.wait_for(r"(?m)^busy-a +\*{4,}$")

    def test_more_vms_than_lines(self):
        for i in range(60):
            self.create(f"vm-{i:02}", "16MiB")
        terminal = self.open()
        terminal.wait_for(r"(?m)^vm-00 ")
        terminal.press("\x1b[B\x1bOB")
        terminal.press("\x1bOB" * 100)
        terminal.wait_for(r"(?m)^vm-59 ")
        terminal.press("\x1bOA")
        text = terminal.wait_for(r"(?m)^vm-59 ", absent=True)
        self.assertRegex(text, r"(?m)^vm-58 ")
        terminal.press("\x1bOC\x1bOC")
        terminal.wait_for(r"(?m)^NAME +GRANT")

    def test_terminals_of_any_size(self):
        self.create("web", "256MiB")
        for lines, columns in ((1, 1), (2, 10), (5, 20), (10, 40)):
            terminal = self.open(lines=lines, columns=columns)
            terminal.wait_for(r"b")
            for keys in ("f", "\n", "h", "x", "/w\n"):
                terminal.press(keys)
                terminal.run_for(0.05)
            terminal.press("q")
            self.assertEqual(terminal.wait_end(), 0, (lines, columns))

    def test_a_terminal_that_changes_its_size(self):
        self.create("web", "256MiB")
        terminal = self.open()
        terminal.wait_for(r"(?m)^web +running")
        for lines, columns in ((6, 30), (2, 5), (40, 200)):
            terminal.resize(lines, columns)
            terminal.run_for(0.3)
        text = terminal.wait_for(r"(?m)^web +running")
        self.assertIn("HISTORY", text)

    def test_a_daemon_that_goes_and_comes_back(self):
        self.create("web", "256MiB")
        terminal = self.open()
        terminal.wait_for(r"(?m)^web ")
        path, folder = self.server.path, self.server.folder
        self.server.process.kill()
        text = terminal.wait_for(r"(?m)(closed the connection|connect to the daemon).*trying again")
        self.assertRegex(text, r"(?m)^web ", "the last figures stay")
        self.server.process.wait()
        again = subprocess.Popen([SERVER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(folder.cleanup)
        self.addCleanup(again.stdout.close)
        self.addCleanup(lambda: (again.stdin.close(), again.wait()))
        terminal.wait_for(r"trying again", absent=True)
        terminal.wait_for(r"VMs 0 ")
        terminal.press("q")
        self.assertEqual(terminal.wait_end(), 0)

    def test_no_terminal_is_told(self):
        done = subprocess.run([CTL, "--socket", self.server.path, "top"], capture_output=True,
                              text=True, stdin=subprocess.DEVNULL, timeout=30, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, r"\Aballastctl: top: this is no terminal[^\n]*\n\Z")
        terminal = self.open(TERM="no-such-terminal")
        terminal.wait_for("the terminal 'no-such-terminal' is not known")
        self.assertEqual(terminal.wait_end(), 1)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[3:]])
