"""What `ferry migrate` and its like say to those who type them: wrong words, addresses, Ctrl-C, a source that ends."""
import json
import os
import signal
import subprocess

from bare_guest import Session
from ferrytest import FERRY, SCALE, at_rate, check, ferry, limit, needs_ferry
from test_verbs import Place

SLOW = [*at_rate("1M"), "--downtime", "1ms"]


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


@needs_ferry
@limit(120)
def test_incoming():
    """A machine that is to get its guest is not taken for a paused one; a disk that is not there is not made anew."""
    with Session() as s:
        disk = s.path("disk")
        with open(disk, "wb") as f:
            f.truncate(1 << 20)
        s.extra = ["--disk", disk]
        s.start()
        there = s.receiver()
        mover = s.mover(there.address, *SLOW)
        mover.expect(rb'"phase":"copy"')
        code, _, err = ferry("stop", there.name, env=s.env)
        check(code == 1 and "stands still" in err and "paused" not in err, f"{code} {err}")
        s.control("migrate-control", s.owner.name, "cancel")
        check(mover.wait(20) == 24, mover.tail())
        os.rename(disk, disk + ".away")
        text = s.migrate(s.receiver().address, code=20)[-1]["text"]
        check("--disk N=FILE" in text and "truncate" not in text, text)
        s.owner.passes(1)


@needs_ferry
@limit(120)
def test_damaged_file():
    """Of a file that was cut off, or has something behind its end, that is said; one whose pages are damaged costs the
    guest its run, and everybody can see it: nobody waits for it."""
    with Session() as s:
        s.start()
        path, other = s.path("saved"), s.path("other")
        s.control("save", s.owner.name, path)
        with open(path, "rb") as f:
            whole = f.read()
        for data in (whole[:-100], whole + b"more of it" * 20, whole[:len(whole) // 2]):
            with open(other, "wb") as f:
                f.write(data)
            code, _, err = ferry("restore", other, env=s.env)
            check(code == 1 and "cut off" in err and "behind its end" in err and "frame 0" not in err, f"{code} {err}")
        middle = len(whole) // 2
        with open(other, "wb") as f:
            f.write(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1:])
        again = s._new("m", "restore", "--name", "again", other)
        again.await_error("neither be saved nor moved")
        info = json.loads(s.control("info", "--json", "again"))
        check(info["state"] == "incomplete" and "damaged" in info["lacks"], info)
        for words, wanted in ((["save", "again", s.path("more")], 1), (["migrate", "again", "unix:" + s.path("s")], 22)):
            code, _, err = ferry(*words, env=s.env, timeout=20)
            check(code == wanted and "is lost" in err and "damaged" in err, f"{words}: {code} {err}")
        check(not os.path.exists(s.path("more")), "a file is left")


@needs_ferry
@limit(60)
def test_saved_is_said():
    """What has become a file was saved, not moved."""
    with Place() as place:
        place.background("a")
        place.ferry("save", "a", place.path("f"))
        [row] = json.loads(place.ferry("ps", "--all", "--json")[0])
        check(row["exit-code"] == 0 and row["reason"] == "the guest has been saved", row)
