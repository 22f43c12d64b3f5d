#!/usr/bin/env python3
"""Debian's own kernel, unmodified, under ballast-vmm: it boots, computes right and powers off.

usage: test_debian.py BALLAST_VMM [unittest arguments]

Without the guest's images (guest_images.py) the test is skipped.
"""
import gzip
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

from guest_images import images_or_skip

VMM = sys.argv[1]
LIMIT_S = 200


def zboot(image):
    """The kernel as EFI zboot wraps it."""
    packed = gzip.compress(image, compresslevel=1, mtime=0)
    header = bytearray(64)
    header[0:8] = b"MZ\0\0zimg"
    struct.pack_into("<II", header, 8, len(header), len(packed))
    header[24:28] = b"gzip"
    return bytes(header) + packed


class Debian(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ballast-debian-")
        self.addCleanup(shutil.rmtree, self.folder)

    def run_guest(self, kernel, command, more=()):
        """Boot, run a command on the serial console, power off: what the console said."""
        done = subprocess.run(
            [VMM, "-m", "256", "-kernel", kernel, "-initrd", os.path.join(IMAGES, "initrd.gz"),
             "-append", f'console=ttyS0 ballast.run="{command}"', *more],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            timeout=LIMIT_S)
        console = done.stdout.decode(errors="replace").replace("\r", "")
        self.assertEqual(done.returncode, 0, done.stderr.decode() + console[-2000:])
        self.assertIn("guest: run ended with status 0", console)
        return console

    def test_boots_computes_and_powers_off(self):
        disk = os.path.join(self.folder, "disk.img")
        content = os.urandom(3 << 20)
        with open(disk, "wb") as file:
            file.write(content)
        console = self.run_guest(
            os.path.join(IMAGES, "Image"),
            "sha256sum /dev/vda; seq 1 50000 | sha256sum; grep -e isa -e mmu /proc/cpuinfo; "
            "echo written by the guest | dd of=/dev/vda bs=512 seek=100 conv=fsync",
            ["-drive", disk])
        numbers = "".join(f"{n}\n" for n in range(1, 50001)).encode()
        self.assertIn(hashlib.sha256(content).hexdigest(), console)  # read right
        self.assertIn(hashlib.sha256(numbers).hexdigest(), console)  # computed right
        self.assertIn("sv39", console)
        self.assertIn("Linux version", console)
        with open(disk, "rb") as file:
            after = file.read()
        self.assertEqual(after[51200:51221], b"written by the guest\n")
        self.assertEqual(after[:51200] + after[51221:], content[:51200] + content[51221:])

    def test_sv48_is_taken_when_offered(self):
        console = self.run_guest(os.path.join(IMAGES, "Image"), "cat /proc/cpuinfo", ["-sv48"])
        self.assertIn("sv48", console)

    def test_wrapped_kernels_are_taken_as_they_come(self):
        with open(os.path.join(IMAGES, "Image"), "rb") as file:
            image = file.read()
        for name, wrapped in (("Image.gz", gzip.compress(image, compresslevel=1)),
                              ("vmlinuz.efi", zboot(image))):
            with self.subTest(name):
                kernel = os.path.join(self.folder, name)
                with open(kernel, "wb") as file:
                    file.write(wrapped)
                self.assertIn("Linux version", self.run_guest(kernel, "true"))


if __name__ == "__main__":
    IMAGES = images_or_skip()
    unittest.main(argv=[sys.argv[0]] + sys.argv[2:], verbosity=2)
