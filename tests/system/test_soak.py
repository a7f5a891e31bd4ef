"""Hours in minutes: a Debian that compiles, writes and checks a disk, talks to the network and is short of memory, all at
once, while its balloon moves. SOAK_MINUTES (30) says how long; nothing may fail, and ferry may not grow."""
import hashlib
import os
import random
import socket
import statistics
import tempfile
import threading
import time

from distro import Distro
from ferrytest import SCALE, check, ferry, limit, memory_split, needs_ferry, slow

MINUTES = int(os.environ.get("SOAK_MINUTES", "30"))
MEMORY = 1024

COMPILE = r"""
cd /tmp && while [ ! -e /tmp/stop ]; do
	for n in 1 2 3 4 5 6; do
		{ echo "int f$n(int x) {"; for i in $(seq 300); do echo "x = x * $i + (x >> $n);"; done; echo "return x; }"; } >f$n.c
	done
	{ echo "#include <stdio.h>"; for n in 1 2 3 4 5 6; do echo "int f$n(int);"; done
	  printf '%s\n' 'int main(void) { printf("%d\n", f1(f2(f3(f4(f5(f6(7))))))); }'; } >main.c
	for n in 1 2 3; do { gcc -O1 -c f$n.c && gcc -O1 -c f$((n + 3)).c; } & done; wait
	gcc -O1 -o main main.c f?.o && [ "$(./main)" = "$(./main)" ] || exit 1
	echo compile >>/tmp/rounds
done
"""
DISK = """
mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt && while [ ! -e /tmp/stop ]; do
	fio --name=v --directory=/mnt --size=48m --rw=randwrite --bsrange=4k-128k --verify=crc32c --verify_fatal=1 \
		--fsync=32 --iodepth=8 --numjobs=2 --ioengine=libaio --direct=1 --output=/tmp/fio.log || exit 1
	rm -f /mnt/v.* && fstrim /mnt || exit 1
	echo disk >>/tmp/rounds
done
"""
NET = """
import hashlib, os, socket, sys
while not os.path.exists("/tmp/stop"):
    s = socket.create_connection(("10.0.2.2", int(sys.argv[1])), 60)
    s.settimeout(120)
    digest, left = hashlib.sha256(), 4 << 20
    while left:
        data = s.recv(min(left, 65536))
        assert data, "the other side ended early"
        digest.update(data)
        left -= len(data)
    s.sendall(digest.digest())
    assert s.recv(2) == b"ok", "another sum"
    open("/tmp/rounds", "a").write("net\\n")
"""
PRESSURE = """
import os, random, time
while not os.path.exists("/tmp/stop"):
    size = random.randrange(50, 250) << 20
    block = bytearray(size)
    for i in range(0, size, 4096):
        block[i] = i >> 12 & 255
    time.sleep(0.5)
    assert all(block[i] == i >> 12 & 255 for i in range(0, size, 4096)), "memory has changed"
    del block
    open("/tmp/rounds", "a").write("memory\\n")
"""


class Peer:
    """Sends 4 MiB of noise to whoever connects and compares the sum that comes back."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.wrong = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            client, _ = self.server.accept()
            data = os.urandom(1 << 20) * 4
            try:
                client.sendall(data)
                good = client.recv(32, socket.MSG_WAITALL) == hashlib.sha256(data).digest()
                client.sendall(b"ok" if good else b"no")
                self.wrong += not good
            except OSError:
                pass
            client.close()


def start(guest, name, command, stdin):
    """A service of the guest's: what became of it is asked for at the end."""
    guest.ssh(f"cat >/opt/{name}", stdin=stdin)
    guest.ssh(f"systemd-run --quiet --unit={name} --remain-after-exit -p WorkingDirectory=/opt {command}")


@slow
@needs_ferry
@limit(MINUTES * 60 + 1200)
def test_mixed():
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "data.img")
        with open(data, "wb") as f:
            f.truncate(1 << 30)
        peer = Peer()
        with Distro(folder, cpus=4, memory=MEMORY, disks=[(data, "none")]) as guest:
            guest.prompt()
            start(guest, "compile", "sh /opt/compile", COMPILE)
            start(guest, "disk", "sh /opt/disk", DISK)
            start(guest, "net", f"python3 /opt/net {peer.port}", NET)
            start(guest, "pressure", "python3 /opt/pressure", PRESSURE)
            sizes, end = [], time.monotonic() + MINUTES * 60
            while time.monotonic() < end:
                size = random.randrange(0, MEMORY // 3)
                code, _, err = ferry("balloon", "test", f"{MEMORY - size}M", env={"FERRY_RUNTIME_DIR": guest.runtime})
                check(code == 0, err)
                time.sleep(min(15, MINUTES * 60 / 20))
                sizes.append(memory_split(guest.pid, MEMORY)[0])
                check(guest.child.poll() is None, "the machine has ended" + guest.tail())
            ferry("balloon", "test", f"{MEMORY}M", env={"FERRY_RUNTIME_DIR": guest.runtime})
            guest.ssh("touch /tmp/stop")
            names = ("compile", "disk", "net", "pressure")
            ended = time.monotonic() + 300 * SCALE
            while time.monotonic() < ended:
                out = guest.ssh("systemctl show -p SubState --value " + " ".join(names)).split()
                if "running" not in out:
                    break
                time.sleep(2)
            out = guest.ssh("systemctl show -p Result -p SubState --value " + " ".join(names)).split()
            check(out == ["success", "exited"] * 4, guest.ssh("journalctl -n 60 --no-pager -u " + " -u ".join(names)) + f"\n{names}: {out}")
            rounds = guest.ssh("sort /tmp/rounds | uniq -c").split()
            check(len(rounds) == 8 and not peer.wrong, f"not every load has run: {rounds}")
            warnings = guest.ssh("dmesg --level=emerg,alert,crit,err,warn | grep -E 'BUG|stall|lockup|I/O error' ; true")
            check(not warnings, warnings)
            guest.power_button()
            check(guest.wait(120) == 0, guest.tail())
            guest.check_disk()
        # After its first quarter (caches, translated code) the process has the size that it keeps.
        quarter = len(sizes) // 4
        early, late = (statistics.median(s) for s in (sizes[quarter:2 * quarter], sizes[-quarter:]))
        print(f"note: rounds {' '.join(rounds)}; beyond the guest's memory {early / 1024:.0f} MiB, "
              f"at the end {late / 1024:.0f} MiB")
        check(late < early * 1.15 + 8192, f"ferry grows: {[s // 1024 for s in sizes]} MiB")
