#!/bin/sh
# Run a program built with ThreadSanitizer; exit 77 (skipped) where the sanitizer
# cannot run at all, as on kernels with more address randomisation than it can
# take, unless randomisation can be turned off for the program.
#
#     run-tsan.sh PROBE PROGRAM [ARGUMENT...]
#
# PROBE is a trivial program built the same way.
probe=$1
shift
TSAN_OPTIONS="suppressions=$(dirname "$0")/tsan.supp"
export TSAN_OPTIONS
if "$probe" >/dev/null 2>&1; then
    exec "$@"
elif setarch "$(uname -m)" -R "$probe" >/dev/null 2>&1; then
    exec setarch "$(uname -m)" -R "$@"
fi
echo "ThreadSanitizer cannot run here: skipped"
exit 77
