"""A ballastd of our own: started on a private socket in a folder of its own, and always cleaned up."""
import os
import shutil
import signal
import subprocess
import tempfile

from .rpc import Client, RpcError

QUIT_SECONDS = 20


class HostError(Exception):
    """The daemon could not be started or ended badly."""


class Host:
    """A running daemon: `client` is a connection to it, `run_dir` its folder."""

    def __init__(self, daemon, memory_bytes, policy, period_s, seed, log_path):
        self.run_dir = tempfile.mkdtemp(prefix="ballast-run.")
        self.socket_path = os.path.join(self.run_dir, "ballastd.sock")
        self.client = None
        self.exit_status = None
        self._log_path = log_path
        # The daemon ends with us even if we are killed.
        command = ["setpriv", "--pdeathsig", "TERM", daemon, "--machine-memory", str(memory_bytes), "--socket", self.socket_path,
                   "--run-dir", self.run_dir, "--policy", policy,
                   "--period-ms", str(round(period_s * 1000)), "--random-seed", str(seed)]
        try:
            with open(log_path, "wb") as log:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                                 stderr=log, start_new_session=True)
        except OSError as error:
            shutil.rmtree(self.run_dir, ignore_errors=True)
            raise HostError(f"{command[0]}: {error.strerror}") from error
        try:
            self.client = Client(self.socket_path)
        except RpcError as error:
            self.stop()
            raise HostError(f"ballastd did not start: {error}\n{self._last_words()}") from error

    def _last_words(self):
        try:
            with open(self._log_path, encoding="utf-8", errors="replace") as log:
                return "".join(log.readlines()[-10:])
        except OSError:
            return ""

    @property
    def alive(self):
        return self._process.poll() is None

    @property
    def pid(self):
        return self._process.pid

    def vm_file(self, guest, name):
        """Path of a VM's file, such as hvc0.sock."""
        return os.path.join(self.run_dir, "vms", guest, name)

    def stop(self):
        """End the daemon, by SIGTERM and if need be by SIGKILL; its exit status, negative signal."""
        if self.exit_status is not None:
            return self.exit_status
        if self.client:
            self.client.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self.exit_status = self._process.wait(QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.exit_status = self._process.wait()
        shutil.rmtree(self.run_dir, ignore_errors=True)
        return self.exit_status
