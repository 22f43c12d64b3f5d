#!/usr/bin/env python3
"""ballast-vmm and ballastd as people start them, with the real worker and a bare-metal guest.

usage: test_programs.py FOLDER_OF_PROGRAMS TINY_GUEST_IMAGE BALLOON_GUEST_IMAGE [unittest arguments]
"""
import json
import os
import pty
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "machine"))
from tiny_guest import (  # noqa: E402
    ECHO, FINISH, FINISH_FAILURE, FINISH_REBOOT, REBOOT, SAY, SHUTDOWN, SHUTDOWN_FAILURE, SLEEP,
    SPIN, TIMER, TOUCH, kernel_of)

PROGRAMS, TINY_GUEST, BALLOON_GUEST = sys.argv[1:4]
VMM = os.path.join(PROGRAMS, "ballast-vmm")
DAEMON = os.path.join(PROGRAMS, "ballastd")
TIMEOUT_S = 30


def guest(folder, scenario):
    return kernel_of(TINY_GUEST, folder, scenario)


def children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    if int(stat.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found.append(int(entry))
            except OSError:
                pass
    return found


def gone(pid):
    """Has the process ended? A zombie that nobody has waited for has."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def until(condition, what, seconds=TIMEOUT_S):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


class WithFolder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ballast-test-")
        self.addCleanup(shutil.rmtree, self.folder)


class Vmm(WithFolder):
    def run_vmm(self, *arguments, stdin=subprocess.DEVNULL):
        return subprocess.run([VMM, *arguments], stdin=stdin, capture_output=True,
                              timeout=TIMEOUT_S, text=True)

    def test_exit_status_is_the_guests_verdict(self):
        for scenario, options, status in [(SHUTDOWN, [], 0), (FINISH, [], 0), (TIMER, [], 0),
                                          (REBOOT, ["-no-reboot"], 1),
                                          (FINISH_REBOOT, ["-no-reboot"], 1),
                                          (SHUTDOWN_FAILURE, [], 1), (FINISH_FAILURE, [], 1)]:
            with self.subTest(scenario=scenario):
                done = self.run_vmm("-m", "16", "-kernel", guest(self.folder, scenario), *options)
                self.assertEqual(done.returncode, status, done.stderr)
                self.assertEqual(status != 0, "ballast-vmm: " in done.stderr)

    def test_a_guest_that_resets_without_end_is_stopped(self):
        done = self.run_vmm("-m", "16", "-kernel", guest(self.folder, REBOOT), "-verbose")
        self.assertEqual(done.stderr.count("vm-reboot"), 8, done.stderr)
        self.assertIn("again and again", done.stderr)
        self.assertEqual(done.returncode, 1)

    def test_what_the_guest_says_comes_out(self):
        done = self.run_vmm("-m", "16", "-kernel", guest(self.folder, SAY), "-nographic")
        self.assertEqual(done.stdout, "hello from the guest\n")
        self.assertEqual(done.returncode, 0)

    def test_input_from_a_pipe_and_from_a_file_reaches_the_guest(self):
        path = os.path.join(self.folder, "input")
        with open(path, "w") as file:
            file.write("abcq")
        for source in ("pipe", "file"):
            with self.subTest(source=source), open(path) as file:
                vmm = subprocess.Popen([VMM, "-m", "16", "-kernel", guest(self.folder, ECHO)],
                                       stdin=file if source == "file" else subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
                words, _ = vmm.communicate(None if source == "file" else "abcq", timeout=TIMEOUT_S)
                self.assertEqual(words, "ready\nabcq")
                self.assertEqual(vmm.returncode, 0)

    def test_bad_options_are_refused_with_a_reason(self):
        kernel = guest(self.folder, SHUTDOWN)
        truncated = os.path.join(self.folder, "truncated")
        with open(kernel, "rb") as source, open(truncated, "wb") as target:
            target.write(source.read(48))
        foreign = os.path.join(self.folder, "foreign")
        with open(foreign, "wb") as target:
            target.write(b"\x7fELF" + bytes(4096))
        for options, says in [
                ([], "no -kernel"),
                (["-kernel"], "needs a value"),
                (["-kernel", "/nowhere/Image"], "/nowhere/Image"),
                (["-kernel", truncated], "truncated"),
                (["-kernel", foreign], "foreign"),
                (["-kernel", "/dev/null"], "/dev/null"),
                (["-kernel", kernel, "-m", "7"], "16 MiB"),
                (["-kernel", kernel, "-m", "much"], "not a size"),
                (["-kernel", kernel, "-m", "17"], "multiple of 2 MiB"),
                (["-kernel", kernel, "-smp", "2"], "one hart"),
                (["-kernel", kernel, "-initrd", "/nowhere/initrd"], "/nowhere/initrd"),
                (["-kernel", kernel, "-drive", "/nowhere/disk"], "/nowhere/disk"),
                (["-kernel", kernel, "-drive", "file=x,format=qcow2"], "qcow2"),
                (["-kernel", kernel, "-drive", "file=x,colour=red"], "colour"),
                (["-kernel", kernel, "-drive", "readonly=on"], "no file="),
                (["-kernel", kernel, "-drive", "/dev/null,readonly=yess"], "on or off"),
                (["-kernel", kernel, "-drive", "/nowhere/disk,readonly=on"], "/nowhere/disk:"),
                (["-kernel", kernel, "-drive", "file=x,readonly"], "not KEY=VALUE"),
                (["-kernel", kernel, "-vnc", ":1"], "unknown option"),
                (["disk.img"], "not an option"),
        ]:
            with self.subTest(options=options):
                done = self.run_vmm("-m", "16", *options)
                self.assertEqual(done.returncode, 1)
                self.assertIn(says, done.stderr)
                self.assertNotIn("\n", done.stderr.strip(), "one line says it")

    def test_help_and_version(self):
        for option in ("-help", "--help", "-h"):
            done = self.run_vmm(option)
            self.assertEqual(done.returncode, 0)
            self.assertIn("-kernel FILE", done.stdout)
        self.assertIn("ballast-vmm ", self.run_vmm("-version").stdout)

    def on_terminal(self, scenario, keys, expect_status, signal_number=None):
        """Run on a pseudo-terminal: wait for the guest, type keys, look at the terminal's mode."""
        master, slave = pty.openpty()
        before = termios.tcgetattr(slave)
        vmm = subprocess.Popen([VMM, "-m", "16", "-kernel", guest(self.folder, scenario)],
                               stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        words = b""
        while b"\n" not in words:
            words += os.read(master, 4096)
        raw = termios.tcgetattr(slave)
        self.assertFalse(raw[3] & (termios.ECHO | termios.ICANON | termios.ISIG))
        for key in keys:
            os.write(master, key)
            time.sleep(0.05)
        if signal_number:
            vmm.send_signal(signal_number)
        self.assertEqual(vmm.wait(timeout=TIMEOUT_S), expect_status)
        self.assertEqual(termios.tcgetattr(slave), before)
        os.set_blocking(master, False)
        try:
            words += os.read(master, 65536)
        except BlockingIOError:
            pass
        os.close(master)
        os.close(slave)
        return words.decode()

    def test_keys_on_a_terminal(self):
        self.assertIn("ready\n", self.on_terminal(ECHO, [b"q"], 0).replace("\r", ""))
        self.assertIn("terminated", self.on_terminal(SLEEP, [b"\x01x"], 1))
        self.assertIn("Ctrl-a x", self.on_terminal(SPIN, [b"\x01", b"h", b"\x01", b"x"], 1))
        # Ctrl-a Ctrl-a sends one; Ctrl-c is the guest's.
        self.assertIn("\x01\x03", self.on_terminal(ECHO, [b"\x01\x01\x03", b"q"], 0))
        words = self.on_terminal(TOUCH, [b"\x01c", b"info\r", b"check\r", b"bogus\r", b"stop\r",
                                         b"cont\r", b"quit\r"], 1)
        self.assertRegex(words, r"running, memory 16 MiB, allocated \d")
        self.assertIn("sound: 0 violations", words)
        self.assertIn("info, check, stop, cont, quit", words)

    def test_the_terminal_comes_back_on_a_signal(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number=number):
                words = self.on_terminal(SPIN, [], 1, number)
                self.assertIn(f"ended by signal {int(number)}", words)
        self.on_terminal(SPIN, [], -signal.SIGABRT, signal.SIGABRT)

    def test_the_worker_dies_with_a_killed_vmm(self):
        vmm = subprocess.Popen([VMM, "-m", "16", "-kernel", guest(self.folder, SPIN)],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        vmm.stdout.readline()
        workers = children(vmm.pid)
        self.assertEqual(len(workers), 1)
        vmm.kill()
        vmm.wait()
        vmm.stdout.close()
        until(lambda: gone(workers[0]), "the worker ends")


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT_S)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rwb")
        self.hello = json.loads(self.file.readline())
        self.number = 0

    def call(self, method, **params):
        self.number += 1
        request = {"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}
        self.file.write(json.dumps(request).encode() + b"\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise AssertionError(answer["error"]["message"])
                return answer["result"]

    def call_at_once(self, *calls):
        """Results of calls (method, parameters) that the daemon answers of one moment: a batch."""
        batch = [{"jsonrpc": "2.0", "id": f"part {i}", "method": method, "params": params}
                 for i, (method, params) in enumerate(calls)]
        self.file.write(json.dumps(batch).encode() + b"\n")
        self.file.flush()
        answers = json.loads(self.file.readline())
        while not isinstance(answers, list):
            answers = json.loads(self.file.readline())
        results = {answer["id"]: answer["result"] for answer in answers}
        return [results[request["id"]] for request in batch]

    def close(self):
        self.file.close()
        self.socket.close()


class Daemon(WithFolder):
    def start(self, *options, machine="48MiB", program=DAEMON):
        self.log = open(os.path.join(self.folder, "log"), "ab")
        self.addCleanup(self.log.close)
        self.daemon = subprocess.Popen(
            [program, "--machine-memory", machine, "--run-dir", self.folder + "/run", "--period-ms",
             "100", "--overhead", "1MiB", *options], stderr=self.log, stdin=subprocess.DEVNULL)
        self.addCleanup(self.end)
        path = self.folder + "/run/ballastd.sock"

        def connect():
            try:
                self.client = Client(path)
                return True
            except OSError:
                return False
        until(connect, "the control socket answers")
        self.addCleanup(self.client.close)
        return self.client

    def end(self):
        if self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()

    def create(self, name, scenario=TOUCH, **more):
        settings = {"memory": "24MiB", "min": "8MiB", "kernel": guest(self.folder, scenario)}
        self.client.call("vm.create", name=name, **{**settings, **more})

    def state(self, name):
        return self.client.call("vm.stats", vm=name)["state"]

    def left_behind(self):
        left = []
        for folder, _, names in os.walk(self.folder + "/run"):
            left += [os.path.join(folder, name) for name in names
                     if "swap" in name or name.endswith(".sock")]
        return left

    def stop(self, number=signal.SIGTERM, status=0):
        workers = children(self.daemon.pid)
        self.daemon.send_signal(number)
        self.assertEqual(self.daemon.wait(timeout=TIMEOUT_S), status)
        for worker in workers:
            self.assertFalse(os.path.exists(f"/proc/{worker}"), "a worker lives on")
        self.assertEqual(self.left_behind(), [])

    def test_sigterm_in_the_middle_of_it_all(self):
        for round_number in range(3):
            self.start()
            for name in ("a", "b", "c"):
                self.create(name)
            time.sleep(0.1 * round_number)
            self.client.file.write(b'{"jsonrpc":"2.0","id":1,"method":"host.check"}\n')
            self.client.file.flush()
            self.stop(random.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))

    def test_workers_killed_at_random_moments(self):
        self.start()
        self.create("other", scenario=TOUCH)
        until(lambda: self.state("other") == "running", "the other VM runs")
        before = 0
        for _ in range(8):
            self.create("victim")
            time.sleep(random.random() * 0.15)
            pid = self.client.call("vm.stats", vm="victim").get("pid")
            os.kill(pid, signal.SIGKILL)
            until(lambda: self.state("victim") == "stopped", "the end is noticed")
            check = self.client.call("host.check")
            self.assertTrue(check["ok"], check)
            host, row = self.client.call_at_once(("host.stats", {}), ("vm.stats", {"vm": "other"}))
            # its own frames, and as the only sharer every shared one
            self.assertEqual(host["granted_pages"] + host["shared_pages"], row["allocated_pages"])
            self.assertEqual(row["state"], "running")
            until(lambda: self.client.call("vm.stats", vm="other")["instructions"] > before,
                  "the other VM goes on")
            before = self.client.call("vm.stats", vm="other")["instructions"]
        self.stop()

    def test_a_killed_daemon_leaves_no_worker_and_its_folder_can_be_used_again(self):
        self.start()
        self.create("a")
        until(lambda: self.state("a") == "running", "the VM runs")
        workers = children(self.daemon.pid)
        self.assertEqual(len(workers), 1)
        self.daemon.kill()
        self.daemon.wait()
        until(lambda: gone(workers[0]), "the worker ends")
        self.assertNotEqual(self.left_behind(), [])
        self.start()
        self.assertEqual([path for path in self.left_behind() if "swap" in path], [])
        self.create("a")
        self.stop()

    def test_bad_configuration_names_file_and_line(self):
        path = os.path.join(self.folder, "ballastd.conf")
        for text, says in [("[host]\nmachine_memory = 3MiB\n", f"{path}:2: machine_memory"),
                           ("[host]\n\nmemory = 1GiB\n", f"{path}:3: unknown key 'memory'"),
                           ("[policy]\npolicy = magic\n", f"{path}:2: policy: no policy is")]:
            with open(path, "w") as file:
                file.write(text)
            done = subprocess.run([DAEMON, "--config", path], capture_output=True, text=True,
                                  timeout=TIMEOUT_S)
            self.assertEqual(done.returncode, 1)
            self.assertIn(says, done.stderr)
        with open(path, "w") as file:
            file.write("[host]\nmachine_memory = 64MiB\n")
        done = subprocess.run([DAEMON, "--config", path, "--check-config"], capture_output=True,
                              text=True, timeout=TIMEOUT_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        done = subprocess.run([DAEMON, "--config", path, "--check-config", "--machine-memory", "1"],
                              capture_output=True, text=True, timeout=TIMEOUT_S)
        self.assertEqual(done.returncode, 1)

    def test_a_vm_that_cannot_start_says_why(self):
        self.start()
        with self.assertRaisesRegex(AssertionError, "/nowhere/Image: No such file"):
            self.create("missing", kernel="/nowhere/Image")
        foreign = os.path.join(self.folder, "foreign")
        with open(foreign, "wb") as file:
            file.write(b"\x7fELF" + bytes(4096))
        self.create("bad", kernel=foreign)
        until(lambda: self.state("bad") == "stopped", "the worker gives up")
        self.assertIn("foreign", json.dumps(self.client.call("vm.stats", vm="bad")))
        self.assertEqual(self.client.call("host.stats")["granted_pages"], 0)
        self.stop()

    def test_an_installation_moved_as_a_whole_finds_its_worker(self):
        for folder, program in (("bin", "ballastd"), ("libexec", "ballast-worker")):
            os.mkdir(os.path.join(self.folder, folder))
            shutil.copy(os.path.join(PROGRAMS, program), os.path.join(self.folder, folder))
        self.start(program=os.path.join(self.folder, "bin", "ballastd"))
        self.create("a")
        until(lambda: self.state("a") == "running", "the VM runs")
        self.stop()

    def test_a_machine_larger_than_the_computer_is_said(self):
        self.start(machine="1023GiB")
        with open(os.path.join(self.folder, "log")) as log:
            self.assertIn("warning: machine memory of 1023 GiB is more than this computer's", log.read())
        self.stop()

    def test_pause_and_resume_at_any_moment(self):
        self.start(machine="96MiB")
        for scenario in (TOUCH, SLEEP, SPIN):
            for delay in (0, 0.01, 0.1):
                with self.subTest(scenario=scenario, delay=delay):
                    self.create("v", scenario)
                    time.sleep(delay)
                    self.client.call("vm.pause", vm="v")
                    self.assertEqual(self.state("v"), "paused")
                    before = self.client.call("vm.stats", vm="v")["instructions"]
                    self.assertTrue(self.client.call("host.check")["ok"])
                    time.sleep(0.02)
                    self.assertEqual(self.client.call("vm.stats", vm="v")["instructions"], before)
                    self.client.call("vm.resume", vm="v")
                    until(lambda: self.state("v") == "running", "it runs again")
                    self.client.call("vm.destroy", vm="v")
        self.stop()

    def row(self, name):
        return self.client.call("vm.stats", vm=name)

    def test_a_guests_balloon_follows_a_manual_target(self):
        self.start(machine="128MiB")
        self.create("v", memory="64MiB", min="16MiB", kernel=BALLOON_GUEST,
                    free_page_reporting=True)
        until(lambda: self.row("v").get("balloon_driver"), "the driver comes up")
        self.client.call("vm.set_target", vm="v", target="36MiB")
        until(lambda: self.row("v")["balloon_pages"] >= 6000, "the balloon grows")
        until(lambda: "free_memory_bytes" in self.row("v").get("guest", {}), "statistics come")
        time.sleep(1.5)  # the guest wants to be asked for them again
        self.assertTrue(self.client.call("host.check")["ok"])
        self.client.call("vm.set_target", vm="v", target=None)
        # The guest powers off with success once it has everything back and lost nothing.
        until(lambda: self.state("v") == "stopped", "the guest is content")
        with open(self.folder + "/run/vms/v/serial.log", errors="replace") as log:
            self.assertIn("powered off", json.dumps(self.row("v")), log.read())
        self.stop()

    def test_the_invariants_hold_after_every_step(self):
        seed = int(os.environ.get("BALLAST_TEST_SEED", "20020212"))
        steps = int(os.environ.get("BALLAST_TEST_STEPS", "40"))
        chance = random.Random(seed)
        client = self.start(machine="72MiB")
        kinds = {"touch": {"scenario": TOUCH}, "touch2": {"scenario": TOUCH},
                 "sleep": {"scenario": SLEEP},
                 "balloon": {"memory": "64MiB", "min": "8MiB", "kernel": BALLOON_GUEST,
                             "free_page_reporting": True}}

        def missing():
            alive = {vm["name"] for vm in client.call("vm.list")["vms"] if vm["state"] != "stopped"}
            for name, more in kinds.items():
                if name not in alive:
                    self.create(name, **more)

        def kill(name):
            os.kill(self.row(name)["pid"], signal.SIGKILL)

        def target(name):
            size = chance.choice([None, "8MiB", "12MiB", "20MiB", "24MiB"])
            client.call("vm.set_target", vm=name, target=size)

        def pause(name):
            client.call("vm.pause", vm=name)
            self.assertTrue(client.call("host.check")["ok"])
            client.call("vm.resume", vm=name)

        actions = [kill, target, target, target, pause,
                   lambda name: client.call("vm.destroy", vm=name),
                   lambda name: client.call("vm.set", vm=name, max=chance.choice(["10MiB", "24MiB"]))]
        for step in range(steps):
            missing()
            name = chance.choice(list(kinds))
            action = chance.choice(actions)
            try:
                action(name)
            except (AssertionError, KeyError, ProcessLookupError):
                if self.daemon.poll() is not None:
                    raise
            time.sleep(chance.random() * 0.03)
            check = client.call("host.check")
            self.assertTrue(check["ok"], f"seed {seed}, step {step}: {check}")
            for vm in client.call("vm.list")["vms"]:
                self.assertEqual(self.row(vm["name"]).get("refused_messages", 0), 0)
        self.stop()

    def test_systemd_is_told_when_it_is_ready_and_when_it_ends(self):
        path = os.path.join(self.folder, "notify")
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.settimeout(TIMEOUT_S)
        notify.bind(path)
        os.environ["NOTIFY_SOCKET"] = path
        try:
            self.start()
        finally:
            del os.environ["NOTIFY_SOCKET"]
        self.assertTrue(notify.recv(4096).startswith(b"READY=1"))
        self.stop()
        self.assertEqual(notify.recv(4096), b"STOPPING=1")
        notify.close()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
