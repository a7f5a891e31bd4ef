"""ferry mmu: a look into a running machine's second stage, from the command line and from the control socket."""
import json
import os
import re

from ferrytest import EXIT_START, EXIT_USAGE, TOP, check, needs_ferry
from test_verbs import Control, Place, wait_for

# cli; L: mov eax, [0x300000]; mov [0x400000], eax; inc dword [0x500000]; mov eax, [0x2000000] (no memory); jmp L
TOUCH = bytes.fromhex("fa a100003000 a300004000 ff0500005000 a100000002 ebe9")


# A page directory at 0x200000: [0, 4M) to itself, 0xc0000000 to 4M; paging on; L: inc dword [0xc0000123]; jmp L
PAGING = bytes.fromhex("fa c7050000200083000000 c705000c200083004000 0f20e0 83c810 0f22e0 b800002000 0f22d8 "
                       "0f20c0 0d00000080 0f22c0 ff05230100c0 ebf8")


def mmu(place, *args, code=0):
    return place.ferry("mmu", *args, code=code)


def mmu_json(place, *args):
    return json.loads(mmu(place, *args, "--json")[0])


@needs_ferry
def test_looks():
    """Counters, walks and dumps agree with each other, in words and in JSON."""
    with Place() as place:
        place.background("one", TOUCH)
        stats = mmu_json(place, "one", "stats")
        check(stats["format"] == "ept4" and stats["faults"]["fixed"] > 0, stats)
        kinds = stats["fault-kinds"]
        total = sum(n for access in kinds.values() for kind in access.values() for n in kind.values())
        check(total >= sum(stats["faults"].values()) > 0, stats)
        words = mmu(place, "one", "stats")[0]
        for name in stats:
            check(f"{name}: " in words, f"no {name} in {words}")

        walk = mmu_json(place, "one", "walk", "0x300123")
        steps = walk["steps"]
        check([s["level"] for s in steps] == list(range(4, 4 - len(steps), -1)), steps)
        check(steps[-1]["kind"] == "leaf" and walk["hpa"] == "0x300123" and steps[-1]["permissions"] == "rwx", walk)
        check(all(s["kind"] == "table" and int(s["raw"], 16) & 7 == 7 for s in steps[:-1]), steps)
        words = mmu(place, "one", "walk", str(0x300123))[0]
        check("host: 0x300123\n" in words and words.count("\nlevel ") == len(steps), words)
        check("not mapped" in mmu(place, "one", "walk", "0x7000000000")[0], "an address without memory")

        dump = mmu_json(place, "one", "dump")
        mapped = sum(m["size"] for m in dump["mappings"])
        sizes = {"4K": 1 << 12, "2M": 1 << 21, "1G": 1 << 30}
        check(mapped == sum(n * sizes[s] for s, n in mmu_json(place, "one", "stats")["pages"].items()), dump)
        for m in dump["mappings"]:
            check(m["hpa"] == m["gpa"] and m["permissions"] == "rwx" and m["memory"] == "write-back", m)
        words = mmu(place, "one", "dump")[0].splitlines()
        check(len(words) == len(dump["mappings"]) + 1, words)
        check(re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]{12} +0x[0-9a-f]+ +\d+ \* \d+[KMG] +rwx [A-][D-]", words[1]), words[1])


@needs_ferry
def test_virtual():
    """Through the guest's own tables and on through the second stage: mapped, not mapped, paging off, paused."""
    with Place() as place:
        place.background("one", PAGING)
        wait_for(lambda: mmu_json(place, "one", "walk", "--virtual", "0xc0000456")["virtual"]["levels"], "no paging")
        wait_for(lambda: "hpa" in mmu_json(place, "one", "walk", "0x400000"), "no access")
        wait_for(lambda: mmu_json(place, "one", "walk", "--virtual", "0xc0000456")["virtual"]["dirty"], "no write")
        walk = mmu_json(place, "one", "walk", "--virtual", "0xc0000456")
        steps = walk["virtual"].pop("steps")
        check(walk["virtual"] == {"gva": "0xc0000456", "vcpu": 0, "levels": 2, "outcome": "mapped", "gpa": "0x400456",
                                  "size": 4 << 20, "permissions": "rwx", "user-permissions": "---", "accessed": True,
                                  "dirty": True}, walk)
        check(steps == [{"level": 2, "entry": "0x200c00", "raw": "0x4000e3"}], steps)
        check(walk["gpa"] == "0x400456" and walk["hpa"] == "0x400456" and walk["steps"][0]["level"] == 4, walk)
        words = mmu(place, "one", "walk", "--virtual", "0xc0000456")[0]
        check(words.startswith("virtual 0xc0000456, vCPU 0, 2 levels\nlevel 2: entry at 0x200c00: 0x4000e3\n"
                               "guest-physical: 0x400456 in 4M, kernel rwx, user ---, AD\n0x400456, ept4\n"), words)
        check(words.endswith("host: 0x400456\n"), words)
        walk = mmu_json(place, "one", "walk", "--virtual", "0x80000000")
        check(walk["virtual"]["outcome"] == "not-present" and "gpa" not in walk, walk)
        check("not mapped by the guest: not-present" in mmu(place, "one", "walk", "--virtual", "0x80000000")[0], "words")
        check(mmu_json(place, "one", "walk", "--virtual", "0xffffffffffffffff")["virtual"]["outcome"] == "not-canonical",
              "the last address")
        check(place.state("one") == "running", "it goes on")
        place.ferry("pause", "one")
        check(mmu_json(place, "one", "walk", "--virtual", "0xc0000456")["gpa"] == "0x400456", "paused")
        check(place.state("one") == "paused", "it stays paused")
        place.background("two")
        check(mmu_json(place, "two", "walk", "--virtual", "0x1234")["virtual"]["levels"] == 0, "paging is off")
        check("paging is off\nguest-physical: 0x1234\n" in mmu(place, "two", "walk", "--virtual", "0x1234")[0], "words")
        _, err = mmu(place, "two", "walk", "--virtual", "0x1234", "--vcpu", "1", code=EXIT_START)
        check("no vCPU 1: the machine has 1" in err, err)


@needs_ferry
def test_trace():
    """Off, on, off again; what it says in each state."""
    with Place() as place:
        place.background("one", TOUCH)
        _, err = mmu(place, "one", "trace", code=EXIT_START)
        check("nothing is traced; begin with: ferry mmu one trace --on" in err, err)
        mmu(place, "one", "trace", "--on")
        wait_for(lambda: len(mmu_json(place, "one", "trace", "-n", "100")["events"]) == 100, "no events")
        trace = mmu_json(place, "one", "trace", "-n", "100")
        check(trace["running"] and 0 < len(trace["events"]) <= 100, trace)
        times = [e["time"] for e in trace["events"]]
        check(times == sorted(times), times)
        for e in trace["events"]:
            check(e["thread"] in ("vmm", "vcpu0") and e["gpa"].startswith("0x"), e)
            check(e["event"] != "fault" or e["outcome"] in ("fixed", "spurious", "retry", "emulate"), e)
        check(len(mmu(place, "one", "trace", "--off")[0].splitlines()) > 1, "kept after the end")
        check(not mmu_json(place, "one", "trace")["running"], "off")


@needs_ferry
def test_errors():
    """Whatever is wrong with the command line, the remedy is named."""
    with Place() as place:
        place.background("one")
        for args, want in (
                ([], "ferry mmu NAME stats, walk GPA, dump or trace"),
                (["one"], "ferry mmu one stats, walk GPA, dump or trace"),
                (["stats"], "of which machine? ferry mmu NAME stats"),
                (["one", "tables"], "choose stats, walk GPA, dump or trace"),
                (["one", "walk"], "ferry mmu one walk GPA"),
                (["one", "walk", "here"], "write it as 0x12345000"),
                (["one", "walk", ""], "write it as 0x12345000"),
                (["one", "walk", "0x10000000000000000"], "write it as 0x12345000"),
                (["one", "walk", "0x8000000000000000"], "write it as 0x12345000"),
                (["one", "walk", "--", "-1"], "write it as 0x12345000"),
                (["one", "stats", "1"], "not expected"),
                (["one", "walk", "--virtual"], "walk --virtual GVA"),
                (["one", "walk", "--virtual", "there"], "'there' is no virtual address"),
                (["one", "walk", "--virtual", "0x10000000000000000"], "is no virtual address"),
                (["one", "walk", "--vcpu", "1", "0x1000"], "--vcpu goes with walk --virtual"),
                (["one", "walk", "--virtual", "--vcpu", "8", "0x1000"], "7"),
                (["one", "dump", "--virtual"], "--virtual is for walk only"),
                (["one", "dump", "1", "2"], "'2' after '1'"),
                (["one", "stats", "--on"], "for trace only"),
                (["one", "trace", "--on", "--off"], "exclude each other"),
                (["one", "trace", "-n", "2001"], "2000"),
                (["one", "trace", "-n", "0"], "2000")):
            out, err = mmu(place, *args, code=EXIT_USAGE)
            check(want in err and not out, f"{args}: {err}")
        _, err = mmu(place, "two", "stats", code=EXIT_START)
        check("see: ferry ps" in err, err)
        _, err = mmu(place, "one", "walk", "0x1000000000000", code=EXIT_START)
        check("beyond the guest's physical addresses" in err, err)
        check("walk GPA" in place.ferry("help", "mmu")[0], "help")
        check("ferry mmu vm1 walk" in place.ferry("man", "ferry-mmu")[0], "man page")


@needs_ferry
def test_hostile_arguments():
    """The control socket refuses what is out of range, and the machine goes on."""
    with Place() as place:
        place.background("one", TOUCH)
        with Control(place, "one") as control:
            for command, arguments in (
                    ("ferry-mmu-walk", {}), ("ferry-mmu-walk", {"gpa": -1}), ("ferry-mmu-walk", {"gpa": "0x1000"}),
                    ("ferry-mmu-walk", {"gpa": 2 ** 63 - 1}), ("ferry-mmu-walk", {"gpa": 1.5}),
                    ("ferry-mmu-walk", {"gpa": 2 ** 48}), ("ferry-mmu-walk-virtual", {"gva": 4096}),
                    ("ferry-mmu-walk-virtual", {"gva": ""}), ("ferry-mmu-walk-virtual", {"gva": "-1"}),
                    ("ferry-mmu-walk-virtual", {"gva": "0x1", "vcpu": 8}), ("ferry-mmu-walk-virtual", {}),
                    ("ferry-mmu-dump", {"start": 2 ** 48}),
                    ("ferry-mmu-dump", {"start": -4096}), ("ferry-mmu-dump", {"start": None}),
                    ("ferry-mmu-trace", {"on": 1}), ("ferry-mmu-trace", {"count": 0}),
                    ("ferry-mmu-trace", {"count": 2001}), ("ferry-mmu-stats", {"all": True})):
                control.send(command, **arguments)
                answer = control.read()
                if arguments or command != "ferry-mmu-dump":
                    check("error" in answer, f"{command} {arguments}: {answer}")
            check(control.ask("ferry-mmu-walk", gpa=2 ** 48 - 1)["steps"], "the last address")
            check(control.ask("ferry-mmu-dump", start=2 ** 48 - 1)["mappings"] == [], "after the last page")
            check(control.ask("ferry-mmu-dump", start=0x300001)["mappings"], "in the middle of a page")
            for _ in range(20):
                check(control.ask("ferry-mmu-trace", on=True)["running"], "on")
                check(not control.ask("ferry-mmu-trace", on=False)["running"], "off")
            check(control.ask("query-status")["running"], "goes on")


@needs_ferry
def test_counters_in_the_readme():
    """mmu/README.md names what a machine counts."""
    with Place() as place, open(os.path.join(TOP, "mmu/README.md"), encoding="utf-8") as f:
        place.background("one", TOUCH)
        known = set(re.findall(r"^\| `([a-z-]+)` \| (?:now|since the start) \|", f.read(), re.M))
        counted = set(mmu_json(place, "one", "stats")) - {"format"}
        check(counted == known, f"{counted ^ known}")
