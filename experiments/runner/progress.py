"""What a person sees while an experiment runs: steps, and a line of state that renews itself."""
import shutil
import sys
import time

LINE_EVERY_S = 10.0  # where output is not a terminal
MOST_NAMED = 4       # guests; of more, only the sums are told
AMOUNTS = (("held", "allocated"), ("balloon", "balloon"), ("paged", "paged"))


class Progress:
    def __init__(self, guests, quiet=False):
        self._guests, self._quiet = guests, quiet
        self._terminal = sys.stdout.isatty()
        self._last_line = 0.0
        self._started = time.monotonic()
        self._open_line = False

    def _time(self):
        return f"[{time.monotonic() - self._started:5.0f} s]"

    def say(self, text):
        """A line that stays."""
        if self._quiet:
            return
        if self._open_line:
            sys.stdout.write("\r\033[K")
            self._open_line = False
        print(f"{self._time()} {text}", flush=True)

    def sample(self, sample):
        """The state of the host and its guests, in one line."""
        if self._quiet:
            return
        line = f"{self._time()}   host {amount(sample.get('host_free_mib'))} free " \
               f"({sample.get('host_state') or '?'})"
        up = [guest for guest in self._guests if sample.get(f"{guest}_allocated_mib") is not None]
        told = [(guest, [guest]) for guest in up] if len(up) <= MOST_NAMED else [(f"{len(up)} guests", up)]
        for name, of in told:
            line += f" | {name}:" + "".join(
                f" {amount(sum(sample.get(f'{guest}_{column}_mib') or 0 for guest in of))} {word}"
                for word, column in AMOUNTS)
        if self._terminal:
            width = shutil.get_terminal_size().columns
            sys.stdout.write("\r\033[K" + line[:width - 1])
            sys.stdout.flush()
            self._open_line = True
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            print(line, flush=True)


def amount(mib):
    return "?" if mib is None else f"{mib:.0f}"
