# Read the same files again and again for 30 s, as a file server does: what memory does
# not hold comes from the disk. Then say how fast that was.
now() { cut -d' ' -f1 /proc/uptime | tr -d .; }
begin=$(now)
end=$((begin + 30 * 100))
rounds=0
while [ "$(now)" -lt "$end" ]; do
    cat /disk/own/files >/dev/null
    rounds=$((rounds + 1))
done
size=$(($(stat -c %s /disk/own/files) / 1048576))
echo "note mb_per_s $((rounds * size * 10000 / ($(now) - begin)))e-2"
