"""Links and processes that fail while the bare guest moves: some of the cases of fault_cases.py, each harm and each
frame at least once. All of them: make test-migration-faults."""
import itertools

from bare_guest import MODES
from fault_cases import HARM, KILLS, LONG, PLACES, STOPS, Case, Runner
from ferrytest import check, each, limit, needs_ferry

SOME = 50


def some_cases():
    """Every frame of a move with post-copy and, of those that it lacks, of one without, has one harm after the other
    done to it. Those that wait for a silent connection take too long for this."""
    harms = [h for h in (*HARM, *KILLS, *STOPS) if h not in LONG and h not in ("delayed", "source stands for 2 s")]
    frames = [("post-copy", w, p) for w in ("there", "back") for p in PLACES["post-copy"][w]]
    frames += [("pre-copy", "there", p) for p in ("ROUND 2", "PAGES 2 first", "PAGES 2 last", "RUN 0", "END 0")]
    frames += [("pre-copy", "back", p) for p in PLACES["pre-copy"]["back"]]
    # Another harm meets a frame in the second turn.
    turns = itertools.chain(frames, frames[3:])
    return [Case(mode, 1, way, place, harm) for (mode, way, place), harm in
            itertools.islice(zip(turns, itertools.cycle(harms)), SOME)]


@needs_ferry
@limit(300)
@each(part=[0, 1, 2, 3, 4])
def test_faults(part):
    """Ten of them in a guest that outlives them."""
    runner = Runner()
    bad = []
    try:
        for case in some_cases()[part * 10:part * 10 + 10]:
            outcome, good, text = runner.run(case)
            print(f"note: {case.name}: {outcome} {text}")
            bad += [] if good else [f"{case.name}: {outcome} {text}"]
    finally:
        runner.close()
    check(not bad, "\n".join(bad))


def test_list():
    """Everything is in it."""
    cases = some_cases()
    check(len(cases) == SOME and len({c.name for c in cases}) == SOME, "cases are doubled")
    check({c.mode for c in cases} <= set(MODES), "modes")
