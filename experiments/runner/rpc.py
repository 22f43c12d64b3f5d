"""A client of ballastd's socket: JSON-RPC 2.0, one object a line.

One thread reads: it hands answers to those who wait for them, and
notifications to the functions that asked for their method.
"""
import json
import socket
import threading
import time

LARGEST_LINE = 16 << 20


class RpcError(Exception):
    """The daemon refused, or is gone; `code` is its error code or None."""

    def __init__(self, message, code=None):
        super().__init__(message)
        self.code = code


class Client:
    """A connection to a daemon. Raises RpcError when there is none."""

    def __init__(self, path, timeout_s=10.0):
        self._lock = threading.Lock()
        self._waiting = {}
        self._listeners = {}
        self._number = 0
        self._gone = None
        self.hello = None
        self._greeted = threading.Event()
        deadline = time.monotonic() + timeout_s
        while True:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.connect(path)
                break
            except OSError as error:
                self._socket.close()
                if time.monotonic() > deadline:
                    raise RpcError(f"{path}: {error.strerror}") from error
                time.sleep(0.05)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        if not self._greeted.wait(timeout_s) or self.hello is None:
            self.close()
            raise RpcError(f"{path}: no greeting from a ballastd")
        if self.hello.get("protocol") != 1:
            self.close()
            raise RpcError(f"{path}: speaks protocol {self.hello.get('protocol')}, not 1")

    def on(self, method, listener):
        """Call listener(params) for every notification of this method, in the reading thread."""
        self._listeners[method] = listener

    def call(self, method, timeout_s=30.0, **params):
        """Call a method; its result, or RpcError."""
        answer = {}
        ready = threading.Event()
        with self._lock:
            if self._gone:
                raise RpcError(f"{method}: {self._gone}")
            self._number += 1
            number = self._number
            self._waiting[number] = (answer, ready)
            line = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
            try:
                self._socket.sendall(line.encode() + b"\n")
            except OSError as error:
                del self._waiting[number]
                raise RpcError(f"{method}: {error.strerror}") from error
        if not ready.wait(timeout_s):
            self._waiting.pop(number, None)
            raise RpcError(f"{method}: no answer within {timeout_s:.0f} s")
        if "error" in answer:
            error = answer["error"]
            raise RpcError(f"{method}: {error.get('message', 'refused')}", error.get("code"))
        if "result" not in answer:
            raise RpcError(f"{method}: {self._gone or 'a malformed answer'}")
        return answer["result"]

    def close(self):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def _read(self):
        reason = "the daemon closed the connection"
        try:
            with self._socket.makefile("rb") as stream:
                while line := stream.readline(LARGEST_LINE):
                    self._take(json.loads(line))
        except (OSError, ValueError) as error:
            reason = f"the connection failed: {error}"
        with self._lock:
            self._gone = reason
            waiting, self._waiting = self._waiting, {}
        for _, ready in waiting.values():
            ready.set()
        self._greeted.set()

    def _take(self, message):
        if "method" in message:
            if message["method"] == "hello":
                self.hello = message.get("params", {})
                self._greeted.set()
            elif listener := self._listeners.get(message["method"]):
                listener(message.get("params", {}))
            return
        found = self._waiting.pop(message.get("id"), None)
        if found:
            found[0].update(message)
            found[1].set()
