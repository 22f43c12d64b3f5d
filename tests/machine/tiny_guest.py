"""The bare-metal guest of tiny_guest.c as a kernel for programs under test."""
import os
import struct

# enum tiny_guest_scenario and TINY_GUEST_SCENARIO of tiny_guest.h
(SHUTDOWN, REBOOT, SHUTDOWN_FAILURE, FINISH, FINISH_REBOOT, FINISH_FAILURE, SAY, SLEEP, SPIN, TIMER,
 CLOCK, TOUCH, ECHO) = range(13)
SCENARIO_OFFSET = 40


def kernel_of(image, folder, scenario):
    """Path of a kernel in folder, made from the built image, that does the scenario."""
    path = os.path.join(folder, f"guest{scenario}")
    if not os.path.exists(path):
        with open(image, "rb") as source:
            content = bytearray(source.read())
        content[SCENARIO_OFFSET:SCENARIO_OFFSET + 8] = struct.pack("<Q", scenario)
        with open(path, "wb") as target:
            target.write(content)
    return path
