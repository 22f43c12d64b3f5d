# usage: dbench.sh SECONDS CLIENTS
#
# Debian's dbench with its own load file: clients that write, read, rename and delete files as an office's
# file server sees it, each some 20 MB, on an empty disk of the guest's own. What memory does not hold is read
# again, and the disk answers READS reads a second, as one with a moving head does; only reads are limited, by the
# guest itself (control group io). Says MB/s, operations, and how often the disk was read.
READS=100
set -e
seconds=$1 clients=$2
disk=/disk/scratch
if [ ! -d /sys/fs/cgroup/dbench ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    echo +io >/sys/fs/cgroup/cgroup.subtree_control
    mkdir /sys/fs/cgroup/dbench
fi
number=$(stat -c %d $disk)
number=$((number / 256)):$((number % 256))
echo "$number riops=$READS" >/sys/fs/cgroup/dbench/io.max
echo $$ >/sys/fs/cgroup/dbench/cgroup.procs
reads() { sed 's/^ *//; s/ .*//' "/sys/dev/block/$number/stat"; }

before=$(reads)
dbench -t "$seconds" -c /usr/share/dbench/client.txt -D $disk "$clients" >/tmp/dbench.out 2>&1 || {
    tail -n 20 /tmp/dbench.out
    exit 1
}
after=$(reads)
# The table of operations begins below "Operation", and is all of the measured time.
operations=$(awk '/^ *Operation/ { on = 1; next } on && NF == 4 && $2 ~ /^[0-9]+$/ { sum += $2 } END { print sum + 0 }' \
    /tmp/dbench.out)
rate=$(awk '$1 == "Throughput" { print $2 }' /tmp/dbench.out)
[ -n "$rate" ] && [ "$operations" -gt 0 ]
echo "note mb_per_s $rate"
echo "note operations $operations"
echo "note disk_reads $((after - before))"
echo "note reads_per_1000 $((1000 * (after - before) / operations))"
