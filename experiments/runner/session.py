"""One run of a scenario's steps on one host: guests created, agents connected, steps done in order."""
import os
import time

from .agent import Agent, AgentError
from .content import make_scratch
from .host import Host
from .recorder import Recorder
from .rpc import RpcError
from .sizes import PAGE_BYTES

BOOT_SECONDS = 180
FREE_MEMORY_EVERY_S = 3.0
MOST_ROUNDS = 30  # of a step with `until`


SCAN_SETTINGS = ("scan_min_pages_per_second", "scan_max_pages_per_second", "scan_cpu_percent",
                 "scan_settled_only")


def process_seconds(pid):
    """Processor time of a process and its threads; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class SessionError(Exception):
    """A step could not be done; the run ends."""


class Guest:
    """A running guest: its settings, its agent, and its free memory as it last said."""

    def __init__(self, settings, agent):
        self.settings, self.agent = settings, agent
        self.free_mib = None
        self._job, self._asked = None, 0.0

    def ask_free_memory(self):
        """Free memory in MiB as last answered, and ask again when that is old. Never waits."""
        if self._job and self._job.ended:
            try:
                if self._job.wait(0) and self._job.status == 0:
                    self.free_mib = round(int(self._job.output) / 1024, 2)
            except (AgentError, ValueError):
                self.free_mib = None
            self._job = None
        if self._job is None and time.monotonic() - self._asked > FREE_MEMORY_EVERY_S:
            self._asked = time.monotonic()
            self._job = self.agent.submit("sed -n 's/^MemFree: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")
        return self.free_mib


class Session:
    """A host with its guests, for as long as the `with` block lasts."""

    def __init__(self, scenario, daemon, images, disks, folder, memory, progress, guests=None,
                 sharing=None):
        """memory: of the host, bytes. guests: names of those to start, None for all.
        sharing: in place of the scenario's, None for that."""
        self._scenario, self._images, self._disks = scenario, images, disks
        self._folder, self._memory, self._progress = folder, memory, progress
        self._daemon, self._sharing = daemon, sharing
        self._settings = [guest for guest in scenario.guests if guests is None or guest.name in guests]
        self._guests = {}
        self.outcomes = {}
        self.host = None
        self.recorder = None
        self.deadline = time.monotonic() + scenario.time_limit

    def __enter__(self):
        scenario = self._scenario
        self.host = Host(self._daemon, self._memory, scenario.host.policy, scenario.host.period,
                         scenario.seed, os.path.join(self._folder, "ballastd.log"))
        self.recorder = Recorder(self._folder, [guest.name for guest in self._settings],
                                 self._free_memory)
        self.recorder.on_sample = self._progress.sample
        return self

    def __exit__(self, *_):
        for guest in self._guests.values():
            guest.agent.close()
        self._keep_logs()
        self.host.stop()
        self.recorder.close()

    def _keep_logs(self):
        for guest in self._settings:
            for name in ("serial.log", "hvc0.log"):
                try:
                    with open(self.host.vm_file(guest.name, name), "rb") as log:
                        content = log.read()[-(1 << 20):]
                    with open(os.path.join(self._folder, f"{guest.name}-{name}"), "wb") as copy:
                        copy.write(content)
                except OSError:
                    pass  # a guest that was never created has no logs

    def _free_memory(self, name):
        guest = self._guests.get(name)
        return guest.ask_free_memory() if guest else None

    def boot(self):
        """Create all guests but those of the series, and wait until their agents answer."""
        self.recorder.attach(self.host.client, self._scenario.sample_interval)
        self._set_sharing()
        self._set_sampling()
        series = self._scenario.series
        self.start([guest.name for guest in self._settings if not series or guest.name not in series.guests])
        if self._guests:
            self._progress.say(f"{len(self._guests)} guests are up after {self.recorder.now():.0f} s")

    def _set_sharing(self):
        """What the scenario says of content-based sharing; the daemon's own way where it is silent."""
        host = self._scenario.host
        wanted = {key: getattr(host, key) for key in SCAN_SETTINGS if getattr(host, key) is not None}
        sharing = host.sharing if self._sharing is None else self._sharing
        if sharing is not None:
            wanted["sharing"] = sharing
        if wanted:
            self.host.client.call("host.set", **wanted)

    def _set_sampling(self):
        """Tax and sampling, where the scenario says something of them."""
        host = self._scenario.host
        wanted = {"idle_tax_percent": host.idle_tax, "sample_pages": host.sample_pages,
                  "sample_period_ms": host.sample_period and round(host.sample_period * 1000),
                  "count_touched": True if self._scenario.touch else None}
        wanted = {key: value for key, value in wanted.items() if value is not None}
        if wanted:
            self.host.client.call("host.set", **wanted)

    def start(self, names):
        """Create guests and wait until their agents answer."""
        client = self.host.client
        starting = [guest for guest in self._settings if guest.name in names]
        for settings in starting:
            extra = {key: getattr(settings, key) for key in ("min", "shares", "sharing_domain")
                     if getattr(settings, key) is not None}
            client.call("vm.create", name=settings.name, memory=settings.memory,
                        kernel=os.path.join(self._images, "Image"),
                        initrd=os.path.join(self._images, "initrd.gz"), append=settings.append,
                        disks=self._disks_of(settings),
                        deflate_on_oom=settings.deflate_on_oom,
                        free_page_reporting=settings.free_page_reporting, **extra)
        for settings in starting:
            agent = Agent(self.host.vm_file(settings.name, "hvc0.sock"))
            try:
                agent.connect(BOOT_SECONDS)
            except AgentError as error:
                raise SessionError(f"guest {settings.name} did not boot: {error}") from error
            self._guests[settings.name] = Guest(settings, agent)

    def _disks_of(self, settings):
        disks = [{"path": os.path.join(self._images, "tools.img"), "read_only": True},
                 {"path": self._disks[settings.name], "read_only": True}]
        if settings.scratch:  # empty at each start
            path = os.path.join(self.host.run_dir, f"scratch-{settings.name}.img")
            make_scratch(path, settings.scratch)
            disks.append({"path": path, "read_only": False})
        return disks

    def cpu_seconds(self):
        """Processor time that the daemon and all workers have used."""
        rows = self.host.client.call("vm.list")["vms"]
        pids = [self.host.pid] + [self.host.client.call("vm.stats", vm=row["name"]).get("pid")
                                  for row in rows]
        return sum(process_seconds(pid) for pid in pids if pid)

    def do(self, step):
        """Do one step; its outcome is kept in `outcomes`."""
        self.recorder.step = step.name
        self.recorder.note("step", step.title)
        self._progress.say(step.title)
        before = self._counters(step.guest)
        began = time.monotonic()
        outcome = {"title": step.title, "began_s": self.recorder.now()}
        if step.wait is not None:
            self.wait(step.wait)
        elif step.idle_tax is not None:
            self.host.client.call("host.set", idle_tax_percent=step.idle_tax)
        elif step.scan_passes is not None:
            self.await_passes(step.scan_passes)
        elif step.sharing_domain is not None:
            self.host.client.call("vm.set", vm=step.guest, sharing_domain=None if
                                  step.sharing_domain == "none" else step.sharing_domain)
        elif step.run is not None:
            workload = self._scenario.workloads[step.run]
            outcome.update(run=step.run, reference=step.reference)
            outcome.update(self.run([step.guest], workload)[0])
            rounds = 1
            while outcome["status"] == 0 and step.until and not self._holds(step.until):
                if rounds == MOST_ROUNDS:
                    raise SessionError(f"step {step.name}: after {rounds} rounds '{step.until[0]}' is not where it "
                                       f"should be")
                outcome.update(self.run([step.guest], workload)[0])
                rounds += 1
            outcome["rounds"] = rounds
        elif step.unload is not None:
            outcome.update(self._run([step.guest], f"rmmod {step.unload}", 60)[0])
        else:
            outcome.update(self._run([step.guest], f"modprobe {step.load}", 60)[0])
        outcome["seconds"] = round(time.monotonic() - began, 2)
        after = self._counters(step.guest)
        outcome["guest"] = step.guest
        outcome["cost"] = {key: after[key] - before[key] for key in after if key in before}
        self.outcomes[step.name] = outcome
        if outcome.get("status", 0) != 0:
            self._progress.say(f"  ended with status {outcome['status']}: "
                               f"{outcome['output'][-300:].strip()}")
        else:
            self._progress.say(f"  done in {outcome['seconds']:.1f} s")

    def _holds(self, condition):
        """Whether the newest sample meets it."""
        column, at_most, limit = condition
        value = self.recorder.samples[-1].get(column) if self.recorder.samples else None
        return value is not None and (value <= limit if at_most else value >= limit)

    def _counters(self, name):
        """What running short of memory has cost the guest so far, and its own time: counters of its row, and
        own_s, seconds in which its vCPU had a processor, slept for lack of work, or waited for memory."""
        row = self.host.client.call("vm.stats", vm=name) if name else {}
        found = {key: row[key] for key in ("swap_in_pages", "swap_out_pages", "vcpu_wait_ns") if key in row}
        own = [row.get(f"vcpu_{part}_ns") for part in ("run", "wait", "idle")]
        if None not in own:
            found["own_s"] = round(sum(own) / 1e9, 2)
        return found

    def last_sample(self):
        """Wait until the end of the last step has been sampled."""
        self.wait(self._scenario.sample_interval + 0.1)

    def wait(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.2)
            self._alive()

    def await_passes(self, passes):
        """Wait until the scanner has visited so many times as many pages as all running guests have."""
        def visited():
            stats = self.host.client.call("sharing.stats")
            return stats["hashed_pages"] + stats["covered_pages"]
        pages = sum(guest.settings.memory for guest in self._guests.values()) // PAGE_BYTES
        until = visited() + passes * pages
        while visited() < until:
            if time.monotonic() > self.deadline:
                raise SessionError("the scanner is too slow for the scenario's time limit")
            self.wait(0.5)

    def run(self, names, workload):
        """Run a workload in these guests at once; outcomes in their order."""
        return self._run(names, f"sh /disk/own/workloads/{workload.name} {workload.arguments}".strip(), workload.time_limit)

    def submit(self, name, command):
        """Start a command in a guest; its job."""
        return self._guests[name].agent.submit(command)

    def guest_command(self, name, command, limit_s):
        """Run a short command in a guest to its good end."""
        outcome = self._run([name], command, limit_s)[0]
        if outcome["status"] != 0:
            raise SessionError(f"guest {name}: '{command}' ended with status {outcome['status']}: "
                               f"{outcome['output'][-300:].strip()}")

    def _run(self, names, command, limit_s):
        """Run a command in guests to its end: of each status, results, notes, output."""
        jobs = [self._guests[name].agent.submit(command) for name in names]
        until = min(time.monotonic() + limit_s, self.deadline)
        return [self._outcome(name, job, until) for name, job in zip(names, jobs)]

    def _outcome(self, name, job, until):
        try:
            while not job.wait(0.2):
                self._alive()
                if time.monotonic() > until:
                    raise SessionError(f"guest {name}: '{job.command}' took longer than its time limit")
        except AgentError as error:
            raise SessionError(f"guest {name}: {error}") from error
        found = {"status": job.status, "output": job.output, "results": {}, "notes": {}}
        for line in job.output.splitlines():
            kind, _, rest = line.partition(" ")
            if kind in ("result", "note"):
                key, _, value = rest.partition(" ")
                found[kind + "s"][key] = value
        return found

    def _alive(self):
        if not self.host.alive:
            raise SessionError("ballastd has ended in the middle of the run")

    def check_invariants(self):
        """The daemon's answer to host.check, or None if there was none."""
        try:
            return self.host.client.call("host.check", timeout_s=60)
        except RpcError as error:
            self._progress.say(f"invariants could not be checked: {error}")
            return None

    def overheads(self):
        """Overhead of each VM by source, bytes."""
        found = {}
        for name in self._guests:
            try:
                found[name] = self.host.client.call("vm.stats", vm=name).get("overhead")
            except RpcError as error:
                found[name] = {"error": str(error)}
        return found

    def machine_bytes(self):
        return self.host.client.call("host.stats")["machine_pages"] * PAGE_BYTES
