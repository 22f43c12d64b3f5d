"""Examples of a page in Markdown: code blocks of lines "--> REQUEST" and "<-- ANSWER"."""

import re


def read_examples(page):
    """Lists of ("-->" or "<--", text), one a code block."""
    for block in re.findall(r"^```\n(.*?)^```", page, re.M | re.S):
        lines = []
        for line in block.splitlines():
            if line.startswith(("--> ", "<-- ")):
                lines.append([line[:3], line[4:]])
            else:
                lines[-1][1] += " " + line.strip()
        yield lines


def differs(documented, actual, where="answer"):
    """How an actual value contradicts a documented one; None if it does not."""
    if isinstance(documented, dict) and isinstance(actual, dict):
        open_ended = "..." in documented
        for name, value in documented.items():
            if name == "...":
                continue
            if name not in actual:
                return f"{where}.{name} is documented but absent"
            difference = differs(value, actual[name], f"{where}.{name}")
            if difference:
                return difference
        strangers = set(actual) - set(documented)
        if strangers and not open_ended:
            return f"{where} has members that are not documented: {strangers}"
        return None
    if isinstance(documented, list) and isinstance(actual, list):
        if documented and documented[-1] == {"...": ""}:  # and maybe more like these
            documented = documented[:-1]
            actual = actual[:len(documented)]
        if len(documented) != len(actual):
            return f"{where} has {len(actual)} members, not {len(documented)}"
        for i, (one, other) in enumerate(zip(documented, actual)):
            difference = differs(one, other, f"{where}[{i}]")
            if difference:
                return difference
        return None
    if documented != actual or isinstance(documented, bool) != isinstance(actual, bool):
        return f"{where} is {actual!r}, documented as {documented!r}"
    return None
