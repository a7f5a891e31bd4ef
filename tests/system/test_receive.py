"""A ferry receive that waits for its guest, and what is known of it: names, logs, records, how it is ended."""
import os
import signal
import socket
import subprocess
import time

from bare_guest import Session
from ferrytest import FERRY, SCALE, check, limit, needs_ferry
from test_verbs import Place, wait_for


def waiting(place, name, *options):
    """One in the background; its address."""
    address = "unix:" + place.path(name + ".in")
    out, err = place.ferry("receive", "-d", "--name", name, *options, address)
    check(out == address + "\n" and not err, f"{out!r} {err!r}")
    return address


def alive(pid):
    return os.path.exists(f"/proc/{pid}")


@needs_ferry
@limit(120)
def test_ended():
    """kill and stop end it, info and wait say what it is; by a signal it ends like any machine."""
    with Place() as place:
        for command in ("kill", "stop"):
            address = waiting(place, "w")
            info = place.info("w")
            check(info["state"] == "waiting" and info["address"] == address, info)
            check(address in place.ferry("pause", "w", code=1)[1], "pause does not say what it waits for")
            begun = time.monotonic()
            place.ferry(command, "w")
            check(not place.names(), f"{command}: it is still there")
            check(time.monotonic() - begun < 3 * SCALE, f"{command} took {time.monotonic() - begun} s")
            check(not os.path.exists(address[5:]), "the socket is left")
            wait_for(lambda pid=info["pid"]: not alive(pid), f"{command}: its process is still there")
            check("signal 15" in place.ferry("wait", "w", code=143)[1], "wait")
        waiting(place, "w")
        wait = place.start("wait", "w", terminal=False)
        wait.await_error("waits for a guest at")
        os.kill(place.info("w")["pid"], signal.SIGINT)
        check(wait.wait(20) == 130, wait.tail())
        wait_for(lambda: len(place.ferry("logs", "w")[0].splitlines()) == 2, "not two lines in its log")
        lines = place.ferry("logs", "w")[0].splitlines()
        check( all(line[:2] == "20" and "Z ferry: " in line for line in lines), lines)


@needs_ferry
@limit(120)
def test_background():
    """From the moment that it listens it has its log and its pidfile, and the caller's streams are the caller's."""
    with Place() as place:
        address, pidfile = "unix:" + place.path("s"), place.path("pid")
        # Its standard error is a pipe: it ends when nobody has it any more.
        done = subprocess.run([FERRY, "receive", "-d", "--name", "w", "--pidfile", pidfile, address], timeout=20 * SCALE,
                              env=dict(os.environ, **place.env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=False)
        check(done.returncode == 0 and done.stdout == address + "\n", done.stdout)
        with open(pidfile, encoding="ascii") as f:
            check(int(f.read()) == place.info("w")["pid"], "the pidfile")
        # Somebody who is no ferry: the attempt is over, and everybody who asks can know why.
        with Session() as session:
            guest = session.start()
            place.ferry("kill", "w")
            check(not os.path.exists(pidfile), "the pidfile is left")
            address = waiting(place, "w", "--disk", "3=" + place.path("none"))
            lines = session.migrate(address, code=None)
            check(lines[-1]["status"] == "refused", lines)
            guest.passes(1)
        wait_for(lambda: not place.names(), "it still waits")
        check("--disk" in place.ferry("wait", "w", code=1)[1], "wait does not say why")
        wait_for(lambda: "--disk" in place.ferry("logs", "w")[0], "the log does not say why")


@needs_ferry
@limit(120)
def test_name_comes():
    """Without a name of its own it gets the guest's, and its log goes along."""
    with Place() as place, Session() as session:
        guest = session.start()
        address = "unix:" + place.path("s")
        place.ferry("receive", "-d", address)
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(address[5:])
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 8)
        session.migrate(address)
        check(guest.wait(30) == 0, guest.tail())
        check(place.names() == [guest.name], place.names())
        check(place.state(guest.name) == "running", place.info(guest.name))
        check("waiting for a guest at" in place.ferry("logs", guest.name)[0], "the log begins later")
        place.ferry("kill", guest.name)
        place.ferry("wait", guest.name, code=8)
        check({f.split(".")[0].split("+")[0] for f in place.files()} == {guest.name}, place.files())
