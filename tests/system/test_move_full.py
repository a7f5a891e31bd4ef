"""Hosts that have no room: for what a receiver has to make, and for what a source leaves behind."""
import os
import shutil
import subprocess
import time

from bare_guest import MODES, Session
from fault_link import Link
from ferrytest import (FERRY, Guest, Process, Skip, at_rate, check, each, ferry, guest_program, initramfs, kernel,
                       limit, needs_ferry)
from test_disk import SmallHost
from test_move import Folder, Receiver, migrate, passes

# What the receiver is to make in a file system that takes no file more, and when it is found out.
FILES = {"serial": (["--serial", "file={}/log"], 20), "console": (["--console", "file={}/log"], 20)}


def fill(path):
    """A file that takes all the room that is left."""
    with open(path, "wb", buffering=0) as f:
        try:
            while f.write(b"x" * 4096):
                pass
        except OSError:
            pass


@needs_ferry
@limit(200)
@each(what=list(FILES))
def test_no_file(what):
    """A file that cannot be made: the source hears why, the guest stays and goes where there is room."""
    options, code = FILES[what]
    with SmallHost(1, files=1) as host, Session(extra=["--console", "none"]) as s:
        s.start()
        there = s.receiver(*(o.format(host.folder) for o in options), through=host.enter)
        lines = s.migrate(there.address, code=code)
        check("No space left on device" in lines[-1]["text"] and host.folder in lines[-1]["text"], lines[-1])
        check(there.wait(30) == 1 and "No space left on device" in there.stderr(), there.tail())
        check(not there.text, f"it ran there{there.tail()}")
        s.owner.passes()
        s.move(*MODES["pre-copy"])


@needs_ferry
@limit(200)
@each(what=["runtime folder", "pidfile"])
def test_not_shown(what):
    """The folder in which machines are found is full, or that of the pidfile: nobody is let in who cannot be shown."""
    with SmallHost(1, files=1) as host, Session() as s:
        s.start()
        small = what == "runtime folder"
        env = {"FERRY_RUNTIME_DIR": host.folder if small else s.folder.name}
        more = [] if small else ["--pidfile", host.folder + "/pid"]
        address = "unix:" + s.path("full")
        with Process([*host.enter, FERRY, "receive", "--name", "full", *more, address], terminal=False, env=env) as there:
            check(there.wait(30) == 1 and "No space left on device" in there.stderr(), there.tail())
        lines = s.migrate(address, code=22)
        check(address[5:] in lines[-1]["text"] or "No such file" in lines[-1]["text"], lines[-1])
        s.owner.passes()


@needs_ferry
@limit(200)
def test_full_line():
    """A serial line's file cannot grow: the guest goes all the same, and it is said; with room it is written on."""
    with SmallHost(1) as host, Session() as s:
        log, filler = (os.path.join(host.inside, name) for name in ("log", "filler"))
        s.start()
        fill(filler)
        there = s.receiver("--serial", f"file={host.folder}/log", through=host.enter)
        s.migrate(there.address, *MODES["pre-copy"])
        there.await_error("No space left on device; output is lost until this is cured")
        os.unlink(filler)
        end = time.monotonic() + 30
        while os.path.getsize(log) < 200:
            check(time.monotonic() < end, f"nothing is written{there.tail()}")
            time.sleep(0.05)
        with open(log, "rb") as f:
            text = f.read()
        check(b"move: tick" in text and b"WRONG" not in text, text)


@needs_ferry
@limit(200)
def test_full_spool():
    """There is no room for the pages that the guest lacks: they stay, no half file is left, and with room they go."""
    with SmallHost(1) as host, Session() as s:
        s.start()
        there = s.receiver()
        link = Link(s.path("link"), there.address[5:], "back", "demand REQUEST 3", lambda link, _frame, _send: link.close())
        spool = os.path.join(host.inside, "spool")
        old = s.owner
        mover = s.mover(link.address, "--postcopy", *at_rate("8M"), "--spool", spool, "--recover-timeout", "100ms")
        old.await_error("the pages that the guest lacks cannot be written: No space left on device")
        check(os.listdir(host.inside) == [], f"left behind: {os.listdir(host.inside)}")
        check(not mover.ended and old.child.poll() is None, f"it has given up{mover.tail()}{old.tail()}")
        while os.path.exists(s.path("link")):  # it goes last
            time.sleep(0.01)
        again = Link(s.path("link"), there.address[5:])
        s.control("migrate-control", old.name, "retry")
        check(mover.wait(60) == 0, mover.tail())
        s.went(there)
        again.close()


@needs_ferry
@limit(300)
def test_full_image():
    """The receiver's disk is an image of qcow2 that cannot grow: the guest goes there, stands still where it needs room,
    at no other place than there, and goes on with room as if nothing had been."""
    if not shutil.which("qemu-nbd") or not shutil.which("qemu-img"):
        raise Skip("no qemu-nbd (qemu-utils)")
    with SmallHost(32) as host, Folder() as folder:
        image, filler = (os.path.join(host.inside, name) for name in ("disk.qcow2", "filler"))
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
        with Guest(kernel(), initramfs("move"), memory=128, extra=["--disk", os.path.join(host.folder, "disk.qcow2")],
                   through=host.enter) as guest:
            env = {"FERRY_RUNTIME_DIR": guest.runtime}
            guest.shell()
            guest.line("blkcheck write /dev/vda 4 7")
            guest.expect("4 MiB written", 120)
            guest.line("movecheck 4 &")
            guest.expect("move: tick 2 ", 60)
            fill(filler)
            with Receiver(folder, env, "there", through=host.enter) as there:
                migrate(env, "test", there.address)
                check(guest.wait(30) == 0 and "the guest is at " in guest.stderr(), guest.tail())
                there.line("blkcheck check /dev/vda 4 7")
                there.expect("4 MiB right", 120)
                there.line("blkcheck write /dev/vda 16 9")
                there.await_error("the host has no space left")
                check("Make room, then: ferry resume there" in there.stderr(), there.tail())
                end, state = time.monotonic() + 30, ""
                while "io-error" not in state:
                    check(time.monotonic() < end, f"it does not stand still: {state}")
                    time.sleep(0.1)
                    state = ferry("info", "there", env=env)[1]
                check(ferry("info", "test", env=env)[0] != 0, "the source is still there")
                os.unlink(filler)
                code, _, err = ferry("resume", "there", env=env)
                check(code == 0, err)
                there.expect("16 MiB written", 120)
                passes(there)
                there.line("poweroff")
                check(there.wait(60) == 0, there.tail())
        subprocess.run(["qemu-img", "check", "-q", image], check=True)
        raw = folder.file("raw")
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
        done = subprocess.run([guest_program("blkcheck"), "check", raw, "16", "9"], capture_output=True, text=True)
        check(done.returncode == 0, done.stdout)
