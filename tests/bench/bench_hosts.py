"""Two hosts with a link of so many MiB/s between them: network namespaces of this programme's own, or, without the right
to make them, loopback and a relay that keeps to the limit."""
import os
import re
import socket
import subprocess
import sys
import threading
import time

SINK = """
import socket, sys, time
s = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listens", flush=True)
c, _ = s.accept()
b = bytearray(1 << 18)
n, t = 0, None
while k := c.recv_into(b):
    t = t or time.monotonic()
    n += k
print(n / (time.monotonic() - t) / (1 << 20), flush=True)
"""
SOURCE = """
import socket, sys, time
c = socket.create_connection((sys.argv[1], int(sys.argv[2])))
end, b = time.monotonic() + 3, bytes(1 << 18)
while time.monotonic() < end:
    c.sendall(b)
"""


class Relay:
    """Passes connections on to an address, all together at a limited rate each way; little lies in it."""

    def __init__(self, target, rate):
        self.target, self.rate, self.lock, self.next = target, rate, threading.Lock(), [0.0, 0.0]
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.server.accept()
                far = socket.create_connection(self.target)
            except OSError:
                return
            for s in (near, far):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            for way, (a, b) in enumerate(((near, far), (far, near))):
                threading.Thread(target=self._pass, args=(a, b, way), daemon=True).start()

    def _pass(self, a, b, way):
        try:
            while data := a.recv(1 << 16):
                with self.lock:
                    now = time.monotonic()
                    self.next[way] = max(self.next[way], now - 0.002) + len(data) / self.rate
                    wait = self.next[way] - now
                if wait > 0.0005:
                    time.sleep(wait)
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.server.close()


class Hosts:
    def __init__(self, mib, loopback=False):
        self.rate = mib * (1 << 20)
        self.port = 20000
        self.relays = []
        self.names = []
        if not loopback and os.geteuid() == 0:
            self._sweep()
            self._make([f"ferry-bench-{os.getpid()}-{i}" for i in (0, 1)])
        self.about = (f"two network namespaces, tbf {mib:g} MiB/s each way" if self.names else
                      f"loopback, a relay of {mib:g} MiB/s each way")

    def _make(self, names):
        try:
            for name in names:
                self._ip("netns", "add", name)
                self.names.append(name)
            self._ip("-n", names[0], "link", "add", "name", "wire0", "mtu", "1500", "type", "veth", "peer", "name", "wire0", "mtu",
                     "1500", "netns", names[1])
            for i, name in enumerate(names):
                self._ip("-n", name, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "wire0")
                for device in ("lo", "wire0"):
                    self._ip("-n", name, "link", "set", device, "up")
                self._run("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "wire0", "root", "tbf", "rate",
                          f"{int(self.rate * 8)}bit", "burst", "256kb", "limit", "1mb")
        except (OSError, subprocess.SubprocessError) as why:
            print(f"no namespaces: {why}", file=sys.stderr)
            self._remove()

    @staticmethod
    def _sweep():
        """Takes away what a killed programme has left."""
        for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
            match = re.fullmatch(r"ferry-bench-(\d+)-[01]", name)
            if match and not os.path.exists(f"/proc/{match.group(1)}"):
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    @staticmethod
    def _run(*command):
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    def _ip(self, *arguments):
        self._run("ip", *arguments)

    def _remove(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        self.names = []

    def inside(self, place):
        """What a command at that place (None: anywhere) begins with."""
        return ["ip", "netns", "exec", self.names[place]] if self.names and place is not None else []

    def listen(self, place):
        """An address there that nobody has used."""
        self.port += 1
        if self.names:
            return f"10.77.0.{place + 1}:{self.port}"
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        return f"127.0.0.1:{self.port}"

    def way(self, address):
        """The address by which the other one comes there."""
        if self.names:
            return address
        host, port = address.rsplit(":", 1)
        self.relays.append(Relay((host, int(port)), self.rate))
        return self.relays[-1].address

    def plain(self):
        """MiB/s that one plain connection carries."""
        address = self.listen(1)
        host, port = address.split(":")
        sink = subprocess.Popen([*self.inside(1), sys.executable, "-c", SINK, host, port], stdout=subprocess.PIPE,
                                text=True)
        sink.stdout.readline()
        host, port = self.way(address).split(":")
        subprocess.run([*self.inside(0), sys.executable, "-c", SOURCE, host, port], check=True, timeout=60)
        value = float(sink.stdout.readline())
        sink.wait(30)
        return value

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for relay in self.relays:
            relay.close()
        self._remove()
