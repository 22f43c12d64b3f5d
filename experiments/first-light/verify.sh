# Read back and checksum what the page cache and memory held; how much the disk was read tells
# whether it came from memory.
set -e
disk=$(sed -n 's#^/dev/\([a-z]*\) /disk/own .*#\1#p' /proc/mounts)
sectors() { sed -n "s/^ *[0-9]* *[0-9]* $disk [0-9]* [0-9]* \([0-9]*\) .*/\1/p" /proc/diskstats; }
before=$(sectors)
echo "result digest.cache $(b2sum </disk/own/cache | cut -d' ' -f1)"
echo "result kept $(b2sum </tmp/kept | cut -d' ' -f1)"
echo "note disk_read_kib $((($(sectors) - before) / 2))"
