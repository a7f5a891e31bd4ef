"""A guest with Debian on a disk (tests/images): console login, ssh, an orderly end, and what is then on the disk."""
import os
import shutil
import socket
import subprocess
import sys
import time

from ferrytest import SCALE, TOP, Failure, Guest, check

sys.path.insert(0, os.path.join(TOP, "tests", "images"))
import debian  # noqa: E402


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def run(*command):
    """A programme of the host's administrator: (exit code, what it printed)."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, env=dict(os.environ, PATH=path))
    return done.returncode, done.stdout


class Distro(Guest):
    """Debian from a fresh copy of the image in folder; its ssh port is at self.port of 127.0.0.1. disks: more of
    them, as Guest has it: vdb and so on."""

    def __init__(self, folder, cpus=1, memory=512, append="", disks=(), **options):
        self.image = debian.image()
        self.disk = self.image.fresh_copy(folder)
        self.port = free_port()
        super().__init__(self.image.kernel, self.image.initrd, f"quiet {self.image.append} {append}".strip(),
                         memory, cpus, disks=[(self.disk, "writeback"), *disks],
                         net=f"user,hostfwd=tcp:127.0.0.1:{self.port}-:22", **options)

    def prompt(self, timeout=240):
        """Waits for the login prompt."""
        self.expect("^ferry login: ", timeout, "the login prompt")
        return self

    def login(self):
        """Root's login at that prompt; then a shell that echoes lines as they were typed."""
        self.line("root")
        self.expect("Password: ", 60)
        self.line(self.image.password)
        self.expect(r"root@ferry:~# ", 60, "root's prompt")
        self.line("exec sh")
        self.expect(r"[\r\n]# ", 60, "the shell's prompt")
        return self

    def run(self, command, timeout=60):
        """As any guest's; the prompt that follows is waited for: it could come behind the next line's echo."""
        output = super().run(command, timeout)
        self.expect("# ", 60, "the shell's prompt")
        return output

    def ssh(self, command, timeout=120, stdin=""):
        """Runs a command by ssh; what it printed. Waits for the network and the server as long as need be."""
        end = time.monotonic() + timeout * SCALE
        while True:
            try:
                done = subprocess.run(self.image.ssh(self.port, command), input=stdin, capture_output=True,
                                      text=True, timeout=max(end - time.monotonic(), 1))
            except subprocess.TimeoutExpired:
                raise Failure(f"ssh: {command!r} takes longer than {timeout * SCALE:.0f} s{self.tail()}") from None
            if done.returncode == 0:
                return done.stdout
            # 255 is ssh's own: nobody listens yet.
            if done.returncode != 255 or time.monotonic() > end or self.child.poll() is not None:
                raise Failure(f"ssh: {command!r}: {done.returncode}: {done.stdout}{done.stderr}{self.tail()}")
            time.sleep(0.5)

    def check_disk(self):
        """After the end: unmounted in order, and without a fault."""
        code, text = run("dumpe2fs", "-h", self.disk)
        check(code == 0 and "needs_recovery" not in text, f"the file system was not unmounted:\n{text}")
        code, text = run("e2fsck", "-fn", self.disk)
        check(code == 0, f"e2fsck ends with {code}:\n{text}")

    def read(self, path):
        """A file of the disk, after the end."""
        return run("debugfs", "-R", f"cat {path}", self.disk)[1].partition("\n")[2]

    def close(self):
        super().close()
        if os.path.exists(self.disk):
            os.unlink(self.disk)
