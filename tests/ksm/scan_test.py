"""ballast-scan over images, cores, processes and hash lists with known contents.

usage: scan_test.py BALLAST_SCAN
"""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unittest

SCAN = sys.argv.pop(1)
PAGE = 4096
ZERO = bytes(PAGE)


def page(number, salt=b"page"):
    """A page that no other (number, salt) has."""
    return (salt + b"%d." % number).ljust(PAGE, b"\x5a")


def core(segments, cut=0):
    """An ELF64 core whose PT_LOAD segments are [(paddr, bytes)]."""
    head = 64 + 56 * len(segments)
    offset = (head + PAGE - 1) // PAGE * PAGE
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    out = ident + struct.pack("<HHIQQQIHHHHHH", 4, 243, 1, 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
    body = b""
    for paddr, content in segments:
        out += struct.pack("<IIQQQQQQ", 1, 6, offset + len(body), paddr, paddr, len(content), len(content), PAGE)
        body += content
    whole = out.ljust(offset, b"\0") + body
    return whole[: len(whole) - cut]


class Scan(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def file(self, name, content):
        path = os.path.join(self.folder.name, name)
        with open(path, "wb") as out:
            out.write(content)
        return path

    def run_scan(self, *arguments, status=0):
        done = subprocess.run([SCAN, "--json", *arguments], capture_output=True, text=True)
        self.assertEqual(done.returncode, status, done.stderr)
        return (json.loads(done.stdout) if done.stdout else None), done.stderr

    def check_sums(self, result):
        total = result["total"]
        self.assertEqual(total["pages"], sum(s["pages"] for s in result["sources"]))
        self.assertEqual(
            total["pages"],
            total["distinct_pages"] + total["reclaimable_pages"],
            "every page is either kept as one of its content or reclaimable",
        )
        for source in result["sources"]:
            self.assertEqual(
                source["pages"], source["zero_pages"] + source["distinct_pages"] + source["self_saved_pages"]
            )

    def test_counters_are_exact_for_known_multiplicities(self):
        one_byte = bytearray(page(7))
        one_byte[-1] ^= 1
        cases = {
            # name: (pages, zero, distinct, self_saved)
            "all equal": ([page(1)] * 700, 0, 1, 699),
            "all different": ([page(n) for n in range(700)], 0, 700, 0),
            "one page different": ([page(1)] * 699 + [page(2)], 0, 2, 698),
            "one byte different at the end": ([page(7)] * 600 + [bytes(one_byte)], 0, 2, 599),
            "more sharers than the count field holds": ([page(3)] * 70000, 0, 1, 69999),
            "every page zero": ([ZERO] * 600, 600, 0, 0),
            "a zero page but for its last byte": ([ZERO, ZERO[:-1] + b"\x01"], 1, 1, 0),
            "a zero page but for its first byte": ([ZERO, b"\x01" + ZERO[1:]], 1, 1, 0),
        }
        for name, (pages, zero, distinct, saved) in cases.items():
            with self.subTest(name):
                result, _ = self.run_scan(self.file("image", b"".join(pages)))
                total = result["total"]
                self.assertEqual(total["pages"], len(pages))
                self.assertEqual(total["zero_pages"], zero)
                self.assertEqual(total["distinct_pages"], distinct)
                self.assertEqual(total["self_saved_pages"], saved)
                self.assertEqual(total["cross_saved_pages"], 0)
                self.check_sums(result)

    def test_random_images_agree_with_plain_counting(self):
        generator = random.Random(3)
        images = []
        for _ in range(3):
            kinds = [generator.choice([ZERO, page(generator.randrange(40)), page(generator.randrange(9000))])
                     for _ in range(2000)]
            images.append(kinds)
        paths = [self.file(f"image{i}", b"".join(kinds)) for i, kinds in enumerate(images)]
        result, _ = self.run_scan(*paths)
        self.check_sums(result)
        contents = [set(kinds) - {ZERO} for kinds in images]
        every = set.union(*contents)
        total = result["total"]
        self.assertEqual(total["distinct_pages"], len(every))
        self.assertEqual(total["cross_saved_pages"], sum(map(len, contents)) - len(every))
        for i, source in enumerate(result["sources"]):
            others = set.union(*(contents[j] for j in range(3) if j != i))
            self.assertEqual(source["distinct_pages"], len(contents[i]))
            self.assertEqual(source["cross_distinct_pages"], len(contents[i] & others))
            self.assertEqual(source["cross_shared_pages"], sum(k in others for k in images[i] if k != ZERO))
        pairs = {(p["a"], p["b"]): p["distinct_pages"] for p in result["pairs"]}
        for a, b in ((0, 1), (0, 2), (1, 2)):
            self.assertEqual(pairs[a, b], len(contents[a] & contents[b]))
        pages = [k for kinds in images for k in kinds]
        self.assertEqual(total["shared_pages"], sum(n for n in map_counts(pages).values() if n > 1))

    def test_2_mib_pages_share_only_whole_and_aligned(self):
        group = b"".join(page(n) for n in range(512))
        result, _ = self.run_scan(self.file("twice", group * 2))
        self.assertEqual(result["total"]["reclaimable_pages_2mib"], 512)
        self.assertEqual(result["total"]["lost_to_2mib_pages"], 0)
        shifted = page(10000) + group + b"".join(page(20000 + n) for n in range(511))
        result, _ = self.run_scan(self.file("shifted", shifted), os.path.join(self.folder.name, "twice"))
        self.assertEqual(result["total"]["reclaimable_pages_2mib"], 512)
        self.assertEqual(result["total"]["lost_to_2mib_pages"], 512)

    def test_lz4_is_measured_on_what_is_left(self):
        noise = random.Random(1).randbytes(PAGE * 20)
        result, _ = self.run_scan("--compress=1", self.file("noise", noise))
        self.assertEqual(result["total"]["lz4"]["sample_pages"], 20)
        self.assertEqual(result["total"]["lz4"]["ratio"], 1.0)
        soft, _ = self.run_scan("--compress=1", self.file("soft", b"".join(page(n) for n in range(20))))
        self.assertLess(soft["total"]["lz4"]["ratio"], 0.05)

    def test_sparse_files_count_holes_as_zero_without_reading(self):
        path = self.file("sparse", b"")
        with open(path, "r+b") as out:
            out.truncate(1 << 34)
            out.seek(1 << 33)
            out.write(page(1) * 3)
        result, _ = self.run_scan(path)
        self.assertEqual(result["total"]["pages"], (1 << 34) // PAGE)
        self.assertEqual(result["total"]["distinct_pages"], 1)
        self.check_sums(result)

    def test_a_last_page_that_is_cut_is_padded_and_said(self):
        result, said = self.run_scan(self.file("tail", page(1) + page(1)[:100]))
        self.assertEqual(result["total"]["distinct_pages"], 2)
        self.assertIn("100 bytes", said)

    def test_cores_give_their_segments(self):
        path = self.file("core", core([(0x80000000, page(1) * 3 + ZERO), (0x90000000, page(1) + page(2))]))
        result, _ = self.run_scan(path)
        self.assertEqual(result["total"]["pages"], 6)
        self.assertEqual(result["total"]["zero_pages"], 1)
        self.assertEqual(result["total"]["distinct_pages"], 2)

    def test_truncated_cores_are_said_and_the_rest_counted(self):
        path = self.file("core", core([(0x80000000, page(1) * 3), (0x90000000, page(2) * 2)], cut=PAGE + 10))
        result, said = self.run_scan(path)
        self.assertIn("truncated core", said)
        self.assertEqual(result["total"]["pages"], 3)

    def test_foreign_and_broken_files_are_refused_by_name_and_the_rest_scanned(self):
        good = self.file("good", page(1))
        whole = core([(0, page(1))])
        bad = {
            "header cut": (whole[:40], "truncated ELF header"),
            "program headers cut": (whole[:80], "truncated program headers"),
            "an executable": (whole[:16] + struct.pack("<H", 2) + whole[18:], "not a core"),
            "32 bit": (whole[:4] + b"\x01" + whole[5:], "not 64-bit"),
            "hash list of another kind": (b"# ballast-hashes 9 crc32\n", "not a list"),
            "hash list with a bad line": (
                b"# ballast-hashes 1 xxh3-128 seed 42616c6c61737431 page 4096\n0\nzz\n", ":3:"),
            "hash list with an impossible count": (
                b"# ballast-hashes 1 xxh3-128 seed 42616c6c61737431 page 4096\n0 x99999999999999\n", ":2:"),
        }
        for name, (content, expected) in bad.items():
            with self.subTest(name):
                result, said = self.run_scan(self.file("bad", content), good, status=1)
                self.assertIn(expected, said)
                self.assertIn("bad", said)
                self.assertEqual(result["total"]["pages"], 1)
        result, said = self.run_scan(os.path.join(self.folder.name, "absent"), status=2)
        self.assertIn("No such file", said)
        self.assertIsNone(result)

    def test_segments_over_one_another_are_refused(self):
        whole = core([(0, page(1) * 4), (0x10000, page(2) * 4)])
        second = 64 + 56  # its header, whose offset in the file becomes that of the first
        whole = whole[:second + 8] + whole[64 + 8:64 + 16] + whole[second + 16:]
        many = whole[:56] + struct.pack("<H", 3) + whole[58:64] + whole[64:120] * 3 + whole[232:]
        result, said = self.run_scan(self.file("bad", many), self.file("good", page(1)), status=1)
        self.assertIn("overlap", said)
        self.assertEqual(result["total"]["pages"], 1)

    def test_no_file_is_larger_than_it_is(self):
        """Sizes in headers cost nothing: 2^64 bytes in a segment, 2^44 pages in a line."""
        huge = bytearray(core([(0x80000000, page(1))]))
        huge[64 + 32:64 + 40] = struct.pack("<Q", (1 << 64) - 1)
        result, said = self.run_scan(self.file("huge.core", huge))
        self.assertIn("truncated core", said)
        self.assertEqual(result["total"]["pages"], 1)
        head = b"# ballast-hashes 1 xxh3-128 seed 42616c6c61737431 page 4096\n"
        pages = 1 << 44
        result, _ = self.run_scan(self.file("zeroes", head + b"0 x%d\n" % pages))
        self.assertEqual(result["total"]["zero_pages"], pages)
        self.assertEqual(result["total"]["reclaimable_pages_2mib"], pages - 512)
        self.assertLess(result["total"]["table_bytes"], 1 << 20)
        # Four thousand million pages of one content are one entry; more are left out, with a word.
        most = (1 << 32) - 3
        many = self.file("many", head + b"1" * 32 + b" x%d\n" % most)
        result, _ = self.run_scan(many)
        self.assertEqual(result["total"]["self_saved_pages"], most - 1)
        self.assertLess(result["total"]["table_bytes"], 1 << 20)
        self.check_sums(result)
        result, said = self.run_scan(many, self.file("more", page(1) * 2), status=1)
        self.assertIn("more: left out: more than 16 TiB", said)
        self.assertEqual(result["total"]["pages"], most)

    def test_lists_that_are_none(self):
        head = b"# ballast-hashes 1 xxh3-128 seed 42616c6c61737431 page 4096"
        for content, expected in [(head + b"0\n0\n", "not a list"), (head + b"\n0\0\n", ":2: a NUL byte"),
                                  (head + b"\n" + b"0" * 5000, ":2: line too long"),
                                  (head + b"\n0 x17592186044416\n" * 1 + b"0 x17592186044416\n" * 256,
                                   "more pages than there are addresses")]:
            with self.subTest(expected):
                result, said = self.run_scan(self.file("bad", content), self.file("good", page(1)), status=1)
                self.assertIn(expected, said)
                self.assertEqual(result["total"]["pages"], 1)

    def test_names_do_not_command_the_terminal(self):
        head = b"# ballast-hashes 1 xxh3-128 seed 42616c6c61737431 page 4096\n"
        path = self.file("list", head + b"source a\x1b[2Jb\xc2\x9bc\n0\n")
        done = subprocess.run([SCAN, path, self.folder.name + "/no\x1b[1mfile"], capture_output=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"a?[2Jb??c", done.stdout)
        for text in (done.stdout, done.stderr):
            self.assertNotIn(b"\x1b", text)
            self.assertNotIn(b"\xc2\x9b", text)

    def test_chains_stay_short_whatever_a_list_holds(self):
        """100000 hashes whose low words agree where a table would look first."""
        head = b"# ballast-hashes 1 xxh3-128 seed 42616c6c61737431 page 4096\n"
        lines = b"".join(b"%016x%016x\n" % (n, n << 32) for n in range(1, 100001))
        done, _ = self.run_scan(self.file("bad", head + lines))
        self.assertEqual(done["total"]["distinct_pages"], 100000)
        self.assertLess(done["total"]["cpu_seconds"], 5)  # chains of 100000 take minutes

    def test_two_sources_of_one_file_name_keep_both_lists(self):
        os.mkdir(os.path.join(self.folder.name, "d"))
        first, second = self.file("d/x", page(1)), self.file("d_x", page(2) * 2)
        out = os.path.join(self.folder.name, "out")
        os.mkdir(out)
        long_folder = os.path.join(self.folder.name, "n" * 200, "m" * 150)
        os.makedirs(long_folder)
        longs = []
        for name in ("p", "q"):
            longs.append(os.path.join(long_folder, name))
            with open(longs[-1], "wb") as file:
                file.write(page(3) * 3)
        self.run_scan(f"--write-hashes={out}", first, second, *longs)
        self.assertEqual(len(os.listdir(out)), 4)
        merged, _ = self.run_scan(out)
        self.assertEqual({source["name"] for source in merged["sources"]}, {first, second, *longs})

    @unittest.skipIf(os.geteuid() == 0 and not os.path.exists("/usr/bin/setpriv"), "needs a plain user")
    def test_no_permission_is_said(self):
        path = self.file("secret", page(1))
        os.chmod(self.folder.name, 0o755)
        os.chmod(path, 0)
        command = [SCAN, path]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] + command
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("Permission denied", done.stderr)

    def test_hash_lists_merge_like_the_images_they_came_from(self):
        pages = [page(n % 50) for n in range(700)] + [ZERO] * 600 + [page(1)] * 9
        first = self.file("a.raw", b"".join(pages))
        second = self.file("b.raw", b"".join(reversed(pages)))
        third = self.file("c.core", core([(0x80003000, page(4) * 5)]))
        lists = os.path.join(self.folder.name, "lists")
        os.mkdir(lists)
        images, _ = self.run_scan("--compress=0", f"--write-hashes={lists}", first, second, third)
        merged, _ = self.run_scan(lists)
        for result in (images, merged):
            for key in ("seconds", "cpu_seconds", "table_bytes"):
                del result["total"][key]
        self.assertEqual([s["name"] for s in merged["sources"]], [first, second, third])
        self.assertEqual(images["total"], merged["total"])
        self.assertEqual(images["pairs"], merged["pairs"])
        mixed, _ = self.run_scan(first, lists)
        self.assertEqual(mixed["total"]["distinct_pages"], images["total"]["distinct_pages"])

    def test_a_live_process(self):
        script = ("import mmap,sys;m=mmap.mmap(-1,64<<20,mmap.MAP_PRIVATE|mmap.MAP_ANONYMOUS);"
                  "p=b'live'.ljust(4096,b'x');m[0:4096*1000]=p*1000;m[32<<20:(32<<20)+1]=b'1';"
                  "print('ready',flush=True);sys.stdin.read()")
        with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            result, _ = self.run_scan("--min-mapping=32", f"pid:{child.pid}")
            child.stdin.close()
        source = result["sources"][0]
        self.assertGreaterEqual(source["self_saved_pages"], 999)
        self.assertLess(source["pages"], 16384, "memory never touched is not counted")
        result, said = self.run_scan(f"pid:{child.pid}", status=2)
        self.assertIn("no such process", said)

    def test_a_process_that_ends_while_it_is_read(self):
        script = ("import mmap,os,sys;m=mmap.mmap(-1,256<<20,mmap.MAP_PRIVATE|mmap.MAP_ANONYMOUS);"
                  "m[:]=os.urandom(1<<20)*256;print('ready',flush=True);sys.stdin.read()")
        rest = self.file("rest", page(1))
        for _ in range(20):
            child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            child.stdout.readline()
            # every page through lz4, so that there is time to end between two reads
            scan = subprocess.Popen([SCAN, "--json", "--jobs=1", "--compress=1", f"pid:{child.pid}", rest],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.wait_until_open(scan, f"/proc/{child.pid}/mem")
            child.kill()
            child.wait()
            child.stdin.close()
            child.stdout.close()
            out, said = scan.communicate()
            if scan.returncode == 0:
                continue  # it had read everything before the end
            result = json.loads(out)
            self.assertEqual(scan.returncode, 1)
            self.assertEqual(result["sources"][-1]["pages"], 1)
            self.check_sums(result)
            self.assertRegex(said, "could not be read|no such process|no memory mapping")
            return
        self.fail("the scan was always faster")

    @staticmethod
    def wait_until_open(process, path):
        folder = f"/proc/{process.pid}/fd"
        while process.poll() is None:
            try:
                if any(os.readlink(f"{folder}/{name}") == path for name in os.listdir(folder)):
                    return
            except OSError:
                pass  # a descriptor or the process went away between two looks

    def test_usage_errors(self):
        for arguments in ([], ["--jobs=x", "a"], ["--nonsense"], ["pid:abc"], ["--compress=-1", "a"]):
            with self.subTest(arguments):
                done = subprocess.run([SCAN, *arguments], capture_output=True, text=True)
                self.assertEqual(done.returncode, 2)
                self.assertTrue(done.stderr)

    def test_the_table_and_the_plot_are_drawn(self):
        path = self.file("image'\"$x.raw", page(1) * 2 + ZERO)
        for ending, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
            plot = os.path.join(self.folder.name, "plot'." + ending)
            done = subprocess.run([SCAN, "--plot", plot, path, path], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("reclaimable by sharing", done.stdout)
            with open(plot, "rb") as drawn:
                self.assertTrue(drawn.read(5).startswith(start[:5]))


def map_counts(pages):
    counts = {}
    for content in pages:
        counts[content] = counts.get(content, 0) + 1
    return counts


if __name__ == "__main__":
    unittest.main(verbosity=2)
