"""Executes every example of daemon/rpc/PROTOCOL.md, and checks that the page names every method and
every member that there is: protocol_page_test.py RPC-TEST-SERVER PROTOCOL.md"""

import json
import re
import sys
import unittest

from ballast_socket import Server
from page_examples import differs, read_examples

server_program, page_path = sys.argv[1:3]


def members(value):
    """Every name in a JSON value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from members(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from members(inner)


class ProtocolPage(unittest.TestCase):
    def setUp(self):
        with open(page_path) as file:
            self.page = file.read()
        self.server = Server(server_program)

    def tearDown(self):
        self.assertEqual(self.server.stop(), 0)

    def test_examples_are_what_happens(self):
        client = self.server.client(greet=False)
        self.addCleanup(client.close)
        count = 0
        for example in read_examples(self.page):
            for direction, text in example:
                if direction == "-->":
                    client.send_bytes(text.encode() + b"\n")
                    continue
                actual = client.receive()
                difference = differs(json.loads(text), actual)
                self.assertIsNone(difference, f"{difference}\n{example}\n{actual}")
                count += 1
        self.assertGreater(count, 25)
        self.assertTrue(client.is_quiet(0.2), "the daemon said more than the page")

    def test_every_member_is_on_the_page(self):
        with self.server.client() as client:
            client.result("vm.create", name="all", memory="64MiB", kernel="/k")
            client.result("vm.set_target", vm="all", target="48MiB")
            client.result("vm.set", vm="all", idle_tax_percent=50)
            for row in (client.result("vm.stats", vm="all"), client.result("host.stats"),
                        client.result("sharing.stats")):
                for name in members(row):
                    self.assertRegex(self.page, f'[`"]{name}[`"]')

    def test_every_method_is_on_the_page(self):
        with open(page_path.replace("PROTOCOL.md", "methods.c")) as file:
            methods = re.findall(r'^    \{"([a-z_.]+)"', file.read(), re.M)
        self.assertGreater(len(methods), 10)
        for method in methods:
            self.assertRegex(self.page, rf"(?m)^### .*{re.escape(method)}")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v"])
