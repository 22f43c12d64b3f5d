# Work with Debian's own tools that needs most of the guest's memory and checks itself:
# sort a file in memory, compress and restore it, build and query a database.
set -e
export LC_ALL=C
dir=/tmp/crunch
rm -rf $dir
mkdir $dir
cd $dir

cp /disk/own/lines lines
sort -S 96M -o sorted lines
sort -c sorted
echo "result lines $(wc -l <sorted)"
echo "result sorted $(b2sum <sorted | cut -d' ' -f1)"

head -c 3145728 sorted >part
gzip -1 <part >part.gz
gzip -dc part.gz | cmp - part
echo "result part $(sha256sum <part | cut -d' ' -f1)"
rm part part.gz

sqlite3 database <<SQL
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-32768; PRAGMA temp_store=2;
CREATE TABLE line(id INTEGER PRIMARY KEY, key INTEGER, text TEXT);
WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<60000)
INSERT INTO line SELECT x, (x*7919)%1000003, printf('%08x%08x-%d', (x*2654435761)%4294967296,
    (x*40503)%4294967296, x) FROM n;
CREATE INDEX line_key ON line(key);
SQL
echo "result sums $(sqlite3 database 'SELECT count(*), sum(key), min(text), max(text) FROM line')"
echo "result join $(sqlite3 database \
    'SELECT count(*), sum(length(a.text)) FROM line a JOIN line b ON a.key = b.key + 7919')"
echo "result integrity $(sqlite3 database 'PRAGMA integrity_check')"
cd /
rm -rf $dir
