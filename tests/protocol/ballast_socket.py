"""A control socket's client end, and a server to test it against."""

import json
import os
import select
import socket
import subprocess
import tempfile
import time


class Client:
    """One connection; lines as bytes or as JSON."""

    def __init__(self, path, greet=True, timeout=5.0):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.buffer = b""
        self.last_id = 0
        self.hello = self.receive() if greet else None

    def send_bytes(self, data):
        self.socket.sendall(data)

    def send(self, message):
        self.send_bytes(json.dumps(message).encode() + b"\n")

    def receive_line(self):
        """The next line without its newline; None at the end."""
        while b"\n" not in self.buffer:
            data = self.socket.recv(1 << 16)
            if not data:
                return None
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def receive(self):
        line = self.receive_line()
        return None if line is None else json.loads(line)

    def call(self, method, **params):
        """The whole answer of one call; notifications on the way are dropped."""
        self.last_id += 1
        request = {"jsonrpc": "2.0", "id": self.last_id, "method": method}
        if params:
            request["params"] = params
        self.send(request)
        while True:
            answer = self.receive()
            if answer is None or answer.get("id") == self.last_id:
                return answer

    def result(self, method, **params):
        answer = self.call(method, **params)
        if "result" not in answer:
            raise AssertionError(f"{method}: {answer}")
        return answer["result"]

    def code(self, method, **params):
        """The error code of a call that must fail."""
        return self.call(method, **params)["error"]["code"]

    def is_quiet(self, seconds):
        if self.buffer:
            return False
        ready, _, _ = select.select([self.socket], [], [], seconds)
        return not ready

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Server:
    """rpc-test-server, or anything that prints "ready", in a folder of its own."""

    def __init__(self, program, *arguments):
        self.folder = tempfile.TemporaryDirectory(prefix="ballast-")
        os.chmod(self.folder.name, 0o755)
        self.path = os.path.join(self.folder.name, "ctl.sock")
        self.process = subprocess.Popen(
            [program, self.path, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.process.stdout.readline() != b"ready\n":
            raise AssertionError("the server did not start")

    def client(self, **options):
        return Client(self.path, **options)

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self):
        """End it in order; its exit status."""
        self.process.stdin.close()
        status = self.process.wait(timeout=20)
        self.process.stdout.close()
        self.folder.cleanup()
        return status


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("did not happen in time")
        time.sleep(0.01)
