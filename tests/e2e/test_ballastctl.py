#!/usr/bin/env python3
"""ballastctl against the real daemon with real workers, and alone.

usage: test_ballastctl.py FOLDER_OF_PROGRAMS TINY_GUEST_IMAGE [unittest arguments]
"""
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "machine"))
from tiny_guest import ECHO, SLEEP, TOUCH, kernel_of  # noqa: E402

PROGRAMS, TINY_GUEST = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
CTL = os.path.join(PROGRAMS, "ballastctl")
DAEMON = os.path.join(PROGRAMS, "ballastd")
TIMEOUT_S = 30
COMMANDS = ["create", "list", "stats", "watch", "pause", "resume", "destroy", "set", "target",
            "host", "host-set", "check", "events", "console", "call", "version", "top", "metrics",
            "why", "record", "sharing", "policy"]


class WithFolder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ballast-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        os.chmod(self.folder, 0o755)

    def ctl(self, *arguments, status=0, stdin=None, **options):
        """Run ballastctl; standard output, after the checks every run must pass."""
        done = subprocess.run([CTL, *map(str, arguments)], input=stdin, capture_output=True,
                              text=True, timeout=TIMEOUT_S, cwd=self.folder,
                              env={**os.environ, "BALLAST_SOCKET": self.folder +
                                   "/run/ballastd.sock"}, **options)
        self.assertEqual(done.returncode, status, done.stderr + done.stdout)
        if status in (0, 4):
            self.assertEqual(done.stderr, "")
        else:
            self.assertRegex(done.stderr, r"\Aballastctl: [^\n]+\n\Z")
        self.said = done.stderr
        return done.stdout

    def json(self, *arguments, **options):
        return json.loads(self.ctl(*arguments, "--json", **options))


class Alone(WithFolder):
    def test_help_of_everything(self):
        text = self.ctl("--help")
        for command in COMMANDS:
            self.assertRegex(text, rf"(?m)^  {command} +\S")
            one = self.ctl(command, "--help")
            self.assertIn(f"usage: ballastctl {command}", one)
            self.assertEqual(one, self.ctl("-h", command))
            for line in (text + one).splitlines():
                self.assertLessEqual(len(line), 90)

    def test_mistakes_on_the_command_line(self):
        for arguments, says in [
                ([], "which command"),
                (["fly"], "no command 'fly'"),
                (["--socket"], "needs a path"),
                (["list", "x"], "too many"),
                (["list", "--long"], "no option '--long'"),
                (["create"], "argument is missing"),
                (["create", "--memory"], "needs a value"),
                (["create", "a", "--shares", "0"], "--shares"),
                (["create", "a", "--shares", "1x"], "--shares"),
                (["create", "-f", "/nowhere"], "/nowhere: No such file"),
                (["create", "-f", "-"], "-:1:"),
                (["pause"], "argument is missing"),
                (["set", "a"], "set what"),
                (["set", "--shares", "1"], "argument is missing"),
                (["set", "a", "--min", "some"], "not a size"),
                (["set", "a", "--idle-tax", "100"], "from 0 to 99"),
                (["create", "a", "--idle-tax", "low"], "from 0 to 99"),
                (["host-set", "--sample-period", "1"], "from 100"),
                (["host-set", "--sample-gains", "0.5"], "such as 0.25,0.75"),
                (["host-set", "--count-touched", "yes"], "on or off"),
                (["target", "a"], "argument is missing"),
                (["target", "a", "lots"], "not a size"),
                (["why"], "argument is missing"),
                (["why", "a", "-n", "0"], "from 1 to 64"),
                (["why", "a", "b"], "too many"),
                (["policy", "x"], "too many"),
                (["policy", "--attach"], "no option '--attach'"),
                (["host-set"], "set what"),
                (["host-set", "--thresholds", "6,4,2"], "such as 6,4,2,1"),
                (["host-set", "--period", "5"], "from 100 to 600000"),
                (["host-set", "--sliding", "yes"], "on or off"),
                (["host-set", "--set", "stall_ms"], "NAME=VALUE"),
                (["host-set", "--set", "stall_ms="], "NAME=VALUE"),
                (["host-set", "--sharing", "maybe"], "on or off"),
                (["set", "a", "--sharing", "1"], "on or off"),
                (["sharing", "all"], "no view 'all'"),
                (["sharing", "frame"], "argument is missing"),
                (["sharing", "frame", "-1"], "no option"),
                (["sharing", "frame", "0x10"], "MPN: '0x10' is not a whole number"),
                (["sharing", "frame", "4294967296"], "to 4294967295"),
                (["sharing", "frame", "1", "2"], "one argument too many: '2'"),
                (["sharing", "page", "a"], "argument is missing"),
                (["sharing", "page", "a", "b"], "PPN: 'b'"),
                (["sharing", "pairs", "a"], "one argument too many: 'a'"),
                (["sharing", "breaks", "--limit", "0"], "from 1 to 4096"),
                (["sharing", "breaks", "--limit"], "needs a value"),
                (["sharing", "pairs", "--limit", "5"], "--limit is for breaks"),
                (["watch", "--interval", "1"], "from 10"),
                (["watch", "--count", "-1"], "--count"),
                (["events", "--count", ""], "--count"),
                (["console", "../a"], "not a VM's name"),
                (["call"], "argument is missing"),
                (["call", "vm.list", "{"], "not JSON")]:
            with self.subTest(arguments=arguments):
                self.ctl(*arguments, status=2, stdin="")
                self.assertIn(says, self.said)

    def test_no_daemon(self):
        for arguments in (["list"], ["check"], ["pause", "a"], ["watch"], ["console", "a"]):
            self.ctl(*arguments, status=3)
            self.assertIn("/run/", self.said)
        with open(self.folder + "/file", "w") as file:
            file.write("no socket")
        self.ctl("--socket", "file", "list", status=3)
        self.ctl("list", f"--socket=/{'x' * 200}", status=3)


class WithDaemon(WithFolder):
    sharing = "off"  # these guests are all alike inside; sharing would leave nothing to reclaim

    def setUp(self):
        super().setUp()
        self.log = open(self.folder + "/log", "wb")
        self.addCleanup(self.log.close)
        self.daemon = subprocess.Popen(
            [DAEMON, "--machine-memory", "48MiB", "--run-dir", self.folder + "/run",
             "--sharing", self.sharing,
             "--period-ms", "100", "--overhead", "1MiB"],
            stdin=subprocess.DEVNULL, stderr=self.log)
        self.addCleanup(self.end)
        self.until(lambda: os.path.exists(self.folder + "/run/ballastd.sock"))
        self.until(lambda: subprocess.run([CTL, "--socket", self.folder + "/run/ballastd.sock",
                                           "list"], capture_output=True).returncode == 0)

    def end(self):
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                self.daemon.wait(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        self.assertEqual(self.daemon.returncode, 0)

    def until(self, condition, seconds=TIMEOUT_S):
        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end, "did not happen in time")
            time.sleep(0.02)

    def guest(self, scenario):
        return os.path.basename(kernel_of(TINY_GUEST, self.folder, scenario))

    def create(self, name, scenario, *options, memory="16MiB", minimum="4MiB"):
        self.ctl("create", name, "--memory", memory, "--min", minimum, "--kernel",
                 self.guest(scenario), *options)
        self.until(lambda: self.json("stats", name)["state"] == "running")


def worked_out(decision):
    """The target in pages by the rules that PROTOCOL.md prints."""
    numbers = decision["inputs"]
    least, most = numbers["min_pages"], numbers["max_pages"]
    paid = numbers["shares"] * numbers.get("pages_per_share", 0)
    bought, active = paid, numbers["active_pages"]
    if paid > active:
        bought = active + (paid - active) * (1 - numbers["idle_tax_percent"] / 100)
    order = min(max(numbers.get("manual_target_pages", 0), least), most)
    return {"manual": order, "manual-cut": max(least, min(order, int(bought))),
            "min": least, "max": most, "static": most, "demand": numbers.get("demand_pages"),
            "shares": int(bought), "rho": int(bought), "tax": int(bought),
            "surplus": int(numbers.get("base_pages", 0) + paid)}[decision["rule"]]


class Life(WithDaemon):
    def test_every_command_once(self):
        self.assertEqual(self.json("list"), {"vms": []})
        self.create("one", TOUCH, "--shares", "7", "--idle-tax", "30")
        self.assertRegex(self.ctl("list"), r"(?m)^one +running$")
        self.assertRegex(self.ctl("stats"), r"(?m)^NAME +STATE.*\none +running +16 MiB +4 MiB +7 ")
        self.assertRegex(self.ctl("stats", "one"), r"(?m)^min_pages +1024 \(4 MiB\)$")
        self.until(lambda: self.json("stats", "one")["allocated_pages"] > 1000)
        self.ctl("pause", "one")
        row = self.json("stats", "one")
        self.assertEqual(row["state"], "paused")
        time.sleep(0.1)
        self.assertEqual(self.json("stats", "one")["instructions"], row["instructions"])
        self.ctl("resume", "one")
        self.until(lambda: self.json("stats", "one")["instructions"] > row["instructions"])
        self.ctl("set", "one", "--shares", "99", "--min", "6MiB", "--max", "14MiB")
        row = self.json("stats", "one")
        self.assertEqual((row["shares"], row["min_pages"], row["max_pages"]), (99, 1536, 3584))
        self.assertEqual(row["idle_tax_percent"], 30)
        self.ctl("set", "one", "--idle-tax", "90")
        self.assertEqual(self.json("stats", "one")["idle_tax_percent"], 90)
        self.ctl("set", "one", "--idle-tax", "host")
        self.assertNotIn("idle_tax_percent", self.json("stats", "one"))
        self.assertRegex(self.ctl("host"), r"(?m)^machine_pages +12288 \(48 MiB\)$")
        self.ctl("host-set", "--policy", "static", "--thresholds", "8,4,2,1",
                 "--hysteresis", "0.5")
        host = self.json("host")
        self.assertEqual((host["policy"], host["thresholds"]["high"],
                          host["thresholds"]["hysteresis"]), ("static", 8, 0.5))
        self.ctl("host-set", "--sample-pages", "50", "--sample-period", "2000",
                 "--sample-gains", "0.125,0.5", "--count-touched", "on")
        host = self.json("host")
        self.assertEqual([host[f"sample_{name}"] for name in
                          ("pages", "period_ms", "slow_gain", "fast_gain")], [50, 2000, 0.125, 0.5])
        self.assertIs(host["count_touched"], True)
        self.ctl("host-set", "--sliding", "on", "--set", "stall_ms=3000", "--set", "slack_percent=0.7")
        host = self.json("host")
        self.assertEqual((host["threshold_pages"]["high"], host["policy_settings"]["stall_ms"],
                          host["policy_settings"]["slack_percent"]), (738, 3000, 0.7))
        self.assertRegex(self.ctl("policy"), r"\Apolicy +static\ndecided last +\w+\n")
        self.assertRegex(self.ctl("policy"), r"(?m)^\* static +targets stay")
        self.assertEqual(self.json("policy")["policy"], "static")
        self.assertRegex(self.ctl("check"), r"\Aok: 1 VMs, \d+ pages and 12288 frames checked, 0")
        self.assertTrue(self.json("check")["ok"])
        self.assertIn("policies", json.loads(self.ctl("call", "host.policies")))
        self.assertEqual(json.loads(self.ctl("call", "vm.stats", '{"vm":"one"}'))["name"], "one")
        self.assertRegex(self.ctl("version"), r"\Aballastctl \S+\nballastd \S+, protocol 1\n\Z")
        rows = [json.loads(line) for line in
                self.ctl("watch", "--interval", "20", "--count", "5").splitlines()]
        self.assertEqual([row["vms"][0]["name"] for row in rows], ["one"] * 5)
        self.ctl("destroy", "one")
        self.assertEqual(self.json("list"), {"vms": []})
        self.assertEqual(self.json("host")["granted_pages"], 0)

    def test_overcommit_is_averaged_by_the_daemon(self):
        self.assertEqual([self.json("host")[f"overcommit_{m}m"] for m in (1, 5, 15)], [0, 0, 0])
        before = time.monotonic()
        self.ctl("create", "big", "--memory", "96MiB", "--min", "4MiB", "--kernel",
                 self.guest(SLEEP))
        self.until(lambda: self.json("host")["overcommit_1m"] > 0.01)
        host = self.json("host")
        most = time.monotonic() - before
        self.assertEqual(host["overcommit_ratio"], 2)
        since = [-math.log(1 - host[f"overcommit_{m}m"]) * 60 * m for m in (1, 5, 15)]
        for seconds in since:  # that it has been 2 - 1, by each average the same
            self.assertAlmostEqual(seconds, since[0], places=3)
            self.assertLessEqual(seconds, most)
        self.ctl("destroy", "big")
        self.assertLess(self.json("host")["overcommit_ratio"], 1)
        last = self.json("host")["overcommit_1m"]
        self.until(lambda: self.json("host")["overcommit_1m"] < last)

    def test_an_order_is_paged_out_where_no_balloon_can(self):
        self.create("one", TOUCH)
        self.until(lambda: self.json("stats", "one")["allocated_pages"] > 3200)
        self.ctl("target", "one", "8MiB")
        row = self.json("stats", "one")
        self.assertEqual(row["manual_target_pages"], 2048)
        self.until(lambda: self.json("stats", "one")["swap_out_pages"] > 1000)
        self.ctl("target", "one", "auto")
        self.assertNotIn("manual_target_pages", self.json("stats", "one"))
        self.until(lambda: self.json("why", "one")["decisions"][0]["rule"] == "max")
        free, ordered = self.json("why", "one", "-n", 2)["decisions"]
        self.assertEqual((ordered["rule"], ordered["trigger"]), ("manual", "vm-setting"))
        self.assertEqual((ordered["target"], free["previous_target"]), (8 << 20, 8 << 20))
        self.assertRegex(self.ctl("why", "one", "-n", 2), r"\A\d{4}-\d\d-\d\dT[0-9:.]+Z  max "
                         r"\(policy \w+, round by [a-z-]+\): from 8 MiB to 16 MiB, since [^\n]+\n"
                         r"    shares 160 +min 4 MiB +max 16 MiB [^~]*\n\n\d{4}-[^\n]+  manual ")
        self.assertTrue(self.json("check")["ok"])

    def test_more_guests_than_memory_under_every_policy(self):
        policies = [one["name"] for one in json.loads(self.ctl("call", "host.policies"))["policies"]]
        self.assertGreaterEqual(set(policies), {"static", "proportional", "esx"})
        names = [f"g{i}" for i in range(4)]  # 64 MiB of guests on 48
        for policy in policies:
            self.ctl("host-set", "--policy", policy)
            for name in names:
                self.create(name, TOUCH)
            self.until(lambda: sum(row["swap_out_pages"] for row in self.json("stats")) > 100)
            time.sleep(0.5)
            before = {row["name"]: row["swap_in_pages"] for row in self.json("stats")}
            changes = self.json("host")["state_changes"]
            self.assertEqual(set(before), set(names))
            time.sleep(0.5)  # all that they do is paging now, and the host's state does not swing
            self.assertLess(self.json("host")["state_changes"] - changes, 10)
            for name in names:  # nobody starves
                self.until(lambda n=name: self.json("stats", n)["swap_in_pages"] > before[n] + 200)
            self.assertTrue(self.json("check")["ok"])
            self.assertRegex(self.ctl("stats", "g0", "g2"), r"(?m)^g0 .*\ng2 ")
            for name in names:
                for decision in self.json("why", name, "-n", 64)["decisions"]:
                    self.assertEqual(decision["target"], 4096 * worked_out(decision), decision)
            self.ctl("destroy", *names)
            self.assertEqual(self.json("host")["free_pages"], 12288)

    def test_create_from_a_file(self):
        text = json.dumps({"name": "filed", "memory": "16MiB", "min": "4MiB",
                           "kernel": self.guest(SLEEP)})
        with open(self.folder + "/vm.json", "w") as file:
            file.write(text)
        self.assertEqual(self.json("create", "--file", "vm.json"), {"vm": "filed"})
        self.ctl("create", "-f", "-", "--min", "8MiB", "piped", stdin=text)
        self.assertEqual(self.json("stats", "filed")["min_pages"], 1024)
        self.assertEqual(self.json("stats", "piped")["min_pages"], 2048)
        self.ctl("create", "-f", "vm.json", "--no-start", "later")
        self.assertEqual(self.json("stats", "later")["state"], "paused")
        self.ctl("resume", "later")
        self.until(lambda: self.json("stats", "later")["state"] == "running")
        with open(self.folder + "/vm.json", "w") as file:
            file.write('{"name": "bad",\n "memory": }')
        self.ctl("create", "-f", "vm.json", status=2)
        self.assertIn("vm.json:2:", self.said)

    def test_console(self):
        self.create("echo", ECHO)
        self.assertIn("abc", self.ctl("console", "echo", stdin="abc"))
        self.assertIn("q", self.ctl("console", "echo", stdin="q"))  # q shuts it down
        self.until(lambda: self.json("stats", "echo")["state"] == "stopped")
        self.ctl("console", "echo", status=3)
        self.assertRegex(self.ctl("stats", "echo"), r"(?m)^exit +\S")

    def test_events(self):
        lines = []

        def follow():
            lines.extend(self.ctl("events", "--count", "3").splitlines())
        follower = threading.Thread(target=follow)
        follower.start()
        self.until(lambda: len(os.listdir(f"/proc/{self.daemon.pid}/fd")) > 0)
        time.sleep(0.3)
        self.ctl("create", "seen", "--memory", "16MiB", "--kernel", self.guest(SLEEP))
        self.until(lambda: self.json("stats", "seen")["state"] == "running")
        self.ctl("pause", "seen")
        follower.join()
        self.assertEqual(len(lines), 3)
        self.assertRegex(lines[0], r"^\d{4}-\d\d-\d\dT\S+Z  seen +vm-created +\S")
        self.assertIn("vm-paused", lines[2])

    def test_events_of_watchers(self):
        self.create("restless", SLEEP)
        follower = subprocess.Popen([CTL, "--socket", self.folder + "/run/ballastd.sock", "events"],
                                    stdout=subprocess.PIPE, text=True)
        self.addCleanup(follower.stdout.close)
        self.addCleanup(follower.wait)
        self.addCleanup(follower.kill)
        self.assertNotIn("alerts", self.json("stats", "restless"))
        for pages in [2048, 4096] * 5:
            self.ctl("target", "restless", pages * 4096)
            self.until(lambda: self.json("stats", "restless")["target_pages"] == pages)
        self.until(lambda: self.json("host")["watch"]["flapping"] == 1)
        self.assertEqual(self.json("stats", "restless")["alerts"], "flapping")
        flapping = next(line for line in follower.stdout if "watch-" in line)
        self.assertRegex(flapping, r"Z  restless +watch-flapping +raised: its target turned \d+ times")
        self.assertRegex(self.ctl("metrics"), r'(?m)^ballast_host_watch_raised\{watcher="flapping"\} 1$')
        with open(self.folder + "/log") as log:
            self.assertIn("restless: watch-flapping: raised: ", log.read())


class Sharing(WithDaemon):
    sharing = "on"

    def test_a_guest_that_stores_to_what_it_shares(self):
        self.ctl("host-set", "--set", "scan_cpu_percent=100", "--set", "scan_pass_ms=20", "--set",
                 "scan_min_pages_per_second=1000000", "--set", "scan_max_pages_per_second=1000000",
                 "--set", "scan_settled_only=off", "--set", "shared_charge=full")
        stats = self.json("sharing")
        self.assertEqual((stats["sharing"], stats["scan_cpu_percent"], stats["scan_pass_ms"],
                          stats["scan_settled_only"], stats["vms"]), (True, 100, 20, False, []))
        self.assertEqual(self.json("host")["shared_charge"], "full")
        self.ctl("host-set", "--set", "shared_charge=equal")
        self.assertEqual(self.ctl("sharing", "breaks").count("\n"), 1)
        self.create("one", TOUCH, "--sharing-domain", "all")
        # Whatever it stores to every page, over and over: the pages are alike in between.
        self.until(lambda: any("pc" in one for one in self.json("sharing", "breaks")["breaks"]))
        breaks = self.json("sharing", "breaks", "--limit", "4096")["breaks"]
        for one in breaks:
            self.assertEqual(one["vm"], "one")
            self.assertIn(one["how"], ("hint", "shared", "zero", "paging"))
            if "pc" in one:  # the guest is loaded at the start of its memory
                self.assertTrue(0x80000000 <= int(one["pc"], 16) < 0x81000000, one)
        self.assertRegex(self.ctl("sharing", "breaks", "--limit", "1"),
                         r"\A +AGO +VM +PPN +MPN +PC +SHARED-FOR +FOUND\n"
                         r" *\d+\.\d{3} s +one +\d+ +\d+ +(0x8\w+|-) +\d+\.\d{3} s +\w+\n\Z")
        self.assertGreater(self.json("sharing")["vms"][0]["cow_breaks"], 0)
        self.ctl("set", "one", "--sharing", "off")
        self.until(lambda: self.json("stats", "one")["shared_references"] == 0 and
                   self.json("stats", "one")["zero_pages"] == 0)
        self.ctl("set", "one", "--sharing", "on", "--sharing-domain", "none")
        self.assertNotIn("sharing_domain", self.json("stats", "one"))
        self.assertTrue(self.json("check")["ok"])

    def test_what_there_is_not(self):
        for arguments, says in [(["frame", "12289"], "no frame 12289"),
                                (["page", "ghost", "1"], "no VM 'ghost'")]:
            self.ctl("sharing", *arguments, status=1)
            self.assertIn(says, self.said)
        self.assertEqual(self.json("sharing", "frame", "0")["kind"], "free")
        self.assertRegex(self.ctl("sharing", "frame", "12288"), r"(?m)^kind +zero$")
        self.create("one", SLEEP)
        self.assertEqual(self.json("sharing", "page", "one", "4294967295"), {"shared": False})
        self.assertRegex(self.ctl("sharing", "page", "one", "4294967295"), r"\Ashared +no\n\Z")
        self.ctl("set", "one", "--sharing-domain", "no such name", status=1)
        self.assertIn("letters, digits", self.said)


class Refusals(WithDaemon):
    def test_what_the_daemon_refuses(self):
        for arguments, says in [
                (["stats", "ghost"], "no VM 'ghost'"),
                (["pause", "ghost"], "no VM 'ghost'"),
                (["create", "a"], "memory is missing"),
                (["create", "a", "--memory", "16MiB"], "kernel is missing"),
                (["create", "a/b", "--memory", "16MiB", "--kernel", "/k"], "a/b"),
                (["create", "a", "--memory", "17MiB", "--kernel", "/k"], "2 MiB"),
                (["create", "a", "--memory", "1GiB", "--kernel", "/k"], "a"),
                (["policy", "--detach"], "no external policy is attached"),
                (["call", "no.such"], "no method"),
                (["call", "vm.list", "[]"], "params"),
                (["host-set", "--policy", "magic"], "magic"),
                (["host-set", "--set", "stall_ms=soon"], "stall_ms"),
                (["host-set", "--set", "shared_charge=some"], "equal, full or none"),
                (["host-set", "--set", "scan_settled_only=1"], "scan_settled_only"),
                (["host-set", "--thresholds", "1,2,3,4"], "fall from high to low")]:
            with self.subTest(arguments=arguments):
                self.ctl(*arguments, status=1)
                self.assertIn(says, self.said)
        self.assertEqual(self.json("list"), {"vms": []})

    def test_a_kernel_that_is_none(self):
        self.ctl("create", "a", "--memory", "16MiB", "--kernel", "/nowhere/Image", status=1)
        self.assertIn("kernel /nowhere/Image: No such file", self.said)
        # What is in the file the VM's own worker finds out.
        self.ctl("create", "a", "--memory", "16MiB", "--kernel", CTL)
        self.until(lambda: self.json("stats", "a")["state"] == "stopped")
        self.assertIn("ELF file for another machine", self.json("stats", "a")["exit"])

    def test_the_daemon_ends_while_someone_watches(self):
        watcher = subprocess.Popen([CTL, "--socket", self.folder + "/run/ballastd.sock", "watch"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        watcher.stdout.readline()
        self.end()
        self.assertIn(b"closed the connection", watcher.communicate(timeout=TIMEOUT_S)[1])
        self.assertEqual(watcher.returncode, 3)

    @unittest.skipUnless(os.geteuid() == 0, "needs root to be someone else")
    def test_someone_else(self):
        self.create("mine", SLEEP)
        options = {"user": 65533, "group": 65533, "extra_groups": []}
        self.ctl("list", status=3, **options)  # the socket's mode keeps him out
        self.assertIn("Permission denied", self.said)
        os.chmod(self.folder + "/run", 0o755)
        os.chmod(self.folder + "/run/ballastd.sock", 0o666)
        self.assertIn("mine", self.ctl("list", **options))
        for arguments in (["destroy", "mine"], ["check"], ["set", "mine", "--shares", "1"]):
            self.ctl(*arguments, status=1, **options)
            self.assertIn("only root", self.said)
        self.assertRegex(self.ctl("list"), r"mine +running")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
