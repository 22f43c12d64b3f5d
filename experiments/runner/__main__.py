"""Run an experiment: python3 -m runner NAME [--short] (from experiments/; ./experiments/run does)."""
import argparse
import contextlib
import datetime
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from . import report, series, tax, timing, touch
from .agent import AgentError
from .checks import Check, invariant_check, result_checks, scenario_checks
from .content import ImageError, make_disk
from .host import HostError
from .progress import Progress
from .rpc import RpcError
from .scenario import Scenario, ScenarioError
from .session import Session, SessionError

EXPERIMENTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TREE = os.path.dirname(EXPERIMENTS)


class RunError(Exception):
    """The run cannot begin."""


def guest_images():
    """Folder of the guest's images; built if need be."""
    done = subprocess.run([os.path.join(EXPERIMENTS, "guest", "build")], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RunError("the guest's images could not be built")
    return done.stdout.strip().splitlines()[-1]


def host_facts():
    """CPU, kernel and memory of this machine."""
    cpu = "unknown"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), cpu)
    except OSError:
        pass
    return {"cpu": cpu, "cpus": os.cpu_count(), "kernel": platform.release(),
            "machine": platform.machine(), "python": platform.python_version()}


def version():
    """What git calls this tree."""
    done = subprocess.run(["git", "-C", TREE, "describe", "--always", "--dirty", "--tags"],
                          capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def scenario_key(scenario, images, daemon_version):
    """What a reference result depends on, as a short hash."""
    digest = hashlib.sha256(b"results, seconds")  # what is kept
    paths = [scenario.path, os.path.join(images, "versions.json")]
    paths += [os.path.join(scenario.folder, workload.script) for workload in scenario.workloads.values()]
    paths += [os.path.join(scenario.folder, program.source) for program in scenario.programs]
    for path in paths:
        with open(path, "rb") as file:
            digest.update(file.read())
    digest.update(f"{scenario.short} {daemon_version}".encode())
    return digest.hexdigest()[:16]


def reference_results(scenario, daemon, images, disks, cache, progress, daemon_version):
    """{workload: {"results", "seconds"}} of the reference steps on a host with ample memory.

    Kept in the cache under everything they depend on.
    """
    steps = {step.run: step for step in reversed(scenario.steps) if step.reference}
    if not steps:
        return {}
    path = os.path.join(cache, f"reference-{scenario_key(scenario, images, daemon_version)}.json")
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        progress.say("the results with ample memory are known from an earlier run")
        return found
    except (OSError, ValueError):
        pass
    progress.say("first, the same work with ample memory")
    results = {}
    with tempfile.TemporaryDirectory(prefix="ballast-reference.") as folder, \
            Session(scenario, daemon, images, disks, folder, scenario.reference.memory, progress,
                    {step.guest for step in steps.values()}) as session:
        session.boot()
        for step in steps.values():
            session.do(step)
            outcome = session.outcomes[step.name]
            if outcome["status"] != 0:
                raise SessionError(f"{step.run} failed with ample memory: {outcome['output'][-300:]}")
            results[step.run] = {key: outcome[key] for key in ("results", "seconds")}
    partial = f"{path}.{os.getpid()}"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(results, file)
    os.replace(partial, path)
    return results


def run_steps(session, scenario, progress, found, plain_host):
    """Boot, do every step, then the series; (error or None, checks made on the living host, overheads).

    found: takes the series' rows as {"shared": Series, "plain": Series or None}, those of [touch] as
    {"touch": rows}. plain_host(): a Session without sharing for the series, not begun."""
    answers, overheads, error = [], {}, None
    try:
        session.boot()
        for step in scenario.steps:
            session.do(step)
            answers.append(session.check_invariants())
        session.last_sample()
        if scenario.touch:
            found["touch"] = touch.run(session, scenario, progress)
            answers.append(session.check_invariants())
        if scenario.series:
            with plain_host() if scenario.series.without_sharing else contextlib.nullcontext() as plain:
                if plain:
                    plain.boot()
                found["shared"], found["plain"] = series.run(
                    session, plain, scenario, progress, lambda: answers.append(session.check_invariants()))
    except (SessionError, AgentError, RpcError, HostError) as problem:
        error = str(problem)
        progress.say(f"ended early: {error}")
    if session.host.alive:
        answers.append(session.check_invariants())
        overheads = session.overheads()
    return error, [invariant_check(answers)], overheads


@contextlib.contextmanager
def plain_session(scenario, daemon, images, disks, progress):
    """A host beside the other that does not share; its samples are not kept."""
    with tempfile.TemporaryDirectory(prefix="ballast-plain.") as folder, \
            Session(scenario, daemon, images, disks, folder, scenario.host.memory, progress,
                    sharing=False) as session:
        session.recorder.on_sample = None
        yield session


def run(scenario, arguments):
    """Run the scenario; the folder of the results and whether it passed."""
    daemon = os.path.join(arguments.build, "daemon", "ballastd")
    if not os.path.exists(daemon):
        raise RunError(f"{daemon} is not built")
    began = datetime.datetime.now(datetime.timezone.utc)
    progress = Progress([guest.name for guest in scenario.guests], arguments.quiet)
    progress.say(f"{scenario.title}{' (short)' if scenario.short else ''}")
    images = arguments.images or guest_images()
    cache = os.path.dirname(os.path.abspath(images))
    base = os.path.join(arguments.results, scenario.name)
    name = began.strftime("%Y-%m-%dT%H-%M-%SZ")
    folder = os.path.join(base, name)
    os.makedirs(folder)
    with open(os.path.join(images, "versions.json"), encoding="utf-8") as file:
        packages = json.load(file)
    manifest = {"scenario": scenario.name, "short": scenario.short, "seed": scenario.seed,
                "began": began.isoformat(timespec="seconds"), "version": version(),
                "host": host_facts(), "guest_packages": packages}
    shutil.copy(scenario.path, os.path.join(folder, "scenario.ini"))
    disk_folder = tempfile.mkdtemp(prefix="ballast-disks.")
    clock = time.monotonic()
    found = {}
    try:
        progress.say("making the guests' disks")
        disks, digests = {}, {}
        for guest in scenario.guests:  # equal guests read one image
            disks[guest.name] = os.path.join(disk_folder, f"{guest.template}.img")
            if not os.path.exists(disks[guest.name]):
                digests.update(make_disk(disks[guest.name], guest, scenario))
        manifest["files"] = digests
        with open(os.path.join(folder, "manifest.json"), "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
        reference = reference_results(scenario, daemon, images, disks, cache, progress,
                                      manifest["version"])
        with Session(scenario, daemon, images, disks, folder, scenario.host.memory, progress) as session:
            error, checks, overheads = run_steps(
                session, scenario, progress, found,
                lambda: plain_session(scenario, daemon, images, disks, progress))
        daemon_status = session.host.stop()
    finally:
        shutil.rmtree(disk_folder, ignore_errors=True)
    samples = session.recorder.samples
    table = series.rows(scenario, found["shared"], found.get("plain")) if "shared" in found else []
    if "shared" in found:
        checks = series.checks(scenario, found["shared"], found.get("plain")) + checks
    taxed = tax.rows(scenario, samples) if scenario.tax else []
    if scenario.tax:
        gained = tax.gain(scenario, session.outcomes)
        checks = tax.checks(scenario, taxed, gained) + checks
    probes = timing.probes(scenario, session.outcomes) if scenario.timing else []
    if scenario.timing:
        checks = timing.checks(scenario, probes) + checks
    timed = [probe.row() for probe in probes]
    touched = found.get("touch", [])
    if scenario.touch:
        checks = touch.checks(scenario, touched) + checks
    checks = scenario_checks(scenario, samples, session.outcomes, table, timed) + \
        result_checks(scenario, session.outcomes, reference, digests) + checks
    checks.append(Check("daemon-ended", "ballastd ended by SIGTERM with status 0", daemon_status, "0",
                        daemon_status == 0))
    checks.append(Check("steps-done", "every step was done", len(session.outcomes),
                        str(len(scenario.steps)), error is None))
    summary = {"scenario": scenario.name, "short": scenario.short,
               "pass": all(check.passed for check in checks), "error": error,
               "seconds": round(time.monotonic() - clock, 1),
               "checks": [check.as_dict() for check in checks],
               "steps": session.outcomes, "reference": reference, "overhead_bytes": overheads,
               "series": table, "tax": taxed, "timing": timed, "touch": touched,
               "samples": len(samples), "events": len(session.recorder.events)}
    with open(os.path.join(folder, "summary.json"), "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1)
    report.write(folder, scenario, summary, manifest, samples,
                 (series.write(folder, scenario, table) if table else []) +
                 (tax.write(folder, scenario, taxed, gained) if taxed else []) +
                 (timing.write(folder, probes) if probes else []) +
                 (touch.write(folder, scenario, touched) if touched else []))
    latest = os.path.join(base, "latest")
    partial = f"{latest}.{os.getpid()}"
    os.symlink(name, partial)
    os.replace(partial, latest)
    for check in checks:
        if not check.passed or not arguments.quiet:
            print(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.value}"
                  f"{' ' if check.unit else ''}{check.unit} ({check.band})")
    return latest, summary["pass"]


def main():
    names = sorted(name for name in os.listdir(EXPERIMENTS)
                   if os.path.isfile(os.path.join(EXPERIMENTS, name, "scenario.ini")))
    parser = argparse.ArgumentParser(prog="experiments/run", description="Run an experiment.")
    parser.add_argument("experiment", help=f"one of: {', '.join(names)}; or a scenario file")
    parser.add_argument("--short", action="store_true", help="a smaller run, as the tests do")
    parser.add_argument("--build", default=os.path.join(TREE, "build"), help="build folder")
    parser.add_argument("--results", default=os.path.join(EXPERIMENTS, "results"), help="results folder")
    parser.add_argument("--images", help="folder of ready guest images, instead of building them")
    parser.add_argument("--quiet", action="store_true", help="print failed checks only")
    parser.add_argument("--check-only", action="store_true", help="read the scenario and stop")
    arguments = parser.parse_args()
    # A run that is told to end cleans up as one that fails.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    path = arguments.experiment
    if arguments.experiment in names:
        path = os.path.join(EXPERIMENTS, arguments.experiment, "scenario.ini")
    try:
        scenario = Scenario(path, arguments.short)
        if arguments.check_only:
            return 0
        folder, passed = run(scenario, arguments)
    except (ScenarioError, RunError, ImageError, HostError, SessionError, AgentError, RpcError) as error:
        print(f"experiments/run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("experiments/run: interrupted", file=sys.stderr)
        return 130
    print(f"{'PASS' if passed else 'FAIL'}: {os.path.join(folder, 'report.html')}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
