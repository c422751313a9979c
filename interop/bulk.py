"""Thousands of mails, every one of which arrives once: smtp-source and smtp-sink
of the postfix package, numbered mails, Stagecoach's own demo."""

import os
import re
import smtplib
import subprocess
import threading
import time

from harness import (BIN, DEV, HOST, MEG, POSTFIX, PRIVATE, TOM, WORK, Mailbox, Server, arrived, case, check, emptied, listening,
                     new_mail, run, until)

MESSAGES, LENGTH = 5000, 2048
SINK = 2626


def postfix(tool):
    return POSTFIX / "usr/sbin" / tool


ENV = dict(os.environ, LD_LIBRARY_PATH=str(POSTFIX / "usr/lib/postfix"))


def smtp_source(port, to, messages=MESSAGES):
    run(postfix("smtp-source"), "-s", 20, "-m", messages, "-l", LENGTH, "-f", TOM, "-t", to, f"{HOST}:{port}", env=ENV)


class Sink:
    """smtp-sink, which writes each mail that it takes into a file."""

    def __init__(self, name):
        self.folder = WORK / name
        self.folder.mkdir()
        self.folder.chmod(0o777)  # smtp-sink gives up root

    def __enter__(self):
        self.log = open(WORK / f"{self.folder.name}.log", "wb")
        self.process = subprocess.Popen([str(postfix("smtp-sink")), "-u", "nobody", "-d", "mail.", f"{HOST}:{SINK}", "200"],
                                        cwd=self.folder, env=ENV, stdout=self.log, stderr=self.log)
        until(20, "smtp-sink", lambda: listening(SINK))
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()

    def mails(self):
        """What it got, with LF at the ends of lines, below its own fields."""
        return [re.split(rb"(?m)^\tby smtp-sink .*\n\t.*\n", f.read_bytes(), maxsplit=1)[1] for f in self.folder.iterdir()]


def smtp_source_mail(name):
    """What smtp-source sends, as smtp-sink gets it with nothing in between."""
    with Sink(f"{name}-reference") as sink:
        smtp_source(SINK, MEG, messages=1)
    return varying(sink.mails()[0])


def varying(mail):
    """What differs from one mail of smtp-source to the next is taken out."""
    return re.sub(rb"(?m)^(Date|Message-Id|To): .*$", rb"\1:", mail.replace(b"\r\n", b"\n")).rstrip(b"\n")


def each_once(mails, reference):
    """Every mail is the reference, below what a server puts on top, and has a
    queue id of its own: the server gave one for each 250."""
    ids = set()
    for mail in mails:
        mail = mail.replace(b"\r\n", b"\n")
        trace, first, rest = mail.partition(b"From: <" + TOM.encode())
        found = re.search(rb"(?s)^Received: .*?\sid (\S+?);?\s", trace, re.M)
        check(found, f"no queue id in {trace!r}")
        ids.add(found[1])
        check(varying(first + rest) == reference, f"other octets than smtp-source's:\n{mail[:1500]!r}\n{reference[:1000]!r}")
    check(len(mails) == MESSAGES, f"{len(mails)} mails arrived, not {MESSAGES}")
    check(len(ids) == MESSAGES, f"{len(mails)} mails, but {len(ids)} queue ids: some arrived twice")


def seconds(begin):
    return f"{MESSAGES} mails in {time.monotonic() - begin:.1f} s"


@case(seconds=300)
def smtp_source_5000():
    """Into the mailbox: each is there once, as it was sent."""
    emptied()
    reference, begin = smtp_source_mail("smtp_source_5000"), time.monotonic()
    smtp_source(DEV.mx, MEG)
    with Mailbox() as box:
        until(200, lambda: f"{MESSAGES} mails; there are {box.count()}", lambda: box.count() >= MESSAGES)
        note = seconds(begin)
        each_once(box.mails(), reference)
    emptied()
    return note


@case(seconds=300, shared=False)
def smtp_sink_5000():
    """Through a relay: smtp-sink, the next hop, gets each once, as it was sent."""
    reference = smtp_source_mail("smtp_sink_5000")
    folder = WORK / "smtp_sink_5000"
    folder.mkdir()
    config = folder / "relay.hcl"
    config.write_text(f"""
hostname = "relay.hanks.example"
data_dir = "{folder}/data"

receive "smtp" "in" {{
  listen     = ["{HOST}:{PRIVATE.mx}"]
  relay_from = ["127.0.0.0/8"]
}}

route "out" {{
  deliver = deliver.smtp.sink
}}

deliver "smtp" "sink" {{
  hosts = ["{HOST}:{SINK}"]
  tls   = "none"
}}
""")
    relay = Server(config, folder / "data", PRIVATE, [PRIVATE.mx])
    with Sink("sink") as sink, relay:
        begin = time.monotonic()
        smtp_source(PRIVATE.mx, "annie@reed.example")
        relay.drained(200)
        note = seconds(begin)
    each_once(sink.mails(), reference)
    return note


@case(seconds=120)
def numbered_1000():
    """By ten clients at a time, to two mailboxes each, one mail with two recipients."""
    for user in (MEG, TOM):
        emptied(user)
    mails = [[new_mail() for _ in range(100)] for _ in range(10)]
    failed = []

    def client(part):
        try:
            with smtplib.SMTP(HOST, DEV.mx, timeout=60) as s:
                for mail in part:
                    s.sendmail(TOM, [MEG, TOM], mail)
        except (smtplib.SMTPException, OSError) as why:
            failed.append(why)

    clients = [threading.Thread(target=client, args=(part,)) for part in mails]
    for c in clients:
        c.start()
    for c in clients:
        c.join()
    check(not failed, f"{len(failed)} clients failed: {failed[:1]}")
    for user in (MEG, TOM):
        arrived(sum(mails, []), user=user, seconds=60)
        emptied(user)


@case(seconds=240, shared=False)
def demo():
    """stagecoach demo: two servers and their DNS, step by step."""
    said = run(BIN, "demo", timeout=230).strip().splitlines()[-1]
    held = re.fullmatch(r"(\d+) of (\d+) steps held\.", said)
    check(held and held[1] == held[2], f"the last line: {said}")
    return said
