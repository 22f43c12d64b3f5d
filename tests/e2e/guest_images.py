"""Debian's kernel and initial ramdisk for tests that boot them.

They are those of experiments/guest/build; BALLAST_IMAGES names the folder instead.
"""
import os
import subprocess
import sys

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SKIPPED = 77  # meson's word for it


def images_or_skip():
    """The folder of the guest's images; without them the process ends, skipped."""
    if os.environ.get("BALLAST_IMAGES"):
        return os.environ["BALLAST_IMAGES"]
    build = os.path.join(TREE, "experiments", "guest", "build")
    done = subprocess.run([build], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        print("the guest's images could not be built: skipped")
        sys.exit(SKIPPED)
    return done.stdout.strip().splitlines()[-1]
