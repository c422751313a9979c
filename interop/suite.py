"""Runs the cases, each in a process of its own and bounded in time, and ends
with a table. Called by interop/run, which sets BIN, WORK, POSTFIX and PLUGINS:

    suite.py [CASE ...]

A case is a function with @case above it, in one of the modules imported below;
the function's name is the case's name.
"""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time

import harness
import start  # noqa: F401: registers its cases, as those below do
import send  # noqa: F401
import protocol  # noqa: F401
import read  # noqa: F401
import sync  # noqa: F401
import bridges_milter  # noqa: F401
import bridges_scanners  # noqa: F401
import bulk  # noqa: F401
import carry  # noqa: F401
import crash  # noqa: F401
import durable  # noqa: F401
import chaos  # noqa: F401
import conform  # noqa: F401
import debuggers  # noqa: F401
import dkimpy  # noqa: F401
import mailauth  # noqa: F401
import plugins  # noqa: F401
import sieve  # noqa: F401


def one(name):
    """The process of one case."""
    try:
        note = harness.CASES[name][0]()
    except harness.Failed as why:
        print(f"FAILED: {why}")
        return 1
    if note:
        print(f"NOTE: {note}")
    return 0


def bounded(name, seconds, log):
    """Runs a case; what it started ends with it."""
    with open(log, "wb") as out:
        child = subprocess.Popen([sys.executable, __file__, "--one", name], stdout=out, stderr=subprocess.STDOUT,
                                 stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            code = "time-out"
            out.write(f"FAILED: not done within {seconds} s\n".encode())
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
    return code


class Shared:
    """The server on configs/dev.hcl as it is, for the cases that need no other.
    After a failure the next case gets a new one."""

    def __init__(self):
        self.server, self.count = None, 0

    def ready(self):
        if self.server is None or not self.server.running():
            self.count += 1
            self.server = harness.Server(harness.CONFIGS / "dev.hcl", harness.WORK / f"dev-{self.count}", harness.DEV).start()
        return self.server

    def drop(self):
        if self.server:
            self.server.kill()
        self.server = None


def case(name, shared):
    """Runs one case and prints what came of it."""
    _, seconds, on_dev = harness.CASES[name]
    log, begin, code, before = harness.WORK / f"{name}.case.log", time.monotonic(), 1, 0
    log.touch()
    try:
        if on_dev:
            before = shared.ready().log.stat().st_size
        code = bounded(name, seconds, log)
        if on_dev:
            harness.check(shared.server.running(), f"the server ended with {shared.server.process.returncode}")
            shared.server.sound()
    except harness.Failed as why:
        code = 1
        with open(log, "a") as out:
            out.write(f"FAILED: {why}\n")
    row = (name, "ok" if code == 0 else "FAILED", time.monotonic() - begin)
    print("%-32s %-6s %6.1f s" % row, flush=True)
    for line in log.read_text(errors="replace").splitlines():
        if line.startswith("NOTE: "):
            print("    " + line[6:], flush=True)
    if code != 0:
        report(name, log, shared.server.log if on_dev and shared.server else None, before)
        if on_dev:
            shared.drop()
    return row


def report(name, log, server_log, before):
    """The ends of a failed case's logs."""
    print(f"---- {name}\n{harness.tail(log, 60)}")
    if server_log:
        with open(server_log, "rb") as f:
            f.seek(before)
            lines = f.read().decode(errors="replace").splitlines()
        print(f"---- the server's log during {name}\n" + "\n".join(lines[-40:]))
    for own in sorted(harness.WORK.glob(f"{name}/*.log")):
        print(f"---- {own.name}\n{harness.tail(own)}")
    print("----", flush=True)


def main(wanted):
    unknown = set(wanted) - set(harness.CASES)
    if unknown:
        print(f"no such case: {', '.join(sorted(unknown))}. There are:\n  " + "\n  ".join(harness.CASES), file=sys.stderr)
        return 2
    loopback_up()
    taken = [p for p in harness.DEV.all() + harness.PRIVATE.all() if harness.listening(p)]
    if taken:
        print(f"something listens on 127.0.0.1, port {', '.join(map(str, taken))}: stop it first", file=sys.stderr)
        return 2
    shared, table = Shared(), []
    try:
        table = [case(name, shared) for name in harness.CASES if not wanted or name in wanted]
        if shared.server:
            try:
                shared.server.stop()
            except harness.Failed as why:
                table.append(("the_end_of_the_server", "FAILED", 0.0))
                print(why)
    finally:
        shared.drop()
    failed = sum(row[1] != "ok" for row in table)
    print("\n%-32s %-6s %8s" % ("case", "", "seconds"))
    for row in table:
        print("%-32s %-6s %8.1f" % row)
    print(f"\n{len(table) - failed} passed, {failed} failed")
    return 1 if failed else 0


def loopback_up():
    """In a network namespace of its own, as interop/run makes one, loopback is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(s, 0x8913, request))[1]  # SIOCGIFFLAGS
        if not flags & 1:  # IFF_UP
            fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))  # SIOCSIFFLAGS


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        sys.exit(one(sys.argv[2]))
    sys.exit(main(sys.argv[1:]))
