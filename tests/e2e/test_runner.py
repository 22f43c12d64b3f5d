#!/usr/bin/env python3
"""The experiment runner: what scenario files it takes and refuses, and a whole run
against a daemon that moves memory by a script."""
import csv
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(TREE, "experiments"))
from runner.agent import Agent, AgentError, Job  # noqa: E402
from runner.checks import measure  # noqa: E402
from runner.content import ImageError, compile_program, write_file  # noqa: E402
from runner.scenario import Scenario, ScenarioError  # noqa: E402
from runner.series import draw as draw_series  # noqa: E402
from runner.sizes import parse_duration, parse_size  # noqa: E402
from runner.tax import checks as tax_checks, closed_form, gain  # noqa: E402
from runner.timing import Probe, area_under_roc, distribution  # noqa: E402

SCENARIO = """[scenario]
name = tiny
title = A tiny run
seed = 3
sample_interval = 50ms
[host]
memory = 160MiB
[reference]
memory = 512MiB
[guest a]
memory = 128MiB
min = 32MiB
disk = 16MiB
[guest b]
memory = 128MiB
min = 32MiB
disk = 16MiB
[file cache]
guest = a
kind = random
size = 1MiB
[workload fill]
script = fill.sh
[workload crunch]
script = crunch.sh
[step fill]
title = fill
guest = a
run = fill
[step balloon]
title = balloon
guest = b
run = crunch
reference = yes
[step unload]
title = unload
guest = a
unload = virtio_balloon
[step page-out]
title = page out
guest = b
run = crunch
reference = yes
[step back]
title = back
guest = a
run = fill
[check ballooned]
step = balloon
measure = a.balloon_mib rise
at_least = 16MiB
[check paged]
step = page-out
measure = a.swap_out_mib growth
at_least = 16
[short file cache]
size = 64KiB
"""

# what is changed in SCENARIO -> (line of the message, part of it)
REFUSED = [
    ("memory = 160MiB", "memory = 160MB", 7, "not a size"),
    ("memory = 160MiB", "memory = 0", 7, "impossible"),
    ("memory = 160MiB", "memory = 18014398509481984GiB", 7, "too large"),
    ("memory = 160MiB", "memory = 40MiB", 6, "min add up"),
    ("memory = 160MiB", "memroy = 160MiB", 7, "unknown key 'memroy'"),
    ("memory = 160MiB", "policy = static", 6, "lacks the key 'memory'"),
    ("memory = 160MiB", "memory 160MiB", 7, "neither [section] nor key"),
    ("memory = 160MiB", "memory = 160MiB\nmemory = 1GiB", 8, "stands already in line 7"),
    ("[host]", "[hots]", 6, "unknown section"),
    ("[host]", "[host x]", 6, "takes no name"),
    ("[guest b]", "[guest a]", 14, "stands already in line 10"),
    ("[guest b]", "[guest B b]", 14, "needs a name"),
    ("[guest b]", "[guest host]", 14, "cannot be a guest's name"),
    ("[guest b]\nmemory = 128MiB", "[guest b]\nmemory = 129MiB", 15, "impossible"),
    ("[guest b]\nmemory = 128MiB\nmin = 32MiB", "[guest b]\nmemory = 128MiB\nmin = 129MiB", 14,
     "min is more than memory"),
    ("kind = random", "kind = zero", 20, "none of random, lines"),
    ("size = 1MiB", "size = 20MiB", 10, "do not fit a disk"),
    ("script = fill.sh", "script = none.sh", 22, "not beside the scenario"),
    ("unload = virtio_balloon", "unload = virtio_balloon\nrun = fill", 35, "one of run, unload"),
    ("seed = 3", "seed = -3", 4, "not a whole number"),
    ("sample_interval = 50ms", "sample_interval = 50", 5, "not a duration"),
    ("unload = virtio_balloon", "unload = virtio_balloon\nuntil = a.balloon_mib >= 1", 35, "until needs a workload"),
    ("reference = yes", "reference = yes\nuntil = a.balloon_mib > 1", 35, "is not a condition"),
    ("step = balloon\n", "step = no\n", 48, "no step 'no'"),
    ("measure = a.balloon_mib rise", "measure = a.balloon_mib median", 48, "not a measure"),
    ("at_least = 16MiB", "text = x", 48, "needs at_least or at_most"),
    ("[short file cache]", "[short file none]", 56, "not there"),
    ("step = balloon\n", "", 48, "has a step unless"),
    ("measure = a.balloon_mib rise", "measure = series.saved_pct rise", 48, "there is no [series]"),
    ("measure = a.balloon_mib rise", "measure = timing.auc_pct last", 48, "a check of the timing"),
    ("unload = virtio_balloon", "scan_passes = many", 38, "not a whole number"),
    ("guest = a\nunload = virtio_balloon", "sharing_domain = x", 35, "'sharing_domain' needs a guest"),
    ("[host]", "[program x]\nsource = none.c\n[host]", 6, "none.c is not beside"),
    ("[host]", "[timing]\nheld = fill\nprobes = none\n[host]", 6, "no step 'none'"),
    ("[guest b]", "[guest timing]", 14, "cannot be a guest's name"),
]

SERIES = """[scenario]
name = tiny
title = A tiny series
seed = 3
sample_interval = 50ms
[host]
memory = 512MiB
sharing = yes
scan_cpu_percent = 2
[guest g]
count = 3
memory = 128MiB
disk = 16MiB
sharing_domain = all
[workload crunch]
script = crunch.sh
[series]
guest = g
counts = 1, 2, 3
workload = crunch
rounds = 2
settle = 100ms
settle_cpu_percent = 20
paper = paper.csv
[check shared]
measure = series.shared_pct min
from_guests = 2
at_least = 50
[check saved-grows]
measure = series.saved_rise_pct min
at_least = 1
[check alone]
measure = series.shared_pct first
at_most = 1
"""
REFUSED_SERIES = [
    ("count = 3", "count = 2", 17, "there are 2 guests 'g', 3 are wanted"),
    ("count = 3", "count = 65", 10, "count is 1 to"),
    ("counts = 1, 2, 3", "counts = 2, 1", 19, "not rising numbers"),
    ("counts = 1, 2, 3", "counts = 0, 1", 19, "not rising numbers"),
    ("workload = crunch", "workload = none", 17, "no workload 'none'"),
    ("rounds = 2", "rounds = 0", 17, "rounds is at least 1"),
    ("scan_cpu_percent = 2\n", "", 16, "needs the host's scan_cpu_percent"),
    ("paper = paper.csv", "paper = none.csv", 17, "none.csv is not beside"),
    ("from_guests = 2", "from_guests = 2\nstep = x", 25, "no step 'x'"),
]
PAPER = """# a comment
n_vms,vm_mem_mb,shared_mb,reclaimed_mb,zero_mb,shared_pct,reclaimed_pct,shared_minus_reclaimed_pct
1,40,7,5,3,17.5,12.5,5
2,80,48,28,5,60,35,25
"""


class ScenarioFiles(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        for script in ("fill.sh", "crunch.sh", "paper.csv"):
            open(os.path.join(self.folder, script), "w").close()

    def read(self, text, **options):
        path = os.path.join(self.folder, "scenario.ini")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return Scenario(path, **options)

    def test_good_scenario_is_taken(self):
        scenario = self.read(SCENARIO)
        self.assertEqual([guest.name for guest in scenario.guests], ["a", "b"])
        self.assertEqual(scenario.host.memory, 160 << 20)
        self.assertAlmostEqual(scenario.overcommit_ratio, 1.6)
        self.assertEqual(scenario.files[0].size, 1 << 20)

    def test_short_run_takes_the_short_values(self):
        self.assertEqual(self.read(SCENARIO, short=True).files[0].size, 64 << 10)

    def test_a_short_run_can_leave_steps_out(self):
        scenario = SCENARIO + "[step more]\ntitle = More\nwait = 1s\n[short step more]\nskip = yes\n"
        self.assertEqual(self.read(scenario).steps[-1].name, "more")
        self.assertNotEqual(self.read(scenario, short=True).steps[-1].name, "more")

    def test_mistakes_are_refused_with_file_and_line(self):
        for old, new, line, message in REFUSED + REFUSED_SERIES:
            with self.subTest(new=new):
                good = SCENARIO if old in SCENARIO else SERIES
                self.assertIn(old, good)
                with self.assertRaises(ScenarioError) as caught:
                    self.read(good.replace(old, new, 1))
                self.assertIn(message, str(caught.exception))
                self.assertIn(f"scenario.ini:{line}: ", str(caught.exception))

    def test_missing_and_binary_files_are_refused(self):
        with self.assertRaises(ScenarioError):
            Scenario(os.path.join(self.folder, "none.ini"))
        path = os.path.join(self.folder, "binary.ini")
        with open(path, "wb") as file:
            file.write(bytes(range(256)))
        with self.assertRaises(ScenarioError):
            Scenario(path)

    def test_shipped_scenarios_are_taken(self):
        experiments = os.path.join(TREE, "experiments")
        found = [name for name in os.listdir(experiments)
                 if os.path.exists(os.path.join(experiments, name, "scenario.ini"))]
        self.assertIn("first-light", found)
        for name in found:
            for short in (False, True):
                Scenario(os.path.join(experiments, name, "scenario.ini"), short)


class SmallParts(unittest.TestCase):
    def test_rounds_too_short_for_the_processors_clock_leave_a_picture_all_the_same(self):
        series = types.SimpleNamespace(counts=[1, 2], paper=None, without_sharing=True)
        with tempfile.TemporaryDirectory(prefix="ballast-test.") as folder:
            with open(os.path.join(folder, "series.csv"), "w", encoding="utf-8") as file:
                file.write("guests,shared_pct,saved_pct,zero_pct,throughput,throughput_low,throughput_high,"
                           "plain_throughput,plain_throughput_low,plain_throughput_high,runs_per_minute,"
                           "plain_runs_per_minute\n1,9,8,7,,,,,,,10,11\n2,9,8,7,,,,,,,9,8\n")
            made = draw_series(folder, types.SimpleNamespace(series=series))
            self.assertEqual([name for name, _ in made], ["series", "throughput"])
            self.assertGreater(os.path.getsize(os.path.join(folder, "throughput.png")), 0)

    def test_the_rule_of_the_tax_gives_what_follows_from_the_paper(self):
        """Figure 7: 344.5 MB for two, of which 9.6 and 200.7 are in use."""
        self.assertAlmostEqual(closed_form(344.5, 75, 9.6, 200.7), 100.6, delta=0.1)
        self.assertAlmostEqual(closed_form(344.5, 75, 200.7, 9.6), 243.9, delta=0.1)
        self.assertEqual(closed_form(360, 0, 5, 200), 180)

    def test_a_probe_counts_what_was_called_rightly(self):
        output = "\n".join(["noise", "time guess 1 900 shared", "time guess 2 100 alone", "time guess 3 100 alone",
                            "time guess 4 800 shared", "time twin 0 700", "time own 0 100", "time own 1 950"])
        probe = Probe("x", "title", 500, output, {1, 2})
        row = probe.row()
        self.assertTrue(probe.complete)
        self.assertEqual({key: row[key] for key in ("guesses", "held", "true_positive_pct", "false_positive_pct",
                                                    "accuracy_pct", "control_pct", "held_median_ns")},
                         {"guesses": 4, "held": 2, "true_positive_pct": 50, "false_positive_pct": 50,
                          "accuracy_pct": 50, "control_pct": 66.67, "held_median_ns": 500})
        self.assertFalse(Probe("x", "title", 500, "time guess 1 900 shared", {1}).complete)

    def test_the_area_under_the_curve_of_separate_equal_and_mixed_times(self):
        self.assertEqual(area_under_roc([5, 6], [1, 2, 3]), 1)
        self.assertEqual(area_under_roc([1, 2], [5]), 0)
        self.assertEqual(area_under_roc([7, 7], [7, 7]), 0.5)
        self.assertEqual(area_under_roc([1, 3], [2, 2]), 0.5)

    def test_a_distribution_holds_every_time(self):
        shares = [share for _, share in distribution([0, 100, 100, 5000, 10**12])]
        self.assertAlmostEqual(sum(shares), 100, places=1)
        self.assertEqual(shares[0], 60)

    def test_a_program_that_does_not_compile_is_told_with_its_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "wrong.c")
            with open(path, "w", encoding="utf-8") as file:
                file.write("int main(void) { return x; }")
            with self.assertRaisesRegex(ImageError, "wrong.c"):
                compile_program(path, os.path.join(folder, "wrong"))

    def test_what_the_guest_at_work_gains(self):
        def notes(rate, reads):
            return {"notes": {"mb_per_s": rate, "reads_per_1000": reads}, "seconds": 20, "cost": {"own_s": 10}}
        tax = types.SimpleNamespace(before=["a", "b"], after=["c", "d"], within_mib=8, gain_at_least=30.0,
                                    reads_at_most=-10.0)
        scenario = types.SimpleNamespace(tax=tax)
        outcomes = {"a": notes("10", "50"), "b": notes("14", "50"), "c": notes("18", "10"), "d": notes("18", "0")}
        found = gain(scenario, outcomes)
        self.assertEqual((found["mb_per_s"]["percent"], found["reads_per_1000"]["percent"]), (50, -90))
        self.assertEqual(found["own_mb_per_s"]["after"], [36, 36])  # half of the time it had no processor
        self.assertEqual([check.passed for check in tax_checks(scenario, [], found)], [True, True, False])
        outcomes["d"] = notes("2", "100")
        self.assertEqual([check.passed for check in tax_checks(scenario, [], gain(scenario, outcomes))],
                         [False, False, False])
        del outcomes["d"]["notes"]["mb_per_s"]  # a run whose figure is missing makes no gain
        self.assertNotIn("mb_per_s", gain(scenario, outcomes))
        self.assertEqual([check.passed for check in tax_checks(scenario, [], {})], [False, False, False])

    def test_sizes_and_durations(self):
        for text, value in (("1", 1), ("4KiB", 4096), ("320 MiB", 320 << 20), ("2gib", 2 << 30)):
            self.assertEqual(parse_size(text), value)
        for text in ("", "x", "-1", "1.5GiB", "1MB", "99999999999TiB"):
            self.assertRaises(ValueError, parse_size, text)
        self.assertEqual(parse_duration("250ms"), 0.25)
        self.assertEqual(parse_duration("1.5min"), 90)

    def test_measures_over_a_step(self):
        samples = [{"step": "w", "a_v": 2}] + \
            [{"step": "x", "a_v": value} for value in (3, 9, None, 1, 4)] + [{"step": "y", "a_v": 99}]
        wanted = {"max": 9, "min": 1, "mean": 4.25, "first": 3, "last": 4, "rise": 7, "fall": 1, "growth": 2}
        for how, value in wanted.items():
            self.assertEqual(measure(samples, ["x"], f"a.v {how}"), value)
        self.assertIsNone(measure(samples, ["z"], "a.v max"))

    def test_seeded_files_are_the_same_every_time(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "file")
            for kind in ("random", "lines"):
                first = write_file(path, kind, 3_000_000, 5, "name")
                with open(path, "rb") as file:
                    content = file.read()
                self.assertEqual(first, hashlib.blake2b(content).hexdigest())
                self.assertLessEqual(len(content), 3_000_000)
                self.assertGreater(len(content), 2_999_900)
                self.assertEqual(first, write_file(path, kind, 3_000_000, 5, "name"))
                self.assertNotEqual(first, write_file(path, kind, 3_000_000, 6, "name"))

    def guest_that_answers_its_first_question(self, after_s):
        """The path of a socket like hvc0.sock."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(listener.close)
        listener.bind(os.path.join(folder, "hvc0.sock"))
        listener.listen()

        def serve():
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                number = stream.readline().split()[0]
                time.sleep(after_s)
                connection.sendall(number + b"! 0\n")
                while stream.readline():
                    pass
        threading.Thread(target=serve, daemon=True).start()
        return os.path.join(folder, "hvc0.sock")

    def test_a_slow_guest_is_up_when_it_answers_any_question(self):
        agent = Agent(self.guest_that_answers_its_first_question(2.5))
        agent.connect(60)
        agent.close()

    def test_a_guest_that_never_answers_is_given_up(self):
        agent = Agent(self.guest_that_answers_its_first_question(60))
        with self.assertRaises(AgentError):
            agent.connect(0.5)
        agent.close()

    def test_a_guest_that_floods_is_cut_off(self):
        job = Job("yes")
        line = b"y" * (1 << 20)
        for _ in range(80):
            job.add_line(line)
        self.assertTrue(job.ended)
        self.assertIn("too large", job.failure)


class WholeRun(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ballast-test.")
        self.addCleanup(shutil.rmtree, self.folder)
        for name, content in (("scenario.ini", SCENARIO), ("fill.sh", "true"), ("crunch.sh", "true")):
            with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
                file.write(content)
        os.makedirs(os.path.join(self.folder, "build", "daemon"))
        os.symlink(os.path.join(HERE, "mock_ballastd.py"),
                   os.path.join(self.folder, "build", "daemon", "ballastd"))
        os.makedirs(os.path.join(self.folder, "cache", "images"))
        with open(os.path.join(self.folder, "cache", "images", "versions.json"), "w",
                  encoding="utf-8") as file:
            json.dump({"packages": {"linux-image-test": "1"}}, file)
        self.digest = write_file(os.path.join(self.folder, "file"), "random", 1 << 20, 3, "cache")

    def start(self, outputs, **environment):
        temporary = os.path.join(self.folder, "tmp")
        os.makedirs(temporary, exist_ok=True)
        env = dict(os.environ, MOCK_RESULTS=json.dumps(outputs), PYTHONDONTWRITEBYTECODE="1",
                   PYTHONPATH=os.path.join(TREE, "experiments"), TMPDIR=temporary, **environment)
        return subprocess.Popen(
            [sys.executable, "-m", "runner", os.path.join(self.folder, "scenario.ini"),
             "--build", os.path.join(self.folder, "build"), "--results", os.path.join(self.folder, "results"),
             "--images", os.path.join(self.folder, "cache", "images")],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def nothing_is_left(self):
        """No daemon's folder, no disk remains of a run that is over."""
        self.assertEqual(os.listdir(os.path.join(self.folder, "tmp")), [])

    def run_it(self, outputs, **environment):
        process = self.start(outputs, **environment)
        done = subprocess.CompletedProcess([], 0)
        done.stdout, done.stderr = process.communicate(timeout=60)
        done.returncode = process.returncode
        self.nothing_is_left()
        latest = os.path.join(self.folder, "results", "tiny", "latest")
        summary = None
        if os.path.exists(os.path.join(latest, "summary.json")):
            with open(os.path.join(latest, "summary.json"), encoding="utf-8") as file:
                summary = json.load(file)
        return done, latest, summary

    def failed(self, summary):
        return [check["name"] for check in summary["checks"] if not check["pass"]]

    def test_a_good_run_passes_and_leaves_its_folder(self):
        done, latest, summary = self.run_it({"fill": f"result digest.cache {self.digest}",
                                             "crunch": "result sum 42\nnote x 1"})
        self.assertEqual((done.returncode, self.failed(summary)), (0, []), done.stdout + done.stderr)
        self.assertTrue(summary["pass"])
        for name in ("manifest.json", "samples.csv", "events.jsonl", "report.md", "report.html",
                     "scenario.ini", "ballastd.log", "host.svg", "guest-a.png"):
            self.assertTrue(os.path.getsize(os.path.join(latest, name)) > 0 or name == "ballastd.log", name)
        with open(os.path.join(latest, "manifest.json"), encoding="utf-8") as file:
            manifest = json.load(file)
        self.assertEqual(manifest["seed"], 3)
        self.assertIn("packages", manifest["guest_packages"])

    def test_a_step_is_done_again_until_its_condition_holds(self):
        """Each round of crunch moves 64 MiB."""
        with open(os.path.join(self.folder, "scenario.ini"), "w", encoding="utf-8") as file:
            file.write(SCENARIO.replace("run = crunch\nreference = yes\n[step unload]",
                                        "run = crunch\nuntil = a.balloon_mib >= 100MiB\n[step unload]"))
        done, _, summary = self.run_it({"fill": f"result digest.cache {self.digest}", "crunch": "result sum 42"})
        self.assertEqual((done.returncode, self.failed(summary)), (0, []), done.stdout + done.stderr)
        self.assertEqual(summary["steps"]["balloon"]["rounds"], 2)

    def test_a_series_counts_up_and_stands_beside_the_paper(self):
        for name, content in (("scenario.ini", SERIES), ("paper.csv", PAPER)):
            with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
                file.write(content)
        done, latest, summary = self.run_it({"crunch": "result sum 42"})
        self.assertEqual((done.returncode, self.failed(summary)), (0, []), done.stdout + done.stderr)
        with open(os.path.join(latest, "series.csv"), encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["guests"] for row in rows], ["1", "2", "3"])
        self.assertEqual([row["paper_shared_pct"] for row in rows], ["17.5", "60.0", ""])
        self.assertEqual(float(rows[2]["saved_mib"]), 2 * 64 + 1)
        self.assertTrue(all(row["plain_runs_per_minute"] for row in rows))
        self.assertEqual([row["tables_mib"] for row in rows], ["1.0"] * 3)
        for name in ("series.svg", "throughput.png"):
            self.assertTrue(os.path.getsize(os.path.join(latest, name)) > 0, name)

    def test_answers_that_differ_fail_a_series(self):
        with open(os.path.join(self.folder, "scenario.ini"), "w", encoding="utf-8") as file:
            file.write(SERIES.replace("paper = paper.csv\n", ""))
        done, _, summary = self.run_it({"crunch": "result sum COUNTER"})
        self.assertEqual(done.returncode, 1)
        self.assertIn("answers-equal", self.failed(summary))

    def test_a_wrong_digest_fails_by_name(self):
        done, _, summary = self.run_it({"fill": "result digest.cache 00", "crunch": "result sum 42"})
        self.assertEqual(done.returncode, 1)
        self.assertIn("fill-digest.cache", self.failed(summary))

    def test_a_workload_that_fails_fails_the_run(self):
        done, _, summary = self.run_it({"crunch": "result sum 42"})
        self.assertEqual(done.returncode, 1)
        self.assertIn("fill-ended", self.failed(summary))

    def test_no_results_are_not_equal_results(self):
        done, _, summary = self.run_it({"fill": f"result digest.cache {self.digest}", "crunch": ""})
        self.assertEqual(done.returncode, 1)
        self.assertIn("balloon-equals-reference", self.failed(summary))

    def known_reference(self, good):
        """Have the reference in the cache, so that a fault strikes the run itself."""
        self.assertEqual(self.run_it(good)[0].returncode, 0)
        shutil.rmtree(os.path.join(self.folder, "results"))

    def test_faults_in_the_middle_end_the_run_with_a_report(self):
        good = {"fill": f"result digest.cache {self.digest}", "crunch": "result sum 42"}
        self.known_reference(good)
        for fault, message in (("die", "console was closed"), ("restart", "started anew")):
            with self.subTest(fault):
                done, latest, summary = self.run_it(good, MOCK_FAULT=fault)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(message, summary["error"])
                self.assertIn("steps-done", self.failed(summary))
                self.assertTrue(os.path.exists(os.path.join(latest, "report.html")))
                shutil.rmtree(os.path.join(self.folder, "results"))

    def test_a_run_that_is_ended_cleans_up(self):
        process = self.start({"fill": "result digest.cache 0"}, MOCK_FAULT="hang")
        for line in process.stdout:
            if "balloon" in line:
                break
        process.terminate()
        process.communicate(timeout=30)
        self.assertEqual(process.returncode, 143)
        self.nothing_is_left()


if __name__ == "__main__":
    unittest.main()
