"""Writes what the daemon streams: samples.csv, a row each interval, and events.jsonl.

Columns: time_s, step, host_* and for every guest NAME_*. Amounts are MiB,
counters count since the guest's start, an unknown value is empty.
"""
import csv
import json
import threading
import time

from .sizes import MIB, mib

STATES = {"high": 0, "soft": 1, "hard": 2, "low": 3}

# column: value from a host row
HOST_COLUMNS = {
    "free_mib": lambda row: mib(row.get("free_pages")),
    "granted_mib": lambda row: mib(row.get("granted_pages")),
    "overcommit_percent": lambda row: overcommit_percent(row.get("overcommit_ratio")),
    "state": lambda row: row.get("state"),
    "state_level": lambda row: STATES.get(row.get("state")),
    "worst_state_level": lambda row: None,  # of the interval, from the events
    "shared_mib": lambda row: mib(added(row, "shared_references", "zero_references")),
    "zero_mib": lambda row: mib(row.get("zero_references")),
    "saved_mib": lambda row: mib(row.get("saved_pages")),
}
# column: value from a VM row
VM_COLUMNS = {
    "state": lambda row: row.get("state"),
    "allocated_mib": lambda row: mib(row.get("allocated_pages")),
    "target_mib": lambda row: mib(row.get("target_pages")),
    "balloon_mib": lambda row: mib(row.get("balloon_pages")),
    "balloon_target_mib": lambda row: mib(row.get("balloon_target_pages")),
    "balloon_driver": lambda row: int(bool(row.get("balloon_driver"))),
    "paged_mib": lambda row: mib(row.get("paged_pages")),
    "absent_mib": lambda row: mib(row.get("absent_pages")),
    "active_mib": lambda row: mib(row.get("active_pages")),
    "active_slow_mib": lambda row: mib(row.get("active_slow_pages")),
    "active_fast_mib": lambda row: mib(row.get("active_fast_pages")),
    "touched_mib": lambda row: mib(row.get("touched_pages")),  # the truth, where it is counted
    "sample_periods": lambda row: row.get("sample_periods"),
    "last_sample_pages": lambda row: row.get("last_sample_pages"),
    "last_sample_touched_pages": lambda row: row.get("last_sample_touched_pages"),
    "private_mib": lambda row: mib(row.get("private_pages")),
    "pool_mib": lambda row: mib(row.get("pool_pages")),
    "swap_in_mib": lambda row: mib(row.get("swap_in_pages")),
    "swap_out_mib": lambda row: mib(row.get("swap_out_pages")),
    "blocked": lambda row: int(bool(row.get("blocked"))),
    "vcpu_run_s": lambda row: seconds(row.get("vcpu_run_ns")),
    "vcpu_wait_s": lambda row: seconds(row.get("vcpu_wait_ns")),
    "zero_mib": lambda row: mib(row.get("zero_pages")),
    "saved_mib": lambda row: mib(row.get("shared_saved_pages")),
    "cow_breaks": lambda row: row.get("cow_breaks"),
    "instructions": lambda row: row.get("instructions"),
    "overhead_mib": lambda row: overhead_mib(row.get("overhead")),
}


def added(row, *keys):
    """Sum of values, None when one is absent."""
    values = [row.get(key) for key in keys]
    return None if None in values else sum(values)


def seconds(nanoseconds):
    return None if nanoseconds is None else round(nanoseconds / 1e9, 3)


def overcommit_percent(ratio):
    return None if ratio is None else round((ratio - 1) * 100, 1)


def overhead_mib(overhead):
    total = (overhead or {}).get("total_bytes")
    return None if total is None else round(total / MIB, 2)


class Recorder:
    """Takes the daemon's notifications; keeps all samples in memory too, as dicts."""

    def __init__(self, folder, guests, free_memory):
        """free_memory(guest) -> MiB or None: asked when the balloon reports no statistics."""
        self.samples, self.events = [], []
        self.step = "boot"
        self.on_sample = None
        self._worst_level = 0
        self._free_memory = free_memory
        self._guests = guests
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._columns = (["time_s", "step"] + [f"host_{name}" for name in HOST_COLUMNS] +
                         [f"{guest}_{name}" for guest in guests
                          for name in list(VM_COLUMNS) + ["guest_free_mib", "guest_free_source"]])
        self._csv_file = open(f"{folder}/samples.csv", "w", newline="", encoding="utf-8")
        self._csv = csv.DictWriter(self._csv_file, self._columns, restval="")
        self._csv.writeheader()
        self._event_file = open(f"{folder}/events.jsonl", "w", encoding="utf-8")

    def now(self):
        """Seconds since recording began."""
        return round(time.monotonic() - self._started, 2)

    def attach(self, client, interval_s):
        """Subscribe to samples and events of this daemon."""
        client.on("stats.rows", self._take_rows)
        client.on("event", self._take_event)
        client.call("events.subscribe")
        client.call("stats.subscribe", interval_ms=round(interval_s * 1000))

    def note(self, kind, text):
        """An event of the runner's own, such as the beginning of a step."""
        self._take_event({"kind": kind, "text": text, "vm": None})

    def _take_event(self, event):
        with self._lock:
            entry = {"time_s": self.now(), "step": self.step}
            entry.update({key: event.get(key) for key in ("vm", "kind", "text")})
            self.events.append(entry)
            if entry["kind"] == "host-state":  # "high -> soft, 3165 of ..."
                reached = (entry["text"] or "").replace(",", " ").split()[2:3]
                self._worst_level = max([self._worst_level] + [STATES.get(name, 0) for name in reached])
            if not self._event_file.closed:
                self._event_file.write(json.dumps(entry) + "\n")

    def _take_rows(self, rows):
        sample = {"time_s": self.now(), "step": self.step}
        host = rows.get("host", {})
        for name, value in HOST_COLUMNS.items():
            sample[f"host_{name}"] = value(host)
        for row in rows.get("vms", []):
            guest = row.get("name")
            if guest not in self._guests:
                continue
            for name, value in VM_COLUMNS.items():
                sample[f"{guest}_{name}"] = value(row)
            free = (row.get("guest") or {}).get("free_memory_bytes")
            if free is not None and row.get("balloon_driver"):
                sample[f"{guest}_guest_free_mib"] = round(free / MIB, 2)
                sample[f"{guest}_guest_free_source"] = "balloon"
            else:
                asked = self._free_memory(guest)
                if asked is not None:
                    sample[f"{guest}_guest_free_mib"] = asked
                    sample[f"{guest}_guest_free_source"] = "agent"
        with self._lock:
            level = sample.get("host_state_level")
            sample["host_worst_state_level"] = max(self._worst_level, level or 0)
            self._worst_level = level or 0
            self.samples.append(sample)
            if not self._csv_file.closed:
                self._csv.writerow({key: value for key, value in sample.items() if value is not None})
                self._csv_file.flush()
        if self.on_sample:
            self.on_sample(sample)

    def close(self):
        with self._lock:
            self._csv_file.close()
            self._event_file.close()
