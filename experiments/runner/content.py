"""The guests' disks: seeded files, the workloads' scripts and programs in an ext4 image.

A file's bytes follow from the scenario's seed and its name alone, so its digest
is known here without asking a guest.
"""
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "guest"))
from image import ImageError, ext4  # noqa: E402

CHUNK = 1 << 20
COMPILER = ["riscv64-linux-gnu-gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s"]


def _random_chunks(source, size):
    while size > 0:
        chunk = source.randbytes(min(CHUNK, size))
        size -= len(chunk)
        yield chunk


def _line_chunks(source, size):
    """Lines of 32 random hexadecimal digits and a number, cut after the last whole line."""
    chunk, number = [], 0
    while size > 0:
        line = f"{source.getrandbits(128):032x} {number}\n".encode()
        if len(line) > size:
            break
        size -= len(line)
        number += 1
        chunk.append(line)
        if len(chunk) == 8192:
            yield b"".join(chunk)
            chunk = []
    yield b"".join(chunk)


KINDS = {"random": _random_chunks, "lines": _line_chunks}


def write_file(path, kind, size, seed, name):
    """Write a seeded file; its BLAKE2b digest, hexadecimal."""
    digest = hashlib.blake2b()
    source = random.Random(f"ballast {seed} {name}")
    with open(path, "wb") as file:
        for chunk in KINDS[kind](source, size):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def compile_program(source, target):
    """Make a program for the guests: static, so that it needs nothing there."""
    try:
        done = subprocess.run(COMPILER + ["-o", target, source], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ImageError(f"{COMPILER[0]} is not installed") from error
    if done.returncode != 0:
        raise ImageError(f"{source}: {done.stderr.strip()}")


def make_scratch(path, size):
    """An empty disk, label "scratch", for a guest to write to."""
    with tempfile.TemporaryDirectory(prefix="ballast-scratch.", dir=os.path.dirname(path)) as folder:
        ext4(path, "scratch", size, folder)


def make_disk(path, guest, scenario):
    """Make the guest's disk, label "own": files, workloads/SCRIPT, programs/NAME. {file: digest}."""
    digests = {}
    with tempfile.TemporaryDirectory(prefix="ballast-disk.", dir=os.path.dirname(path)) as folder:
        for file in scenario.files:
            if file.guest == guest.template:
                digests[file.name] = write_file(os.path.join(folder, file.name), file.kind,
                                                file.size, scenario.seed, file.name)
        os.mkdir(os.path.join(folder, "workloads"))
        for workload in scenario.workloads.values():
            target = os.path.join(folder, "workloads", workload.name)
            shutil.copy(os.path.join(scenario.folder, workload.script), target)
        os.mkdir(os.path.join(folder, "programs"))
        for program in scenario.programs:
            compile_program(os.path.join(scenario.folder, program.source),
                            os.path.join(folder, "programs", program.name))
        ext4(path, "own", guest.disk, folder)
    return digests
