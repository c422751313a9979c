"""What the cases share: the server under test, mails with known bytes, and a
reader that says what is in a mailbox. Standard library only."""

import imaplib
import json
import os
import random
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import time
from pathlib import Path

# interop/run sets them
BIN, WORK, POSTFIX, PLUGINS = os.environ["BIN"], *(Path(os.environ[name]) for name in ("WORK", "POSTFIX", "PLUGINS"))
ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"

HOST = "127.0.0.1"
TOM, MEG, PASSWORD = "tom@hanks.example", "meg@ryan.example", "sleepless"

# The development certificate is self-made: nobody can verify it.
UNVERIFIED = ssl._create_unverified_context()

CASES = {}  # name -> (function, seconds, whether it uses the shared server)


class Failed(Exception):
    """A case did not hold."""


def check(holds, what):
    if not holds:
        raise Failed(what)


def case(seconds=60, shared=True):
    """Registers a function as a case, bounded in time."""

    def register(function):
        CASES[function.__name__] = (function, seconds, shared)
        return function

    return register


def until(seconds, what, probe):
    """Polls until probe() gives something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        got = probe()
        if got:
            return got
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.05)


def listening(port):
    with socket.socket() as s:
        return s.connect_ex((HOST, port)) == 0


# --- the server ---


class Ports:
    """Where configs/dev.hcl listens, or a copy of it on other ports."""

    def __init__(self, base=0):
        self.base = base
        self.mx, self.submission = base + 2525, base + 2587
        self.imap, self.pop3 = base + 2143, base + 2110

    def all(self):
        return [self.mx, self.submission, self.imap, self.pop3]


DEV = Ports()
PRIVATE = Ports(10000)


class Server:
    """One stagecoach with a data directory of its own."""

    def __init__(self, config, data, at, listen=None):
        self.config, self.data, self.at = Path(config), Path(data), at
        self.listen = listen or at.all()
        self.log = Path(str(data) + ".log")
        self.process = None

    def start(self, seconds=60):
        self.spawn()
        return self.ready(seconds)

    def spawn(self):
        """Starts the process and does not wait for it."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [BIN, "serve", "--quiet", "-c", str(self.config), "--data-dir", str(self.data)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def ready(self, seconds=60):
        """Waits until it serves."""

        def up():
            check(self.running(), f"the server ended with {self.process.returncode}:\n{tail(self.log)}")
            return all(listening(p) for p in self.listen) and self.command("plugin", "list", ok=False).returncode == 0

        until(seconds, f"listening on {self.listen}", up)
        return self

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, seconds=90):
        """An orderly end."""
        if not self.running():
            return
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"the server did not end within {seconds} s of SIGTERM")
        check(self.process.returncode == 0, f"the server ended with {self.process.returncode} after SIGTERM")
        self.sound()

    def sound(self):
        """Neither the core nor a plugin wrote what Go writes as it breaks down."""
        text = self.log.read_text(errors="replace")
        found = re.search(r"panic: |fatal error: |DATA RACE|goroutine \d+ \[", text)
        check(not found, found and text[max(0, found.start() - 500):found.start() + 3000])

    def kill(self):
        """What a crash does."""
        if self.running():
            self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self.kill()

    def plugins(self):
        """The plugin processes: instance -> pid."""
        listed = json.loads(self.command("plugin", "list", "--json").stdout)
        return {p["instance"]: p["pid"] for p in listed if p["pid"]}

    def kill_plugin(self, instance):
        """kill -9 of one plugin process; False if there is none at the moment."""
        try:
            os.kill(self.plugins()[instance], signal.SIGKILL)
        except (KeyError, ProcessLookupError):
            return False
        return True

    def command(self, *words, ok=True):
        done = subprocess.run([BIN, *words, "-c", str(self.config), "--data-dir", str(self.data)],
                              capture_output=True, text=True, timeout=60)
        check(not ok or done.returncode == 0, f"stagecoach {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def queue(self):
        return [json.loads(line) for line in self.command("queue", "list", "--json").stdout.splitlines()]

    def drained(self, seconds):
        """Waits until the queue is empty: so long as it gets emptier within that
        time, and the case may still run."""
        fewest, since = None, time.monotonic()
        while True:
            left = self.queue()
            if not left:
                return
            if fewest is None or len(left) < fewest:
                fewest, since = len(left), time.monotonic()
            check(time.monotonic() - since < seconds, f"for {seconds} s the queue got no emptier; left are {len(left)}, the first {left[0]}")
            time.sleep(0.1)

    def write_config(self, mx="", routes="", extra=""):
        """configs/dev.hcl on this server's ports; mx is put into the MX listener's
        block, routes before all routes, extra after all blocks. Retries come after a
        second, so that a case need not wait minutes."""
        text = (CONFIGS / "dev.hcl").read_text()
        listen = f'listen = ["{HOST}:{DEV.mx}"]'
        retry = 'retry = ["1m", "5m", "15m", "1h"]'
        here = 'route "here" {'
        for known in (listen, retry, here):
            check(known in text, f"configs/dev.hcl has no {known}: change it here too")
        text = text.replace(listen, listen + "\n  " + mx).replace(retry, 'retry = ["1s"]').replace(here, routes + "\n" + here)
        text = re.sub(rf'"{HOST}:(\d+)"', lambda m: f'"{HOST}:{int(m[1]) + self.at.base}"', text)
        self.config.write_text(text + "\n" + extra + "\n")


def private(name, people="", **changes):
    """A server of a case's own, from configs/dev.hcl."""
    folder = WORK / name
    folder.mkdir()
    (folder / "dev-people.hcl").write_text((CONFIGS / "dev-people.hcl").read_text() + people)
    server = Server(folder / "server.hcl", folder / "data", PRIVATE)
    server.write_config(**changes)
    return server


def tail(path, lines=40):
    try:
        return "\n".join(Path(path).read_text(errors="replace").splitlines()[-lines:])
    except OSError as err:
        return str(err)


def run(*argv, ok=True, **options):
    """Runs a client and returns what it printed."""
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=options.pop("stdin", subprocess.DEVNULL), **options)
    text = done.stdout.decode(errors="replace")
    print(f"$ {' '.join(str(a) for a in argv)}\n{text[-4000:]}")
    check(not ok or done.returncode == 0, f"{argv[0]} ended with {done.returncode}")
    return text


# --- mails with known bytes ---


def new_id():
    return f"{time.time_ns():x}.{random.getrandbits(32):08x}"


def new_mail(ident=None, body=b"Hello Meg\r\n", subject="You have got mail", sender=TOM, to=MEG):
    """A complete mail whose first line is unique: what a server puts before it
    is the server's, all from it on must arrive as it is."""
    ident = ident or new_id()
    head = (f"X-Interop: {ident}\r\nFrom: Tom <{sender}>\r\nTo: <{to}>\r\nSubject: {subject}\r\n"
            f"Date: Tue, 01 Dec 1998 10:11:12 -0500\r\nMessage-ID: <{ident}@hanks.example>\r\n\r\n")
    return head.encode() + body


def file_of(mail):
    path = WORK / f"{ident_of(mail)}.eml"
    path.write_bytes(mail)
    return path


def ident_of(mail):
    return re.search(rb"(?m)^X-Interop: (\S+)", mail).group(1).decode()


OURS = {b"return-path", b"delivered-to", b"received", b"x-seen-by", b"x-checked"}  # the last two by the cases with filters


def same_mail(sent, got, where):
    """Byte-exact from the first original field on; before it, trace fields only."""
    first = sent[:sent.index(b"\r\n") + 2]
    check(first in got, f"{where}: the first original field {first!r} is not in {got[:400]!r}")
    at = got.index(first)
    for line in got[:at].split(b"\r\n")[:-1]:
        check(line[:1] in b" \t" or line.split(b":")[0].lower() in OURS, f"{where}: {line!r} stands before the mail")
    if got[at:] != sent:
        n = next((i for i, (a, b) in enumerate(zip(sent, got[at:])) if a != b), min(len(sent), len(got) - at))
        raise Failed(f"{where}: differs at octet {n} of {len(sent)} (got {len(got) - at}): "
                     f"sent {sent[max(0, n - 20):n + 60]!r}, got {got[at:][max(0, n - 20):n + 60]!r}")


def same_text(sent, got, where):
    """The same for programs that keep mail with LF at the ends of lines."""
    same_mail(sent, got.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), where)


# --- the plainest sender and reader ---


def submit(*mails, to=MEG, port=DEV.submission):
    with smtplib.SMTP(HOST, port, timeout=60) as s:
        s.login(TOM, PASSWORD)
        for mail in mails:
            s.sendmail(TOM, [to], mail, ["BODY=8BITMIME"])


class Mailbox:
    """A plain IMAP reader, the judge of what arrived."""

    Error = imaplib.IMAP4.error

    def __init__(self, user=MEG, port=DEV.imap):
        self.imap = imaplib.IMAP4(HOST, port, timeout=60)
        self.imap.login(user, PASSWORD)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.imap.logout()
        except (imaplib.IMAP4.error, OSError):
            pass

    def call(self, word, *arguments):
        status, data = getattr(self.imap, word)(*arguments)
        check(status == "OK", f"IMAP {word} {arguments}: {status} {data}")
        return data

    def folders(self):
        return [re.search(rb'"?([^" ]+)"?$', line).group(1).decode() for line in self.call("list") if line]

    def empty(self):
        """Leaves an empty INBOX and nothing else that holds mail."""
        for name in self.folders():
            if int(self.call("select", name)[0]):
                self.call("store", "1:*", "+FLAGS.SILENT", r"(\Deleted)")
                self.call("expunge")
        return self

    def count(self, folder="INBOX"):
        return int(self.call("select", folder)[0])

    def mails(self, folder="INBOX"):
        """Whole mails, in order."""
        if not self.count(folder):
            return []
        return [part[1] for part in self.call("fetch", "1:*", "(BODY.PEEK[])") if isinstance(part, tuple)]

    def fields(self, name, folder="INBOX"):
        """One header field of each mail, without reading the mails."""
        if not self.count(folder):
            return []
        data = self.call("fetch", "1:*", f"(BODY.PEEK[HEADER.FIELDS ({name})])")
        return [part[1].split(b":", 1)[-1].strip().decode() for part in data if isinstance(part, tuple)]

    def wait(self, count, seconds=30, folder="INBOX"):
        """Waits for so many mails and returns them."""
        until(seconds, lambda: f"{count} mails in {folder}; there are {self.count(folder)}", lambda: self.count(folder) >= count)
        check(self.count(folder) == count, f"{folder} holds {self.count(folder)} mails, not {count}")
        return self.mails(folder)


def emptied(user=MEG, port=DEV.imap):
    with Mailbox(user, port) as box:
        box.empty()


def arrived(sent, user=MEG, port=DEV.imap, seconds=30):
    """Exactly these mails are in the INBOX, byte-exact, in any order."""
    with Mailbox(user, port) as box:
        got = {ident_of(m): m for m in box.wait(len(sent), seconds)}
    for mail in sent:
        check(ident_of(mail) in got, f"mail {ident_of(mail)} did not arrive")
        same_mail(mail, got[ident_of(mail)], "INBOX")
