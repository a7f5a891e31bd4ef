#!/usr/bin/env python3
"""Disk and network of a guest, ferry against `qemu-system-x86_64 -accel tcg`: same kernel, initramfs, image and
command line, runs alternating, medians. Prints the tables and, with --output, writes them.

    bench_io.py [--runs N] [--cpus 1,2] [--rows NAME,...] [--cache writeback,none] [--output docs/benchmarks-io.md]
"""
import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from bench import VMMS, Table, cell, machine, median, progress, publish, ratio  # noqa: E402
from distro import Distro  # noqa: E402
from ferrytest import QUIET, Failure, Guest, guest_program, initramfs, kernel  # noqa: E402

DISK_ROWS = ["seq-write", "seq-read", "rand-write", "rand-read", "rand-sync"]
NET_ROWS = ["tcp-send", "tcp-receive", "tcp-ping"]
IMAGE_MIB = 576


class Peer:
    """What iobench talks to: s: it sends; r: it receives; p: it wants each byte back."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            client, _ = self.server.accept()
            threading.Thread(target=self._client, args=(client,), daemon=True).start()

    @staticmethod
    def _client(client):
        buffer = bytearray(1 << 18)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            kind = client.recv(1)
            if kind == b"s":
                while client.recv_into(buffer):
                    pass
                client.send(b".")
            while kind == b"r":
                client.send(buffer)
            while kind == b"p":
                byte = client.recv(1)
                if not byte:
                    break
                client.send(byte)
        except OSError:
            pass
        client.close()


def one_run(vmm, cpus, image, cache, rows, peer):
    """{row: (the guest's seconds, seconds of host CPU time)}"""
    append = f"{QUIET} ferry.test=iobench.sh ferry.args={','.join([str(peer.port), *rows])}"
    seen = {}
    with Guest(kernel(), initramfs("io"), append, 512, cpus, terminal=False, reset_limit=0, vmm=vmm,
               disks=[(image, cache)], net="user") as guest:
        guest.expect("^IOBENCH start", 300)
        before = guest.cpu_seconds()
        for name in rows:
            match = guest.expect(rf"^IOBENCH {name} ([\d.]+) (\d+)\r*\n", 600)
            after = guest.cpu_seconds()
            seen[name] = (float(match.group(1)), after - before, int(match.group(2)))
            before = after
        guest.wait(60)
    return seen


def on_host(image, cache, rows):
    """{row: seconds} of the same program on the host, with the file as the VMMs open it: what no guest can beat."""
    out = subprocess.run([guest_program("iobench"), "disk" if cache == "none" else "cached", image,
                          *[r for r in rows if r in DISK_ROWS]], stdout=subprocess.PIPE, text=True, check=True).stdout
    return {name: float(seconds) for name, seconds in re.findall(r"^IOBENCH (\S+) ([\d.]+)", out, re.M)}


def one_boot(vmm, cpus):
    """Debian from its disk: seconds to the login prompt, to an answer by ssh, and of host CPU time until then."""
    with tempfile.TemporaryDirectory(prefix="ferry-bench-", dir="/var/tmp") as folder:
        with Distro(folder, cpus, vmm=vmm) as guest:
            start = guest.started
            guest.prompt()
            login = time.monotonic() - start
            guest.ssh("true")
            return login, time.monotonic() - start, guest.cpu_seconds()


def boots(runs, all_cpus, vmms):
    table = Table("Debian from its disk", "vCPUs", "ferry", "QEMU TCG", "ferry / QEMU")
    for cpus in all_cpus:
        seen = {v: [] for v in VMMS}
        for n in range(runs):
            for vmm in vmms:
                seen[vmm].append(one_boot(vmm, cpus))
                progress(f"image boot {n + 1}/{runs}, {cpus} vCPU, {vmm}: {seen[vmm][-1][0]:.2f}")
        for i, what in enumerate(("start to the login prompt, s", "start to an answer by ssh, s",
                                  "host CPU time until then, s")):
            f, q = (median([t[i] for t in seen[v]]) for v in VMMS)
            table.add(what, cpus, cell(f), cell(q), ratio(f, q))
    return table


def rate(name, seconds, amount):
    """For people: MiB or requests in a second."""
    if seconds != seconds or not seconds:
        return ""
    if name.startswith("seq-") or name in ("tcp-send", "tcp-receive"):
        return f"{amount / seconds:.0f} MiB/s"
    return f"{amount / seconds:.0f}/s"


TEXT = """# Benchmarks of disk and network

`make bench-io` measures this table anew; `make bench-io ARGS="--output docs/benchmarks-io.md"` writes it here.

How: ferry and `qemu-system-x86_64 -accel tcg -M q35 -cpu max` run the same Debian 12 cloud kernel and
initramfs with 512 MiB, one after the other in turn, {runs} times; medians. The disk is one raw file for both
(virtio-blk, cache mode as said, asynchronous I/O: io_uring for both), the network is libslirp's for both
(virtio-net, user mode), with a program on the same host as the other side. Times are seconds measured inside
the guest by CLOCK_MONOTONIC, lower is better; the amount of work is fixed (tests/bench/iobench.c); disks are
read and written with O_DIRECT in the guest. "The host itself": the same program on the host with the same file,
opened as the VMMs open it. It is in both VMMs' times: where it is most of them, the disk is measured.

Machine: {machine}

## Boot of a disk image

Debian 12 with systemd (tests/images) from an ext4 file system on that disk, 512 MiB, user mode network.

{boots}

{tables}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cpus", default="1,2")
    parser.add_argument("--rows", default="")
    parser.add_argument("--cache", default="writeback,none")
    parser.add_argument("--only", choices=VMMS)
    parser.add_argument("--output")
    args = parser.parse_args()
    rows = [r for r in args.rows.split(",") if r] or ["boot"] + DISK_ROWS + NET_ROWS
    vmms = [args.only] if args.only else VMMS
    about = machine()
    peer = Peer()
    tables = []
    with tempfile.TemporaryDirectory(prefix="ferry-bench-", dir="/var/tmp") as folder:
        image = os.path.join(folder, "disk.img")
        with open(image, "wb") as f:
            # No holes: what is measured is not the host's allocation.
            for _ in range(IMAGE_MIB):
                f.write(os.urandom(1 << 20))
        for number, cache in enumerate(args.cache.split(",")):
            wanted = [r for r in rows if r in DISK_ROWS or r in NET_ROWS and not number]
            table = Table("row", "vCPUs", "ferry", "QEMU TCG", "ferry / QEMU", "the host itself", "ferry's rate",
                          "QEMU's rate", "CPU: ferry", "QEMU TCG")
            for cpus in [int(c) for c in args.cpus.split(",")]:
                seen = {}
                turns = ["host", *vmms]
                for n in range(args.runs):
                    for who in turns:
                        times = on_host(image, cache, wanted) if who == "host" else \
                            one_run(who, cpus, image, cache, wanted, peer)
                        for name, value in times.items():
                            seen.setdefault((name, who), []).append(value)
                        progress(f"io {n + 1}/{args.runs}, {cpus} vCPU, cache {cache}, {who}")
                    # A disk may be slower after much work: nobody always has the same one before it.
                    turns.append(turns.pop(0))
                for name in wanted:
                    f, q = (median([t[0] for t in seen.get((name, v), [])]) for v in VMMS)
                    fc, qc = (median([t[1] for t in seen.get((name, v), [])]) for v in VMMS)
                    amount = next(times[0][2] for (row, who), times in seen.items() if row == name and who != "host")
                    host = seen.get((name, "host"))
                    table.add(name, cpus, cell(f), cell(q), ratio(f, q), cell(median(host)) if host else "",
                              rate(name, f, amount), rate(name, q, amount), cell(fc), cell(qc))
            tables.append(f"## cache={cache}\n\n{table}")
    image_boots = boots(args.runs, [int(c) for c in args.cpus.split(",")], vmms) if "boot" in rows else ""
    text = TEXT.format(runs=args.runs, machine=about, boots=image_boots, tables="\n\n".join(tables))
    publish(text, args.output)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"bench_io.py: {failure}")
