#!/usr/bin/env python3
"""ballastctl record against the real daemon, and its files whole, cut off, damaged and made up.

usage: test_record.py FOLDER_OF_PROGRAMS TINY_GUEST_IMAGE RPC_TEST_SERVER CLASS
"""
import csv
import gzip
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
import unittest
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "protocol"))
from ballast_socket import Client, Server  # noqa: E402
from test_ballastctl import CTL, SLEEP, TOUCH, WithDaemon, WithFolder  # noqa: E402

SERVER = os.path.abspath(sys.argv[3])
PATIENCE_S = 60
PROTOCOL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../daemon/rpc/PROTOCOL.md")


def members(value):
    """Every name in a JSON value."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield name
        yield from members(inner)
    for inner in value if isinstance(value, list) else ():
        yield from members(inner)


class Files(WithFolder):
    """What can be said of files without a daemon."""

    def run_record(self, *arguments, status=0):
        """Standard output; what was said on standard error in self.said."""
        done = subprocess.run([CTL, "record", *map(str, arguments)], capture_output=True, text=True,
                              timeout=PATIENCE_S, cwd=self.folder, check=False)
        self.assertEqual(done.returncode, status, done.stderr + done.stdout)
        self.said = done.stderr
        return done.stdout

    def info(self, path, **options):
        return json.loads(self.run_record("info", path, "--json", **options))

    def table(self, path, *options, **more):
        return list(csv.DictReader(io.StringIO(self.run_record("export", path, *options, **more))))

    def lines(self, path):
        with gzip.open(f"{self.folder}/{path}", "rt") as file:
            return [json.loads(line) for line in file]


class Reading(Files):
    HEADER = {"ballast_record": {"version": 1, "created": "2026-01-02T03:04:05Z"}}

    def write(self, *lines, name="made", members=1):
        """The lines, so many times, each time a member, with a sync after every ten."""
        with open(f"{self.folder}/{name}", "wb") as file:
            for member in range(members):
                packer = zlib.compressobj(wbits=31)
                text = json.dumps(self.HEADER) + "\n" if member == 0 else ""
                for i, line in enumerate(lines):
                    text += json.dumps(line) + "\n"
                    if i % 10 == 9:
                        text += f'{{"sync":{{"crc32":{zlib.crc32(text.encode())}}}}}\n'
                at = 0
                while (sync := text.find('{"sync"', at)) >= 0:
                    end = text.index("\n", sync) + 1
                    file.write(packer.compress(text[at:end].encode()))
                    file.write(packer.flush(zlib.Z_SYNC_FLUSH))
                    at = end
                file.write(packer.compress(text[at:].encode()) + packer.flush())
        return name

    def rows(self, count):
        return [{"rows": {"time_ns": i, "host": {"state": "high"},
                          "vms": [{"name": "a", "target_pages": i, "guest": {"free": 2 * i}}]}}
                for i in range(count)]

    def test_a_newer_format_is_refused_by_name(self):
        with gzip.open(self.folder + "/new", "wt") as file:
            file.write('{"ballast_record":{"version":2}}\n')
        for command in ("info", "export", "replay"):
            self.run_record(command, "new", status=1)
            self.assertIn("new has format 2, this program reads up to 1", self.said)

    def test_what_is_no_record_is_refused(self):
        for content in (b"", b"\n", b"TIME,HOST\n1,2\n", os.urandom(1000), gzip.compress(b""),
                        gzip.compress(b"{}\n"), gzip.compress(b'{"ballast_record":1}\n'),
                        gzip.compress(b'{"ballast_record":{"version":0}}\n'),
                        gzip.compress(b'{"ballast_record":{"version":1}}'),
                        gzip.compress(b"[]\n"), gzip.compress(b"{" * 100000 + b"\n")):
            with open(self.folder + "/strange", "wb") as file:
                file.write(content)
            for command in ("info", "export", "replay"):
                self.assertEqual(self.run_record(command, "strange", status=1), "")
                self.assertRegex(self.said, r"\Aballastctl: strange[^\n]+\n\Z")
        self.run_record("info", "nowhere", status=1)
        self.assertIn("nowhere: No such file", self.said)

    def test_columns_are_all_members_that_occur(self):
        path = self.write(
            {"event": {"time_ns": 1, "kind": "a", "text": 'said "x, y"\nand went'}},
            {"event": {"time_ns": 2, "vm": "=v", "kind": "b", "text": ""}},
            {"decision": {"time_ns": 3, "vm": "v", "inputs": {"active": 0.1, "deep": {"k": True}}}},
            {"decision": {"time_ns": 4, "vm": "w", "inputs": {"free": 7}, "rule": "min"}},
            {"weather": {"kind": "of a later version"}}, *self.rows(2))
        self.assertEqual(self.table(path, "--events"), [
            {"time_ns": "1", "kind": "a", "text": 'said "x, y"\nand went', "vm": ""},
            {"time_ns": "2", "kind": "b", "text": "", "vm": "=v"}])
        self.assertEqual(self.table(path, "--decisions"), [
            {"time_ns": "3", "vm": "v", "inputs.active": "0.10000000000000001",
             "inputs.deep.k": "1", "inputs.free": "", "rule": ""},
            {"time_ns": "4", "vm": "w", "inputs.active": "", "inputs.deep.k": "",
             "inputs.free": "7", "rule": "min"}])
        self.assertEqual(self.table(path), [
            {"time_ns": str(i), "name": "a", "target_pages": str(i), "guest.free": str(2 * i)}
            for i in range(2)])
        self.assertEqual(self.table(path, "--host"),
                         [{"time_ns": str(i), "state": "high"} for i in range(2)])
        self.assertEqual(self.run_record("export", path, "-o", "out.csv"), "")
        with open(self.folder + "/out.csv") as file:
            self.assertEqual(len(file.readlines()), 3)
        self.run_record("export", path, "-o", "/dev/full", status=1)
        self.assertIn("/dev/full: No space left", self.said)
        self.run_record("export", path, "--rows", "--host", status=2)

    def test_a_file_that_was_cut_off_gives_what_was_there(self):
        path = self.write(*self.rows(200), name="whole", members=3)
        with open(f"{self.folder}/{path}", "rb") as file:
            content = file.read()
        counts = []
        for end in range(0, len(content), 97):
            with open(self.folder + "/cut", "wb") as file:
                file.write(content[:end])
            done = subprocess.run([CTL, "record", "export", "cut"], capture_output=True, text=True,
                                  cwd=self.folder, timeout=PATIENCE_S, check=False)
            rows = list(csv.DictReader(io.StringIO(done.stdout)))
            self.assertEqual([row["target_pages"] for row in rows],
                             [str(i % 200) for i in range(len(rows))])
            counts.append(len(rows))
            if done.returncode:  # not even the first line is there
                self.assertEqual(rows, [])
            elif done.stderr:
                self.assertIn("cut was cut off: this is what was there before", done.stderr)
        self.assertEqual(counts, sorted(counts))
        self.assertGreater(counts[-1], 400)
        self.assertLess(counts.count(0), len(counts) // 3)

    def test_damage_is_told_and_no_damaged_line_handed_out(self):
        path = self.write(*self.rows(50), name="whole", members=4)
        with open(f"{self.folder}/{path}", "rb") as file:
            content = file.read()
        for place in range(0, len(content), 41):
            with open(self.folder + "/hurt", "wb") as file:
                file.write(content[:place] + bytes([content[place] ^ 0x24]) + content[place + 1:])
            done = subprocess.run([CTL, "record", "export", "hurt"], capture_output=True, text=True,
                                  cwd=self.folder, timeout=PATIENCE_S, check=False)
            rows = list(csv.DictReader(io.StringIO(done.stdout)))
            self.assertEqual([row["target_pages"] for row in rows],
                             [str(i % 50) for i in range(len(rows))])
            self.assertEqual(len(rows) % 10, 0, "nothing that no checksum stands for")
            if len(rows) < 200:  # else it was a byte that says nothing: a time, a comment
                self.assertRegex(done.stderr,
                                 r"\Aballastctl: hurt (is (damaged after|no record)|was cut off)")
                self.assertEqual(done.returncode, "cut off" not in done.stderr)

    def test_rounds_that_are_none_are_refused(self):
        for rounds in ({}, {"time_ns": 1, "policy": "esx", "vms": []},
                       {"time_ns": 1, "policy": "esx", "vms": [], "state_before": "high",
                        "state": "paradise"},
                       {"time_ns": 1, "policy": "esx", "vms": [{}], "state_before": "high",
                        "state": "high", "settings": {},
                        "host": {"machine_pages": 1, "free_pages": 0, "elapsed_ns": 0}},
                       {"time_ns": 1, "policy": "esx", "vms": [], "state_before": "high",
                        "state": "high", "settings": {"thresholds": {}, "idle_tax_percent": -1},
                        "host": {"machine_pages": 1, "free_pages": 0, "elapsed_ns": 0}},
                       {"time_ns": 1, "policy": "esx", "vms": [], "state_before": "high",
                        "state": "high", "settings": {"thresholds": {}},
                        "host": {"machine_pages": 0, "free_pages": 7, "elapsed_ns": 0}}):
            self.run_record("replay", self.write({"round": rounds}), status=1)
            self.assertRegex(self.said, r"\Aballastctl: [^\n]*(round|host)[^\n]*\n\Z")


class Recording(WithDaemon, Files):
    """The real daemon, real workers, and memory that does not suffice."""

    def begin(self, *options):
        recorder = subprocess.Popen(
            [CTL, "--socket", self.folder + "/run/ballastd.sock", "record", "-o", "file",
             "--interval", "50", *options], cwd=self.folder, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        self.addCleanup(recorder.stdout.close)
        self.addCleanup(recorder.stderr.close)
        self.addCleanup(recorder.wait)
        self.addCleanup(recorder.kill)
        self.until(lambda: self.synced_lines() > 0)
        return recorder

    def synced_lines(self, name="file"):
        """Lines that can be read from the file now, those of syncs aside."""
        lines = 0
        try:
            with gzip.open(f"{self.folder}/{name}") as file:
                for line in file:
                    lines += not line.startswith(b'{"sync"')
        except (OSError, EOFError):
            pass
        return lines

    def crowd(self, count=4):
        for i in range(count):
            self.create(f"vm-{i}", TOUCH, memory="16MiB", minimum="2MiB")

    def test_the_recorded_policy_gives_the_recorded_targets(self):
        self.ctl("host-set", "--policy", "esx")
        self.create("early", SLEEP)
        recorder = self.begin()
        self.crowd()  # 64 MiB of guests touch all they have on 48 MiB
        self.until(lambda: self.json("host")["policy_runs"] > 30)
        self.ctl("set", "vm-1", "--shares", "9")
        self.ctl("target", "vm-2", "6MiB")
        self.ctl("host-set", "--idle-tax", "20", "--policy", "proportional")
        runs = self.json("host")["policy_runs"]
        self.until(lambda: self.json("host")["policy_runs"] > runs + 20)
        self.ctl("destroy", "vm-3")
        self.ctl("host-set", "--policy", "esx")
        runs = self.json("host")["policy_runs"]
        self.until(lambda: self.json("host")["policy_runs"] > runs + 10)
        recorder.send_signal(signal.SIGINT)
        said, complaints = recorder.communicate(timeout=PATIENCE_S)
        self.assertEqual((recorder.returncode, complaints), (0, ""))
        self.assertRegex(said, r"^file: \d+ samples, \d+ rounds, \d+ decisions, \d+ events, 0 lost")

        info = self.info("file")
        self.assertEqual((info["whole"], info["ended"], info["version"]), (True, "interrupted", 1))
        self.assertGreater(info["rounds"], 60)
        replayed = json.loads(self.run_record("replay", "file", "--json", "-o", "targets.csv"))
        self.assertEqual((replayed["rounds"], replayed["differ"], replayed["skipped"]),
                         (info["rounds"], 0, 0))
        with open(self.folder + "/targets.csv") as file:
            targets = list(csv.DictReader(file))
        self.assertEqual(len(targets), replayed["targets"])
        self.assertEqual({row["policy"] for row in targets}, {"esx", "proportional"})
        for row in targets:
            self.assertEqual(row["target_pages"], row["recorded_target_pages"])
        other = json.loads(self.run_record("replay", "file", "--policy", "static", "--json"))
        self.assertEqual(other["rounds"], info["rounds"])
        self.assertGreater(other["differ"], 0)
        self.assertRegex(self.run_record("replay", "file", "--idle-tax", "0"),
                         r"(?m)^vm-0 +\d+ ")
        self.check_tables(info)

    def test_what_an_external_policy_answered_is_recorded(self):
        recorder = self.begin()
        self.create("one", TOUCH)
        with Client(self.folder + "/run/ballastd.sock") as client:
            client.result("policy.attach", name="half", deadline_ms=30000)
            for _ in range(5):
                while (message := client.receive()).get("method") != "policy.rows":
                    pass
                asked = message["params"]
                client.call("policy.targets", round=asked["round"], targets={
                    vm["name"]: max(vm["min_pages"], vm["memory_pages"] // 2) * 4096
                    for vm in asked["vms"]})
        runs = self.json("host")["policy_runs"]
        self.until(lambda: self.json("host")["policy_runs"] > runs + 5)
        recorder.send_signal(signal.SIGTERM)
        self.assertEqual(recorder.wait(PATIENCE_S), 0)
        rounds = self.table("file", "--rounds")
        self.assertGreaterEqual({row["policy"] for row in rounds},
                                {"external:half", "proportional"})
        given = {row["answer.target_pages"] for row in rounds if row["policy"] == "external:half"}
        self.assertEqual(given, {"2048"})
        replayed = json.loads(self.run_record("replay", "file", "--json"))
        self.assertEqual((replayed["rounds"], replayed["differ"], replayed["skipped"]),
                         (self.info("file")["rounds"], 0, 0))

    def check_tables(self, info):
        """The file of the test above as CSV."""
        rows = self.table("file")
        self.assertEqual({row["name"] for row in rows},
                         {"early", *(f"vm-{i}" for i in range(4))})
        self.assertGreater(len({row["time_ns"] for row in rows}), 20)
        self.assertEqual(len(self.table("file", "--host")), info["rows"])
        self.assertIn("overhead.total_bytes", rows[0])
        self.assertIn("4096", {row["target_pages"] for row in rows})
        kinds = [row["kind"] for row in self.table("file", "--events")]
        for kind in ("vm-created", "vm-destroyed", "setting"):
            self.assertIn(kind, kinds)
        decisions = self.table("file", "--decisions")
        self.assertEqual(len(decisions), info["decisions"])
        self.assertIn(("vm-2", str(6 << 20)), {(one["vm"], one["target"]) for one in decisions})
        rounds = self.table("file", "--rounds")
        self.assertEqual(len({row["time_ns"] for row in rounds}), info["rounds"])
        self.assertEqual({row["settings.idle_tax_percent"] for row in rounds}, {"75", "20"})
        self.assertIn("1536", {row["answer.target_pages"] for row in rounds
                               if row["name"] == "vm-2"})
        with open(PROTOCOL) as page:
            text = page.read()
        for name in members(next(line["round"] for line in self.lines("file") if "round" in line)):
            self.assertIn(f"`{name}`", text.replace("`own_0` to `own_7`", " ".join(
                f"`own_{i}`" for i in range(8))))
        header = self.lines("file")[0]["ballast_record"]
        self.assertEqual(header["daemon"]["server"], "ballastd")
        self.assertEqual(header["host"]["policy"], "esx")

    def test_a_daemon_that_ends_leaves_a_whole_file(self):
        recorder = self.begin()
        self.crowd(1)
        self.daemon.send_signal(signal.SIGTERM)
        said, complaints = recorder.communicate(timeout=PATIENCE_S)
        self.assertEqual(recorder.returncode, 3)
        self.assertRegex(complaints, r"\Aballastctl: [^\n]+; file is complete up to there\n\Z")
        info = self.info("file")
        self.assertEqual((info["whole"], info["ended"]), (True, "daemon"))
        self.assertIn(f"{info['rows']} samples", said)

    def test_a_recorder_that_is_killed_leaves_what_was_synced(self):
        recorder = self.begin()
        self.crowd(1)
        lines = self.synced_lines()
        self.until(lambda: self.synced_lines() > lines + 10)
        lines = self.synced_lines()
        recorder.kill()
        recorder.wait()
        info = self.info("file")
        self.assertIn("file was cut off", self.said)
        self.assertEqual((info["whole"], info["ended"]), (False, "cut off"))
        read = sum(info[kind] for kind in ("rows", "rounds", "events", "decisions"))
        self.assertGreaterEqual(read, lines - 1, "all but the first line")
        replayed = json.loads(self.run_record("replay", "file", "--json"))
        self.assertEqual((replayed["rounds"], replayed["differ"]), (info["rounds"], 0))

    def test_a_full_disk_leaves_what_was_synced(self):
        self.crowd(1)
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))
        done = subprocess.run(
            [CTL, "--socket", self.folder + "/run/ballastd.sock", "record", "-o", "file",
             "--interval", "10"], cwd=self.folder, capture_output=True, text=True,
            timeout=2 * PATIENCE_S, preexec_fn=limit, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"\Aballastctl: write file: File too large \(\d+ bytes of it")
        self.assertLessEqual(os.path.getsize(self.folder + "/file"), 30000)
        self.assertGreater(self.info("file")["rows"], 10)

    def test_a_file_is_not_written_over(self):
        with open(self.folder + "/mine", "w") as file:
            file.write("precious")
        self.ctl("record", "-o", "mine", "--duration", "1", status=1)
        self.assertIn("mine: File exists", self.said)
        with open(self.folder + "/mine") as file:
            self.assertEqual(file.read(), "precious")
        self.ctl("record", "-o", "mine", "--duration", "1", "--replace")
        self.assertEqual(self.info("mine")["ended"], "duration")
        self.ctl("record", "-o", "/dev/full", "--replace", "--duration", "2", status=1)
        self.assertIn("No space left", self.said)
        self.ctl("record", "-o", "nowhere/file", status=1)
        self.assertIn("nowhere/file: No such file", self.said)


class SlowDisk(Files):
    def test_rows_lost_by_a_slow_recorder_are_counted(self):
        server = Server(SERVER, 65536)  # what the daemon keeps for one who does not read
        self.addCleanup(server.stop)
        with Client(server.path) as client:
            for i in range(40):
                client.result("vm.create", name=f"busy-{i}", memory="64MiB", kernel="/k")
        recorder = subprocess.Popen([CTL, "--socket", server.path, "record", "-o", "file",
                                     "--interval", "10"], cwd=self.folder, text=True,
                                    stdout=subprocess.PIPE)
        self.addCleanup(recorder.stdout.close)
        self.addCleanup(recorder.wait)
        self.addCleanup(recorder.kill)
        lost, end = 0, time.monotonic() + PATIENCE_S
        while not lost and time.monotonic() < end:
            recorder.send_signal(signal.SIGSTOP)
            time.sleep(1)
            recorder.send_signal(signal.SIGCONT)
            time.sleep(1.5)  # more than it takes to the next sync
            try:
                lost = self.info("file")["lost"]
            except AssertionError:  # nothing is synced yet
                pass
        recorder.send_signal(signal.SIGTERM)
        self.assertRegex(recorder.communicate(timeout=PATIENCE_S)[0], r", [1-9]\d* lost$")
        self.assertEqual(recorder.returncode, 0)
        info = self.info("file")
        self.assertGreater(info["lost"], 0)
        self.assertEqual(info["streams"], "event round decision rows")
        self.assertEqual(sum(int(row["lost"] or 0) for row in self.table("file", "--host")),
                         info["lost"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[4:]])
