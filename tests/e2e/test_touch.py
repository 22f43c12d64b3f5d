#!/usr/bin/env python3
"""Figure 6's part of the runner: periods of sampling beside their truth, and what they are judged by.

Guests here are a table: a toucher's amounts, and a sampler that is fair or not.
"""
import os
import random
import shutil
import sys
import tempfile
import types
import unittest

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TREE, "experiments"))
sys.dont_write_bytecode = True
from runner import touch  # noqa: E402
from runner.scenario import Scenario, ScenarioError, touch_steps  # noqa: E402

FIG6 = os.path.join(TREE, "experiments", "fig6")
MEMORY_MIB, PAGES, IDLE_MIB = 384, 100, 3
STEPS = [(0, 4), (50, 4), (150, 4), (250, 5), (100, 5), (0, 12)]


def samples_of(steps, slow_gain=0.25, bias=1.0, lag_periods=0, seed=1):
    """What the recorder has seen: rows of the daemon, several a period."""
    chance, found = random.Random(seed), []
    slow = fast = IDLE_MIB
    truths = [mib + IDLE_MIB for mib, count in steps for _ in range(count)]
    for number, truth in enumerate(truths, 1):
        seen = truths[max(0, number - 1 - lag_periods)] * bias / MEMORY_MIB
        touched = sum(chance.random() < seen for _ in range(PAGES))
        sampled = touched / PAGES * MEMORY_MIB
        slow, fast = slow + slow_gain * (sampled - slow), fast + 0.75 * (sampled - fast)
        row = {"g_sample_periods": number, "g_last_sample_pages": PAGES, "g_last_sample_touched_pages": touched,
               "g_touched_mib": truth, "g_active_slow_mib": slow, "g_active_fast_mib": fast,
               "g_active_mib": max(slow, fast)}
        found += [row, dict(row)]
    return found


def rows_of(steps, **how):
    """The rows that the runner makes of them, the toucher being there from each step's first period on."""
    recorder = types.SimpleNamespace(samples=[])
    periods = touch.Periods(recorder, "g", MEMORY_MIB)
    coming = samples_of(steps, **how)
    coming.insert(0, {"g_sample_periods": 0})
    for number, (mib, count) in enumerate(steps, 1):
        for index in range(count):
            recorder.samples += coming[:3] if number == 1 and index == 0 else coming[:2]
            del coming[:3 if number == 1 and index == 0 else 2]
            assert periods.take(mib, number, index > 0) == 1
    for number, row in enumerate(periods.rows, 1):
        row["period"] = number
    return periods.rows


class Judged(unittest.TestCase):
    def setUp(self):
        self.scenario = Scenario(os.path.join(FIG6, "scenario.ini"), short=True)
        self.scenario.touch.steps = STEPS

    def failed(self, rows):
        return [check.name for check in touch.checks(self.scenario, rows) if not check.passed]

    def test_a_fair_sample_of_a_guest_that_obeys_passes(self):
        for seed in range(20):
            self.assertEqual(self.failed(rows_of(STEPS, seed=seed)), [], f"seed {seed}")

    def test_an_unfair_sample_is_found(self):
        for seed in range(20):
            failed = self.failed(rows_of(STEPS, bias=0.5, seed=seed))
            self.assertTrue({"sample-spread", "sample-within-chance"} & set(failed), f"seed {seed}: {failed}")

    def test_an_estimate_that_comes_late_is_found(self):
        self.assertIn("rises-followed", self.failed(rows_of([(0, 6), (200, 8), (0, 12)], lag_periods=5)))

    def test_an_average_of_another_gain_is_found(self):
        self.assertIn("decay", self.failed(rows_of(STEPS, slow_gain=0.5)))

    def test_a_truth_that_is_not_the_touchers_is_found(self):
        rows = rows_of(STEPS)
        rows[6]["touched_mib"] += 40
        self.assertIn("truth-is-the-toucher", self.failed(rows))

    def test_too_few_periods_fail(self):
        self.assertIn("periods-seen", self.failed(rows_of(STEPS)[:-3]))
        self.assertEqual(self.failed([]), ["periods-seen"])

    def test_tails_of_the_binomial_distribution(self):
        for touched, sampled, fraction, wanted in ((0, 10, 0.5, 1 / 1024), (10, 10, 0.5, 1 / 1024),
                                                   (9, 10, 0.5, 11 / 1024), (2, 2, 0.1, 0.01)):
            self.assertAlmostEqual(touch.binomial_tail(touched, sampled, fraction), wanted, places=12)
        self.assertEqual(touch.binomial_tail(0, 100, 0.0), 1)
        self.assertEqual(touch.binomial_tail(1, 100, 0.0), 0)
        self.assertEqual(touch.binomial_tail(99, 100, 1.0), 0)


class BesideThePaper(unittest.TestCase):
    def test_the_long_run_does_the_papers_steps(self):
        scenario = Scenario(os.path.join(FIG6, "scenario.ini"))
        rows = rows_of(scenario.touch.steps)
        touch._beside_paper(scenario, rows)
        self.assertTrue(all(row["paper_toucher_mb"] == row["toucher_mib"] for row in rows))
        self.assertEqual(rows[16]["paper_estimate_mb"], 12.8)

    def test_other_steps_do_not_stand_beside_the_papers(self):
        scenario = Scenario(os.path.join(FIG6, "scenario.ini"), short=True)
        rows = rows_of(scenario.touch.steps)
        touch._beside_paper(scenario, rows)
        self.assertNotIn("paper_toucher_mb", rows[0])


class Section(unittest.TestCase):
    def test_mistakes_are_refused(self):
        with open(os.path.join(FIG6, "scenario.ini"), encoding="utf-8") as file:
            good = file.read()
        for old, new, message in (("program = toucher", "program = none", "no program 'none'"),
                                  ("steps = 0:17", "steps = 0:1", "at least 2 periods"),
                                  ("steps = 0:17", "steps = 0", "not a whole number"),
                                  ("steps = 0:17", "steps = 500:17", "guest g has 384 MiB"),
                                  ("sample_period = 5s", "sample_period = 900ms", "at least twice"),
                                  ("paper = paper.csv", "paper = none.csv", "not beside the scenario"),
                                  ("guest = g", "guest = x", "no guest 'x'")):
            with self.subTest(new), tempfile.TemporaryDirectory() as folder:
                self.assertIn(old, good)
                for name in ("paper.csv", "toucher.c"):
                    shutil.copy(os.path.join(FIG6, name), folder)
                path = os.path.join(folder, "scenario.ini")
                with open(path, "w", encoding="utf-8") as file:
                    file.write(good.replace(old, new, 1))
                with self.assertRaises(ScenarioError) as caught:
                    Scenario(path)
                self.assertIn(message, str(caught.exception))

    def test_steps_are_read(self):
        self.assertEqual(touch_steps("0:3, 50:4"), [(0, 3), (50, 4)])


if __name__ == "__main__":
    unittest.main()
