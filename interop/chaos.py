"""10,000 mails past three filters while plugins are killed at random: what is
promised holds, and nothing is left over."""

import collections
import os
import random
import re
import signal
import threading
from pathlib import Path

from conform import script
from harness import PLUGINS, case, check, private, until
from load import Load

MAILS, EVERY, SENDERS = 10000, 0.2, 16

FILTERS = """
plugin "attachments" {
  path = "%s"
}

filter "headers" "seen" {
  add = { "X-Seen-By" = "mx" }
}

filter "attachments" "no_exe" {
  forbid     = [".exe"]
  on_failure = "accept"
}

filter "exec" "checked" {
  command = ["%s"]
  mode    = "headers"
}
"""


class Processes:
    """The processes that a server has started, wherever they are by now: the core
    tells each where its sockets are."""

    def __init__(self, server, *more):
        self.core, self.marks = server.process.pid, [os.fsencode(m) for m in (server.data, *more)]

    def all(self):
        """pid -> command line."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            if pid in (self.core, os.getpid()):
                continue
            try:
                words, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            except OSError:  # it has ended
                continue
            if any(m in environment or m in words for m in self.marks) and words:
                found[pid] = words.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def plugins(self):
        """Those that the core is the parent of."""
        return {pid: words for pid, words in self.all().items() if parent(pid) == self.core}


def parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


class Killer(threading.Thread):
    """Kills one plugin's process after the other, whatever it is at."""

    def __init__(self, processes):
        super().__init__(daemon=True)
        self.processes, self.killed, self.done = processes, collections.Counter(), threading.Event()

    def run(self):
        while not self.done.wait(EVERY):
            plugins = self.processes.plugins()
            if not plugins:
                continue
            pid = random.choice(list(plugins))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.killed[plugins[pid]] += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join()


class Holdings:
    """What a server holds: plugin processes, sockets in its folders, descriptors."""

    def __init__(self, server, processes):
        self.processes = collections.Counter(processes.all().values())
        # Each process has a folder and a name of its own.
        self.sockets = sorted(re.sub(r"/\d+/plugin[^/]*$", "/N/plugin", str(p.relative_to(server.data))) for p in sockets(server))
        self.descriptors = collections.Counter()
        for link in Path(f"/proc/{server.process.pid}/fd").iterdir():
            try:
                target = os.readlink(link)
            except OSError:
                continue
            # The queue's tables are opened and closed as it sees fit.
            if not target.startswith("/") or target.endswith("(deleted)"):
                self.descriptors[target.split(":")[0]] += 1

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __str__(self):
        return f"{sum(self.processes.values())} processes, sockets {self.sockets}, descriptors {dict(self.descriptors)}"


def sockets(server):
    return [p for p in server.data.rglob("*") if p.is_socket()]


@case(seconds=660, shared=False)
def chaos():
    """kill -9 of a random plugin every 200 ms, filters, storage, directory and
    access: each acknowledged mail arrives once, each session ends with its 221, and
    processes, sockets and descriptors are what they were."""
    program = script("checked", "cat >/dev/null; echo X-Checked: yes\n")
    server = private("chaos", mx="filters = [filter.headers.seen, filter.attachments.no_exe, filter.exec.checked]",
                     extra=FILTERS % (PLUGINS / "attachments", program))
    with server:
        processes = Processes(server, program)
        with Load(mails=20) as warm:
            pass
        warm.arrived()
        server.drained(30)
        before = Holdings(server, processes)
        with Load(mails=MAILS, senders=SENDERS, seconds=540, prefix="chaos") as load, Killer(processes) as killer:
            until(550, lambda: f"{MAILS} mails acknowledged: {load}", lambda: load.done())
        check(not load.cut, f"{len(load.cut)} sessions were cut")
        check(load.quits >= SENDERS, f"{load.quits} sessions of at least {SENDERS} ended with 221")
        load.all_acknowledged()
        others = [reply for reply in load.deferred if reply[0] != 451]
        check(not others, f"other replies than 451: {others[:3]}")
        check(set(before.processes) <= set(killer.killed), f"not every plugin was killed: {killer.killed}, of {before.processes}")
        server.drained(60)
        load.also(warm)
        got = load.arrived()
        for name in (b"X-Seen-By: mx\r\n", b"X-Checked: yes\r\n"):
            check(all(mail[:mail.index(b"\r\n\r\n")].count(name) == 1 for mail in got), f"a mail went past the filter that adds {name}")
        until(30, lambda: f"what there was before the load: {before}; now {Holdings(server, processes)}",
              lambda: Holdings(server, processes) == before)
    left = processes.all()
    check(not left, f"left over: {left}")
    check(not sockets(server), f"left over: {sockets(server)}")
    return f"{load}; {sum(killer.killed.values())} kills; {sum(before.processes.values())} processes as before"
