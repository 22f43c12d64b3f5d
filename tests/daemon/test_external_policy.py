#!/usr/bin/env python3
"""External policies on the real daemon with real workers and bare-metal guests that want more
memory than there is: the two examples decide, then go wrong in every way there is.

usage: test_external_policy.py FOLDER_OF_PROGRAMS TINY_GUEST_IMAGE BALLOON_GUEST_IMAGE
                               FOLDER_OF_EXAMPLES EXAMPLE_IN_C [unittest arguments]
"""
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import unittest

import test_programs as programs
from test_programs import until

EXAMPLE_PY, EXAMPLE_C = os.path.join(sys.argv[4], "working_set.py"), sys.argv[5]
VMS = ("a", "b", "c")
MUCH_PAGES, EQUAL_PAGES = 3500, 2900  # a has more by shares; none has as much by working sets
BAD_LIMIT = 8
PATIENT = 1000  # where a busy computer must not decide how the test ends

spec = importlib.util.spec_from_file_location("working_set", EXAMPLE_PY)
working_set = importlib.util.module_from_spec(spec)
spec.loader.exec_module(working_set)


class Overcommitted(programs.WithFolder):
    """A host of 32 MiB with three guests of 16 that touch 13 MiB each, over and over. VM a has nearly
    all shares, so `proportional` fills its demand first; by working sets all three are equal."""

    start, end, create, state, row, stop, left_behind = (
        programs.Daemon.start, programs.Daemon.end, programs.Daemon.create, programs.Daemon.state,
        programs.Daemon.row, programs.Daemon.stop, programs.Daemon.left_behind)

    def setUp(self):
        super().setUp()
        self.start("--sharing", "off", "--period-ms", "500", machine="32MiB")
        for name in VMS:
            self.create_one(name)
        until(lambda: all(self.row(name)["absent_pages"] < 800 for name in VMS),
              "the guests have touched all")
        self.wait_for_built_in()

    def create_one(self, name):
        self.create(name, memory="16MiB", min="4MiB", shares=1000000 if name == "a" else 100)

    def path(self):
        return self.folder + "/run/ballastd.sock"

    def host(self):
        return self.client.call("host.stats")

    def external(self):
        """Its statistics; every round is accounted for, once."""
        nobody = {"name": "", "state": "none", "asked": 0, "kept": 0, "late": 0, "wrong": 0,
                  "overtaken": 0}
        external = self.host().get("external", nobody)
        ended = sum(external[name] for name in ("kept", "late", "wrong", "overtaken"))
        self.assertEqual(external["asked"], ended + (external["state"] == "asked"), external)
        return external

    def targets(self):
        return {name: self.row(name)["target_pages"] for name in VMS}

    def wait_for_built_in(self):
        """Proportional decides, and a has what it wants again."""
        until(lambda: self.targets()["a"] > MUCH_PAGES, "a has what it wants")
        self.assertEqual(self.host()["policy_active"], "proportional")

    def wait_for_equal_memory(self):
        """By working sets all three have the same, not in words only: it is paged in and out."""
        def equal():
            targets = self.targets().values()
            return max(targets) - min(targets) < 300 and max(targets) < EQUAL_PAGES
        until(equal, f"equal targets: {self.targets()}")
        until(lambda: all(abs(self.row(name)["allocated_pages"] - self.row(name)["target_pages"]) <
                          500 for name in VMS), "what they hold follows the targets")

    def spawn(self, command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)

        def end():
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stderr.close()
        self.addCleanup(end)
        return process

    def examples(self, bad_limit=PATIENT):
        return ([sys.executable, EXAMPLE_PY, "--socket", self.path(), "--name", "py",
                 "--deadline-ms", "500", "--bad-limit", str(bad_limit)],
                [EXAMPLE_C, self.path(), "c", "500", str(bad_limit)])

    def log_says(self, text):
        with open(self.folder + "/log") as log:
            return text in log.read()

    def finish(self):
        self.assertTrue(self.client.call("host.check")["ok"])
        for name in VMS:
            self.assertEqual(self.row(name)["refused_messages"], 0)
        self.stop()


class Examples(Overcommitted):
    def test_their_targets_take_effect_and_then_they_die_or_stop(self):
        for command, hasty in zip(self.examples(), self.examples(BAD_LIMIT)):
            name = "external:py" if "py" in command else "external:c"
            with self.subTest(name=name):
                policy = self.spawn(command)
                self.wait_for_equal_memory()
                until(lambda: self.host()["policy_active"] == name, "it decides")
                self.assertGreater(self.external()["kept"], 0)

                # Stopped: late round for round, each decided by the built-in policy; and back.
                policy.send_signal(signal.SIGSTOP)
                late = self.external()["late"]
                until(lambda n=late: self.external()["late"] > n + 1, "rounds are late")
                self.wait_for_built_in()
                policy.send_signal(signal.SIGCONT)
                self.wait_for_equal_memory()
                self.assertGreater(self.external()["refused"], 0)  # what it answered too late

                # Dead: the built-in policy decides as soon as the connection is gone.
                policy.kill()
                policy.wait()
                until(lambda: self.external()["state"] == "detached", "its end is noticed")
                self.wait_for_built_in()
                self.assertTrue(self.log_says(f"policy-detached: {name} is detached: its connection"))

                # Stopped for too long.
                policy = self.spawn(hasty)
                until(lambda: self.external()["state"] != "detached", "it is attached")
                policy.send_signal(signal.SIGSTOP)
                until(lambda: self.external()["state"] == "detached", "it is sent away")
                self.assertGreaterEqual(self.external()["late"], BAD_LIMIT)
                self.wait_for_built_in()
                self.assertTrue(self.log_says(f"policy-detached: {name} is detached: 8 bad rounds"))
                self.assertTrue(self.log_says("policy-bad: external:"))
                policy.send_signal(signal.SIGCONT)
                self.assertEqual(policy.wait(timeout=programs.TIMEOUT_S), 1)
                self.assertIn("8 bad rounds in a row", policy.stderr.read())
        self.finish()

    def test_two_at_a_time_are_one_too_many(self):
        first, second = (self.spawn(command) for command in self.examples())
        both = (first, second)
        until(lambda: any(policy.poll() is not None for policy in both), "one is turned away")
        loser, winner = (first, second) if first.poll() is not None else (second, first)
        self.assertEqual(loser.returncode, 1)
        self.assertIn("and there is one at a time", loser.stderr.read())
        self.wait_for_equal_memory()
        self.assertIsNone(winner.poll())
        self.finish()

    def test_an_example_ends_with_the_daemon(self):
        policies = [self.spawn(self.examples()[0])]
        self.wait_for_equal_memory()
        self.stop()
        self.assertEqual([policy.wait(timeout=programs.TIMEOUT_S) for policy in policies], [0])


class Misbehaving(working_set.Policy):
    """The example with another answer()."""

    def __init__(self, path, how):
        self.how = how
        super().__init__(path, how.__name__, 500, PATIENT if how is right else BAD_LIMIT)

    def answer(self, question):
        self.how(self, question)

    def targets(self, question, pages):
        self.call("policy.targets", round=question["round"],
                  targets={vm: count * working_set.PAGE_BYTES for vm, count in pages.items()})


def right(policy, question):
    policy.targets(question, working_set.decide(question["available_pages"], question["vms"]))


def garbage(policy, question):
    policy.socket.sendall(b"\x00\xffhello { \n")


def nan(policy, question):
    policy.call("policy.targets", round=question["round"],
                targets={vm["name"]: float("nan") for vm in question["vms"]})


def twice(policy, question):
    right(policy, question)
    right(policy, question)


def too_much(policy, question):
    policy.targets(question, {vm["name"]: vm["max_pages"] for vm in question["vms"]})


def negative(policy, question):
    policy.targets(question, {vm["name"]: -1 for vm in question["vms"]})


def wrong_vm(policy, question):
    policy.targets(question, {"ghost": 8192, **working_set.decide(question["available_pages"],
                                                              question["vms"])})


def one_missing(policy, question):
    policy.targets(question, {vm["name"]: vm["min_pages"] for vm in question["vms"][1:]})


def silent(policy, question):
    pass


class Wrong(Overcommitted):
    def run_policy(self, how):
        """A policy in a thread; returns the thread."""
        policy = Misbehaving(self.path(), how)
        self.addCleanup(policy.socket.close)
        self.addCleanup(policy.lines.close)
        thread = threading.Thread(target=self.swallow, args=(policy,))
        thread.start()
        return thread, policy

    @staticmethod
    def swallow(policy):
        stderr, sys.stderr = sys.stderr, open(os.devnull, "w")
        try:
            policy.run()
        except (OSError, ValueError):
            pass
        finally:
            sys.stderr.close()
            sys.stderr = stderr

    def test_the_built_in_policy_takes_over_from_every_kind(self):
        says = {garbage: "garbage: not JSON", nan: "garbage: not JSON", twice: "answered twice",
                too_much: "add up to", negative: "below its min", wrong_vm: "no VM of this round",
                one_missing: "no target for VM a", silent: "late, no answer within"}
        for how, fault in says.items():
            with self.subTest(how=how.__name__):
                runs = self.host()["policy_runs"]
                thread, _ = self.run_policy(how)
                faults = set()

                def is_sent_away(name=how.__name__):
                    external = self.external()
                    faults.add(external.get("last_fault", ""))
                    return external["name"] == name and external["state"] == "detached"
                until(is_sent_away, "it is sent away")
                thread.join(programs.TIMEOUT_S)
                external = self.external()
                self.assertEqual(external["name"], how.__name__)
                self.assertEqual(external["bad_in_a_row"], BAD_LIMIT, external)
                self.assertIn(fault, " ".join(faults) + external["last_fault"])
                self.assertTrue(self.log_says(f"external:{how.__name__} is detached: 8 bad rounds"))
                # No round was lost: each of them was decided.
                self.assertGreaterEqual(self.host()["policy_runs"] - runs, external["asked"])
                self.wait_for_built_in()
        # Complaints have a limit: a burst of 8, then one a second; each tells how many went before.
        self.assertGreater(self.host()["events_suppressed"], 0)
        self.assertTrue(self.log_says("policy-bad: external:garbage, round"))
        self.finish()

    def test_vms_come_and_go_in_the_middle_of_rounds(self):
        chance = random.Random(int(os.environ.get("BALLAST_TEST_SEED", "20020212")))
        thread, policy = self.run_policy(right)
        until(lambda: self.external()["kept"] > 0, "it decides")
        for _ in range(12):
            name = chance.choice(VMS)
            if chance.random() < 0.5:
                os.kill(self.row(name)["pid"], signal.SIGKILL)
                until(lambda n=name: self.state(n) == "stopped", "its end is noticed")
            else:
                self.client.call("vm.destroy", vm=name)
            time.sleep(chance.random() * 0.1)
            self.assertTrue(self.client.call("host.check")["ok"])
            self.create_one(name)
            time.sleep(chance.random() * 0.1)
        external = self.external()
        self.assertEqual((external["wrong"], external["state"] != "detached"), (0, True), external)
        self.wait_for_equal_memory()
        policy.socket.shutdown(2)
        thread.join(programs.TIMEOUT_S)
        until(lambda: self.external()["state"] == "detached", "its end is noticed")
        self.finish()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[6:]])
