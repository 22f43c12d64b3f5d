"""Sizes and durations as people write them: "320MiB", "500ms"."""
import re

SIZE_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
DURATION_UNITS = {"ms": 0.001, "s": 1, "min": 60}
PAGE_BYTES = 4096
MIB = 1 << 20


def parse_size(text):
    """Bytes of "320MiB"; ValueError says what is wrong with the text."""
    found = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text.strip())
    if not found or found.group(2).lower() not in SIZE_UNITS:
        raise ValueError(f"'{text}' is not a size such as 320MiB")
    size = int(found.group(1)) * SIZE_UNITS[found.group(2).lower()]
    if size >= 1 << 62:
        raise ValueError(f"'{text}' is too large")
    return size


def parse_duration(text):
    """Seconds of "500ms", "20s" or "10min"; ValueError as above."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min)", text.strip())
    if not found:
        raise ValueError(f"'{text}' is not a duration such as 500ms, 20s or 10min")
    return float(found.group(1)) * DURATION_UNITS[found.group(2)]


def mib(pages):
    """MiB of a number of pages, None for None."""
    return None if pages is None else round(pages * PAGE_BYTES / MIB, 2)
