#!/usr/bin/env python3
"""Lets emulated processors translate through tables that libmmu built: decoders.py [--seed N] [--probes N] [MACHINE]...

For each machine: make_image writes tables and a list of accesses with their outcomes, an emulator starts the
bare program on them, and what it prints is judged. Machines whose emulator is missing are skipped, loudly. The
first machine that runs is given wrong tables once before: it must find them.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAMS = os.path.join(TOP, os.environ.get("BUILD", "build"), "decoders")
QUIET = ["-nographic", "-nodefaults", "-no-reboot", "-serial", "stdio"]


def loader(folder, tables, probes):
    arguments = []
    for name, address in (("tables", tables), ("list", probes)):
        arguments += ["-device", f"loader,file={folder}/{name},addr={address:#x},force-raw=on"]
    return arguments


def arm64(folder):
    return ["qemu-system-aarch64", "-accel", "tcg", "-M", "virt,virtualization=on,gic-version=3", "-cpu", "max",
            "-m", "3G", "-kernel", f"{PROGRAMS}/arm64", *loader(folder, 0x50000000, 0x48000000), *QUIET]


def riscv64(folder):
    return ["qemu-system-riscv64", "-M", "virt", "-cpu", "rv64,h=true,svpbmt=on,svnapot=on", "-m", "3G",
            "-bios", f"{PROGRAMS}/riscv64", *loader(folder, 0x90000000, 0x88000000), *QUIET]


def riscv32(folder):
    return ["qemu-system-riscv32", "-M", "virt", "-cpu", "rv32,h=true", "-m", "1G",
            "-bios", f"{PROGRAMS}/riscv32", *loader(folder, 0x84000000, 0x83000000), *QUIET]


def svm(folder, la57):
    return ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", f"max,la57={la57}", "-m", "2G",
            "-kernel", f"{PROGRAMS}/svm", *loader(folder, 0x8000000, 0x6000000),
            "-device", "isa-debug-exit,iobase=0xf4", *QUIET]


def vmx(folder):
    """Bochs: an own firmware instead of a BIOS, the image on a disk, the serial line in a file."""
    cylinder = 16 * 63 * 512
    with open(f"{folder}/disk", "wb") as disk:
        for name in ("list", "tables"):
            with open(f"{folder}/{name}", "rb") as part:
                disk.write(part.read())
            if name == "list":
                disk.seek(1 << 20)
        cylinders = -(-disk.tell() // cylinder)
        disk.truncate(cylinders * cylinder)
    with open(f"{folder}/vga", "wb") as vga:
        vga.write(bytes(512))
    with open(f"{folder}/commands", "w") as commands:
        commands.write("c\n")
    with open(f"{folder}/bochsrc", "w") as rc:
        rc.write(f"""
cpu: model=corei7_skylake_x, ips=200000000, reset_on_triple_fault=0
memory: guest=2048, host=2048
romimage: file={PROGRAMS}/rom
vgaromimage: file={folder}/vga
optramimage1: file={PROGRAMS}/vmx, address=0x100000
ata0-master: type=disk, path={folder}/disk, mode=flat, cylinders={cylinders}, heads=16, spt=63
com1: enabled=1, mode=file, dev={folder}/serial
display_library: rfb, options="timeout=0"
log: {folder}/log
panic: action=fatal
sound: driver=dummy
speaker: enabled=0
""")
    return ["bochs", "-q", "-f", f"{folder}/bochsrc", "-rc", f"{folder}/commands"]


MACHINES = {
    "arm64": arm64,
    "riscv64": riscv64,
    "riscv32": riscv32,
    "svm4": lambda folder: svm(folder, "off"),
    "svm5": lambda folder: svm(folder, "on"),
    "vmx": vmx,
}


def missing(machine):
    """What is not there, or None."""
    emulator = {"arm64": "qemu-system-aarch64", "riscv64": "qemu-system-riscv64", "riscv32": "qemu-system-riscv32",
                "vmx": "bochs"}.get(machine, "qemu-system-x86_64")
    return None if shutil.which(emulator) else emulator


def run(machine, seed, probes, broken=False, limit=600):
    """(failures, what it printed)"""
    with tempfile.TemporaryDirectory(prefix="decoders-") as folder:
        made = subprocess.run([f"{PROGRAMS}/make_image", machine, str(seed), str(probes), f"{folder}/tables",
                               f"{folder}/list"] + (["break"] if broken else []), stderr=subprocess.PIPE, text=True)
        if made.returncode:
            return 1, f"make_image: {made.stderr}"
        try:
            done = subprocess.run(MACHINES[machine](folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=limit)
            text = done.stdout.decode(errors="replace")
        except subprocess.TimeoutExpired as late:
            text = (late.stdout or b"").decode(errors="replace") + f"\nstill running after {limit} s"
        if os.path.exists(f"{folder}/serial"):
            with open(f"{folder}/serial", errors="replace") as serial:
                text = serial.read()
    lines = [line.strip() for line in text.splitlines()]
    lines = [line[line.find("ROM..") + 5:] if "ROM.." in line else line for line in lines]
    end = [line for line in lines if line.startswith("DONE ")]
    if not end:
        return 1, "did not end:\n" + "\n".join(lines[-20:])
    return int(end[0].split()[-2]), "\n".join(line for line in lines if ", " in line or "FAILED" in line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--probes", type=int, default=1000)
    parser.add_argument("machine", nargs="*")
    args = parser.parse_args()
    bad, control = 0, False
    print(f"seed {args.seed}")
    for machine in args.machine or MACHINES:
        if missing(machine):
            print(f"SKIPPED {machine}: there is no {missing(machine)} here")
            continue
        if not control:
            found, text = run(machine, args.seed, 100, broken=True)
            print(f"{machine}, with wrong tables: {found} failures, as it must be" if found > 0 and "DONE" in text
                  else f"FAILED {machine}: wrong tables were not found: {text}")
            bad += not found
            control = True
        failures, text = run(machine, args.seed, args.probes)
        print(f"{machine}:\n{text}", flush=True)
        bad += failures
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
