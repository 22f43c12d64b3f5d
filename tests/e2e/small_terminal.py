"""A terminal for tests: a program on a pty, and what its screen says.

Understands what curses sends to a "vt100" and no more; anything else fails the test.
"""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

SEQUENCE = re.compile(r"\x1b(?:\[([?]?[0-9;]*)([A-Za-z])|[()][0AB]|[78=>MDEH])")


class Terminal:
    def __init__(self, arguments, lines=24, columns=80, environment=None):
        self.lines, self.columns = lines, columns
        self.clear()
        self.pending = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                time.sleep(0.05)  # until the size is set
                os.execve(arguments[0], arguments, {"TERM": "vt100", "LC_ALL": "C.UTF-8",
                                                    "PATH": "/bin:/usr/bin", **(environment or {})})
            finally:
                os._exit(127)
        self.set_size(lines, columns)
        self.status = None

    def clear(self):
        self.cells = [[" "] * self.columns for _ in range(self.lines)]
        self.y = self.x = 0
        self.region = (0, self.lines - 1)

    def set_size(self, lines, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, lines, columns):
        self.lines, self.columns = lines, columns
        self.clear()
        self.set_size(lines, columns)

    # What the program writes.

    def scroll(self, by):
        top, bottom = self.region
        for _ in range(abs(by)):
            line = [" "] * self.columns
            if by > 0:
                del self.cells[top]
                self.cells.insert(bottom, line)
            else:
                del self.cells[bottom]
                self.cells.insert(top, line)

    def put(self, c):
        if c == "\r":
            self.x = 0
        elif c == "\n":
            if self.y == self.region[1]:
                self.scroll(1)
            else:
                self.y = min(self.y + 1, self.lines - 1)
        elif c == "\b":
            self.x = max(self.x - 1, 0)
        elif c == "\t":
            self.x = min(self.x // 8 * 8 + 8, self.columns - 1)
        elif c >= " ":
            if self.x >= self.columns:
                self.x, self.y = 0, min(self.y + 1, self.lines - 1)
            self.cells[self.y][self.x] = c
            self.x += 1

    def erase(self, y, first, last):
        self.cells[y][first:last] = [" "] * (last - first)

    def obey(self, parameters, letter):
        numbers = [int(n) for n in parameters.split(";") if n.isdigit()]
        first = numbers[0] if numbers else 0
        if letter in "Hf":
            self.y = min((first or 1), self.lines) - 1
            self.x = min((numbers[1] if len(numbers) > 1 else 1), self.columns) - 1
        elif letter in "ABCD":
            by = first or 1
            self.y += {"A": -by, "B": by}.get(letter, 0)
            self.x += {"C": by, "D": -by}.get(letter, 0)
            self.y = min(max(self.y, 0), self.lines - 1)
            self.x = min(max(self.x, 0), self.columns - 1)
        elif letter == "K":
            self.erase(self.y, self.x if first != 1 else 0,
                       self.columns if first != 1 else self.x + 1)
        elif letter == "J":
            for y in range(self.y if first == 0 else 0, self.lines if first != 1 else self.y + 1):
                self.erase(y, self.x if first == 0 and y == self.y else 0, self.columns)
        elif letter == "r":
            self.region = (first - 1, numbers[1] - 1) if numbers else (0, self.lines - 1)
            self.y = self.x = 0
        elif letter not in "mhl":
            raise AssertionError(f"the terminal does not know ESC [{parameters}{letter}")

    def feed(self, text):
        text, self.pending = self.pending + text, ""
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                self.put(text[at])
                at += 1
                continue
            match = SEQUENCE.match(text, at)
            if not match:
                if len(text) - at > 20:
                    raise AssertionError(f"the terminal does not know {text[at:at + 20]!r}")
                self.pending = text[at:]
                return
            if match.group(2):
                self.obey(match.group(1), match.group(2))
            elif match.group(0) == "\x1bM":
                if self.y == self.region[0]:
                    self.scroll(-1)
                else:
                    self.y -= 1
            at = match.end()

    def text(self):
        return "\n".join("".join(line).rstrip() for line in self.cells)

    def run_for(self, seconds):
        """Show what comes for so long; false when the program has ended."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                try:
                    output = os.read(self.fd, 65536)
                except OSError:
                    return False
                if not output:
                    return False
                self.feed(self.decoder.decode(output))
        return True

    # What a test wants.

    def wait_for(self, pattern, seconds=10.0, absent=False):
        """Until the screen's text matches (or does not any more); the text."""
        end = time.monotonic() + seconds
        while bool(re.search(pattern, self.text())) == absent:
            alive = self.run_for(0.05)
            if bool(re.search(pattern, self.text())) != absent:
                break
            if not alive or time.monotonic() > end:
                raise AssertionError(f"never {'without' if absent else 'with'} {pattern!r}:\n"
                                     + self.text())
        return self.text()

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def wait_end(self, seconds=10.0):
        """The program's exit status."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.run_for(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                return self.status
        raise AssertionError("it does not end:\n" + self.text())

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
