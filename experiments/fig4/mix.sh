# A fixed mix of processor and memory work with Debian's own programs, the same in every guest.
set -e
export LC_ALL=C
corpus=/disk/own/corpus
echo "result corpus $(sha256sum <$corpus | cut -d' ' -f1)"
head -c 2097152 $corpus >/tmp/part
echo "result sorted $(sort -S 8M -T /tmp /tmp/part | sha256sum | cut -d' ' -f1)"
echo "result words $(mawk '{ n[substr($1, 1, 3)]++ } END { for (k in n) { c++; s += n[k] } print c, s }' /tmp/part)"
gzip -1 </tmp/part >/tmp/part.gz
gzip -dc /tmp/part.gz | cmp - /tmp/part
rm -f /tmp/part /tmp/part.gz
echo "result sums $(sqlite3 :memory: "CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER);
WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<20000)
INSERT INTO t SELECT x, (x*7919)%100003 FROM n; CREATE INDEX k ON t(k);
SELECT count(*), sum(a.k) FROM t a JOIN t b ON a.k = b.k + 7919;")"
