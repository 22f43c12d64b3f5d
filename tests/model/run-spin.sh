#!/bin/sh
# Search a Promela model exhaustively, then once for each mistake it can seed.
#
#     run-spin.sh MODEL.pml BUGS
#
# The model itself must be free of violated assertions and of states in which
# everybody waits; with -DBUG=1..BUGS each search must find something, which
# shows that the model would notice. Prints the number of states explored.
set -eu
model=$(realpath "$1")
bugs=$2
for tool in spin "${CC:-cc}"; do
    command -v "$tool" >/dev/null || { echo "no $tool: skipped"; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# search BUG -Olevel: the verifier's report in the file "report"; fails if the search did not end.
search() {
    spin "-DBUG=$1" -a "$model" >spin.log 2>&1 || { cat spin.log; exit 1; }
    "${CC:-cc}" "$2" -w -DSAFETY -DCOLLAPSE -o pan pan.c
    ./pan -m300000 -w23 >report
    ! grep -q "max search depth too small" report || { cat report; exit 1; }
}

found() { grep -o "errors: [0-9]*" report | grep -qv "errors: 0"; }
states() { sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' report; }

search 0 -O2
if found; then
    cat report
    spin -DBUG=0 -t -p "$model" 2>/dev/null | tail -100 || true
    exit 1
fi
echo "model: $(states) states, no violation"
sed -n '/^unreached/,$p' report

bug=1
while [ "$bug" -le "$bugs" ]; do
    search "$bug" -O0 # a short search: compiling would take longer
    found || { echo "seeded mistake $bug was not found in $(states) states"; exit 1; }
    echo "seeded mistake $bug: found after $(states) states: $(grep -m1 '^pan:1' report)"
    bug=$((bug + 1))
done
