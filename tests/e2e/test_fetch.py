#!/usr/bin/env python3
"""experiments/guest/fetch finds the mirror and the keyring in every form of apt configuration."""
import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
FETCH = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
                     "experiments", "guest", "fetch")
KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----"

# what it is -> (file name, content, mirror, security mirror, keyring)
CONFIGURATIONS = {
    "a sources file": (
        "debian.sources", "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\nSigned-By: /keys/a.gpg\n\nTypes: deb\nURIs: http://mirror.invalid/debian-security\n"
        "Suites: bookworm-security\nComponents: main\nSigned-By: /keys/b.gpg\n",
        "http://mirror.invalid/debian/", "http://mirror.invalid/debian-security/", "/keys/a.gpg"),
    "another vendor's stanza and comments first": (
        "all.sources", "# ours\n\nTypes: deb\nURIs: https://vendor.invalid/node\nSuites: stable\nComponents: main\n"
        "Signed-By: /keys/vendor.gpg\n\n# Debian\nTypes: deb deb-src\nURIs: https://mirror.invalid/debian/\n"
        "Suites: trixie\nComponents: main contrib\nSigned-By:\n /keys/a.gpg\n",
        "https://mirror.invalid/debian/", "", "/keys/a.gpg"),
    "a key in place": (
        "debian.sources", "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: sid\nComponents: main\n"
        f"Signed-By:\n {KEY}\n", "http://mirror.invalid/debian/", "", KEY),
    "a list file with options": (
        "debian.list", "# old form\ndeb [signed-by=/keys/a.gpg arch=amd64] http://mirror.invalid/debian bookworm main\n"
        "deb http://mirror.invalid/debian-security bookworm-security main\n",
        "http://mirror.invalid/debian/", "http://mirror.invalid/debian-security/", "/keys/a.gpg"),
    "backports before the suite": (
        "debian.list", "deb http://other.invalid/debian bookworm-backports main\n"
        "deb [ signed-by=/keys/a.gpg ] http://mirror.invalid/debian bookworm main\n",
        "http://mirror.invalid/debian/", "", "/keys/a.gpg"),
    "a dated archive": (
        "debian.list", "deb [signed-by=/keys/a.gpg] http://mirror.invalid/archive/debian/20250520T000000Z bookworm main\n",
        "http://mirror.invalid/archive/debian/20250520T000000Z/", "", "/keys/a.gpg"),
    "no Debian mirror at all": (
        "vendor.list", "deb http://vendor.invalid/node stable main\n", None, None, None),
}


class Sources(unittest.TestCase):
    def show(self, name, content):
        with tempfile.TemporaryDirectory() as folder:
            parts = os.path.join(folder, "parts")
            os.makedirs(parts)
            os.makedirs(os.path.join(folder, "lists", "partial"))
            with open(os.path.join(parts, name), "w", encoding="utf-8") as file:
                file.write(content)
            config = os.path.join(folder, "apt.conf")
            with open(config, "w", encoding="utf-8") as file:
                file.write(f'Dir::Etc::sourcelist "{folder}/none";\nDir::Etc::sourceparts "{parts}";\n'
                           f'Dir::State::lists "{folder}/lists/";\nDir::Cache "{folder}";\n')
            env = {key: value for key, value in os.environ.items() if not key.startswith("BALLAST_")}
            return subprocess.run([FETCH, "--show-source"], env=dict(env, APT_CONFIG=config),
                                  capture_output=True, text=True)

    def test_mirror_and_keyring_are_found(self):
        for what, (name, content, mirror, security, keyring) in CONFIGURATIONS.items():
            with self.subTest(what):
                done = self.show(name, content)
                if mirror is None:
                    self.assertEqual(done.returncode, 1)
                    self.assertIn("names no Debian mirror", done.stderr)
                    continue
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual([line.strip() for line in done.stdout.strip().split("\n")],
                                 [f"mirror {mirror}", f"security {security}".strip()] +
                                 [line.strip() for line in f"keyring {keyring}".split("\n")])

    def test_environment_goes_before_the_configuration(self):
        env = dict(os.environ, BALLAST_MIRROR="http://my.invalid/debian", BALLAST_KEYRING="/my.gpg")
        done = subprocess.run([FETCH, "--show-source"], env=env, capture_output=True, text=True)
        self.assertIn("mirror http://my.invalid/debian\n", done.stdout)
        self.assertIn("keyring /my.gpg\n", done.stdout)

    def test_unknown_option_is_refused(self):
        done = subprocess.run([FETCH, "--nothing"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("usage", done.stderr)


if __name__ == "__main__":
    unittest.main()
