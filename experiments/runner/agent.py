"""The host's end of the guest agent protocol (experiments/guest/init), over hvc0.sock.

Commands run in the guest in the background and are answered whole; a Job waits
for one answer.
"""
import re
import socket
import threading
import time

FRAME = re.compile(rb"(\d+)([>!]) ?(.*)\Z", re.S)
LONGEST_COMMAND = 4000  # bytes; the guest reads lines through a terminal of 4095
LARGEST_OUTPUT = 64 << 20
FIRST_PAUSE_S = 2.0  # before a guest that does not answer is asked once more; doubles


class AgentError(Exception):
    """The guest does not answer, or ended while it owed an answer."""


class Job:
    """One command: `status` and `output` (text) when `wait` has returned."""

    def __init__(self, command):
        self.command, self.status, self.output = command, None, ""
        self.started = time.monotonic()
        self.seconds = None
        self._lines, self._bytes = [], 0
        self._ended = threading.Event()
        self.failure = None

    def add_line(self, line):
        self._bytes += len(line)
        if self._bytes > LARGEST_OUTPUT:
            self.end(None, "the guest's output is too large")
        else:
            self._lines.append(line)

    def end(self, status, failure=None):
        if self._ended.is_set():
            return
        self.status, self.failure = status, failure
        self.output = b"".join(self._lines).decode("utf-8", "replace")
        self.seconds = time.monotonic() - self.started
        self._ended.set()

    @property
    def ended(self):
        return self._ended.is_set()

    def wait(self, timeout_s):
        """True when the answer is there; AgentError if it can no longer come."""
        done = self._ended.wait(timeout_s)
        if done and self.failure:
            raise AgentError(f"'{self.command[:60]}': {self.failure}")
        return done


class Agent:
    """A connection to a guest's agent; connect first, then submit commands."""

    def __init__(self, path):
        self._path = path
        self._socket = None
        self._jobs = {}
        self._number = 0
        self._lock = threading.Lock()
        self._gone = None
        self._up = False

    def connect(self, timeout_s):
        """Wait until the guest is up and answers."""
        deadline = time.monotonic() + timeout_s
        while self._socket is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(self._path)
                self._socket = connection
            except OSError as error:
                connection.close()
                if time.monotonic() > deadline:
                    raise AgentError(f"{self._path}: {error.strerror}") from error
                time.sleep(0.1)
        threading.Thread(target=self._read, daemon=True).start()
        # What is written before the guest has opened its console may be lost: ask again. A guest on a
        # busy host may need long for an answer, so an early one counts whenever it comes, and asking
        # grows rare: each question is work for the guest.
        asked, pause_s = [], FIRST_PAUSE_S
        while time.monotonic() < deadline:
            asked.append(self.submit("true"))
            until = min(time.monotonic() + pause_s, deadline)
            while time.monotonic() < until:
                if any(job.wait(0) for job in asked):
                    self._up = True
                    return
                time.sleep(0.02)
            pause_s *= 2
        raise AgentError(f"{self._path}: the guest's agent does not answer")

    def submit(self, command):
        """Start a command in the guest."""
        line = command.encode()
        if b"\n" in line or len(line) > LONGEST_COMMAND:
            raise AgentError("a command is one line of at most 4000 bytes")
        job = Job(command)
        with self._lock:
            if self._gone:
                job.end(None, self._gone)
                return job
            self._number += 1
            self._jobs[self._number] = job
            try:
                self._socket.sendall(b"%d %s\n" % (self._number, line))
            except OSError as error:
                job.end(None, error.strerror)
        return job

    def close(self):
        if self._socket:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._socket.close()

    def _read(self):
        try:
            with self._socket.makefile("rb") as stream:
                while line := stream.readline(1 << 20):
                    found = FRAME.match(line)
                    if line.startswith(b"ready") and self._up:
                        self._fail("the guest started anew")
                    elif found:
                        self._take(int(found.group(1)), found.group(2), found.group(3))
        except OSError:
            pass
        self._fail("the guest's console was closed")

    def _fail(self, reason):
        """End every job: their guest will not answer any more."""
        with self._lock:
            self._gone = reason
            jobs, self._jobs = self._jobs, {}
        for job in jobs.values():
            job.end(None, reason)

    def _take(self, number, kind, rest):
        job = self._jobs.get(number)
        if job is None:
            return
        if kind == b">":
            job.add_line(rest)
            return
        del self._jobs[number]
        text = rest.strip()
        job.end(int(text) if text.isdigit() else 255)
