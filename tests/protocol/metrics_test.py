"""Metrics over HTTP and by ballastctl, read by the rules of both formats; the page of names and the
dashboard are held against what is exported.

usage: metrics_test.py RPC-TEST-SERVER BALLASTCTL FOLDER-OF-METRICS"""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from ballast_socket import Server, wait_until

server_program, ctl, metrics_folder = sys.argv[1:4]
OPEN = "application/openmetrics-text"
SAMPLE = re.compile(r'([a-z_][a-z0-9_]*)(?:\{((?:[a-z_]+="[^"\\\n]*"(?:,(?!\}))?)+)\})? (\S+)')


class UnixHttp(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(self.path)


def parse(test, text, openmetrics):
    """{family: (type, {labels: value})}, every line and the order of lines checked."""
    families, family = {}, None
    test.assertTrue(text.endswith("\n"))
    lines = text[:-1].split("\n")
    if openmetrics:
        test.assertEqual(lines.pop(), "# EOF")
    for line in lines:
        if line.startswith("# HELP "):
            test.assertTrue(family is None or families[family][1], f"{family} has no samples")
            _, _, family, words = line.split(" ", 3)
            test.assertNotIn(family, families, "a family's lines stand together")
            test.assertTrue(words)
            families[family] = [None, {}]
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            test.assertEqual(name, family, "TYPE follows HELP")
            test.assertIn(kind, ("gauge", "counter"))
            families[family][0] = kind
        elif line.startswith("# UNIT "):
            _, _, name, unit = line.split(" ")
            test.assertTrue(openmetrics, "the older format has no units")
            test.assertEqual(name, family, "UNIT follows TYPE")
            test.assertTrue(family.endswith("_" + unit))
        else:
            match = SAMPLE.fullmatch(line)
            test.assertTrue(match, line)
            name, labels, value = match.groups()
            kind, samples = families[family]
            total = kind == "counter"
            test.assertEqual(name, family + ("_total" if total and openmetrics else ""))
            test.assertEqual(name.endswith("_total"), total)
            test.assertNotIn(labels, samples, "one sample for one set of labels")
            test.assertGreaterEqual(float(value), 0)
            samples[labels] = float(value)
    test.assertTrue(all(samples for _, samples in families.values()))
    return families


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Metrics(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="ballast-metrics-")
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "metrics.sock")
        self.port = free_port()
        self.server = Server(server_program, 4 << 20, 1 << 20, 64, "", self.path, self.port)
        self.addCleanup(self.stop)
        self.client = self.server.client()
        self.addCleanup(self.client.close)

    def stop(self):
        self.assertEqual(self.server.stop(), 0)
        self.assertFalse(os.path.exists(self.path), "the socket is removed at the end")

    def create(self, *names):
        for name in names:
            self.client.result("vm.create", name=name, memory="64MiB", kernel="/k")

    def get(self, url="/metrics", method="GET", connection=None, **headers):
        connection = connection or UnixHttp(self.path)
        self.addCleanup(connection.close)
        connection.request(method, url, headers=headers)
        response = connection.getresponse()
        return response, response.read().decode()

    def test_both_formats_are_what_they_should_be(self):
        self.create("busy-a", "web")
        response, text = self.get()
        self.assertEqual(response.status, 200)
        self.assertEqual(response.getheader("Content-Type"),
                         "text/plain; version=0.0.4; charset=utf-8")
        plain = parse(self, text, False)
        response, text = self.get(Accept=OPEN + "; version=1.0.0")
        self.assertEqual(response.getheader("Content-Type"),
                         OPEN + "; version=1.0.0; charset=utf-8")
        opened = parse(self, text, True)
        self.assertEqual({name.removesuffix("_total") for name in plain}, set(opened))
        self.assertGreater(len(plain), 60)
        self.assertEqual(plain["ballast_vm_memory_bytes"][1]['vm="web"'], 64 << 20)
        self.assertEqual(plain["ballast_host_machine_bytes"][1][None], 1 << 30)
        self.assertEqual(plain["ballast_host_state"][1],
                         {f'state="{s}"': s == "high" for s in ("high", "soft", "hard", "low")})
        self.assertEqual(plain["ballast_vm_guest_free_bytes"][1]['vm="web"'], 100 << 20)
        self.assertNotIn('vm="web"', plain["ballast_vm_guest_major_faults_total"][1],
                         "what a guest does not report is absent")

    def test_the_format_goes_by_what_is_wanted(self):
        for accept, opened in (("*/*", False), ("text/plain", False), (OPEN, True),
                               (OPEN + ";q=0", False), (f"{OPEN};q=0.4,text/plain;q=0.5", False),
                               (f"text/plain;version=0.0.4;q=0.3, {OPEN};version=1.0.0;q=0.5", True),
                               (OPEN.upper(), True), (OPEN + "x", False), (",,;q=,", False)):
            response, text = self.get(Accept=accept)
            self.assertEqual(response.getheader("Content-Type").startswith(OPEN), opened, accept)
            self.assertEqual(text.endswith("# EOF\n"), opened, accept)

    def test_a_host_without_vms_has_no_families_of_vms(self):
        families = parse(self, self.get()[1], False)
        self.assertFalse([name for name in families if name.startswith("ballast_vm_")])

    def test_loopback_serves_the_same_and_nothing_else_listens(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        response, text = self.get(connection=connection)
        self.assertEqual(response.status, 200)
        parse(self, text, False)
        with open("/proc/net/tcp") as table:
            addresses = {line.split()[1] for line in table.readlines()[1:]}
        self.assertIn(f"0100007F:{self.port:04X}", addresses)
        self.assertNotIn(f"00000000:{self.port:04X}", addresses)

    def test_other_requests_are_refused(self):
        self.assertEqual(self.get("/")[0].status, 404)
        self.assertEqual(self.get("/metrics/../etc/passwd")[0].status, 404)
        self.assertEqual(self.get(method="POST")[0].status, 405)
        response, text = self.get(method="HEAD")
        self.assertEqual((response.status, text), (200, ""))
        self.assertGreater(int(response.getheader("Content-Length")), 100)

    def test_a_reader_that_is_rude_slows_nobody(self):
        self.create(*(f"busy-{i}" for i in range(100)))
        rude = []
        for request in (b"", b"GET /met", b"nonsense\r\n\r\n", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"):
            for _ in range(3):
                peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self.addCleanup(peer.close)
                peer.connect(self.path)
                peer.sendall(request)
                rude.append(peer)
        began = time.monotonic()
        parse(self, self.get()[1], False)
        self.client.result("vm.list")
        self.assertLess(time.monotonic() - began, 10)
        before = self.server.cpu_seconds()
        time.sleep(0.5)
        self.assertLess(self.server.cpu_seconds() - before, 0.1, "it does not spin meanwhile")
        for peer in rude:
            peer.close()
        wait_until(lambda: self.get()[0].status == 200)

    def test_ballastctl_writes_the_same(self):
        self.create("busy-a")
        for options, opened in (((), False), (("--openmetrics",), True)):
            done = subprocess.run([ctl, "--socket", self.server.path, "metrics", *options],
                                  capture_output=True, text=True, timeout=20, check=True)
            accept = {"Accept": OPEN} if opened else {}
            self.assertEqual(set(parse(self, done.stdout, opened)),
                             set(parse(self, self.get(**accept)[1], opened)))

    def test_a_unit_is_said_where_a_name_has_one(self):
        self.create("busy-a")
        text = self.get(Accept=OPEN)[1]
        for name, unit in (("ballast_vm_memory_bytes", "bytes"),
                           ("ballast_vm_vcpu_run_seconds", "seconds"),
                           ("ballast_host_overcommit_ratio", "ratio"),
                           ("ballast_host_idle_tax_percent", "percent")):
            self.assertIn(f"\n# UNIT {name} {unit}\n", text)
        self.assertNotIn("# UNIT ballast_vm_shares", text)

    def test_a_file_is_replaced_whole(self):
        self.create("busy-a")
        path = os.path.join(self.folder.name, "ballast.prom")
        command = [ctl, "--socket", self.server.path, "metrics", "-o", path]
        subprocess.run(command, timeout=20, check=True)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o644)
        with open(path) as first:  # a reader that has begun
            self.create("web")
            subprocess.run(command, timeout=20, check=True)
            self.assertNotIn('vm="web"', first.read())
        with open(path) as second:
            self.assertIn('vm="web"', parse(self, second.read(), False)
                          ["ballast_vm_memory_bytes"][1])
        self.assertEqual([name for name in os.listdir(self.folder.name) if "prom" in name],
                         ["ballast.prom"])
        os.mkdir(path + ".d")
        failed = subprocess.run([*command[:-1], path + ".d"], timeout=20, capture_output=True,
                                text=True, check=False)
        self.assertEqual((failed.returncode, failed.stderr),
                         (1, f"ballastctl: write {path}.d: Is a directory\n"))
        self.assertEqual(len(os.listdir(self.folder.name)), 3, "nothing is left beside it")

    def test_every_name_is_on_the_page_and_the_other_way_round(self):
        self.create("busy-a")
        exported = {name: kind for name, (kind, _) in parse(self, self.get()[1], False).items()}
        with open(os.path.join(metrics_folder, "METRICS.md")) as page:
            documented = dict(re.findall(r"(?m)^\| `(ballast_[a-z0-9_]+)` \| (gauge|counter) \|",
                                         page.read()))
        self.assertEqual(documented, exported)

    def test_the_dashboard_asks_for_what_there_is(self):
        self.create("busy-a")
        exported = set(parse(self, self.get()[1], False))
        with open(os.path.join(metrics_folder, "grafana-dashboard.json")) as file:
            dashboard = json.load(file)
        asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        asked += [one["query"] for one in dashboard["templating"]["list"]]
        names = set(re.findall(r"ballast_[a-z0-9_]+", " ".join(asked)))
        self.assertGreater(len(names), 10)
        self.assertLessEqual(names, exported)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v"])
