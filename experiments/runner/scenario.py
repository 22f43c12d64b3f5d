"""The scenario file: host, guests, files, workloads, steps, checks, seed.

    [scenario]         name, title, seed, sample_interval, time_limit
    [host]             memory, policy, period, idle_tax, sample_pages, sample_period
                       sharing, scan_min_pages_per_second, scan_max_pages_per_second,
                       scan_cpu_percent, scan_settled_only   (left to the daemon where not given)
    [reference]        memory            of a host where nothing is short
    [guest NAME]       memory, min, shares, disk, append, deflate_on_oom, free_page_reporting,
                       sharing_domain, count   (over 1: equal guests NAME1, NAME2, ...),
                       scratch   (size of an empty disk that it may write to)
    [file NAME]        guest, kind (random, lines), size   seeded content on the guest's disk
    [workload NAME]    script, arguments, time_limit       a shell script beside the scenario
    [program NAME]     source                              C beside the scenario, for the guests
    [step NAME]        title, and one of: guest + run, guest + unload, guest + load, wait,
                       idle_tax (of the host from here on), scan_passes (wait until the scanner has
                       gone so often over all guests), guest + sharing_domain (none: alone);
                       skip = yes leaves it out; until = SUBJECT.COLUMN <= or >= VALUE: its workload
                       is run again until that holds, at most 30 times
    [series]           guest, counts, workload, rounds, settle, settle_limit,
                       settle_cpu_percent, without_sharing, paper
                       (series.py): the same guests 1, 2, ... at a time, all doing the workload
    [tax]              idle, busy (guests), before, after (steps, one or more), percent, within_mib,
                       paper_before, paper_after, paper_gain_percent, gain_at_least, reads_at_most (tax.py):
                       the policy against its rule, and what its taking from one is worth to the other
    [timing]           held, probes (steps; timing.py): what copy-on-write timing gives away
    [touch]            guest, program, steps (MIB:PERIODS, ...), truth_mib, rise_periods, decay, decay_within,
                       paper (touch.py): sampling of active memory beside the truth
    [check NAME]       step (one or more), measure (SUBJECT.COLUMN HOW), at_least, at_most, text
                       (of the series: no step, from_guests; of the timing: the probe's step)

Steps run in the order of the file. [short ...] before a section's name gives
the values that replace its own in a short run: [short file lines].

The grammar is one table, SECTIONS; every mistake is refused with file and line.
"""
import copy
import os
import re

from .sizes import parse_duration, parse_size

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}\Z")
MEMORY_MULTIPLE = 2 << 20
GUEST_SMALLEST = 64 << 20
HOST_SMALLEST = 32 << 20
LARGEST = 1 << 40
MOST_COPIES = 64
CONDITION = re.compile(r"([a-z0-9_-]+)\.([a-z0-9_]+) (<=|>=) (\S+)\Z")


class ScenarioError(Exception):
    """A scenario that cannot be run; the text begins with file:line."""


def text(value):
    return value


def number(value):
    if not value.isdigit():
        raise ValueError(f"'{value}' is not a whole number")
    return int(value)


def yes_no(value):
    if value not in ("yes", "no"):
        raise ValueError(f"'{value}' is neither yes nor no")
    return value == "yes"


def one_of(*choices):
    def parse(value):
        if value not in choices:
            raise ValueError(f"'{value}' is none of {', '.join(choices)}")
        return value
    return parse


def duration(value):
    return parse_duration(value)


def size(value):
    return parse_size(value)


def memory(smallest, multiple):
    """A memory size that a machine can have."""
    def parse(value):
        got = parse_size(value)
        if got < smallest or got > LARGEST or got % multiple:
            raise ValueError(f"'{value}' is impossible: {smallest >> 20} MiB to 1 TiB, "
                             f"a multiple of {multiple >> 10} KiB")
        return got
    return parse


def names(value):
    """Names with commas between."""
    return [part.strip() for part in value.split(",")]


def numbers(value):
    """Whole numbers over 0 with commas between, rising."""
    found = [number(part) for part in names(value)]
    if found != sorted(set(found)) or found[0] < 1:
        raise ValueError(f"'{value}' are not rising numbers from 1")
    return found


def decimals(value):
    """Two numbers with a comma between."""
    first, second = names(value)
    return float(first), float(second)


def touch_steps(value):
    """MIB:PERIODS with commas between: so many MiB for so many periods of sampling, at least 2."""
    found = []
    for part in names(value):
        mib, _, periods = part.partition(":")
        found.append((number(mib), number(periods)))
        if found[-1][1] < 2:
            raise ValueError(f"'{part}' is no MIB:PERIODS of at least 2 periods")
    return found


def bound(value):
    """A limit of a check: a size in MiB, or a plain number."""
    try:
        return float(value)
    except ValueError:
        return parse_size(value) / (1 << 20)


def limit(value):
    """A number, or none: nothing is asked."""
    return None if value == "none" else float(value)


def condition(value):
    """SUBJECT.COLUMN <= VALUE or >= VALUE: (column of samples.csv, whether at most, value)."""
    found = CONDITION.match(value)
    if not found:
        raise ValueError(f"'{value}' is not a condition such as 'a.balloon_mib >= 16MiB'")
    subject, column, sign, wanted = found.groups()
    return f"{subject}_{column}", sign == "<=", bound(wanted)


# section kind -> key -> (parser, default); REQUIRED has no default
REQUIRED = object()
SECTIONS = {
    "scenario": {"name": (text, REQUIRED), "title": (text, REQUIRED), "seed": (number, REQUIRED),
                 "sample_interval": (duration, 1.0), "time_limit": (duration, 900.0)},
    "host": {"memory": (memory(HOST_SMALLEST, 4096), REQUIRED), "policy": (text, "proportional"),
             "period": (duration, 0.5), "sharing": (yes_no, None),
             "scan_min_pages_per_second": (number, None),
             "scan_max_pages_per_second": (number, None), "scan_cpu_percent": (number, None),
             "scan_settled_only": (yes_no, None), "idle_tax": (number, None), "sample_pages": (number, None), "sample_period": (duration, None)},
    "reference": {"memory": (memory(HOST_SMALLEST, 4096), REQUIRED)},
    "guest": {"memory": (memory(GUEST_SMALLEST, MEMORY_MULTIPLE), REQUIRED),
              "min": (memory(16 << 20, 4096), None), "shares": (number, None),
              "disk": (memory(8 << 20, 1 << 20), 64 << 20), "append": (text, "console=ttyS0 quiet panic=-1"),
              "deflate_on_oom": (yes_no, False), "free_page_reporting": (yes_no, False),
              "sharing_domain": (text, None), "count": (number, 1),
              "scratch": (memory(8 << 20, 1 << 20), None)},
    "series": {"guest": (text, REQUIRED), "counts": (numbers, REQUIRED), "workload": (text, REQUIRED),
               "rounds": (number, 1), "settle": (duration, 4.0), "settle_limit": (duration, 60.0),
               "settle_cpu_percent": (number, None),
               "without_sharing": (yes_no, True), "paper": (text, None)},
    "tax": {"idle": (text, REQUIRED), "busy": (text, REQUIRED), "before": (names, REQUIRED),
            "after": (names, REQUIRED), "percent": (number, REQUIRED), "within_mib": (number, 8),
            "paper_before": (decimals, REQUIRED), "paper_after": (decimals, REQUIRED),
            "paper_gain_percent": (number, None), "gain_at_least": (limit, None),
            "reads_at_most": (limit, None)},
    "touch": {"guest": (text, REQUIRED), "program": (text, REQUIRED), "steps": (touch_steps, REQUIRED),
              "truth_mib": (number, REQUIRED), "rise_periods": (number, REQUIRED), "decay": (float, REQUIRED),
              "decay_within": (float, REQUIRED), "paper": (text, None)},
    "file": {"guest": (text, REQUIRED), "kind": (one_of("random", "lines"), REQUIRED),
             "size": (size, REQUIRED)},
    "workload": {"script": (text, REQUIRED), "arguments": (text, ""), "time_limit": (duration, 300.0)},
    "program": {"source": (text, REQUIRED)},
    "timing": {"held": (text, REQUIRED), "probes": (names, REQUIRED)},
    "step": {"title": (text, REQUIRED), "guest": (text, None), "run": (text, None),
             "unload": (text, None), "load": (text, None), "wait": (duration, None),
             "idle_tax": (number, None), "scan_passes": (number, None),
             "sharing_domain": (text, None),
             "reference": (yes_no, False), "skip": (yes_no, False), "until": (condition, None)},
    "check": {"step": (names, None), "measure": (text, REQUIRED), "at_least": (bound, None),
              "at_most": (bound, None), "text": (text, ""), "from_guests": (number, 1)},
}
NAMELESS = ("scenario", "host", "reference", "series", "tax", "timing", "touch")
ACTS = ("run", "unload", "load", "wait", "idle_tax", "scan_passes", "sharing_domain")  # of a step
GUESTLESS = ("wait", "idle_tax", "scan_passes")
NOT_GUESTS = ("host", "note", "series", "timing")  # other subjects of a measure
MEASURE = re.compile(r"([a-z0-9_-]+)\.([a-z0-9_]+) (max|min|mean|first|last|rise|fall|growth)\Z")


class Section:
    """One section: attributes are its keys; `name`, and `at` for messages."""

    def __init__(self, kind, name, at):
        self.section_kind, self.section_name, self.at = kind, name, at
        self.lines = {}
        for key, (_, default) in SECTIONS[kind].items():
            setattr(self, key, None if default is REQUIRED else default)
        if kind not in NAMELESS:
            self.name = name


class Scenario:
    """A scenario read from a file and checked."""

    def __init__(self, path, short=False):
        self.path = path
        self.folder = os.path.dirname(os.path.abspath(path))
        self.short = short
        self._sections = {}
        self._read()
        self._check()

    def _fail(self, line, message):
        raise ScenarioError(f"{self.path}:{line}: {message}")

    def _read(self):
        try:
            with open(self.path, encoding="utf-8") as file:
                lines = file.read().splitlines()
        except OSError as error:
            raise ScenarioError(f"{self.path}:0: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ScenarioError(f"{self.path}:0: not a text in UTF-8") from error
        section, ignored = None, False
        for at, raw in enumerate(lines, 1):
            line = raw.strip()
            if not line or line[0] in "#;":
                continue
            if line[0] == "[":
                section, ignored = self._open(at, line)
            elif section is None:
                self._fail(at, "a key before the first [section]")
            elif "=" not in line:
                self._fail(at, f"'{line}' is neither [section] nor key = value")
            else:
                key, value = (part.strip() for part in line.split("=", 1))
                self._set(at, section, key, value, ignored)

    def _open(self, at, line):
        """The section a heading names, and whether its values are for another kind of run."""
        words = line[1:-1].split() if line.endswith("]") else []
        override = bool(words) and words[0] == "short"
        if override:
            words = words[1:]
        if not words or words[0] not in SECTIONS:
            self._fail(at, f"unknown section {line}")
        kind, name = words[0], " ".join(words[1:])
        if kind in NAMELESS and name:
            self._fail(at, f"section [{kind}] takes no name")
        if kind not in NAMELESS and not NAME.match(name):
            self._fail(at, f"section [{kind}] needs a name of a-z, 0-9, _ and -")
        found = self._sections.get((kind, name))
        if override:
            if found is None:
                self._fail(at, f"{line} changes a section that is not there")
            found.lines = {}
            return found, not self.short
        if found is not None:
            self._fail(at, f"section {line} stands already in line {found.at}")
        self._sections[kind, name] = Section(kind, name, at)
        return self._sections[kind, name], False

    def _set(self, at, section, key, value, ignored):
        known = SECTIONS[section.section_kind]
        if key not in known:
            self._fail(at, f"unknown key '{key}' in [{section.section_kind}]; known: {', '.join(known)}")
        if key in section.lines:
            self._fail(at, f"key '{key}' stands already in line {section.lines[key]}")
        section.lines[key] = at
        try:
            parsed = known[key][0](value)
        except ValueError as error:
            self._fail(at, f"{key}: {error}")
        if not ignored:
            setattr(section, key, parsed)

    def _all(self, kind):
        return [section for (of, _), section in self._sections.items() if of == kind]

    def _one(self, kind, required=True):
        section = self._sections.get((kind, ""))
        if section is None and required:
            self._fail(0, f"section [{kind}] is missing")
        return section

    def _check(self):
        for section in self._sections.values():
            for key, (_, default) in SECTIONS[section.section_kind].items():
                if default is REQUIRED and getattr(section, key) is None:
                    self._fail(section.at, f"[{section.section_kind} {section.section_name}]".replace(
                        " ]", "]") + f" lacks the key '{key}'")
        main = self._one("scenario")
        self.name, self.title, self.seed = main.name, main.title, main.seed
        self.sample_interval, self.time_limit = main.sample_interval, main.time_limit
        self.host = self._one("host")
        self.reference = self._one("reference", required=False)
        self.series = self._one("series", required=False)
        self.touch = self._one("touch", required=False)
        self.tax = self._one("tax", required=False)
        self.timing = self._one("timing", required=False)
        self.guests = [guest for section in self._all("guest") for guest in self._copies(section)]
        self.files = self._all("file")
        self.workloads = {section.name: section for section in self._all("workload")}
        self.programs = self._all("program")
        self.steps = [step for step in self._all("step") if not step.skip]
        self.checks = self._all("check")
        if not self.guests:
            self._fail(0, "no [guest]")
        if not self.steps and not self.series and not self.touch:
            self._fail(0, "no [step], no [series] and no [touch]")
        if self.series:
            self._check_series(self.series)
        if self.tax:
            self._check_tax(self.tax)
        if self.timing:
            for name in [self.timing.held] + self.timing.probes:
                self._step(self.timing, name)
        if self.touch:
            self._check_touch(self.touch)
        self._check_sizes()
        for workload in self.workloads.values():
            self._beside(workload, "script", workload.script)
        for program in self.programs:
            self._beside(program, "source", program.source)
        for step in self.steps:
            self._check_step(step)
        for check in self.checks:
            self._check_check(check)

    def _copies(self, section):
        """The guests that a section stands for; `template` is the section's name."""
        section.template = section.name
        if not 1 <= section.count <= MOST_COPIES:
            self._fail(section.at, f"guest {section.name}: count is 1 to {MOST_COPIES}")
        if section.count == 1:
            return [section]
        copies = [copy.copy(section) for _ in range(section.count)]
        for index, guest in enumerate(copies, 1):
            guest.name = f"{section.name}{index}"
        return copies

    def _check_series(self, series):
        """`guests` are the names of its guests, in the order in which they start."""
        series.guests = [guest.name for guest in self.guests if guest.template == series.guest]
        if len(series.guests) < series.counts[-1]:
            self._fail(series.at, f"there are {len(series.guests)} guests '{series.guest}', "
                                  f"{series.counts[-1]} are wanted")
        if series.workload not in self.workloads:
            self._fail(series.at, f"there is no workload '{series.workload}'")
        if series.settle_cpu_percent is not None and self.host.scan_cpu_percent is None:
            self._fail(series.at, "settle_cpu_percent needs the host's scan_cpu_percent to go back to")
        if series.rounds < 1:
            self._fail(series.at, "rounds is at least 1")
        if series.paper and not os.path.isfile(os.path.join(self.folder, series.paper)):
            self._fail(series.at, f"{series.paper} is not beside the scenario")

    def _beside(self, section, what, name):
        if not os.path.isfile(os.path.join(self.folder, name)):
            self._fail(section.at, f"{what} {name} is not beside the scenario")

    def _step(self, section, name):
        if name not in [step.name for step in self.steps]:
            self._fail(section.at, f"there is no step '{name}'")

    def _check_tax(self, tax):
        for name in (tax.idle, tax.busy):
            self._guest(tax, name)
        for name in tax.before + tax.after:
            self._step(tax, name)

    def _check_touch(self, touch):
        self._guest(touch, touch.guest)
        if touch.program not in [program.name for program in self.programs]:
            self._fail(touch.at, f"there is no program '{touch.program}'")
        room = next(guest.memory for guest in self.guests if guest.name == touch.guest) >> 20
        if max(mib for mib, _ in touch.steps) > room:
            self._fail(touch.at, f"guest {touch.guest} has {room} MiB")
        if self.host.sample_period is None or self.host.sample_period < 2 * self.sample_interval:
            self._fail(touch.at, "the host's sample_period must be given, at least twice the sample_interval")
        if touch.paper and not os.path.isfile(os.path.join(self.folder, touch.paper)):
            self._fail(touch.at, f"{touch.paper} is not beside the scenario")

    def _check_sizes(self):
        least = 0
        for guest in self.guests:
            if guest.name in NOT_GUESTS:
                self._fail(guest.at, f"'{guest.name}' cannot be a guest's name")
            least += guest.min or guest.memory // 2
            if guest.min and guest.min > guest.memory:
                self._fail(guest.at, f"guest {guest.name}: min is more than memory")
            if guest.shares == 0:
                self._fail(guest.at, f"guest {guest.name}: shares must be positive")
            used = sum(file.size for file in self.files if file.guest == guest.template)
            if used + (8 << 20) > guest.disk:
                self._fail(guest.at, f"guest {guest.name}: files of {used >> 20} MiB and 8 MiB of "
                                     f"room do not fit a disk of {guest.disk >> 20} MiB")
        if least > self.host.memory:
            self._fail(self.host.at, f"the guests' min add up to {least >> 20} MiB, more than the "
                                     f"host's memory of {self.host.memory >> 20} MiB")
        for file in self.files:
            if file.guest not in [guest.template for guest in self.guests]:
                self._fail(file.at, f"there is no guest '{file.guest}'")
            if not 1 <= file.size <= 64 << 30:
                self._fail(file.at, f"file {file.name}: size must be 1 byte to 64 GiB")

    def _guest(self, section, name):
        if name not in [guest.name for guest in self.guests]:
            self._fail(section.at, f"there is no guest '{name}'")

    def _check_step(self, step):
        acts = [key for key in ACTS if getattr(step, key) is not None]
        if len(acts) != 1:
            self._fail(step.at, f"a step does one of {', '.join(ACTS)}")
        if acts[0] not in GUESTLESS:
            if step.guest is None:
                self._fail(step.at, f"'{acts[0]}' needs a guest")
            self._guest(step, step.guest)
        if step.run is not None and step.run not in self.workloads:
            self._fail(step.at, f"there is no workload '{step.run}'")
        if step.until and step.run is None:
            self._fail(step.at, "until needs a workload to run again")
        if step.reference and (step.run is None or self.reference is None):
            self._fail(step.at, "reference = yes needs a workload and a [reference] section")

    def _check_check(self, check):
        for name in check.step or []:
            self._step(check, name)
        found = MEASURE.match(check.measure)
        if not found:
            self._fail(check.at, f"'{check.measure}' is not a measure such as 'a.balloon_mib max'")
        if found.group(1) == "series" and not self.series:
            self._fail(check.at, "there is no [series]")
        if (check.step is None) != (found.group(1) == "series"):
            self._fail(check.at, "a check has a step unless it is of the series")
        if found.group(1) == "timing" and (not self.timing or check.step != [
                name for name in self.timing.probes if name in (check.step or [])][:1]):
            self._fail(check.at, "a check of the timing has one step, one of the probes of [timing]")
        if found.group(1) not in NOT_GUESTS:
            self._guest(check, found.group(1))
        if check.at_least is None and check.at_most is None:
            self._fail(check.at, "a check needs at_least or at_most")

    @property
    def overcommit_ratio(self):
        """Memory promised to guests over memory of the host."""
        return sum(guest.memory for guest in self.guests) / self.host.memory
