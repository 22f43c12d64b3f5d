"""Images for guests, made without root and the same bytes every time.

An initramfs is a "newc" cpio archive written here, so that owners, times and
device nodes need no privilege. A disk is an ext4 file system that mke2fs fills
from a folder; its identifiers are derived from its label, and what mke2fs
copies from the host's inodes (owner, change time) is set right by debugfs.
"""
import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import subprocess
import tempfile
import uuid

EPOCH = 1_700_000_000  # every time stamp in an image, seconds
SBIN = "/usr/sbin:/sbin"


class ImageError(Exception):
    """An image could not be made; the text says which and why."""


def _tool(command, **options):
    """Run a tool of e2fsprogs; its own message is the error."""
    env = dict(os.environ, PATH=os.environ.get("PATH", "/usr/bin:/bin") + ":" + SBIN,
               E2FSPROGS_FAKE_TIME=str(EPOCH), LC_ALL="C")
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, **options)
    except FileNotFoundError as error:
        raise ImageError(f"{command[0]} is not installed") from error
    if done.returncode != 0:
        raise ImageError(f"{' '.join(command[:2])}: {done.stderr.strip()}")
    return done.stdout


class Cpio:
    """A cpio archive in memory: folders, files, links and device nodes."""

    def __init__(self):
        self._entries = {}

    def _add(self, path, mode, content=b"", device=(0, 0)):
        parent = os.path.dirname(path)
        if parent and parent not in self._entries:
            self._add(parent, stat.S_IFDIR | 0o755)
        self._entries[path] = (mode, content, device)

    def folder(self, path, mode=0o755):
        self._add(path, stat.S_IFDIR | mode)

    def file(self, path, content, mode=0o644):
        self._add(path, stat.S_IFREG | mode, content)

    def link(self, path, target):
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path, major, minor, mode=0o600):
        self._add(path, stat.S_IFCHR | mode, device=(major, minor))

    def gzipped(self):
        """The archive's bytes, sorted by path, compressed without a time stamp."""
        out = bytearray()

        def record(inode, path, mode, content, device):
            links = 2 if stat.S_ISDIR(mode) else 1
            fields = (inode, mode, 0, 0, links, EPOCH, len(content), 0, 0, device[0], device[1],
                      len(path) + 1, 0)
            out.extend(b"070701" + b"".join(b"%08X" % field for field in fields))
            out.extend(path.encode() + b"\0")
            out.extend(b"\0" * (-len(out) % 4))
            out.extend(content)
            out.extend(b"\0" * (-len(out) % 4))

        for inode, path in enumerate(sorted(self._entries), 1):
            record(inode, path, *self._entries[path])
        record(0, "TRAILER!!!", 0, b"", (0, 0))
        return gzip.compress(bytes(out), 9, mtime=0)


class Modules:
    """The kernel modules of an unpacked linux-image package and their needs."""

    def __init__(self, kernel_folder):
        top = os.path.join(kernel_folder, "usr/lib/modules")
        if not os.path.isdir(top):
            top = os.path.join(kernel_folder, "lib/modules")
        self.version = sorted(os.listdir(top))[-1]
        self._top = os.path.join(top, self.version)
        self._paths = {}
        for folder, _, names in os.walk(os.path.join(self._top, "kernel")):
            for name in names:
                if ".ko" in name:
                    self._paths[self._key(name)] = os.path.join(folder, name)

    @staticmethod
    def _key(name):
        return name.split(".ko")[0].replace("-", "_")

    def read(self, name):
        """The module's ELF file, decompressed."""
        path = self._paths.get(self._key(name))
        if path is None:
            raise ImageError(f"kernel {self.version} has no module {name}")
        with open(path, "rb") as file:
            content = file.read()
        if path.endswith(".xz"):
            return lzma.decompress(content)
        return gzip.decompress(content) if path.endswith(".gz") else content

    def needs(self, content):
        """Names of the modules that this one depends on, from its .modinfo section."""
        found = re.search(rb"\0depends=([^\0]*)\0", content)
        names = found.group(1).decode().split(",") if found else []
        return [name for name in names if name]

    def add_to(self, cpio, names):
        """Put the modules and all they need in the archive, with a modules.dep for modprobe."""
        wanted, needs = list(names), {}
        while wanted:
            key = self._key(wanted.pop())
            if key in needs:
                continue
            content = self.read(key)
            needs[key] = self.needs(content)
            wanted += needs[key]
            cpio.file(f"lib/modules/{self.version}/{key}.ko", content)

        def closure(key, seen):
            for need in map(self._key, needs[key]):
                if need not in seen:
                    seen.append(need)
                    closure(need, seen)
            return seen

        lines = [f"{key}.ko: " + " ".join(f"{need}.ko" for need in closure(key, []))
                 for key in sorted(needs)]
        cpio.file(f"lib/modules/{self.version}/modules.dep", "\n".join(lines).encode() + b"\n")


def ext4(path, label, size_bytes, folder, journal=False):
    """Make an ext4 file system of this size and label, filled from a folder.

    Written beside `path` and moved into place, so that a file there is complete.
    """
    identity = hashlib.sha256(b"ballast guest disk " + label.encode()).digest()
    volume, seed = uuid.UUID(bytes=identity[:16]), uuid.UUID(bytes=identity[16:])
    partial = f"{path}.partial.{os.getpid()}"
    try:
        with open(partial, "wb") as file:
            file.truncate(size_bytes)
        _tool(["mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-U", str(volume), "-m", "0",
               "-b", "4096", "-I", "256", "-O", "^metadata_csum,^resize_inode" +
               ("" if journal else ",^has_journal"), "-E",
               f"hash_seed={seed},lazy_itable_init=0,nodiscard,root_owner=0:0",
               "-d", folder, partial])
        _settle(partial, folder)
        os.replace(partial, path)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def _settle(path, folder):
    """Give every file of the image owner 0 and the fixed time stamps."""
    names = ["/"]
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            names.append("/" + os.path.relpath(os.path.join(parent, name), folder))
    names.append("/lost+found")
    with tempfile.NamedTemporaryFile("w", suffix=".debugfs") as script:
        for name in sorted(names):
            for field in ("uid", "gid"):
                script.write(f'sif "{name}" {field} 0\n')
            for field in ("ctime", "atime", "mtime", "crtime"):
                script.write(f'sif "{name}" {field} @{EPOCH}\nsif "{name}" {field}_extra 0\n')
        script.flush()
        _tool(["debugfs", "-w", "-f", script.name, path])


def copy_tree(source, target, keep):
    """Copy what keep(relative path) allows of a tree, in sorted order, links as links."""
    for folder, folders, files in os.walk(source):
        folders.sort()
        at = os.path.relpath(folder, source)
        for name in sorted(folders + files):
            relative = os.path.normpath(os.path.join(at, name))
            if not keep(relative):
                if name in folders:
                    folders.remove(name)
                continue
            origin, copy = os.path.join(source, relative), os.path.join(target, relative)
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            if os.path.islink(origin):
                os.symlink(os.readlink(origin), copy)
            elif os.path.isdir(origin):
                os.makedirs(copy, exist_ok=True)
            else:
                shutil.copy(origin, copy)
