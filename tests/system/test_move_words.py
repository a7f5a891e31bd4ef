"""What `ferry migrate` and its like say to those who type them: wrong words, addresses, Ctrl-C, a source that ends."""
import json
import os
import signal
import subprocess

from bare_guest import Session
from ferrytest import FERRY, SCALE, check, ferry, limit, needs_ferry

SLOW = ["--bandwidth", "1M", "--downtime", "1ms"]


def last_line(out):
    return json.loads(out.splitlines()[-1])


@needs_ferry
@limit(60)
def test_wrong_words():
    """A wrong command line is one (code 2), whatever machine there is; with --json an object says so, too."""
    with Session() as s:
        for words, reason in ((["migrate", "a", "foo"], "no address"), (["migrate", "a", "tcp:h:99999"], "no address"),
                              (["migrate", "a"], "no address"), (["migrate", "--downtime", "x", "a", "unix:s"], "a time is"),
                              (["migrate", "--tls-name", "n", "a", "tcp:h:1"], "--tls-certs"),
                              (["migrate", "--tls-psk", s.path("none"), "a", "tcp:h:1"], "is missing"),
                              (["migrate", "--postcopy", "--postcopy-after", "2", "a", "unix:s"], "either"),
                              (["migrate", "a", "tcp:h\udcff:1"], "UTF-8"), (["migrate"], "no address is given"),
                              (["migrate", "--frob", "a", "unix:s"], "--frob"), (["receive", "foo"], "no address"),
                              (["migrate-control", "a"], "none of"), (["migrate-control", "a", "frob"], "none of")):
            code, _, err = ferry(*words, env=s.env)
            check(code == 2 and reason in err, f"{words}: {code} {err}")
            if words[0] == "migrate":
                code, out, err = ferry(*words, "--json", env=s.env)
                end = last_line(out)
                check(code == 2 and end["status"] == "failed" and reason in end["text"], f"{words}: {code} {out}{err}")
        code, out, err = ferry("migrate", "--json", "nobody", "unix:s", env=s.env)
        check(code == 1 and last_line(out)["text"] in err, f"{code} {out}{err}")
        check("cancel|postcopy|throttle" in ferry("migrate", "--help")[1], "the words of --on-timeout")


@needs_ferry
@limit(120)
def test_address():
    """A relative path is relative to who types it, not to where the machine was started."""
    with Session() as s:
        guest = s.start()
        there = s.receiver()
        done = subprocess.run([FERRY, "migrate", guest.name, "unix:" + os.path.basename(there.address)], cwd=s.folder.name,
                              env=dict(os.environ, **s.env), timeout=60 * SCALE, capture_output=True, text=True, check=False)
        check(done.returncode == 0, done.stderr)
        s.went(there)


@needs_ferry
@limit(120)
def test_ctrl_c():
    """Ctrl-C ends `ferry migrate` and not the move, and that is said. So it is of a save."""
    with Session() as s:
        s.start()
        there = s.receiver()
        mover = s.mover(there.address, *SLOW)
        mover.expect(rb'"phase":"copy"')
        mover.kill(signal.SIGINT)
        check(mover.wait(20) == 130, mover.tail())
        how = f"ferry migrate-control {s.owner.name} cancel"
        check(how in mover.stderr() and how in last_line(mover.stdout())["text"], mover.tail())
        check(last_line(mover.stdout())["status"] == "left", mover.stdout())
        check("moved" not in s.owner.stderr(), s.owner.tail())
        s.control(*how.split()[1:])
        s.owner.await_error("was not moved")
        s.owner.passes(1)


@needs_ferry
@limit(120)
def test_source_ends():
    """The machine is ended while its guest is copied: nobody says that the guest is where it was."""
    with Session() as s:
        s.start()
        there = s.receiver()
        mover = s.mover(there.address, *SLOW)
        mover.expect(rb'"phase":"copy"')
        s.owner.kill(signal.SIGTERM)
        check(mover.wait(20) == 26, mover.tail())
        end = last_line(mover.stdout())
        check(end["status"] == "ended" and "with it the guest" in end["text"], end)
        check(s.owner.wait(20) == 143 and there.wait(20) == 1, there.tail())
