"""Clients of every kind against the control socket: rpc_test.py RPC-TEST-SERVER

Its server is the real one; behind it stands a supervisor without workers."""

import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from ballast_socket import Client, Server, wait_until

server_program = sys.argv[1]
GOOD_VM = {"memory": "64MiB", "kernel": "/boot/Image"}


class WithServer(unittest.TestCase):
    arguments = ()

    def setUp(self):
        self.server = Server(server_program, *self.arguments)

    def tearDown(self):
        self.assertEqual(self.server.stop(), 0)

    def client(self, **options):
        client = self.server.client(**options)
        self.addCleanup(client.close)
        return client


class Calls(WithServer):
    def test_life_of_a_vm(self):
        client = self.client()
        client.result("vm.create", name="a", **GOOD_VM)
        self.assertEqual(client.result("vm.list"), {"vms": [{"name": "a", "state": "running"}]})
        client.result("vm.pause", vm="a")
        self.assertEqual(client.result("vm.stats", vm="a")["state"], "paused")
        client.result("vm.resume", vm="a")
        client.result("vm.destroy", vm="a")
        self.assertEqual(client.result("vm.list"), {"vms": []})

    def test_a_refusal_comes_later_too(self):
        client = self.client()
        client.result("vm.create", name="stubborn", **GOOD_VM)
        error = client.call("vm.pause", vm="stubborn")["error"]
        self.assertEqual(error["code"], -32003)
        self.assertEqual(error["data"]["errno_name"], "ETIMEDOUT")

    def test_settings_are_changed_all_or_none(self):
        client = self.client()
        client.result("vm.create", name="a", **GOOD_VM)
        before = client.result("vm.stats", vm="a")
        error = client.call("vm.set", vm="a", shares=7, idle_tax_percent=9, min="32MiB", max="48MiB",
                            sharing_domain="no/name")["error"]
        self.assertEqual(error["code"], -32003)
        after = client.result("vm.stats", vm="a")
        for name in ("shares", "idle_tax_percent", "min_pages", "max_pages"):
            self.assertEqual(after.get(name), before.get(name), name)

    def test_answers_go_by_id_not_by_order(self):
        client = self.client()
        client.result("vm.create", name="a", **GOOD_VM)
        client.send({"jsonrpc": "2.0", "id": "slow", "method": "host.check"})
        client.send({"jsonrpc": "2.0", "id": "quick", "method": "vm.list"})
        self.assertEqual({client.receive()["id"], client.receive()["id"]}, {"slow", "quick"})

    def test_bad_parameters_of_every_method(self):
        """(method, params, the parameter that is blamed)"""
        cases = [
            ("decisions.explain", {}, "vm"),
            ("decisions.explain", {"vm": "a", "limit": 0}, "limit"),
            ("decisions.explain", {"vm": "a", "limit": 65}, "limit"),
            ("decisions.subscribe", {"vm": "a"}, "vm"),
            ("decisions.unsubscribe", {}, "subscription"),
            ("host.version", {"x": 1}, "x"),
            ("host.stats", {"x": 1}, "x"),
            ("host.metrics", {"openmetrics": 1}, "openmetrics"),
            ("host.policies", {"x": 1}, "x"),
            ("host.check", {"vm": "a"}, "vm"),
            ("host.set", {"policy": "none"}, "policy"),
            ("host.set", {"policy": 5}, "policy"),
            ("host.set", {"period_ms": 99}, "period_ms"),
            ("host.set", {"period_ms": 1.5}, "period_ms"),
            ("host.set", {"idle_tax_percent": 100}, "idle_tax_percent"),
            ("host.set", {"slack_percent": 26}, "slack_percent"),
            ("host.set", {"page_out_limit_pages": 0}, "page_out_limit_pages"),
            ("host.set", {"stall_ms": 1.5}, "stall_ms"),
            ("host.set", {"balloon_ceiling_percent": "65"}, "balloon_ceiling_percent"),
            ("host.set", {"thresholds": {"sliding": 1}}, "thresholds.sliding"),
            ("host.set", {"thresholds": {"sliding_soft": 100}}, "thresholds"),
            ("host.set", {"shared_charge": "half"}, "shared_charge"),
            ("host.set", {"sample_pages": -1}, "sample_pages"),
            ("host.set", {"sample_period_ms": 99}, "sample_period_ms"),
            ("host.set", {"sample_fast_gain": 1.5}, "sample_fast_gain"),
            ("host.set", {"count_touched": 1}, "count_touched"),
            ("host.set", {"thresholds": 6}, "thresholds"),
            ("host.set", {"thresholds": {"high": "6"}}, "thresholds.high"),
            ("host.set", {"thresholds": {"higher": 6}}, "thresholds.higher"),
            ("host.set", {"thresholds": {"low": 5}}, "thresholds"),
            ("host.set", {"policy": "static", "period": 1}, "period"),
            ("vm.list", {"vm": "a"}, "vm"),
            ("vm.stats", {}, "vm"),
            ("vm.stats", {"vm": 7}, "vm"),
            ("vm.stats", {"vm": "a", "all": True}, "all"),
            ("vm.pause", {}, "vm"),
            ("vm.resume", {"name": "a"}, "vm"),
            ("vm.destroy", {"vm": None}, "vm"),
            ("vm.set", {"shares": 1}, "vm"),
            ("vm.set", {"vm": "a", "shares": 0}, "shares"),
            ("vm.set", {"vm": "a", "shares": -1}, "shares"),
            ("vm.set", {"vm": "a", "idle_tax_percent": 100}, "idle_tax_percent"),
            ("vm.set", {"vm": "a", "shares": 1 << 32}, "shares"),
            ("vm.set", {"vm": "a", "min": -4096}, "min"),
            ("vm.set", {"vm": "a", "max": "12 parsecs"}, "max"),
            ("vm.set", {"vm": "a", "memory": 1}, "memory"),
            ("vm.set_target", {"vm": "a"}, "target"),
            ("vm.set_target", {"vm": "a", "target": "little"}, "target"),
            ("vm.set_target", {"vm": "a", "target": True}, "target"),
            ("vm.set_target", {"target": None}, "vm"),
            ("vm.create", {}, "name"),
            ("vm.create", {"name": "b"}, "memory"),
            ("vm.create", {"name": "b", "memory": "64MiB"}, "kernel"),
            ("vm.create", {"name": 1, **GOOD_VM}, "name"),
            ("vm.create", {"name": "b", "memory": 1.5, "kernel": "/k"}, "memory"),
            ("vm.create", {"name": "b", "memory": [], "kernel": "/k"}, "memory"),
            ("vm.create", {"name": "b", **GOOD_VM, "sv48": 1}, "sv48"),
            ("vm.create", {"name": "b", **GOOD_VM, "start": "yes"}, "start"),
            ("vm.create", {"name": "b", **GOOD_VM, "append": {}}, "append"),
            ("vm.create", {"name": "b", **GOOD_VM, "cpus": 4}, "cpus"),
            ("vm.create", {"name": "b", **GOOD_VM, "disks": {}}, "disks"),
            ("vm.create", {"name": "b", **GOOD_VM, "disks": [{}] * 9}, "disks"),
            ("vm.create", {"name": "b", **GOOD_VM, "disks": ["/d"]}, "disks[0]"),
            ("vm.create", {"name": "b", **GOOD_VM, "disks": [{"path": "/d"}, {}]},
             "disks[1].path"),
            ("vm.create", {"name": "b", **GOOD_VM, "disks": [{"path": "/d", "ro": True}]},
             "disks[0].ro"),
            ("host.set", {"sharing": "on"}, "sharing"),
            ("host.set", {"scan_cpu_percent": 0}, "sharing"),
            ("host.set", {"scan_cpu_percent": 101}, "sharing"),
            ("host.set", {"scan_max_pages_per_second": 0}, "scan_max_pages_per_second"),
            ("host.set", {"scan_min_pages_per_second": 100001}, "sharing"),
            ("host.set", {"scan_pass_ms": -1}, "scan_pass_ms"),
            ("vm.set", {"vm": "a", "sharing": 0}, "sharing"),
            ("vm.set", {"vm": "a", "shares": 0}, "shares"),
            ("vm.set", {"vm": "a", "shares": 1000001}, "shares"),
            ("vm.set", {"vm": "a", "sharing_domain": 5}, "sharing_domain"),
            ("sharing.stats", {"vm": "a"}, "vm"),
            ("sharing.pairs", {"a": "a"}, "a"),
            ("sharing.frame", {}, "mpn"),
            ("sharing.frame", {"mpn": -1}, "mpn"),
            ("sharing.frame", {"mpn": 1.5}, "mpn"),
            ("sharing.frame", {"mpn": "0x10"}, "mpn"),
            ("sharing.frame", {"mpn": 1 << 32}, "mpn"),
            ("sharing.frame", {"mpn": 1, "vm": "a"}, "vm"),
            ("sharing.page", {"ppn": 1}, "vm"),
            ("sharing.page", {"vm": "a"}, "ppn"),
            ("sharing.page", {"vm": 1, "ppn": 1}, "vm"),
            ("sharing.page", {"vm": "a", "ppn": None}, "ppn"),
            ("sharing.page", {"vm": "a", "ppn": 1, "mpn": 1}, "mpn"),
            ("sharing.breaks", {"limit": 0}, "limit"),
            ("sharing.breaks", {"limit": 4097}, "limit"),
            ("sharing.breaks", {"limit": "all"}, "limit"),
            ("sharing.breaks", {"vm": "a"}, "vm"),
            ("stats.subscribe", {"interval_ms": 9}, "interval_ms"),
            ("stats.subscribe", {"interval_ms": "1s"}, "interval_ms"),
            ("stats.unsubscribe", {}, "subscription"),
            ("stats.unsubscribe", {"subscription": 12345}, "subscription"),
            ("events.subscribe", {"vm": "a"}, "vm"),
            ("events.unsubscribe", {"subscription": "all"}, "subscription"),
        ]
        client = self.client()
        client.result("vm.create", name="a", **GOOD_VM)
        before = client.result("host.stats"), client.result("vm.stats", vm="a")
        for method, params, blamed in cases:
            with self.subTest(method=method, params=params):
                error = client.call(method, **params)["error"]
                self.assertEqual(error["code"], -32602)
                self.assertEqual(error["data"]["param"], blamed)
                self.assertEqual(error["data"]["method"], method)
        self.assertEqual((client.result("host.stats"), client.result("vm.stats", vm="a")), before)
        self.assertEqual(len(client.result("vm.list")["vms"]), 1)

    def test_unknown_vms(self):
        client = self.client()
        for method in ("vm.stats", "vm.pause", "vm.resume", "vm.destroy", "vm.set"):
            self.assertEqual(client.code(method, vm="ghost"), -32002)
        self.assertEqual(client.code("vm.set_target", vm="ghost", target=None), -32002)
        self.assertEqual(client.code("sharing.page", vm="ghost", ppn=0), -32002)
        self.assertEqual(client.code("sharing.frame", mpn=262144 * 2), -32003)

    def test_sharing_of_nothing_and_of_twins(self):
        client = self.client()
        client.result("vm.create", name="twin-a", **GOOD_VM)
        self.assertEqual(client.result("sharing.pairs"), {"pairs": [], "found": 0})
        self.assertEqual(client.result("sharing.breaks")["breaks"], [])
        self.assertEqual(client.result("sharing.page", vm="twin-a", ppn=7), {"shared": False})
        self.assertEqual([vm["vm"] for vm in client.result("sharing.stats")["vms"]], ["twin-a"])
        client.result("vm.create", name="twin-b", **GOOD_VM)
        self.assertEqual(len(client.result("sharing.breaks", limit=1)["breaks"]), 1)
        self.assertEqual(len(client.result("sharing.breaks", limit=4096)["breaks"]), 2)
        page = client.result("sharing.page", vm="twin-a", ppn=7)
        frame = client.result("sharing.frame", mpn=page["mpn"])
        self.assertIn({name: page[name] for name in ("vm", "ppn", "since_ns", "how")},
                      frame["sharers"])
        self.assertGreater(frame["time_ns"], 0)
        # the largest numbers that are numbers of frames and pages are no mistakes
        self.assertEqual(client.code("sharing.frame", mpn=(1 << 32) - 1), -32003)
        self.assertEqual(client.result("sharing.page", vm="twin-a", ppn=(1 << 32) - 1),
                         {"shared": False})

    def test_sizes_as_numbers_and_as_text(self):
        client = self.client()
        for i, size in enumerate((64 << 20, "64MiB", "64M", "65536K", "67108864")):
            client.result("vm.create", name=f"v{i}", memory=size, kernel="/k")
            self.assertEqual(client.result("vm.stats", vm=f"v{i}")["memory_pages"], 16384)


class Requests(WithServer):
    def answer(self, line):
        self.connection.send_bytes(line + b"\n")
        return self.connection.receive()

    def setUp(self):
        super().setUp()
        self.connection = self.client()

    def test_what_is_no_request(self):
        cases = [
            (b"garbage", -32700),
            (b"{", -32700),
            (b'{"jsonrpc":"2.0","method":"vm.list","id":1', -32700),
            (b'{"a":1,"a":2}', -32700),
            (b'\xff\xfe\x00', -32700),
            (b'"\xc3\x28"', -32700),
            (b"[" * 5000, -32700),
            (b'{"jsonrpc":"2.0","id":1e999,"method":"vm.list"}', -32700),
            (b"1", -32600),
            (b"null", -32600),
            (b'"vm.list"', -32600),
            (b"[]", -32600),
            (b"{}", -32600),
            (b'{"jsonrpc":"1.0","method":"vm.list","id":1}', -32600),
            (b'{"method":"vm.list","id":1}', -32600),
            (b'{"jsonrpc":"2.0","method":5,"id":1}', -32600),
            (b'{"jsonrpc":"2.0","method":"vm.list","id":{}}', -32600),
            (b'{"jsonrpc":"2.0","method":"vm.list","id":[1]}', -32600),
            (b'{"jsonrpc":"2.0","method":"vm.list","params":7,"id":1}', -32600),
            (b'{"jsonrpc":"2.0","method":"vm.list","params":[],"id":1}', -32602),
            (b'{"jsonrpc":"2.0","method":"rpc.none","id":1}', -32601),
            (b'{"jsonrpc":"2.0","method":"","id":1}', -32601),
        ]
        for line, code in cases:
            with self.subTest(line=line[:60]):
                self.assertEqual(self.answer(line)["error"]["code"], code)
        self.assertIn("vms", self.answer(
            b'{"jsonrpc":"2.0","method":"vm.list","id":1}')["result"])

    def test_ids_come_back_as_they_were(self):
        for identity in (0, -5, 1.5, "x", "", "\u00e9\U0001f600", None, 2**53):
            request = {"jsonrpc": "2.0", "method": "host.version", "id": identity}
            self.connection.send(request)
            self.assertEqual(self.connection.receive()["id"], identity)

    def test_notifications_are_carried_out_and_not_answered(self):
        self.connection.send({"jsonrpc": "2.0", "method": "vm.create",
                              "params": {"name": "n", **GOOD_VM}})
        self.connection.send({"jsonrpc": "2.0", "method": "no.such"})
        self.connection.send({"jsonrpc": "2.0", "method": "vm.pause", "params": {"vm": "n"}})
        self.assertTrue(self.connection.is_quiet(0.2))
        self.assertEqual(self.connection.result("vm.stats", vm="n")["state"], "paused")

    def test_batches(self):
        connection = self.connection
        connection.send([{"jsonrpc": "2.0", "method": "vm.list", "id": 1}, 5,
                         {"jsonrpc": "2.0", "method": "host.check", "id": 2},
                         {"jsonrpc": "2.0", "method": "vm.list"},
                         {"jsonrpc": "2.0", "method": "x", "id": 3}])
        answers = connection.receive()
        self.assertEqual(len(answers), 4)
        by_id = {answer["id"]: answer for answer in answers}
        self.assertIn("result", by_id[1])
        self.assertIn("result", by_id[2])
        self.assertEqual(by_id[3]["error"]["code"], -32601)
        self.assertEqual(by_id[None]["error"]["code"], -32600)
        connection.send([{"jsonrpc": "2.0", "method": "vm.list"}] * 3)
        self.assertTrue(connection.is_quiet(0.2))
        connection.send([{"jsonrpc": "2.0", "method": "vm.list", "id": i} for i in range(256)])
        self.assertEqual(len(connection.receive()), 256)
        connection.send([{"jsonrpc": "2.0", "method": "vm.list", "id": i} for i in range(257)])
        self.assertEqual(connection.receive()["error"]["code"], -32600)

    def test_blank_lines_and_carriage_returns(self):
        self.connection.send_bytes(b"\n\r\n   \n")
        self.assertIn("result", self.answer(b'{"jsonrpc":"2.0","method":"vm.list","id":1}\r'))

    def test_random_garbage(self):
        rng = random.Random(7)
        pieces = [b"{", b"}", b"[", b"]", b'"', b":", b",", b"jsonrpc", b"2.0", b"method", b"id",
                  b"params", b"vm.create", b"null", b"1e9", b"\\u0000", b"\xff", b" "]
        for _ in range(2000):
            line = b"".join(rng.choice(pieces) for _ in range(rng.randrange(1, 30)))
            self.connection.send_bytes(line + b"\n")
            if line.strip(b" "):
                self.assertIn("error", self.connection.receive())
        self.assertIn("vms", self.connection.result("vm.list"))


class HalfLines(WithServer):
    def test_a_line_in_many_pieces(self):
        client = self.client()
        for byte in b'{"jsonrpc":"2.0","method":"vm.list","id":"slowly"}\n':
            client.send_bytes(bytes([byte]))
        self.assertEqual(client.receive()["id"], "slowly")

    def test_half_a_line_is_not_carried_out(self):
        client = self.client()
        client.send_bytes(b'{"jsonrpc":"2.0","method":"vm.list","id":1}\n'
                          b'{"jsonrpc":"2.0","method":"vm.create","id":2,"params":'
                          b'{"name":"half","memory":"64MiB","kernel":"/k"}}')
        client.socket.shutdown(socket.SHUT_WR)
        self.assertIn("result", client.receive())
        self.assertEqual(client.receive()["error"]["code"], -32700)
        self.assertIsNone(client.receive())
        self.assertEqual(self.client().result("vm.list")["vms"], [])

    def test_calls_of_a_client_that_left_are_carried_out(self):
        client = self.client()
        client.send({"jsonrpc": "2.0", "method": "vm.create", "id": 1,
                     "params": {"name": "left", **GOOD_VM}})
        client.send({"jsonrpc": "2.0", "method": "vm.pause", "id": 2, "params": {"vm": "left"}})
        client.close()
        other = self.client()
        wait_until(lambda: [vm["state"] for vm in other.result("vm.list")["vms"]] == ["paused"])

    def test_vanishing_in_the_middle_of_everything(self):
        self.client().result("stats.subscribe")  # the event loop opens its timer once
        files = self.server.open_files()
        for i in range(200):
            client = self.server.client(greet=i % 2 == 0)
            client.send_bytes(b'{"jsonrpc":"2.0","id":1,"method":"stats.subscribe",'
                              b'"params":{"interval_ms":10}}\n{"jsonrpc":"2.0","id":2,'
                              b'"method":"host.check"}\n{"json'[:i + 1])
            client.close()
        other = self.client()
        wait_until(lambda: self.server.open_files() == files + 1)
        self.assertIn("vms", other.result("vm.list"))


class HugeLines(WithServer):
    arguments = (1 << 20, 4096)  # output, line

    def test_a_long_line_is_skipped_and_said_once(self):
        client = self.client()
        client.send_bytes(b'{"x":"' + b"y" * 100000 + b'"}\n')
        client.send({"jsonrpc": "2.0", "method": "vm.list", "id": 5})
        error = client.receive()["error"]
        self.assertEqual(error["code"], -32600)
        self.assertIn("4096", error["message"])
        self.assertEqual(client.receive()["id"], 5)

    def test_a_line_without_end_costs_nothing(self):
        client = self.client()
        before = self.server.resident_bytes()
        block = b"z" * (1 << 20)
        for _ in range(64):
            client.send_bytes(block)
        self.assertLess(self.server.resident_bytes() - before, 8 << 20)
        client.send_bytes(b"\n")
        client.send({"jsonrpc": "2.0", "method": "vm.list", "id": 5})
        self.assertEqual(client.receive()["error"]["code"], -32600)
        self.assertEqual(client.receive()["id"], 5)


class SlowReaders(WithServer):
    arguments = (200000,)

    def test_a_client_that_never_reads_loses_rows_and_is_told(self):
        slow, quick = self.client(), self.client()
        for i in range(20):
            quick.result("vm.create", name=f"vm{i}", **GOOD_VM)
        slow.send({"jsonrpc": "2.0", "id": 1, "method": "stats.subscribe",
                   "params": {"interval_ms": 10}})
        quick.send({"jsonrpc": "2.0", "id": 1, "method": "stats.subscribe",
                    "params": {"interval_ms": 10}})
        # The quick one goes on getting rows, all but those for which this test did not get to run itself.
        resident_bytes = self.server.resident_bytes()
        rows = lost = 0
        while rows < 150:
            message = quick.receive()
            if message.get("method") == "stats.rows":
                lost += message["params"].get("lost", 0)
                rows += 1
        self.assertLess(lost, rows)
        self.assertLess(self.server.resident_bytes() - resident_bytes, 96 << 20)
        # Now the slow one wakes up: whole lines, and the sum of what it lost.
        lost = seen = 0
        while lost == 0:
            message = slow.receive()
            if message.get("method") == "stats.rows":
                self.assertEqual(len(message["params"]["vms"]), 20)
                lost += message["params"].get("lost", 0)
                seen += 1
        self.assertGreater(lost, 20)

    def test_a_client_that_asks_and_never_reads_is_left_unread(self):
        slow, quick = self.client(timeout=0.5), self.client()
        for i in range(20):
            quick.result("vm.create", name=f"vm{i}", **GOOD_VM)
        request = b'{"jsonrpc":"2.0","id":1,"method":"vm.stats","params":{"vm":"vm1"}}\n' * 1000
        sent, resident_bytes = 0, self.server.resident_bytes()
        with self.assertRaises((socket.timeout, BlockingIOError)):
            for _ in range(1000):
                slow.send_bytes(request)
                sent += 1000
        self.assertLess(self.server.resident_bytes() - resident_bytes, 96 << 20)
        began = time.monotonic()
        quick.result("vm.list")
        self.assertLess(time.monotonic() - began, 10)
        slow.socket.settimeout(5)
        for _ in range(sent):  # all that was sent whole is answered once it reads
            self.assertIn(b'"id":1', slow.receive_line())

    def test_every_event_is_sent_or_counted(self):
        slow, quick = self.client(), self.client()
        slow.result("events.subscribe")
        call = {"jsonrpc": "2.0", "id": 1}
        batch = [{**call, "method": "vm.create", "params": {"name": "v", **GOOD_VM}},
                 {**call, "method": "vm.destroy", "params": {"vm": "v"}}] * 128
        happened = 0
        for _ in range(20):
            quick.send(batch)
            self.assertEqual(len(quick.receive()), len(batch))
            happened += len(batch)
        seen = lost = 0
        while not slow.is_quiet(2):
            lost += slow.receive()["params"].get("lost", 0)
            seen += 1
        quick.result("vm.create", name="last", **GOOD_VM)
        params = slow.receive()["params"]
        self.assertEqual(params["vm"], "last")
        lost += params.get("lost", 0)
        self.assertGreater(lost, 0)
        self.assertEqual(seen + lost, happened)


class ManyClients(WithServer):
    arguments = (1 << 20, 1 << 20, 40)

    def test_a_client_too_many_is_told_and_the_next_after_a_close_is_served(self):
        clients = [self.client() for _ in range(40)]
        extra = self.client(greet=False)
        self.assertEqual(extra.receive()["error"]["code"], -32004)
        self.assertIsNone(extra.receive())
        clients.pop().close()

        def served():
            with Client(self.server.path) as client:
                return "params" in client.hello
        wait_until(served)
        for client in clients:
            self.assertIn("vms", client.result("vm.list"))

    def test_all_talk_at_once(self):
        failures = []

        def talk(number):
            try:
                with self.server.client(timeout=20) as client:
                    for i in range(20):
                        name = f"t{number}-{i}"
                        client.result("vm.create", name=name, **GOOD_VM)
                        client.result("vm.pause", vm=name)
                        client.result("vm.destroy", vm=name)
            except Exception as error:  # shown by the test, whatever it is
                failures.append(f"{number}: {error!r}")
        threads = [threading.Thread(target=talk, args=(i,)) for i in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(self.client().result("vm.list")["vms"], [])

    def test_subscriptions_are_bounded(self):
        client = self.client()
        numbers = [client.result("events.subscribe")["subscription"] for _ in range(16)]
        self.assertEqual(client.code("events.subscribe"), -32004)
        self.assertEqual(client.code("stats.subscribe"), -32004)
        client.result("events.unsubscribe", subscription=numbers[3])
        client.result("events.subscribe")
        # another connection's are none of its business
        self.assertEqual(self.client().code("events.unsubscribe", subscription=numbers[0]), -32602)


class Streams(WithServer):
    def test_rows_come_at_the_interval_and_end(self):
        client, began = self.client(), time.monotonic()
        number = client.result("stats.subscribe", interval_ms=50)["subscription"]
        for _ in range(8):
            message = client.receive()
            self.assertEqual(message["method"], "stats.rows")
            self.assertEqual(message["params"]["subscription"], number)
            self.assertNotIn("id", message)
        self.assertGreater(time.monotonic() - began, 0.3)
        client.result("stats.unsubscribe", subscription=number)
        time.sleep(0.12)
        while not client.is_quiet(0.12):
            self.assertEqual(client.receive()["method"], "stats.rows")
            self.fail("a row after the end")

    def test_events_reach_all_who_asked(self):
        clients = [self.client() for _ in range(3)]
        for client in clients[:2]:
            client.result("events.subscribe")
        clients[2].result("vm.create", name="seen", **GOOD_VM)
        for client in clients[:2]:
            params = client.receive()["params"]
            self.assertEqual((params["vm"], params["kind"]), ("seen", "vm-created"))
        self.assertTrue(clients[2].is_quiet(0.1))

    def test_a_half_closed_client_keeps_its_stream(self):
        client = self.client()
        client.result("stats.subscribe", interval_ms=20)
        client.socket.shutdown(socket.SHUT_WR)
        for _ in range(5):
            self.assertEqual(client.receive()["method"], "stats.rows")

    def test_a_client_that_ended_its_side_and_left_is_noticed(self):
        other = self.client()
        files = self.server.open_files()
        for _ in range(5):
            client = self.client()
            client.result("events.subscribe")
            client.socket.shutdown(socket.SHUT_WR)
            self.assertTrue(client.is_quiet(0.05))
            client.close()
        wait_until(lambda: self.server.open_files() == files)
        self.assertIn("vms", other.result("vm.list"))

    def test_an_idle_server_costs_nothing(self):
        client = self.client()
        client.send_bytes(b'{"json')
        before = self.server.cpu_seconds()
        time.sleep(1)
        self.assertLess(self.server.cpu_seconds() - before, 0.05)


class Socket(unittest.TestCase):
    def refused(self, path):
        """What a server says that does not start."""
        result = subprocess.run([server_program, path], stdin=subprocess.DEVNULL,
                                capture_output=True, check=False)
        self.assertEqual(result.returncode, 1)
        return result.stderr

    def test_paths_that_can_not_be(self):
        self.assertIn(b"longer than", self.refused("/tmp/" + "x" * 200))
        self.assertIn(b"No such file", self.refused("/no/such/folder/ctl.sock"))
        with tempfile.NamedTemporaryFile() as file:
            self.assertIn(b"another kind of file", self.refused(file.name))
            self.assertTrue(os.path.exists(file.name))

    def test_a_stale_socket_is_replaced_and_a_served_one_is_not(self):
        server = Server(server_program)
        self.assertIn(b"another daemon serves", self.refused(server.path))
        with server.client() as client:
            client.result("vm.list")
        server.process.kill()
        server.process.wait()
        self.assertTrue(os.path.exists(server.path))
        again = subprocess.Popen([server_program, server.path], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE)
        self.assertEqual(again.stdout.readline(), b"ready\n")
        with Client(server.path) as client:
            client.result("vm.list")
        again.stdin.close()
        self.assertEqual(again.wait(timeout=10), 0)
        self.assertFalse(os.path.exists(server.path), "the socket is removed at the end")
        again.stdout.close()
        server.process.stdin.close()
        server.process.stdout.close()
        server.folder.cleanup()


@unittest.skipUnless(os.geteuid() == 0, "needs root to be someone else")
class Permissions(WithServer):
    arguments = (1 << 20, 1 << 20, 64, "nogroup")
    NOBODY = 65534
    STRANGER = 65533

    def as_user(self, uid, groups, gid, talk):
        """talk(client) in a process of that user; its exit status says how it went."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setgroups(groups)
                os.setresgid(gid, gid, gid)
                os.setresuid(uid, uid, uid)
                with Client(self.server.path) as client:
                    status = 0 if talk(client) else 2
            finally:
                os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)

    def may(self, client):
        return (client.hello["params"]["may_change"] and
                "result" in client.call("vm.create", name="mine", **GOOD_VM) and
                "result" in client.call("vm.destroy", vm="mine"))

    def may_not(self, client):
        answer = client.call("vm.create", name="theirs", **GOOD_VM)["error"]
        refused = [client.code(method) for method in ("host.check", "host.set", "vm.pause",
                                                      "vm.resume", "vm.destroy", "vm.set",
                                                      "vm.set_target", "policy.attach",
                                                      "policy.targets", "policy.detach")]
        return (not client.hello["params"]["may_change"] and answer["code"] == -32001 and
                answer["data"]["uid"] == self.STRANGER and set(refused) == {-32001} and
                "vms" in client.result("vm.list") and "state" in client.result("host.stats") and
                "subscription" in client.result("stats.subscribe"))

    def test_a_stranger_may_read_only(self):
        self.as_user(self.STRANGER, [], self.STRANGER, self.may_not)
        self.assertEqual(self.client().result("vm.list")["vms"], [])

    def test_members_of_the_group_may_change(self):
        group = os.stat(self.server.path).st_gid
        self.as_user(self.STRANGER, [], group, self.may)
        self.as_user(self.STRANGER, [12345, group], self.STRANGER, self.may)

    def test_root_may_change(self):
        self.assertTrue(self.may(self.client()))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
