"""A whole Debian on a disk: it boots, lets people in, does their work and ends in order."""
import hashlib
import os
import tempfile
import time

from distro import Distro, run
from ferrytest import SCALE, check, each, limit, slow

LOG = "/var/lib/orderly"
# A service whose end writes to the disk: it is only there after a shutdown that stops services.
WITNESS = ("systemd-run --quiet --unit=witness --remain-after-exit "
           f"--property=ExecStop='/bin/sh -c \"echo stopped >{LOG}\"' true")


def healthy(guest):
    """Everything was started, and no unit failed."""
    state = guest.ssh("systemctl is-system-running --wait; systemctl --failed --plain --no-legend; exit 0", 240)
    check(state.split() == ["running"], state)


def end(guest):
    """The power button: services are stopped, the file system is unmounted, the machine is off."""
    guest.ssh(WITNESS)
    guest.power_button()
    code = guest.wait(120)
    check(code == 0 and "reboot: Power down" in guest.stdout(), f"exit code {code}{guest.tail()}")
    guest.check_disk()
    check(guest.read(LOG) == "stopped\n", f"services were not stopped: {guest.read(LOG)!r}{guest.tail()}")


def second_prompt(guest, path):
    """The virtio console has a login prompt of its own."""
    end_of_wait = time.monotonic() + 60 * SCALE
    while True:
        with open(path, encoding="utf-8", errors="replace") as f:
            text = f.read()
        if "ferry login: " in text:
            return
        check(time.monotonic() < end_of_wait, f"no login prompt on the virtio console: {text!r}{guest.tail()}")
        time.sleep(0.5)


@limit(600)
@each(cpus=[1, 2, 4])
def test_boot(cpus):
    """To the login prompts, in over the console and ssh, the power button."""
    with tempfile.TemporaryDirectory() as folder:
        console = os.path.join(folder, "hvc0")
        with Distro(folder, cpus, extra=["--console", "file=" + console]) as guest:
            guest.prompt().login()
            nproc = guest.run("nproc")
            check(nproc.strip() == str(cpus), f"processors: {nproc!r}{guest.tail()}")
            tty = guest.run("tty")
            check(tty.strip() == "/dev/ttyS0", f"the terminal: {tty!r}{guest.tail()}")
            healthy(guest)
            check(guest.ssh("nproc").strip() == str(cpus), "processors, over ssh")
            if guest.vmm == "ferry":
                second_prompt(guest, console)
            end(guest)


PYTHON = """
import hashlib, zlib
data = bytes(i * 7 % 251 for i in range(300000))
assert zlib.decompress(zlib.compress(data)) == data
print(hashlib.sha256(data).hexdigest())
"""
PROGRAM = r"""
#include <math.h>
#include <pthread.h>
#include <stdio.h>

static void *work(void *arg)
{
	double *sum = arg;

	for (int i = 1; i <= 100000; i++)
		*sum += sqrt(i);
	return NULL;
}

int main(void)
{
	double sum[2] = {0};
	pthread_t thread[2];

	for (int i = 0; i < 2; i++)
		pthread_create(&thread[i], NULL, work, &sum[i]);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	printf("%.4f %.4f\n", sum[0], sum[1]);
	return 0;
}
"""
GIT = """
set -e
cd ~ && git init -q -b main work && cd work
git config user.name guest && git config user.email guest@example.org
for n in $(seq 20); do seq $n 1000 >file$n; git add . && git commit -q -m "change $n"; done
git clone -q ~/work ~/clone && cd ~/clone
git fsck --strict && git log --oneline | wc -l && git diff --stat HEAD~19 | tail -n 1
"""
SQL = """
create table t (n integer primary key, square integer, word text);
begin;
with recursive c(n) as (select 1 union all select n + 1 from c where n < 5000)
insert into t select n, n * n, hex(randomblob(20)) from c;
commit;
create index i on t (word);
update t set word = upper(word) || 'x' where n % 3 = 0;
delete from t where n % 5 = 0;
pragma integrity_check;
select count(*), sum(square) from t;
"""


@limit(600)
def test_tools():
    """Debian's own programs: what they print is what they print anywhere."""
    data = hashlib.sha256(bytes(i * 7 % 251 for i in range(300000))).hexdigest()
    roots = sum(i ** 0.5 for i in range(1, 100001))
    squares = [n * n for n in range(1, 5001) if n % 5]
    with tempfile.TemporaryDirectory() as folder, Distro(folder, cpus=2) as guest:
        guest.prompt()
        out = guest.ssh("python3 -", 240, PYTHON)
        check(out.strip() == data, f"python3: {out}")
        out = guest.ssh("cat >a.c && gcc -O2 -Wall -pthread -o a a.c -lm && ./a", 240, PROGRAM)
        check(out.split() == [f"{roots:.4f}"] * 2, f"gcc: {out}, not {roots:.4f}")
        out = guest.ssh("sh -s", 240, GIT).splitlines()
        check(out[0] == "20" and "19 files changed" in out[1], f"git: {out}")
        out = guest.ssh("sqlite3 /var/tmp/t.db", 240, SQL).split()
        check(out == ["ok", f"{len(squares)}|{sum(squares)}"], f"sqlite3: {out}")
        end(guest)
        # The same data, read from the disk without the guest.
        path = os.path.join(folder, "t.db")
        run("debugfs", "-R", f"dump /var/tmp/t.db {path}", guest.disk)
        with open(path, "rb") as f:
            check(f.read(16) == b"SQLite format 3\0", "t.db on the disk")


@slow
@limit(1200)
@each(kind=["ext4", "xfs"])
def test_second_disk(kind):
    """A file system on a second disk: made, filled and read back by fio, checked, and there after a reboot."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "data.img")
        with open(path, "wb") as f:
            f.truncate(1 << 30)
        with Distro(folder, cpus=2, disks=[(path, "writeback")]) as guest:
            guest.prompt()
            guest.ssh(f"mkfs.{kind} -q /dev/vdb && mount /dev/vdb /mnt && fio --name=v --directory=/mnt --size=64m "
                      "--rw=randwrite --bsrange=4k-256k --verify=crc32c --verify_fatal=1 --fsync=64 --iodepth=8 "
                      "--numjobs=2 --ioengine=libaio --direct=1", 600)
            sums = guest.ssh("md5sum /mnt/v.*", 240)
            check(len(sums.split()) == 4, sums)
            guest.ssh("systemctl reboot; exit 0")
            guest.prompt()
            guest.ssh("mount /dev/vdb /mnt", 240)
            check(guest.ssh("md5sum /mnt/v.*", 240) == sums, "other data after the reboot")
            guest.ssh("umount /mnt && " + {"ext4": "e2fsck -fn", "xfs": "xfs_repair -n"}[kind] + " /dev/vdb", 240)
            end(guest)
