"""One run of a scenario's steps on one host: guests created, agents connected, steps done in order."""
import os
import time

from .agent import Agent, AgentError
from .host import Host
from .recorder import Recorder
from .rpc import RpcError
from .sizes import PAGE_BYTES

BOOT_SECONDS = 180
FREE_MEMORY_EVERY_S = 3.0


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

    def __init__(self, scenario, daemon, images, disks, folder, memory, progress, guests=None):
        """memory: of the host, bytes. guests: names of those to start, None for all."""
        self._scenario, self._images, self._disks = scenario, images, disks
        self._folder, self._memory, self._progress = folder, memory, progress
        self._daemon = daemon
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
        """Create all guests and wait until their agents answer."""
        client = self.host.client
        self.recorder.attach(client, self._scenario.sample_interval)
        for settings in self._settings:
            extra = {key: getattr(settings, key) for key in ("min", "shares")
                     if getattr(settings, key) is not None}
            client.call("vm.create", name=settings.name, memory=settings.memory,
                        kernel=os.path.join(self._images, "Image"),
                        initrd=os.path.join(self._images, "initrd.gz"), append=settings.append,
                        disks=[{"path": os.path.join(self._images, "tools.img"), "read_only": True},
                               {"path": self._disks[settings.name], "read_only": True}],
                        deflate_on_oom=settings.deflate_on_oom,
                        free_page_reporting=settings.free_page_reporting, **extra)
        for settings in self._settings:
            agent = Agent(self.host.vm_file(settings.name, "hvc0.sock"))
            try:
                agent.connect(BOOT_SECONDS)
            except AgentError as error:
                raise SessionError(f"guest {settings.name} did not boot: {error}") from error
            self._guests[settings.name] = Guest(settings, agent)
        self._progress.say(f"{len(self._guests)} guests are up after {self.recorder.now():.0f} s")

    def do(self, step):
        """Do one step; its outcome is kept in `outcomes`."""
        self.recorder.step = step.name
        self.recorder.note("step", step.title)
        self._progress.say(step.title)
        began = time.monotonic()
        outcome = {"title": step.title, "began_s": self.recorder.now()}
        if step.wait is not None:
            self._wait(step.wait)
        elif step.run is not None:
            workload = self._scenario.workloads[step.run]
            outcome.update(self._run(step.guest, f"sh /disk/work/workloads/{workload.name}",
                                     workload.time_limit))
        elif step.unload is not None:
            outcome.update(self._run(step.guest, f"rmmod {step.unload}", 60))
        else:
            outcome.update(self._run(step.guest, f"modprobe {step.load}", 60))
        outcome["seconds"] = round(time.monotonic() - began, 2)
        self.outcomes[step.name] = outcome
        if outcome.get("status", 0) != 0:
            self._progress.say(f"  ended with status {outcome['status']}: "
                               f"{outcome['output'][-300:].strip()}")
        else:
            self._progress.say(f"  done in {outcome['seconds']:.1f} s")

    def _wait(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.2)
            self._alive()

    def _run(self, name, command, limit_s):
        """Run a command in a guest to its end: status, results, notes, output."""
        job = self._guests[name].agent.submit(command)
        until = min(time.monotonic() + limit_s, self.deadline)
        try:
            while not job.wait(0.5):
                self._alive()
                if time.monotonic() > until:
                    raise SessionError(f"guest {name}: '{command}' took longer than its time limit")
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
