"""External policies over the control socket, good and hostile: external_policy_test.py
RPC-TEST-SERVER

The socket and the seat are the real ones; behind them stands a host that asks once whenever a
policy attaches or the period is set. Whether the built-in policy decided shows in policy_active."""

import sys
import unittest

from ballast_socket import Server, wait_until

server_program = sys.argv[1]
MIB = 1 << 20
TIMEOUT_S = 30


def until(condition):
    wait_until(condition, TIMEOUT_S)


class ExternalPolicy(unittest.TestCase):
    def setUp(self):
        self.server = Server(server_program)
        self.operator = self.client()
        for name in ("a", "b"):
            self.operator.result("vm.create", name=name, memory="64MiB", min="16MiB", kernel="/k")

    def tearDown(self):
        self.assertEqual(self.server.stop(), 0)

    def client(self):
        client = self.server.client(timeout=TIMEOUT_S)
        self.addCleanup(client.close)
        return client

    def attach(self, client=None, **params):
        client = client or self.client()
        settings = {"name": "test", "deadline_ms": 60000, "bad_limit": 100, **params}
        result = client.result("policy.attach", **settings)
        self.assertEqual(result["policy"], "external:" + settings["name"])
        return client

    def question(self, client):
        """The next policy.rows."""
        while True:
            message = client.receive()
            if message.get("method") == "policy.rows":
                return message["params"]

    def ask(self, client):
        self.operator.result("host.set", period_ms=2000)
        return self.question(client)

    def answer(self, client, round_number, targets):
        return client.call("policy.targets", round=round_number, targets=targets)

    def external(self):
        return self.operator.result("host.stats").get("external")

    def decided_by(self):
        return self.operator.result("host.stats")["policy_active"]

    def test_a_round(self):
        self.assertIsNone(self.external())
        client = self.attach()
        question = self.question(client)
        self.assertEqual([row["name"] for row in question["vms"]], ["a", "b"])
        self.assertEqual(question["vms"][0]["can_balloon"], True)
        targets = {row["name"]: row["min_pages"] * 4096 for row in question["vms"]}
        self.assertEqual(self.answer(client, question["round"], targets)["result"],
                         {"accepted": True})
        self.assertEqual(self.decided_by(), "external:test")
        self.assertEqual(self.operator.result("vm.stats", vm="a")["target_pages"], 4096)
        self.assertEqual(client.result("policy.detach"), {})
        self.assertEqual(self.external()["state"], "detached")

    def test_a_notification_is_an_answer_too(self):
        client = self.attach()
        question = self.question(client)
        client.send({"jsonrpc": "2.0", "method": "policy.targets", "params": {
            "round": question["round"], "targets": {"a": 16 * MIB, "b": 16 * MIB}}})
        until(lambda: self.decided_by() == "external:test")

    def test_wrong_answers(self):
        good = 16 * MIB
        cases = [
            ({}, "no target for VM a"),
            ({"a": good}, "no target for VM b"),
            ({"a": good, "b": good, "c": good}, "'c', which is no VM"),
            ({"a": good, "b": good, "\x1b[2J": good}, "'?[2J', which is no VM"),
            ({"a": good, "b": -1}, "below its min"),
            ({"a": good, "b": 0}, "below its min"),
            ({"a": good, "b": 64 * MIB + 1}, "above its max"),
            ({"a": good, "b": 1 << 62}, "above its max"),
            ({"a": good, "b": 1.5}, "not a whole number"),
            ({"a": good, "b": float(good)}, "not a whole number"),
            ({"a": good, "b": "16MiB"}, "is text"),
            ({"a": good, "b": None}, "is null"),
            ({"a": good, "b": True}, "is true or false"),
            ({"a": good, "b": [good]}, "is an array"),
            ({"a": good, "b": {"b": good}}, "is an object"),
            ([good, good], "not an object"),
            (None, "not an object"),
            ({f"vm{i}": good for i in range(20000)}, "no target for VM a"),
            ({"a": good, "b": good, **{f"vm{i}": good for i in range(20000)}}, "is no VM"),
        ]
        client = self.attach()
        question = self.question(client)
        for targets, says in cases:
            with self.subTest(targets=str(targets)[:60]):
                error = self.answer(client, question["round"], targets)["error"]
                self.assertEqual(error["code"], -32003)
                self.assertIn(says, error["message"])
                external = self.external()
                self.assertEqual(external["state"], "failed")
                self.assertIn(says, external["last_fault"])
                self.assertEqual(self.decided_by(), "proportional")
                # What is right now comes after the decision.
                late = self.answer(client, question["round"], {"a": good, "b": good})["error"]
                self.assertEqual(late["data"]["errno_name"], "ESTALE")
                question = self.ask(client)
        self.assertEqual(self.external()["wrong"], len(cases))
        self.assertEqual(self.external()["refused"], len(cases))

    def test_a_sum_above_what_there_is(self):
        for i in range(16):
            self.operator.result("vm.create", name=f"big{i}", memory="512MiB", min="16MiB",
                                 kernel="/k")
        client = self.attach()
        question = self.question(client)
        targets = {row["name"]: row["max_pages"] * 4096 for row in question["vms"]}
        error = self.answer(client, question["round"], targets)["error"]
        self.assertRegex(error["message"], r"add up to \d+ bytes, more than the \d+ there are")
        question = self.ask(client)
        targets = {row["name"]: row["min_pages"] * 4096 for row in question["vms"]}
        left = question["available_pages"] * 4096 - sum(targets.values())
        targets["big0"] += min(left, 496 * MIB)
        self.assertIn("result", self.answer(client, question["round"], targets))

    def test_garbage_is_an_answer_and_a_wrong_one(self):
        cases = [b"garbage", b'{"jsonrpc":"2.0","id":1,"method":"policy.targets","params":'
                 b'{"round":1,"targets":{"a":NaN}}}', b'{"round":1,"targets":{}}', b"[]", b"7",
                 b'{"jsonrpc":"2.0","id":1,"method":"policy.targets","params":{"round":1,"targets":'
                 b'{"a":16777216,"a":16777216,"b":16777216}}}',
                 b'{"jsonrpc":"2.0","id":1,"method":"policy.targets","params":{"round":-1}}',
                 b'{"jsonrpc":"2.0","id":1,"method":"policy.targets","params":{"round":1e9}}',
                 b'{"jsonrpc":"2.0","id":1,"method":"policy.targets","params":{}}',
                 b'{"jsonrpc":"2.0","id":1,"method":"policy.targets","params":{"round":1,"x":2}}',
                 b'{"jsonrpc":"2.0","id":1,"method":"policy.targets","params":{"round":1,"targets":'
                 + b"[" * 5000 + b"]" * 5000 + b"}}", b"\xff\xfe\x00", b"x" * (2 << 20)]
        client = self.attach()
        self.question(client)
        for count, line in enumerate(cases, 1):
            with self.subTest(line=line[:60]):
                client.send_bytes(line + b"\n")
                self.assertIn("error", client.receive())
                self.assertEqual(self.external()["wrong"], count)
                self.assertEqual(self.decided_by(), "proportional")
                self.ask(client)

    def test_other_calls_do_no_harm_to_a_question(self):
        client = self.attach()
        question = self.question(client)
        client.result("host.stats")
        self.assertEqual(client.code("vm.stats", vm="ghost"), -32002)
        self.assertEqual(client.code("no.such"), -32601)
        self.assertEqual(self.external()["state"], "asked")
        self.assertIn("result", self.answer(client, question["round"],
                                            {"a": 16 * MIB, "b": 16 * MIB}))

    def test_twice(self):
        client = self.attach()
        question = self.question(client)
        good = {"a": 16 * MIB, "b": 16 * MIB}
        self.assertIn("result", self.answer(client, question["round"], good))
        error = self.answer(client, question["round"], good)["error"]
        self.assertEqual(error["data"]["errno_name"], "EALREADY")
        self.assertEqual(self.decided_by(), "proportional")
        self.assertEqual((self.external()["kept"], self.external()["wrong"]), (0, 1))

    def test_only_who_was_asked_may_answer(self):
        client, other = self.attach(), self.client()
        question = self.question(client)
        good = {"a": 16 * MIB, "b": 16 * MIB}
        for who in (other, self.operator):
            error = self.answer(who, question["round"], good)["error"]
            self.assertEqual(error["data"]["errno_name"], "EPERM")
        other.send_bytes(b"garbage\n")
        other.receive()
        self.assertEqual(self.answer(client, question["round"] + 1, good)["error"]["data"]
                         ["errno_name"], "ESRCH")
        self.assertEqual(self.external()["state"], "asked")
        error = other.call("policy.attach", name="other")["error"]
        self.assertEqual(error["data"]["errno_name"], "EBUSY")
        self.assertIn("test is attached", error["message"])
        self.assertIn("result", self.answer(client, question["round"], good))

    def test_an_operator_may_send_it_away(self):
        client = self.attach()
        self.question(client)
        self.operator.result("policy.detach")
        self.assertEqual(self.decided_by(), "proportional")
        self.assertEqual(client.receive()["method"], "policy.detached")
        self.attach(client)

    def test_the_end_of_the_connection_is_the_end_of_the_policy(self):
        for end in (lambda client: client.close(),
                    lambda client: client.socket.shutdown(1),
                    lambda client: client.send_bytes(b'{"half a line')or client.close()):
            client = self.attach()
            question = self.question(client)
            self.answer(client, question["round"], {"a": 16 * MIB, "b": 16 * MIB})
            self.assertEqual(self.decided_by(), "external:test")
            self.ask(client)
            end(client)
            until(lambda: self.external()["state"] == "detached")
            self.assertEqual(self.decided_by(), "proportional")

    def test_late_and_then_detached(self):
        client = self.attach(deadline_ms=10, bad_limit=3)
        for late in (1, 2, 3):
            self.operator.result("host.set", period_ms=2000)
            until(lambda n=late: self.external()["late"] >= n)
        until(lambda: self.external()["state"] == "detached")
        while True:
            message = client.receive()
            if message["method"] == "policy.detached":
                break
        self.assertRegex(message["params"]["reason"],
                         r"3 bad rounds in a row, the last: round \d+: late, no answer within 10 ms")

    def test_a_policy_that_does_not_read(self):
        for i in range(200):
            self.operator.result("vm.create", name=f"v{i}", memory="16MiB", kernel="/k")
        self.attach(deadline_ms=1, bad_limit=1000)
        for _ in range(200):  # some 80 kB each: more than is kept for one who does not read
            self.operator.result("host.set", period_ms=2000)
            until(lambda: self.external()["state"] == "failed")
        self.assertGreaterEqual(self.external()["late"], 200)
        self.assertIn("does not read", self.external()["last_fault"])

    def test_what_is_refused_at_the_door(self):
        for params, blamed in [({}, "name"), ({"name": 1}, "name"),
                               ({"name": "a", "deadline_ms": 0}, "deadline_ms"),
                               ({"name": "a", "deadline_ms": 60001}, "deadline_ms"),
                               ({"name": "a", "deadline_ms": "1s"}, "deadline_ms"),
                               ({"name": "a", "bad_limit": 0}, "bad_limit"),
                               ({"name": "a", "fallback": "magic"}, "fallback"),
                               ({"name": "a", "colour": "red"}, "colour")]:
            error = self.operator.call("policy.attach", **params)["error"]
            self.assertEqual((error["code"], error["data"]["param"]), (-32602, blamed))
        for name in ("", "a b", "x" * 64, "\u00e4", "a\n"):
            self.assertEqual(self.operator.code("policy.attach", name=name), -32003)
        self.assertEqual(self.operator.code("policy.detach", name="x"), -32602)
        self.assertEqual(self.operator.code("policy.detach"), -32003)
        self.assertEqual(self.operator.code("policy.targets", round=1, targets={}), -32003)
        self.assertIsNone(self.external())

    def test_complaints_are_events(self):
        events = self.client()
        events.result("events.subscribe")
        client = self.attach()
        question = self.question(client)
        self.answer(client, question["round"], {})
        kinds = [events.receive()["params"]["kind"] for _ in range(2)]
        self.assertEqual(kinds, ["policy-attached", "policy-bad"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
