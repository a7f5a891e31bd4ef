#!/usr/bin/env python3
"""Runs tests and closes with "N passed, N failed, N skipped".

    run.py [--unit PROGRAM]... [--system] [--slow|--only-slow] [--repeat N] [--jobs N] [--list] [PATTERN]...

A unit test is a programme that ends with 0 (passed), 1 (failed) or 77 (skipped; its last line says why).
A system test is a function test_* of tests/system/test_*.py. Each test is a process with a time-out of its
own. PATTERN picks by a part of the name; N of --jobs run at a time. A run in which nothing passed is a failure.
"""
import argparse
import concurrent.futures
import importlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SYSTEM = os.path.join(TOP, "tests", "system")
BUILD = os.path.join(TOP, os.environ.get("BUILD", "build"))
TIMES = os.path.join(BUILD, "test-times.json")
SCALE = float(os.environ.get("TIMEOUT_SCALE", "1"))
UNIT_LIMIT, SYSTEM_LIMIT = 180, 240
PASS, FAIL, SKIP = 0, 1, 77
running = set()  # sessions


class Test:
    def __init__(self, name, command, limit, slow=False):
        self.name, self.command, self.limit, self.slow = name, command, limit, slow

    def run(self):
        """(code, output, seconds): each test leads a session and has a folder for its temporary files, so that
        nothing of it survives its time-out."""
        start = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryDirectory(
                prefix="ft-", ignore_cleanup_errors=True) as scratch:
            os.chmod(scratch, 0o711)  # some tests run ferry as another user
            child = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out,
                                     stderr=subprocess.STDOUT, cwd=TOP, start_new_session=True,
                                     env=dict(os.environ, TMPDIR=scratch))
            running.add(child.pid)
            note = ""
            try:
                code = child.wait(self.limit * SCALE)
            except subprocess.TimeoutExpired:
                code, note = FAIL, f"\ntime-out: still running after {self.limit * SCALE:.0f} s"
            finally:
                kill(child.pid)
                child.wait()
                running.discard(child.pid)
            out.seek(0)
            text = out.read().decode(errors="replace")
        if code < 0:
            note = f"\nended by {signal.Signals(-code).name}"
        return code, text + note, time.monotonic() - start


def kill(session):
    try:
        os.killpg(session, signal.SIGKILL)
    except ProcessLookupError:
        pass


def results(tests, jobs):
    """(test, its result) of each, as they end. Whoever interrupts it leaves nothing running."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(test.run): test for test in tests}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for session in list(running):
                kill(session)


def system_tests():
    sys.path.insert(0, SYSTEM)
    for file in sorted(os.listdir(SYSTEM)):
        if not re.fullmatch(r"test_\w+\.py", file):
            continue
        module = importlib.import_module(file[:-3])
        functions = [f for n, f in inspect.getmembers(module, inspect.isfunction)
                     if n.startswith("test_") and f.__module__ == module.__name__]
        for f in sorted(functions, key=lambda f: inspect.unwrap(f).__code__.co_firstlineno):
            for number, case in enumerate(getattr(f, "cases", [{}])):
                name = f"{file[5:-3]}.{f.__name__[5:]}"
                if case:
                    name += "[" + ",".join(str(v) for v in case.values()) + "]"
                command = [sys.executable, os.path.abspath(__file__), "--case",
                           f"{file[:-3]}:{f.__name__}:{number}"]
                yield Test(name, command, getattr(f, "limit", SYSTEM_LIMIT), getattr(f, "slow", False))


def run_case(spec):
    """The child's side of a system test."""
    sys.path.insert(0, SYSTEM)
    module, function, number = spec.split(":")
    import ferrytest
    f = getattr(importlib.import_module(module), function)
    try:
        f(**getattr(f, "cases", [{}])[int(number)])
    except ferrytest.Skip as skip:
        print(skip)
        return SKIP
    except ferrytest.Failure as failure:
        where = traceback.extract_tb(failure.__traceback__)
        line = next((e for e in reversed(where) if not e.filename.endswith("ferrytest.py")), where[-1])
        print(f"{os.path.basename(line.filename)}:{line.lineno}: {failure}")
        return FAIL
    return PASS


def load_times():
    try:
        with open(TIMES) as f:
            return json.load(f)
    except (OSError, ValueError):
        return {}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unit", action="append", default=[], metavar="PROGRAM")
    parser.add_argument("--system", action="store_true")
    parser.add_argument("--slow", action="store_true", help="the slow ones too")
    parser.add_argument("--only-slow", action="store_true")
    parser.add_argument("--repeat", type=int, default=1, metavar="N")
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("pattern", nargs="*")
    args = parser.parse_args()
    # A job in the background has these ignored, and its children after it: tests want them as usual.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if args.case:
        sys.exit(run_case(args.case))

    tests = [Test("unit." + os.path.basename(u), [os.path.abspath(u)], UNIT_LIMIT) for u in sorted(args.unit)]
    if args.system:
        tests += [t for t in system_tests()
                  if (t.slow if args.only_slow else args.slow or not t.slow)]
    if args.pattern:
        tests = [t for t in tests if any(p in t.name for p in args.pattern)]
    if args.list:
        print("\n".join(t.name for t in tests))
        return
    tests = tests * args.repeat

    times, started, passed, failed, skipped, broken = load_times(), time.monotonic(), 0, 0, [], {}
    for number, (test, (code, text, seconds)) in enumerate(results(tests, args.jobs), 1):
        was = f" (was {times[test.name]:.1f})" if test.name in times else ""
        head = f"[{number:{len(str(len(tests)))}}/{len(tests)}]"
        if code == PASS:
            passed += 1
            times[test.name] = round(seconds, 2)
            notes = "".join("\n         " + n[6:] for n in text.splitlines() if n.startswith("note: "))
            print(f"{head} pass {test.name}  {seconds:.1f} s{was}{notes}", flush=True)
        elif code == SKIP:
            reason = (text.strip().splitlines() or ["no reason given"])[-1]
            skipped.append((test.name, reason))
            print(f"{head} SKIP {test.name}: {reason}", flush=True)
        else:
            failed += 1
            broken.setdefault(test.name, []).append(text)
            print(f"{head} FAIL {test.name}  {seconds:.1f} s", flush=True)
            print("".join("    " + line + "\n" for line in text.splitlines()[-60:]), flush=True)

    os.makedirs(BUILD, exist_ok=True)
    with open(TIMES, "w") as f:
        json.dump(times, f, indent=0, sort_keys=True)
    print(f"\n{time.monotonic() - started:.0f} s")
    for name, reason in skipped:
        print(f"skipped: {name}: {reason}")
    # Why, once more: of a long log often only the end is kept.
    for name, texts in sorted(broken.items()):
        print(f"failed: {name} ({len(texts)} of {args.repeat})" if args.repeat > 1 else f"failed: {name}")
        print("".join("    " + line + "\n" for line in texts[-1].splitlines()[-12:]), end="")
    print(f"{passed} passed, {failed} failed, {len(skipped)} skipped")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
