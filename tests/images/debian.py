#!/usr/bin/env python3
"""A Debian 12 root file system on a disk image, built from packages without root and without mounting anything.

    debian.py            builds it unless it is there; prints its folder
    debian.py --list     names of the files in that folder

The folder is kept in FERRY_CACHE (default: $XDG_CACHE_HOME/ferry or ~/.cache/ferry) under a hash of all that
it is made from. root.img is a raw sparse file with one ext4 file system; vmlinuz and initrd.cpio boot it
with `root=/dev/vda`; id_ed25519, known_hosts and password let root in. Packages come from the mirror that
this machine's apt uses.
"""
import argparse
import fcntl
import glob
import hashlib
import io
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
GUEST = os.path.join(os.path.dirname(HERE), "guest")
SUITE = "bookworm"
SIZE = "2G"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# A quick first mount: nothing is left to be initialised, and the file is sparse all the same.
MKFS = ["-q", "-t", "ext4", "-L", "root", "-m", "0", "-J", "size=16",
        "-E", "lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1"]
# What no test looks for, and costs room or time at the boot: a sixth of all.
EXCLUDE = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*",
           "/usr/share/bash-completion/*", "/lib/udev/hwdb.d/*", "/usr/lib/gcc/x86_64-linux-gnu/12/lto1",
           "/usr/bin/x86_64-linux-gnu-lto-dump-12", "/usr/lib/x86_64-linux-gnu/perl/*/CORE/*"]
# Kernel modules: the folders that a virtual machine has a use for.
MODULES = ["block", "crypto", "drivers/acpi", "drivers/block", "drivers/char", "drivers/input",
           "drivers/md", "drivers/net/*.ko", "drivers/virtio", "fs/autofs", "fs/btrfs", "fs/fuse", "fs/overlayfs",
           "fs/xfs", "lib", "net/core", "net/vmw_vsock"]
INITRD_MODULES = ["virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci",
                  "virtio_blk"]


class BuildError(Exception):
    pass


class Image:
    """A built image. The files are shared by everybody: only copies of root are written to."""

    def __init__(self, folder):
        self.folder = folder
        self.root = os.path.join(folder, "root.img")
        self.kernel = os.path.join(folder, "vmlinuz")
        self.initrd = os.path.join(folder, "initrd.cpio")
        self.key = os.path.join(folder, "id_ed25519")
        self.known_hosts = os.path.join(folder, "known_hosts")
        self.append = "root=/dev/vda rw"

    @property
    def password(self):
        with open(os.path.join(self.folder, "password")) as f:
            return f.read()

    def fresh_copy(self, directory, name="root.img"):
        """A copy of the file system that may be written to: shares its blocks where the file system can,
        and is as sparse as the original anyhow."""
        path = os.path.join(directory, name)
        subprocess.run(["cp", "--reflink=auto", "--sparse=auto", self.root, path], check=True)
        os.chmod(path, 0o600)
        return path

    def ssh(self, port, *command):
        """The command line of an ssh into a guest whose port 22 is at this port of 127.0.0.1."""
        return ["ssh", "-F", "none", "-p", str(port), "-i", self.key, "-o", "IdentitiesOnly=yes",
                "-o", "BatchMode=yes", "-o", "UserKnownHostsFile=" + self.known_hosts,
                "-o", "HostKeyAlias=ferry", "-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR",
                "root@127.0.0.1", *command]


def run(command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, **options)
    if done.returncode:
        raise BuildError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


def output(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise BuildError(f"{os.path.basename(command[0])} failed")
    return done.stdout.strip()


def tool(name):
    """A programme that a user's PATH may not have."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        raise BuildError(f"{name} is not there: run .ci/deps.sh test")
    return path


def read(path):
    with open(path, "rb") as f:
        return f.read()


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("FERRY_CACHE") or os.path.join(base, "ferry")


def recipe_hash(kernel):
    digest = hashlib.sha256(os.path.basename(kernel).encode())
    for path in (os.path.abspath(__file__), *(os.path.join(HERE, n) for n in ("packages", "setup.sh", "init.sh")),
                 os.path.join(GUEST, "initramfs.py")):
        digest.update(read(path))
    return digest.hexdigest()[:12]


def packages():
    with open(os.path.join(HERE, "packages")) as f:
        return [line.strip() for line in f if line.strip() and not line.startswith("#")]


def apt_options():
    """How this machine's apt gets at its mirror: proxies and the like."""
    lines = output("apt-config", "dump").splitlines()
    return "".join(line + "\n" for line in lines
                   if line.startswith(("Acquire::http", "Acquire::https", "Acquire::Check-")))


def new_key(path, comment):
    run([tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path])


def add(tar, name, data=None, mode=0o644, source=None):
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = mode, int(time.time())
    data = read(source) if source else data
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def overlay(path, work, out, modules):
    """What goes into the image besides packages: kernel modules and keys."""
    host_key = os.path.join(work, "host")
    new_key(host_key, "ferry")
    new_key(os.path.join(out, "id_ed25519"), "ferry's tests")
    with open(os.path.join(out, "known_hosts"), "w") as f:
        f.write("ferry " + read(host_key + ".pub").decode())
    release = os.path.basename(modules)
    with tarfile.open(path, "w") as tar:
        for name in os.listdir(modules):
            if name.startswith("modules."):
                add(tar, f"lib/modules/{release}/{name}", source=os.path.join(modules, name))
        for pattern in MODULES:
            pattern = os.path.join(modules, "kernel", pattern)
            for ko in glob.glob(pattern if pattern.endswith(".ko") else pattern + "/**/*.ko", recursive=True):
                add(tar, f"lib/modules/{release}/{os.path.relpath(ko, modules)}", source=ko)
        add(tar, "root/.ssh/authorized_keys", source=os.path.join(out, "id_ed25519.pub"), mode=0o600)
        add(tar, "etc/ssh/ssh_host_ed25519_key", source=host_key, mode=0o600)
        add(tar, "etc/ssh/ssh_host_ed25519_key.pub", source=host_key + ".pub")
        add(tar, "setup.sh", source=os.path.join(HERE, "setup.sh"), mode=0o755)


def bootstrap(tar, work, out, modules):
    """The root file system as a tar archive. mmdebstrap takes chroot as root, a user name space or fakechroot as
    anybody else, whichever works here."""
    extra, options = os.path.join(work, "overlay.tar"), os.path.join(work, "apt.conf")
    overlay(extra, work, out, modules)
    with open(options, "w") as f:
        f.write(apt_options())
    password = secrets.token_hex(8)
    with open(os.path.join(out, "password"), "w") as f:
        f.write(password)
    command = [tool("mmdebstrap"), "--variant=minbase", "--format=tar", "--include=" + ",".join(packages()),
               "--aptopt=" + options, "--aptopt=APT::Install-Recommends \"false\"", "--dpkgopt=force-unsafe-io",
               *("--dpkgopt=path-exclude=" + path for path in EXCLUDE),
               # Generated by its package otherwise, a slow one among them.
               "--essential-hook=mkdir -p \"$1/etc/ssh\" && touch \"$1/etc/ssh/ssh_host_rsa_key\" "
               "\"$1/etc/ssh/ssh_host_ecdsa_key\" \"$1/etc/ssh/ssh_host_ed25519_key\"",
               "--customize-hook=rm -f \"$1\"/etc/ssh/ssh_host_* \"$1\"/etc/apt/apt.conf.d/99mmdebstrap",
               "--customize-hook=tar-in " + extra + " /",
               "--customize-hook=chroot \"$1\" /setup.sh && rm \"$1/setup.sh\"", SUITE, tar]
    failures = []
    for mirror in output(os.path.join(GUEST, "mirrors.sh")).split():
        try:
            run([*command, f"deb [signed-by={KEYRING}] {mirror} {SUITE} main"],
                env=dict(os.environ, PASSWORD=password))
            return
        except BuildError as error:
            failures.append(f"{mirror}: {error}")
    raise BuildError("\n".join(failures))


def make_disk(tar, work, disk):
    """The archive as an ext4 file system: unpacked and read back by mke2fs, owners and modes real or faked."""
    with open(disk, "wb"):
        pass
    tree = os.path.join(work, "tree")
    os.mkdir(tree, 0o755)
    script = ('tar -x -p --numeric-owner --exclude="./dev/*" -C "$1" -f "$2" && shift 2 && exec "$@"')
    fake = [] if os.geteuid() == 0 else [tool("fakeroot")]
    run([*fake, "sh", "-c", script, "sh", tree, tar, tool("mke2fs"), *MKFS, "-d", tree, disk, SIZE])


def build(out, kernel):
    modules = output(os.path.join(GUEST, "kernel.sh"), SUITE, "modules")
    shutil.copy(kernel, os.path.join(out, "vmlinuz"))
    run([os.path.join(GUEST, "initramfs.py"), "-o", os.path.join(out, "initrd.cpio"),
         "--init", os.path.join(HERE, "init.sh"), "--modules", modules,
         *(word for name in INITRD_MODULES for word in ("--module", name))])
    work = tempfile.mkdtemp(prefix="work-", dir=os.path.dirname(out))
    try:
        tar = os.path.join(work, "root.tar")
        bootstrap(tar, work, out, modules)
        make_disk(tar, work, os.path.join(out, "root.img"))
    finally:
        shutil.rmtree(work)


def image():
    """The image, built if it is not there."""
    kernel = output(os.path.join(GUEST, "kernel.sh"), SUITE)
    cache = cache_folder()
    folder = os.path.join(cache, f"image-{SUITE}-{recipe_hash(kernel)}")
    if os.path.isdir(folder):
        return Image(folder)
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, f"image-{SUITE}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(folder):
            print(f"building a Debian image ({SUITE}): takes a minute or two, once", file=sys.stderr, flush=True)
            # Whole or not at all.
            new = folder + ".new"
            shutil.rmtree(new, ignore_errors=True)
            os.mkdir(new)
            build(new, kernel)
            os.rename(new, folder)
    return Image(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    try:
        folder = image().folder
    except BuildError as error:
        sys.exit(f"debian.py: {error}")
    print("\n".join(sorted(os.listdir(folder))) if args.list else folder)


if __name__ == "__main__":
    main()
