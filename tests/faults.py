#!/usr/bin/env python3
"""Every fault of tests/system/fault_cases.py, one line each with its outcome, and counts at the end. Goes on where it was
ended (build/faults.json; --again: from the beginning). `make test-migration-faults`."""
import argparse
import collections
import json
import os
import queue
import signal
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests", "system"))
import fault_cases  # noqa: E402

STATE = os.path.join(TOP, os.environ.get("BUILD", "build"), "faults.json")


def load():
    try:
        with open(STATE) as f:
            return json.load(f)
    except (OSError, ValueError):
        return {}


class Work:
    """Cases of one number of processors are given to one thread after the other: they share a guest."""

    def __init__(self, cases, known):
        self.cases, self.known, self.lock, self.ended = cases, known, threading.Lock(), False
        self.queue = queue.Queue()
        for case in cases:
            if case.name not in known:
                self.queue.put(case)

    def run(self):
        runner = fault_cases.Runner()
        while not self.ended:
            try:
                case = self.queue.get_nowait()
            except queue.Empty:
                break
            before = time.monotonic()
            outcome, good, text = runner.run(case)
            if self.ended:
                break
            with self.lock:
                self.known[case.name] = {"outcome": outcome, "good": good, "text": text[-3000:]}
                print(f"[{len(self.known)}/{len(self.cases)}] {'' if good else 'BAD: '}{case.name}: {outcome} "
                      f"({time.monotonic() - before:.1f} s){' ' + text if text else ''}", flush=True)
                with open(STATE + ".new", "w") as f:
                    json.dump(self.known, f, indent=0)
                os.replace(STATE + ".new", STATE)
        runner.close()

    def stop(self, *_):
        self.ended = True


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="forget what was found before")
    parser.add_argument("--bad", action="store_true", help="those again that were bad")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("pattern", nargs="*", help="words that are in the case's name")
    args = parser.parse_args()
    cases = [c for c in fault_cases.all_cases() if all(p in c.name for p in args.pattern)]
    if args.list:
        print("\n".join(c.name for c in cases))
        return
    names = {c.name for c in cases}
    known = {} if args.again else {n: k for n, k in load().items() if k["good"] or not args.bad}
    others = {n: k for n, k in known.items() if n not in names}
    known = {n: k for n, k in known.items() if n in names}
    work = Work(cases, known)
    signal.signal(signal.SIGTERM, work.stop)
    signal.signal(signal.SIGINT, work.stop)
    threads = [threading.Thread(target=work.run) for _ in range(args.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open(STATE, "w") as f:
        json.dump({**others, **known}, f, indent=0)
    bad = [n for n, k in known.items() if not k["good"]]
    for name in bad:
        print(f"BAD: {name}: {known[name]['outcome']}")
    counts = collections.Counter(k["outcome"] for k in known.values())
    print(f"{len(known)} of {len(cases)} cases: " + ", ".join(f"{n} {o}" for o, n in sorted(counts.items())) +
          f"; {len(bad)} bad")
    sys.exit(1 if bad or len(known) < len(cases) else 0)


if __name__ == "__main__":
    main()
