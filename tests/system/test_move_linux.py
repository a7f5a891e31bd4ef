"""A Linux guest with a balloon, and one that is typed to over its virtio console, through moves."""
import fcntl
import hashlib
import json
import socket
import struct
import termios
import time

from ferrytest import SCALE, Guest, at_rate, check, each, ferry, initramfs, kernel, limit, needs_ferry
from test_move import Folder, Receiver, migrate, number

MIB = 1 << 20
MODES = {"pre-copy": [], "post-copy": ["--postcopy-after", "100ms", *at_rate("64M")]}


def start(**options):
    guest = Guest(kernel(), initramfs("virtio"), **options)
    guest.env = {"FERRY_RUNTIME_DIR": guest.runtime}
    return guest.shell()


def balloon(machine, name, mib=None):
    """Asks for that size and waits until the guest has it; how large it is."""
    if mib:
        code, _, err = ferry("balloon", name, f"{mib}M", env=machine.env)
        check(code == 0, err)
    end = time.monotonic() + 60 * SCALE
    while True:
        said = json.loads(ferry("balloon", "--json", name, env=machine.env)[1])
        if not mib or said["actual"] == mib * MIB:
            return said["actual"] // MIB
        check(time.monotonic() < end, f"never {mib} MiB: {said}{machine.tail()}")
        time.sleep(0.1)


def free(machine):
    return number(machine, "awk '/MemFree/{print int($2 / 1024)}' /proc/meminfo")


@needs_ferry
@limit(300)
def test_balloon():
    """Pages come after the guest: it is as large as it was, grows and is let out there, and what was let out can be used."""
    with Folder() as folder, start(memory=256) as guest:
        balloon(guest, "test", 160)
        before = free(guest)
        with Receiver(folder, guest.env, "there") as there:
            migrate(guest.env, "test", there.address, *MODES["post-copy"])
            check(guest.wait(30) == 0, guest.tail())
            check(balloon(there, "there") == 160, "another size")
            balloon(there, "there", 128)
            balloon(there, "there", 256)
            after = free(there)
            check(after > before + 80, f"{before} MiB were free with 96 MiB less, {after} MiB are")
            there.line(f"mount -t tmpfs -o size=100% none /tmp; dd if=/dev/zero of=/tmp/all bs=1M count={after - 30}")
            there.expect(rf"{after - 30}\+0 records out", 120)
            there.line("poweroff")
            check(there.wait(60) == 0, there.tail())


def unread(line):
    """The socket's memory for what the other side has not read: as much for each byte, if each was sent alone."""
    return struct.unpack("i", fcntl.ioctl(line, termios.TIOCOUTQ, b"\0" * 4))[0]


def typed_ahead(path):
    """Types until nobody takes any more: (the connection, what was typed, how much of it was taken)."""
    line = socket.socket(socket.AF_UNIX)
    line.connect(path)
    line.setblocking(False)
    text = "".join(f"{n}\n" for n in range(100000)).encode()
    count, cost, last, since = 0, 0, None, time.monotonic()
    while time.monotonic() < since + 1:
        before = unread(line)
        try:
            count += line.send(text[count:count + 1])
            cost = unread(line) - before
        except BlockingIOError:
            time.sleep(0.02)
        if (count, before) != last:
            last, since = (count, before), time.monotonic()
    check(cost > 0 and unread(line) % cost == 0, f"{unread(line)} for {cost} each")
    return line, text[:count], count - unread(line) // cost


@needs_ferry
@limit(300)
@each(mode=list(MODES))
def test_typed_ahead(mode):
    """What was typed to a guest that does not read yet is in its driver, its device and its host's hands: it goes over
    with it, each byte once, and what is typed there comes behind it."""
    with Folder() as folder, start(memory=128, extra=["--console", "socket=" + folder.file("hvc")]) as guest:
        guest.run("exec 3<>/dev/hvc0; stty raw -echo <&3")
        _line, typed, taken = typed_ahead(folder.file("hvc"))
        check(1000 < taken < len(typed), f"{taken} of {len(typed)} bytes were taken")
        with Receiver(folder, guest.env, "there") as there:
            migrate(guest.env, "test", there.address, *MODES[mode])
            check(guest.wait(30) == 0, guest.tail())
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(folder.file("hvc"))
                line.sendall(b"the end")
                want = typed[:taken] + b"the end"
                there.line(f"head -c {len(want)} <&3 | md5sum | sed s/^/sum-/")
                got = there.expect(r"^sum-(\w{32}) ", 60).group(1).decode()
                check(got == hashlib.md5(want).hexdigest(), f"other bytes than the {len(want)} that were typed")
            there.line("poweroff")
            check(there.wait(60) == 0, there.tail())


@needs_ferry
@limit(200)
def test_typed_at_terminal():
    """What was typed at a terminal while the guest stood still is nobody's but the source's, which says so; the shell
    does not get it, and at the new place nothing of it is."""
    with Folder() as folder, start(memory=128) as guest:
        code, _, err = ferry("pause", "test", env=guest.env)
        check(code == 0, err)
        guest.send(b"echo $((6*7))\n")
        with Receiver(folder, guest.env, "there") as there:
            migrate(guest.env, "test", there.address)
            check(guest.wait(30) == 0, guest.tail())
            check("serial0: the last 14 bytes typed here have not gone with the guest" in guest.stderr(), guest.stderr())
            code, _, err = ferry("resume", "there", env=guest.env)
            check(code == 0, err)
            there.line("echo here-$((40+3))")
            there.expect("^here-43", 60)
            check(b"42" not in there.text, there.tail())
            there.line("poweroff")
            check(there.wait(60) == 0, there.tail())
