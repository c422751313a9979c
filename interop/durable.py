"""What no death and no disk may cost a mail: whatever is killed, fails or fills up
under load, each mail that was acknowledged is there once, whole, or its sender has
a notice.

ROUNDS says how many rounds kill_loop and io_faults make, SEED repeats their
choices: `make durable ROUNDS=500`."""

import collections
import os
import random
import signal
import subprocess
import threading
import time

from harness import MEG, PRIVATE, TOM, Failed, Mailbox, case, check, emptied, ident_of, private, tail, until
from load import Load

ROUNDS = int(os.environ.get("ROUNDS") or 0)
SEED = int(os.environ.get("SEED") or random.getrandbits(32))
BATCH = 25  # rounds; then all that was sent is looked for
STORAGE = "storage.local.mail"

BOUNCING = "meg+nothanks@ryan.example"
ROUTES = f"""
route "nothanks" {{
  when   = recipient.address == "{BOUNCING}"
  reject = "no, thanks"
}}
"""


class Mails:
    """Mail to Meg that arrives, and mail that bounces into Tom's mailbox."""

    def __init__(self, prefix):
        # In the log; a file of the queue; a file of both.
        self.kept = Load(prefix=prefix, senders=6, seconds=600, sizes=[100, 500, 1000, 20000, 100, 100000])
        self.bounced = Load(prefix=prefix + "-no", senders=2, seconds=600, to=BOUNCING, sender=TOM)

    def __enter__(self):
        self.kept.__enter__()
        self.bounced.__enter__()
        return self

    def __exit__(self, *why):
        self.bounced.__exit__(*why)
        self.kept.__exit__(*why)

    def more(self, count):
        """Waits until so many more are acknowledged."""
        self.kept.reaches(len(self.kept.acknowledged) + count)

    def found(self, server):
        """Once, whole, and the mailboxes are empty again; returns how many."""
        self.kept.all_acknowledged()
        self.bounced.all_acknowledged()
        server.drained(120)
        self.kept.arrived(maybe_twice=self.kept.cut)
        with Mailbox(TOM, PRIVATE.imap) as box:
            notices = box.mails()
        for notice in notices:
            check(notice.rstrip().endswith(b"--"), f"a notice is torn: it ends with {notice[-60:]!r}")
        self.bounced.each_once([ident_of(m) for m in notices], maybe_twice=self.bounced.cut)
        emptied(MEG, PRIVATE.imap)
        emptied(TOM, PRIVATE.imap)
        return len(self.kept.acknowledged) + len(self.bounced.acknowledged)


def in_batches(server, rounds, one):
    """Calls one(mails, rng) for each round; what goes wrong is told with the seed
    and the rounds. The choices of a round depend on the seed and its number alone."""
    mails = 0
    for first in range(1, rounds + 1, BATCH):
        last = min(first + BATCH - 1, rounds)
        try:
            with Mails(f"r{first}") as sent:
                for n in range(first, last + 1):
                    one(sent, random.Random(SEED * 1_000_003 + n), n)
            mails += sent.found(server)
        except Failed as why:
            raise Failed(f"rounds {first} to {last}, repeat with SEED={SEED} ROUNDS={rounds}: {why}") from why
        print(f"rounds {first} to {last} held, {mails} mails", flush=True)
    return mails


@case(seconds=300 + 20 * ROUNDS, shared=False)
def kill_loop():
    """kill -9 of the core, of the storage or of both, at any moment, also as they
    start."""
    killed = {"core": 0, "storage": 0, "both": 0, "as it starts": 0}
    with private("kill_loop", routes=ROUTES) as server:

        def one(mails, rng, n):
            mails.more(rng.randint(1, 60))
            time.sleep(rng.uniform(0, 0.02))
            victim = rng.choice(["core"] * 5 + ["storage"] * 2 + ["both"])
            killed[victim] += 1
            if victim != "core":
                until(60, f"{STORAGE} is there", lambda: server.kill_plugin(STORAGE))
            if victim != "storage":
                server.kill()
                while rng.random() < 0.25:
                    killed["as it starts"] += 1
                    server.spawn()
                    time.sleep(rng.uniform(0, 0.6))
                    server.kill()
                server.start()

        mails = in_batches(server, ROUNDS or 12, one)
    return f"SEED={SEED}: {ROUNDS or 12} rounds, {mails} mails acknowledged and found once; killed: {killed}"


class Supervised:
    """Starts a server again that ended, as systemd does, until the block ends."""

    def __init__(self, server):
        self.server, self.ends, self.over = server, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        while not self.over.wait(0.2):
            if not self.server.running():
                self.ends += 1
                self.over.wait(0.5)
                self.server.spawn()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.over.set()
        self.thread.join()
        if kind is None:
            if not self.server.running():
                self.server.spawn()
            self.server.ready()


def space(path):
    at = os.statvfs(path)
    return at.f_bavail * at.f_frsize


def fill(path, leave):
    """Has a file take all of a disk but so many octets."""
    with open(path, "ab") as f:
        while space(path.parent) > leave:
            try:
                f.write(b"\0" * min(1 << 20, space(path.parent) - leave))
                f.flush()
            except OSError:  # somebody else was faster
                return


@case(seconds=300, shared=False)
def disk_full():
    """A disk that fills up under load, down to what is kept free and then to the
    last octet: 452 4.3.1, nothing is lost, and it goes on when there is room."""
    server = private("disk_full")
    server.data.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=320m,mode=0700", "tmpfs", str(server.data)], capture_output=True, text=True)
    check(mounted.returncode == 0, f"no disk of its own for this case, which wants root: {mounted.stderr}")
    filler = server.data / "filler"
    try:
        with server:
            with Supervised(server) as supervised:
                with Load(prefix="low", sizes=[20000]) as low:
                    low.reaches(50)
                    fill(filler, leave=(64 << 20) + (6 << 20))
                    until(60, lambda: f"a refusal: {low}, {space(server.data) >> 20} MiB are free", lambda: low.deferred)
                    check(not supervised.ends, "the server ended though what it keeps free is there")
                    filler.unlink()
                    low.reaches(len(low.acknowledged) + 100)
                low.all_acknowledged()
                others = [r for r in low.deferred if r[0] != 452 or not r[1].startswith(b"4.3.1")]
                check(not others, f"other replies than 452 4.3.1: {others[:3]}")
                server.drained(60)
                with Load(prefix="full", sizes=[20000]) as full:
                    full.reaches(50)
                    for _ in range(3):
                        refused = len(full.deferred) + len(full.cut) + supervised.ends
                        fill(filler, leave=0)
                        until(60, lambda: f"trouble on a full disk: {full}", lambda: len(full.deferred) + len(full.cut) + supervised.ends > refused)
                        time.sleep(1)  # of a full disk
                        filler.unlink()
                        full.reaches(len(full.acknowledged) + 50)
                full.all_acknowledged()
                others = [r for r in full.deferred if r[0] // 100 != 4]
                check(not others, f"other replies than 4xx: {others[:3]}")
            server.drained(120)
            full.also(low)
            full.arrived(maybe_twice=full.cut | low.cut)
        return f"low: {low}; full: {full}, with {dict(collections.Counter(r[0] for r in full.deferred))}; the server ended {supervised.ends} times and was started again"
    finally:
        server.kill()
        subprocess.run(["umount", "-l", str(server.data)], check=False)


# Whose system calls fail, and how: EIO of a sync that the kernel gives once, a full
# disk in the midst of the log.
FAULTS = [
    ("core", "fsync,fdatasync", "EIO", None),
    (STORAGE, "fsync,fdatasync", "EIO", None),
    ("core", "write,pwrite64", "ENOSPC", "queue/db"),
    (STORAGE, "write,pwrite64", "ENOSPC", "plugins"),
    ("core", "renameat,renameat2,linkat", "ENOSPC", None),
    (STORAGE, "linkat,copy_file_range", "EIO", None),
]


def newest_log(data, below):
    found = [p for p in (data / below).rglob("*.log")]
    check(found, f"no log below {data / below}")
    return max(found, key=lambda p: p.stat().st_mtime)


@case(seconds=300 + 20 * ROUNDS, shared=False)
def io_faults():
    """strace has system calls of the core and of the storage fail, one of them each
    round: whoever cannot go on ends with its reason, and nothing is lost."""
    met, rounds = {}, ROUNDS or 2 * len(FAULTS)
    with private("io_faults", routes=ROUTES) as server:
        with Supervised(server) as supervised:

            def one(mails, rng, n):
                who, calls, error, below = FAULTS[(n - 1) % len(FAULTS)]
                mails.more(20)
                pid = server.process.pid if who == "core" else until(60, f"{who} is there", lambda: pid_of(server, who))
                trace = server.data.parent / f"strace-{n}.trace"
                command = ["strace", "-f", "-qq", "-o", str(trace), "-p", str(pid), "-e", f"trace={calls}",
                           "-e", f"inject={calls}:error={error}:when={rng.randint(1, 12)}"]
                if below:
                    command += ["-P", str(newest_log(server.data, below))]
                with open(server.data.parent / "strace.log", "ab") as said:
                    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
                try:
                    # Some calls are rare: who has none of them in a while has none.
                    deadline = time.monotonic() + 5
                    while tracer.poll() is None and time.monotonic() < deadline and not injected(trace):
                        time.sleep(0.05)
                finally:
                    if tracer.poll() is None:
                        tracer.send_signal(signal.SIGINT)
                    try:
                        tracer.wait(5)
                    except subprocess.TimeoutExpired:
                        # It waits for a thread of a process that is ending: the
                        # system lets go of all that a dead tracer held.
                        tracer.kill()
                        tracer.wait(30)
                hit = injected(trace)
                print(f"round {n}: {error} for {calls} of {who}: {hit} injected", flush=True)
                key = f"{error} {calls} of {who.split('.')[0]}"
                met[key] = met.get(key, 0) + (hit > 0)
                mails.more(20)

            mails = in_batches(server, rounds, one)
        check(rounds < len(FAULTS) or all(met.values()), f"a fault was never met: {met}\n{tail(server.data.parent / 'strace.log')}")
    return f"SEED={SEED}: {mails} mails acknowledged and found once; rounds with a fault: {met}; the server was started again {supervised.ends} times"


def pid_of(server, instance):
    """None while the server is not there, or the instance."""
    try:
        return server.plugins().get(instance)
    except Failed:
        return None


def injected(trace):
    try:
        return trace.read_text(errors="replace").count("(INJECTED)")
    except OSError:
        return 0
