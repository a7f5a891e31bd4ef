"""Guests that move: into a file and out again."""
import fcntl
import functools
import json
import os
import pty
import re
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import termios
import time
import tty

from fault_link import Link
from ferrytest import (FERRY, SCALE, TOP, Guest, Process, Skip, at_rate, check, each, ferry, initramfs, kernel, limit,
                       needs_ferry)


class Folder:
    """A folder with a disk, and a runtime folder that several machines share."""

    def __init__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="ferry-move-")
        self.path = self.temporary.name
        self.disk = self.file("disk.img")
        with open(self.disk, "wb") as f:
            f.truncate(64 << 20)

    def file(self, name):
        return os.path.join(self.path, name)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.temporary.cleanup()


def start(folder, cpus=1, mib=16, memory=192, **options):
    """A guest with a disk, a network and entropy, which checks itself (tests/guest/linux/movecheck.c)."""
    guest = Guest(kernel(), initramfs("move"), cpus=cpus, memory=memory, disks=[(folder.disk, "writeback")],
                  net="user", **options)
    guest.env = {"FERRY_RUNTIME_DIR": guest.runtime}
    guest.shell()
    guest.line(f"movecheck {mib} &")
    guest.expect(r"^move: tick 2 ", 60, "the checking programme")
    return guest


def ticks(guest, count=4):
    """It goes on, and has found nothing wrong."""
    first = None
    for _ in range(count):
        match = guest.expect(r"move: (tick (\d+) pass (\d+) gap (\d+)|WRONG.*)\r*\n", 90, "the checking programme")
        check(not match.group(1).startswith(b"WRONG"), match.group(0).decode() + guest.tail())
        first = first or match
    return int(first.group(2)), int(match.group(3))


def follows(old, new):
    """No tick of the guest is lost, and none comes twice: what one machine has begun to say the next one ends."""
    ticks(new, 1)
    count = len(re.findall(rb"tick (\d+) pass", old.text))
    seen = [int(n) for n in re.findall(rb"tick (\d+) pass", bytes(old.text) + bytes(new.text))]
    check(seen[count] in (seen[count - 1], seen[count - 1] + 1), f"tick {seen[count]} came after tick {seen[count - 1]}")


def passes(guest, more=2):
    """Each page has been checked after what was done."""
    _, now = ticks(guest, 1)
    while ticks(guest, 1)[1] < now + more:
        pass


def number(guest, command):
    guest.line(command + " | sed 's/^/num-/'")
    return int(guest.expect(r"^num-(\d+)\s", 30).group(1))


def restore(path, env, *options):
    return Process([FERRY, "restore", *options, path], env=env)


def save(folder, guest, name="saved"):
    path = folder.file(name)
    code, _, err = ferry("save", "test", path, env=guest.env)
    check(code == 0, f"save: {code} {err}{guest.tail()}")
    check(guest.wait(30) == 0, f"the machine that was saved ended otherwise{guest.tail()}")
    check("the guest is in " + path in guest.stderr(), guest.stderr())
    return path


@needs_ferry
@limit(400)
@each(how=["1 lazy", "2 eager", "4 lazy"])
def test_save_restore(how):
    """Memory, processors, devices, the disk and the clocks go on where they were."""
    cpus, eager = int(how[0]), how.endswith("eager")
    with Folder() as folder, start(folder, cpus) as guest:
        guest.line("blkcheck write /dev/vda 8 7")
        guest.expect("8 MiB written", 120)
        ticks(guest, 1)
        path = save(folder, guest)
        code, out, _ = ferry("stream", path)
        check(code == 0 and "whole and well-formed" in out, out)
        time.sleep(2)
        with restore(path, guest.env, *["--eager"] * eager) as again:
            # A tick is 0.25 s of guest time: the two seconds in the file are none.
            follows(guest, again)
            ticks(again, 2)
            again.line("blkcheck check /dev/vda 8 7")
            again.expect("8 MiB right", 120)
            # The guest's real-time clock has run on.
            off = number(again, "hwclock -u -r >/dev/null; cat /sys/class/rtc/rtc0/since_epoch") - time.time()
            check(abs(off) < 30, f"the real-time clock is off by {off} s")
            again.line("head -c 100000 /dev/hwrng | wc -c")
            again.expect("100000", 60)
            passes(again)
            again.line("poweroff")
            check(again.wait(60) == 0, f"the end{again.tail()}")


@needs_ferry
@limit(300)
def test_save_chain():
    """Saved, restored and saved again: the second file is as good as the first."""
    with Folder() as folder, start(folder, 2, terminal=True) as guest:
        path = save(folder, guest)
        for hop in range(3):
            with restore(path, guest.env, "--name", "test") as again:
                passes(again, 1)
                path = folder.file(f"hop{hop}")
                code, _, err = ferry("save", path, env=guest.env)
                check(code == 0, f"{code} {err}{again.tail()}")
                check(again.wait(30) == 0, again.tail())


@needs_ferry
@limit(300)
def test_save_paused():
    """A paused guest is paused when it comes back."""
    with Folder() as folder, start(folder) as guest:
        check(ferry("pause", "test", env=guest.env)[0] == 0, "pause")
        path = save(folder, guest)
        begun = time.monotonic()
        with restore(path, guest.env) as again:
            for _ in range(100):
                code, out, _ = ferry("info", "--json", "test", env=guest.env)
                if code == 0:
                    break
                time.sleep(0.1)
            check(json.loads(out)["state"] == "paused", out)
            check("first-instruction" not in json.loads(out), out)
            mark = len(again.text)
            time.sleep(1)
            check(len(again.text) == mark, f"a paused guest prints{again.tail()}")
            resumed = time.monotonic()
            check(ferry("resume", "test", env=guest.env)[0] == 0, "resume")
            passes(again, 1)
            first = json.loads(ferry("info", "--json", "test", env=guest.env)[1])["first-instruction"]
            check(resumed < first["monotonic-ns"] / 1e9 < time.monotonic(), f"{first}, resumed at {resumed}")
            check(1000 < first["ms-after-start"] < 1e3 * (time.monotonic() - begun), f"{first}, begun at {begun}")


@needs_ferry
@limit(300)
def test_save_fails():
    """What cannot be written leaves the guest as it was, and nothing else."""
    with Folder() as folder, start(folder) as guest:
        small = folder.file("small")
        os.mkdir(small)
        mounted = os.system(f"mount -t tmpfs -o size=8m none {small} 2>/dev/null") == 0
        try:
            targets = [("/nowhere/file", "No such file")] + ([(small + "/file", "No space")] if mounted else [])
            for path, reason in targets + [("/dev/full", "no file")]:
                code, _, err = ferry("save", "test", path, env=guest.env)
                check(code == 1 and reason in err, f"{path}: {code} {err}")
                ticks(guest, 2)
            check(not mounted or os.listdir(small) == [], f"left behind: {os.listdir(small)}")
        finally:
            if mounted:
                os.system(f"umount {small}")
        passes(guest, 1)
        guest.line("blkcheck write /dev/vda 4; blkcheck check /dev/vda 4")
        guest.expect("4 MiB right", 120)
        save(folder, guest)


@needs_ferry
@limit(300)
def test_restore_elsewhere():
    """What belongs to the host is said anew; the file's own damage is found before the guest runs."""
    with Folder() as folder, start(folder) as guest:
        path = save(folder, guest)
        copy, log = folder.file("copy.img"), folder.file("log")
        os.link(folder.disk, copy)
        os.unlink(folder.disk)
        with open(log, "w") as f:
            f.write("before\n")
        code, _, err = ferry("restore", path, env=guest.env)
        check(code == 1 and "disk.img does not exist" in err, f"{code} {err}")
        code, out, err = ferry("restore", "--detach", "--name", "other", "--disk", f"1={copy}", "--serial",
                               "file=" + log, path, env=guest.env)
        check((code, out) == (0, "other\n"), f"{code} {out} {err}")
        for _ in range(100):
            with open(log) as f:
                text = f.read()
            if text.count("tick") > 3:
                break
            time.sleep(0.2)
        check(text.startswith("before\n") and "WRONG" not in text, text[-1000:])
        with open(path, "rb") as f:
            code, _, err = ferry("restore", "/dev/stdin", stdin=subprocess.Popen(["cat"], stdin=f, stdout=subprocess.PIPE).stdout,
                                 env=guest.env)
        check(code == 1 and "--eager reads from a pipe" in err, f"{code} {err}")
        code, _, err = ferry("restore", "--name", "third", "--disk", f"vda={copy}", path, env=guest.env)
        check(code == 1 and "another process has it" in err, f"{code} {err}")
        check(ferry("kill", "other", env=guest.env)[0] == 0, "kill")
        with open(path, "r+b") as f:
            f.seek(os.path.getsize(path) // 2)
            byte = f.read(1)
            f.seek(-1, 1)
            f.write(bytes([byte[0] ^ 4]))
        code, _, err = ferry("restore", "--eager", "--disk", f"1={copy}", path, env=guest.env)
        check(code == 1 and "damaged" in err, f"{code} {err}")
        with open(path, "r+b") as f:
            f.truncate(os.path.getsize(path) // 3)
        code, _, err = ferry("restore", "--eager", "--disk", f"1={copy}", path, env=guest.env)
        check(code == 1 and ("cut off" in err or "ends" in err), f"{code} {err}")


# ---- from one ferry to another ----------------------------------------------------------------------


class Receiver(Process):
    """A ferry receive that listens. through: a command that starts the command."""

    def __init__(self, folder, env, name, *options, address=None, through=()):
        self.address = address or "unix:" + folder.file(name + ".in")
        super().__init__([*through, FERRY, "receive", "--name", name, *options, self.address], env=env)
        self.env = env
        self.await_error("waiting for a guest")
        self.address = re.search(r"guest at (\S+)", self.stderr()).group(1)


@functools.lru_cache
def documented():
    """The words of docs/control-protocol.md about migrations."""
    with open(os.path.join(TOP, "docs/control-protocol.md"), encoding="utf-8") as f:
        part = f.read().partition("\n`ferry-migrate` takes")[2].partition("\n`ferry-wait`")[0]
    return set(re.findall(r"`([\w-]+)`", part))


def migrate(env, name, address, *options, code=0):
    """ferry migrate: the lines of --json."""
    got, out, err = ferry("migrate", "--json", "--downtime", "1s", *options, name, address, env=env, timeout=200)
    check(got == code, f"migrate: exit code {got}, not {code}: {out[-2000:]}{err}")
    lines = [json.loads(line) for line in out.splitlines()]
    words = {word for line in lines for word in [*line, line["phase"], line.get("status", "moved")]}
    check(words <= documented(), f"docs/control-protocol.md does not have {words - documented()}")
    return lines


def goes_on(guest, there, lines):
    """After migrate() said these lines the guest is there, whole, with its disk; then it is switched off."""
    check(guest.wait(30) == 0 and "the guest is at " in guest.stderr(), guest.tail())
    end = lines[-1]
    check(end["status"] == "moved" and end["phase"] == "completed" and end["downtime_ms"] < 3000 * SCALE, end)
    check(all(a["done"] <= b["done"] and a["bytes"] <= b["bytes"] for a, b in zip(lines, lines[1:])),
          f"the display runs backward: {[(line['phase'], line['done'], line['bytes']) for line in lines]}")
    check(not any(line["phase"] == "paused" for line in lines), "paused, with a good link")
    follows(guest, there)
    ticks(there, 1)
    there.line("blkcheck check /dev/vda 8 7; blkcheck write /dev/vda 8 9; blkcheck check /dev/vda 8 9")
    there.expect("8 MiB right", 120)
    there.expect("8 MiB right", 120)
    passes(there)
    there.line("poweroff")
    check(there.wait(60) == 0, there.tail())


@needs_ferry
@limit(600)
@each(cpus=[1, 2, 4])
def test_live(cpus):
    """A guest that writes for ever, with a disk that both have: everything is there, in time and whole."""
    with Folder() as folder, start(folder, cpus, mib=4, memory=128) as guest:
        guest.line("blkcheck write /dev/vda 8 7")
        guest.expect("8 MiB written", 120)
        with Receiver(folder, guest.env, "there", "--net", "user") as there:
            lines = migrate(guest.env, "test", there.address)
            goes_on(guest, there, lines)


@needs_ferry
@limit(600)
@each(cpus=[1, 2, 4])
def test_postcopy(cpus):
    """The guest goes after the first round, and its pages after it: those that it touches first."""
    with Folder() as folder, start(folder, cpus, mib=4, memory=128) as guest:
        guest.line("blkcheck write /dev/vda 8 7")
        guest.expect("8 MiB written", 120)
        with Receiver(folder, guest.env, "there", "--net", "user") as there:
            lines = migrate(guest.env, "test", there.address, "--postcopy-after", "100ms", *at_rate("24M"))
            end = lines[-1]
            # Not by the phase: between two looks at it all may be there.
            check(end["faults"] > 0, f"nothing was asked for: {end}")
            check(0 < end["fault-mean-us"] <= end["fault-max-us"], f"waits of no length: {end}")
            print(f"{end['faults']} faults, {end['fault-mean-us']} us on average, {end['fault-max-us']} us at most")
            goes_on(guest, there, lines)


@needs_ferry
@limit(600)
@each(policy=["throttle", "postcopy"])
def test_stall(policy):
    """A guest that writes faster than the link carries: it is seen, and what was chosen for that is done."""
    with Folder() as folder, start(folder, 2, mib=8, memory=128) as guest:
        with Receiver(folder, guest.env, "there", "--net", "user") as there:
            lines = migrate(guest.env, "test", there.address, *at_rate("8M"), "--downtime", "200ms", "--on-timeout",
                            policy)
            check(guest.wait(30) == 0, guest.tail())
            check(any(line.get("throttle") for line in lines) == (policy == "throttle"), lines[-5:])
            # Not by the phase: between two looks at it all may be there.
            check((lines[-1]["faults"] > 0) == (policy == "postcopy"), lines[-5:])
            print(f"{lines[-1]['round']} rounds, {lines[-1]['downtime_ms']} ms of downtime")
            passes(there)


@needs_ferry
@limit(600)
def test_chain():
    """A, B, C and back to A: each hop sends what only the one before has written."""
    with Folder() as folder, start(folder, 2, mib=4, memory=128) as guest:
        here, opened = guest, []
        try:
            for hop in ("b", "c", "a"):
                there = Receiver(folder, guest.env, hop, address="tcp:127.0.0.1:0")
                opened.append(there)
                migrate(guest.env, "test" if here is guest else previous, there.address)
                check(here.wait(30) == 0, here.tail())
                passes(there, 1)
                here, previous = there, hop
            here.line("poweroff")
            check(here.wait(60) == 0, here.tail())
        finally:
            for there in opened:
                there.close()


@needs_ferry
@limit(600)
def test_live_fails():
    """Nobody there, a stranger there, called off, the other side killed: the guest runs on here, and goes afterwards."""
    with Folder() as folder, start(folder, 1, mib=4, memory=128) as guest:
        nobody = migrate(guest.env, "test", "unix:" + folder.file("nobody"), code=22)
        check("No such file" in nobody[-1]["text"], nobody[-1])
        ticks(guest, 1)
        with Receiver(folder, guest.env, "first") as there:
            # A stranger does no harm, nor does who says nothing, nor one that would send another session.
            strangers = []
            for data in (b"GET / HTTP/1.0\r\n\r\n" * 100, b""):
                line = socket.socket(socket.AF_UNIX)
                line.connect(there.address[5:])
                line.sendall(data)
                strangers.append(line)
            mover = Process([FERRY, "migrate", *at_rate("1M"), "--json", "test", there.address], env=guest.env,
                            terminal=False)
            mover.expect(r'"phase":"copy"', 60)
            code, out, _ = ferry("info", "--json", "test", env=guest.env)
            check(code == 0 and json.loads(out)["migration"]["phase"] == "copy", out[-500:])
            code, _, err = ferry("migrate", "test", there.address, env=guest.env)
            check(code == 22 and "already" in err, f"{code} {err}")
            check(ferry("migrate-control", "test", "cancel", env=guest.env)[0] == 0, "cancel")
            check(mover.wait(30) == 24, f"called off{mover.tail()}")
            check(there.wait(30) == 1 and "called it off" in there.stderr(), there.tail())
            mover.close()
            for line in strangers:
                line.close()
        ticks(guest, 2)
        with Receiver(folder, guest.env, "second") as there:
            mover = Process([FERRY, "migrate", *at_rate("2M"), "--json", "test", there.address], env=guest.env,
                            terminal=False)
            mover.expect(r'"phase":"copy"', 60)
            there.kill()
            check(mover.wait(60) == 22, f"the other side was killed{mover.tail()}")
            mover.close()
        ticks(guest, 2)
        with Receiver(folder, guest.env, "last") as there:
            migrate(guest.env, "test", there.address)
            check(guest.wait(30) == 0, guest.tail())
            passes(there)


def shown_on_terminal(env, address, columns):
    """What ferry migrate says on a terminal of that width until it is called off."""
    ours, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    tty.setraw(slave)
    with subprocess.Popen([FERRY, "migrate", *at_rate("8M"), "test", address], stdout=subprocess.PIPE,
                          stderr=slave, env=dict(os.environ, **env)) as mover:
        os.close(slave)
        text = b""
        while text.count(b"copy: ") < 3:
            check(select.select([ours], [], [], 60)[0], f"nothing is shown: {text}")
            text += os.read(ours, 4096)
        code, out, _ = ferry("info", "test", env=env)
        check(code == 0 and re.search(r"^migration:\n(  .*\n)*  phase: copy\n", out, re.M), out[-800:])
        check(ferry("migrate-control", "test", "cancel", env=env)[0] == 0, "cancel")
        check(mover.wait(60) == 24 and mover.stdout.read() == b"", "called off, nothing on stdout")
    os.close(ours)
    return text.decode()


@needs_ferry
@limit(400)
def test_display():
    """People see how far it is: one line on a terminal, lines without control characters elsewhere; never backward."""
    with Folder() as folder, start(folder, 1, mib=1, memory=96) as guest:
        with Receiver(folder, guest.env, "first") as there:
            lines = shown_on_terminal(guest.env, there.address, 60).split("\r\033[K")
            check(all(len(line) < 60 for line in lines[:-1]), lines)
            check(all(re.match(r"\w+: \d+ %, (\d+ s to go|no end in sight), \d+ MiB left, ", line)
                      for line in lines[1:3]), lines)
        with Receiver(folder, guest.env, "second") as there:
            code, out, err = ferry("migrate", *at_rate("24M"), "test", there.address, env=guest.env, timeout=200)
            check(code == 0 and out == "", f"{code} {out} {err}")
            check(not re.search(r"[^\n -~]", err), f"control characters: {err!r}")
            done = [int(n) for n in re.findall(r"^\w+: (\d+) %, .* MiB/s, written again: .* downtime would be", err, re.M)]
            check(len(done) > 1 and done == sorted(done), err)
            check(re.search(r"moved to \S+: \d+ ms, downtime \d+ ms, \d+ MiB sent$", err.strip()), err)
            check(guest.wait(30) == 0 and "the guest is at " + there.address in guest.stderr(), guest.tail())
            # It has ended, and its user is told in the same way.
            code, out, _ = ferry("migrate", "--json", "second", "unix:" + folder.file("nobody"), env=guest.env)
            last = json.loads(out.splitlines()[-1])
            check(code == 22 and all(last[key] >= 0 for key in ("downtime_ms", "total_ms", "bytes", "faults")), last)
            passes(there, 1)


@needs_ferry
@limit(300)
def test_addresses():
    """What can be listened at, and what cannot."""
    with Folder() as folder:
        env = {"FERRY_RUNTIME_DIR": folder.path}
        for address, reason in (("tcp:0.0.0.0:0", "--insecure"), ("tcp:127.0.0.1", "no address"),
                                ("tcp:127.0.0.1:99999", "no address"), ("file", "no address"), ("unix:", "no address"),
                                ("unix:/nowhere/s", "No such file")):
            code, _, err = ferry("receive", address, env=env)
            check(code == (2 if reason == "no address" else 1) and reason in err, f"{address}: {code} {err}")
        with Receiver(folder, env, "one") as there:
            code, _, err = ferry("receive", there.address, env=env)
            check(code == 1 and "in use" in err, f"{code} {err}")
            code, out, _ = ferry("ps", "--json", env=env)
            seen = [(m["name"], m["state"], m["address"]) for m in json.loads(out)]
            check(code == 0 and seen == [("one", "waiting", there.address)], out)
            there.kill(15)
            check(there.wait(20) == 143, there.tail())
        check(not os.path.exists(folder.file("one.in")), "the socket is left")
        with Receiver(folder, env, "open", "--insecure", address="tcp:0.0.0.0:0") as there:
            check(re.fullmatch(r"tcp:0.0.0.0:[1-9]\d+", there.address), there.address)


# ---- over TLS ---------------------------------------------------------------------------------------

def run_tool(*command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    check(done.returncode == 0, f"{command}: {done.stderr}")


def certificates(folder, name):
    """A folder of them, in the way that docs/migration-tls.md shows."""
    where = folder.file(name)
    os.mkdir(where)

    def make(kind, template, *signer):
        key, cert, what = (os.path.join(where, f"{kind}-{part}") for part in ("key.pem", "cert.pem", "template"))
        with open(what, "w", encoding="ascii") as f:
            f.write(template)
        run_tool("certtool", "--generate-privkey", "--key-type", "ecdsa", "--outfile", key)
        how = ["--generate-certificate", *signer] if signer else ["--generate-self-signed"]
        run_tool("certtool", *how, "--load-privkey", key, "--template", what, "--outfile", cert)

    make("ca", "cn = ferry test\nca\ncert_signing_key\n")
    ca = ["--load-ca-certificate", os.path.join(where, "ca-cert.pem"), "--load-ca-privkey", os.path.join(where, "ca-key.pem")]
    make("server", "cn = there\nip_address = 127.0.0.1\ntls_www_server\nsigning_key\n", *ca)
    make("client", "cn = here\ntls_www_client\nsigning_key\n", *ca)
    return where


@needs_ferry
@limit(200)
def test_path_not_utf8():
    """A path that the control socket cannot carry is refused: the guest does not go without what it was to have."""
    with Folder() as folder, start(folder, 1, mib=1, memory=128) as guest:
        with Receiver(folder, guest.env, "there", address="tcp:127.0.0.1:0") as there:
            for option in ("--tls-psk", "--tls-certs", "--spool"):
                code, _, err = ferry("migrate", option, "a\udcff", "test", there.address, env=guest.env)
                check(code == 2 and option in err and "UTF-8" in err, f"{option}: {code} {err}")
                check(guest.child.poll() is None, "it went")
        passes(guest, 1)


@needs_ferry
@limit(600)
@each(how=["certificates", "key"])
def test_tls(how):
    """By certificates, or by a key that both have; nobody else gets the guest, or brings one."""
    for tool in ("certtool", "psktool"):
        if not shutil.which(tool):
            raise Skip(f"no {tool}: apt-get install gnutls-bin")
    with Folder() as folder, start(folder, 1, mib=4, memory=128) as guest:
        if how == "key":
            for name in ("one", "other"):
                run_tool("psktool", "-u", "vm", "-p", folder.file(name))
            options, others = (("--tls-psk", folder.file(name)) for name in ("one", "other"))
            reason = "does not know the key vm"
        else:
            options, others = (("--tls-certs", certificates(folder, name)) for name in ("one", "other"))
            reason = "not signed by the CA"
        with Receiver(folder, guest.env, "there", *options, address="tcp:127.0.0.1:0") as there:
            wrong = migrate(guest.env, "test", there.address, *others, code=22)
            check(reason in wrong[-1]["text"], wrong[-1])
            wrong = migrate(guest.env, "test", there.address, code=20)
            check("--tls-psk or --tls-certs" in wrong[-1]["text"], wrong[-1])
            if how == "certificates":
                wrong = migrate(guest.env, "test", there.address, *options, "--tls-name", "nobody", code=22)
                check("none of nobody" in wrong[-1]["text"], wrong[-1])
            code, _, err = ferry("migrate", options[0], folder.file("missing"), "test", there.address, env=guest.env)
            check(code == 2 and "missing" in err, f"{code} {err}")
            ticks(guest, 1)
            check("turned away" in there.stderr(), there.stderr())
            lines = migrate(guest.env, "test", there.address, *options, "--verify", "--postcopy-after", "100ms", "--bandwidth",
                            "24M")
            check(lines[-1]["status"] == "moved", lines[-1])
            check(guest.wait(30) == 0, guest.tail())
            passes(there)


# ---- links that break -------------------------------------------------------------------------------

def cut_at(folder, there, way, name, first=lambda: None):
    """A link that is cut instead of carrying that frame."""
    def harm(link, _frame, _send):
        first()
        link.cut()
        return True
    return Link(folder.file("link"), there.address[5:], way, name, harm)


@needs_ferry
@limit(600)
@each(frame=["RUN", "ACK"])
def test_link_cut(frame):
    """The link is cut as the guest changes hands: both find out who has it, and it is one of them."""
    with Folder() as folder, start(folder, 1, mib=4, memory=128) as guest:
        with Receiver(folder, guest.env, "there") as there:
            link = cut_at(folder, there, {"RUN": "there", "ACK": "back"}[frame], frame + " 0")
            lines = migrate(guest.env, "test", link.address)
            check(link.done, "nothing was cut")
            check(lines[-1]["status"] == "moved", lines[-1])
            check(guest.wait(30) == 0, guest.tail())
            passes(there)
            there.line("blkcheck write /dev/vda 4; blkcheck check /dev/vda 4")
            there.expect("4 MiB right", 120)
            link.close()


@needs_ferry
@limit(600)
@each(frame=["REQUEST 0", "REQUEST 9", "RESUME 0"])
def test_postcopy_cut(frame):
    """The link breaks while the guest runs there and its pages are here: they find each other, and nothing is lost."""
    with Folder() as folder, start(folder, 2, mib=4, memory=128) as guest:
        with Receiver(folder, guest.env, "there") as there:
            link = cut_at(folder, there, "back", frame)
            lines = migrate(guest.env, "test", link.address, "--postcopy-after", "100ms", *at_rate("24M"))
            check(link.done, "nothing was cut")
            check(lines[-1]["status"] == "moved" and lines[-1]["faults"] > 0, lines[-1])
            check(guest.wait(30) == 0, guest.tail())
            passes(there)
            there.line("blkcheck write /dev/vda 4; blkcheck check /dev/vda 4")
            there.expect("4 MiB right", 120)
            link.close()


def dead_for_good(folder, guest, there):
    """A link that is gone from REQUEST 3 on: when the source has heard, on another connection, that the guest runs
    there. Before that it would be in doubt, and write no file."""
    def first():
        state, end = None, time.monotonic() + 60 * SCALE
        while state != "serves":
            check(time.monotonic() < end, f"the source does not serve: {state}")
            out = ferry("info", "--json", "test", env=guest.env)[1]
            state = json.loads(out)["migration"]["state"]
        link.close()
    link = cut_at(folder, there, "back", "REQUEST 3", first)
    return link


@needs_ferry
@limit(600)
def test_postcopy_spool():
    """The link dies for good while pages are missing there: they go into a file, and it completes that guest alone."""
    with Folder() as folder, start(folder, 2, mib=4, memory=128) as guest:
        with Receiver(folder, guest.env, "there") as there, Receiver(folder, guest.env, "other") as other:
            link = dead_for_good(folder, guest, there)
            spool = folder.file("spool")
            lines = migrate(guest.env, "test", link.address, "--postcopy-after", "100ms", *at_rate("8M"), "--spool",
                            spool, "--recover-timeout", "1s", code=28)
            check(lines[-1]["status"] == "spooled" and lines[-1]["file"] == spool, lines[-1])
            paused = [line for line in lines if line["phase"] == "paused"]
            check(paused and paused[-1].get("trouble"), paused)
            check(guest.wait(30) == 0 and spool in guest.stderr(), guest.tail())
            code, out, err = ferry("stream", spool)
            check(code == 0, f"{code} {out} {err}")
            code, _, err = ferry("restore", spool, env=guest.env)
            check(code == 1 and "no machine" in err, f"a second guest: {code} {err}")
            with open(folder.file("cut"), "wb") as cut, open(spool, "rb") as whole:
                cut.write(whole.read()[:-2000])
            code, _, err = ferry("migrate-control", "there", "complete", folder.file("cut"), env=guest.env)
            check(code == 1 and "ends" in err, f"{code} {err}")
            check(ferry("migrate-control", "there", "complete", spool, env=guest.env)[0] == 0, there.tail())
            passes(there)
            code, _, err = ferry("migrate-control", "there", "complete", spool, env=guest.env)
            check(code == 1 and "nothing is missing" in err, f"{code} {err}")
            there.line("blkcheck write /dev/vda 4; blkcheck check /dev/vda 4")
            there.expect("4 MiB right", 120)
            # A machine like others: it goes on from here.
            migrate(guest.env, "there", other.address)
            check(there.wait(30) == 0, there.tail())
            passes(other, 1)


@needs_ferry
@limit(600)
def test_spool_at_end():
    """A source that is told to end while pages are missing there writes them first, and its mover says where."""
    with Folder() as folder, start(folder, 2, mib=4, memory=128) as guest:
        with Receiver(folder, guest.env, "there") as there:
            link = dead_for_good(folder, guest, there)
            spool = folder.file("spool")
            mover = Process([FERRY, "migrate", "--json", "--postcopy-after", "100ms", *at_rate("8M"), "--spool",
                             spool, "--recover-timeout", "1000s", "test", link.address], env=guest.env, terminal=False)
            mover.expect(r'"phase":"paused"', 90)
            check(ferry("kill", "test", env=guest.env)[0] == 0, guest.tail())
            check(mover.wait(30) == 28 and b'"status":"spooled"' in mover.text, mover.tail())
            check(ferry("migrate-control", "there", "complete", spool, env=guest.env)[0] == 0, there.tail())
            passes(there)
            mover.close()


@needs_ferry
@limit(600)
def test_link_doubt():
    """The destination dies with RUN on its way: nobody can know, so the guest stands still until its user decides."""
    with Folder() as folder, start(folder, 1, mib=4, memory=128) as guest:
        with Receiver(folder, guest.env, "there") as there:
            link = cut_at(folder, there, "there", "RUN 0", there.kill)
            mover = Process([FERRY, "migrate", "--json", "test", link.address], env=guest.env, terminal=False)
            mover.expect(r'"phase":"paused"', 90)
            code, out, _ = ferry("info", "--json", "test", env=guest.env)
            check(code == 0 and json.loads(out)["state"] == "moving", out[:300])
            code, _, err = ferry("migrate-control", "test", "cancel", env=guest.env)
            check(code == 1 and "too late" in err, f"{code} {err}")
            code, _, err = ferry("migrate-control", "test", "retry", env=guest.env)
            check(code == 0, err)
            for words in ["pause"], ["resume"], ["reset"]:  # its state is on its way, and would not have it
                code, _, err = ferry(*words, "test", env=guest.env)
                check(code == 1 and "being moved" in err, f"{words}: {code} {err}")
            mark = len(guest.text)
            time.sleep(1)
            check(len(guest.text) == mark, f"a guest that was given away runs{guest.tail()}")
            check(ferry("migrate-control", "--force", "test", "cancel", env=guest.env)[0] == 0, "force")
            check(mover.wait(30) == 22 and b"by force" in mover.text, mover.tail())
            mover.close()
            link.close()
        passes(guest)
        with Receiver(folder, guest.env, "again") as there:
            migrate(guest.env, "test", there.address)
            check(guest.wait(30) == 0, guest.tail())
            passes(there, 1)


@needs_ferry
@limit(600)
def test_source_killed():
    """Nothing comes of a guest whose source dies, and the destination says so."""
    with Folder() as folder, start(folder, 1, mib=4, memory=128) as guest:
        with Receiver(folder, guest.env, "there") as there:
            mover = Process([FERRY, "migrate", *at_rate("2M"), "--json", "test", there.address], env=guest.env,
                            terminal=False)
            mover.expect(r'"phase":"copy"', 60)
            began = time.monotonic()
            guest.kill()
            check(mover.wait(10) == 26, f"the mover ends with its machine{mover.tail()}")
            check(time.monotonic() - began < 10, "it took its time")
            check(there.wait(30) == 1 and "hung up" in there.stderr(), there.tail())
            mover.close()
