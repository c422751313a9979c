"""stagecoach mailbox import and export beside Debian's Dovecot and mutt."""

import hashlib
import imaplib
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import time

from harness import BIN, HOST, MEG, PASSWORD, TOM, WORK, Mailbox, case, check, listening, new_mail, private, run, until
from read import on_terminal


class Dovecot:
    """Dovecot in a folder of its own, on Maildirs; any name may log in."""

    def __init__(self, name):
        self.dir = WORK / name
        with socket.socket() as s:
            s.bind((HOST, 0))
            self.port = s.getsockname()[1]
        self.owner = pwd.getpwnam("nobody")

    def __enter__(self):
        (self.dir / "home").mkdir(parents=True)
        (self.dir / "run").mkdir()
        os.chown(self.dir / "home", self.owner.pw_uid, self.owner.pw_gid)
        (self.dir / "conf").write_text(f"""base_dir = {self.dir}/run
state_dir = {self.dir}/run
log_path = {self.dir}/log
protocols = imap
ssl = no
disable_plaintext_auth = no
listen = {HOST}
mail_uid = {self.owner.pw_uid}
mail_gid = {self.owner.pw_gid}
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:~/mail
namespace inbox {{
  inbox = yes
  separator = .
  prefix = INBOX.
  mailbox "Gesendet" {{
    auto = create
    special_use = \\Sent
  }}
}}
passdb {{
  driver = static
  args = password={PASSWORD}
}}
userdb {{
  driver = static
  args = uid={self.owner.pw_uid} gid={self.owner.pw_gid} home={self.dir}/home/%n allow_all_users=yes
}}
service imap-login {{
  inet_listener imap {{
    port = {self.port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
""")
        self.process = subprocess.Popen(["dovecot", "-F", "-c", str(self.dir / "conf")])
        until(30, "Dovecot listens", lambda: listening(self.port))
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)

    def home(self, user, mail):
        """Gives a user a Maildir that somebody else made."""
        place = self.dir / "home" / user
        place.mkdir()
        shutil.copytree(mail, place / "mail")
        run("chown", "-R", "nobody", place)


def content(port, user, folder):
    """A mailbox's messages in their order: flags, date, octets."""
    with Mailbox(user, port) as box:
        if not int(box.call("select", f'"{folder}"', True)[0]):
            return []
        out = []
        for part in box.call("fetch", "1:*", "(FLAGS INTERNALDATE BODY.PEEK[])"):
            if isinstance(part, tuple):
                flags = sorted(set(f.lower() for f in imaplib.ParseFlags(part[0])) - {rb"\recent"})
                out.append((flags, time.mktime(imaplib.Internaldate2tuple(part[0])), hashlib.sha256(part[1]).hexdigest()))
        return out


def fill(port, user):
    """Mails of many kinds, with flags and dates, in three mailboxes."""
    with Mailbox(user, port) as box:
        box.call("create", "INBOX.Letters.Tom")
        box.call("subscribe", "INBOX.Letters.Tom")
        for n in range(900):
            body = b"From here on\r\n" * (1 + n % 9) if n % 45 else b"%070d\r\n" % n * 20000
            flags = " ".join(f for i, f in enumerate((r"\Seen", r"\Flagged", r"\Answered", r"\Draft", "$Forwarded", "todo")) if n >> i & 1)
            folder = ("INBOX", "INBOX.Letters.Tom", "INBOX.Gesendet")[n % 3 if n % 5 == 0 else 0]
            box.call("append", folder, f"({flags})", imaplib.Time2Internaldate(1_700_000_000 + n * 60), new_mail(body=body))


PAIRS = (("INBOX", "INBOX"), ("INBOX.Letters.Tom", "Letters/Tom"), ("INBOX.Gesendet", "Sent"))


@case(seconds=300, shared=False)
def mail_carried():
    """Mail comes from Dovecot over IMAP while both serve, killed twice in the middle,
    once; it goes out as a Maildir that Dovecot and mutt open and as mboxes that mutt
    opens, and what comes back from these is the same."""
    with Dovecot("dovecot-carry") as dovecot, private("carry") as server:
        fill(dovecot.port, "old")
        want = {ours: content(dovecot.port, "old", theirs) for theirs, ours in PAIRS}
        password = WORK / "carry-password"
        password.write_text(PASSWORD + "\n")
        words = ["mailbox", "import", MEG, "--from", "imap", f"{HOST}:{dovecot.port}", "--tls", "none", "--user", "old", "--password-file", str(password)]
        kills = 0
        for stored in (2, 7):
            kills += killed_when(server, words, stored)
        check(kills == 2, f"the import was killed {kills} times in the middle, not twice")
        told = json.loads(server.command(*words, "--json").stdout)
        before = sum(m["before"] for m in told["mailboxes"])
        check(0 < before < 900 and before + sum(m["carried"] for m in told["mailboxes"]) == 900, f"after the kills: {told}")
        same(want, server, MEG, "from Dovecot")
        again = json.loads(server.command(*words, "--json").stdout)
        check(sum(m["carried"] for m in again["mailboxes"]) == 0, f"once more: {again}")
        same(want, server, MEG, "after another run")

        tree, boxes = WORK / "carry-maildir", WORK / "carry-mbox"
        server.command("mailbox", "export", MEG, "--to", "maildir", str(tree))
        server.command("mailbox", "export", MEG, "--to", "mbox", str(boxes))
        dovecot.home("exported", tree)
        for ours, theirs in (("INBOX", "INBOX"), ("Letters/Tom", "INBOX.Letters.Tom"), ("Sent", "INBOX.Sent")):
            got = content(dovecot.port, "exported", theirs)
            check(sorted(got) == sorted(want[ours]), f"Dovecot on the exported Maildir: {theirs} has {len(got)} mails, not the {len(want[ours])} that there are, or others")
        mutt_opens(tree, boxes, len(want["INBOX"]))
        server.command("mailbox", "import", TOM, "--from", "maildir", str(tree))
        same(want, server, TOM, "by way of a Maildir")
        server.command("mailbox", "import", TOM, "--from", "mbox", str(boxes), "--prefix", "Old")
        same({f"Old/{ours}": mails for ours, mails in want.items()}, server, TOM, "by way of mboxes")
        return f"900 mails, {before} of them before two kills"


def same(want, server, user, how):
    for folder, mails in want.items():
        got = content(server.at.imap, user, folder)
        check(got == mails, f"{how}: {folder} has {len(got)} mails, Dovecot {len(mails)}, or they differ: "
                            f"{next((pair for pair in zip(got, mails) if pair[0] != pair[1]), None)}")


def killed_when(server, words, stored):
    """Kills an import when so many of its batches are stored; 0: it was done before."""
    program = subprocess.Popen([BIN, *words, "-c", str(server.config), "--data-dir", str(server.data)])

    def far():
        text = "".join(f.read_text(errors="replace") for f in (server.data / "import").glob("*") if f.is_file())
        return len(re.findall("(?m)^stored ", text)) >= stored or program.poll() is not None

    until(60, f"{stored} batches are stored", far)
    program.kill()
    return int(program.wait() == -9)


def mutt_opens(tree, boxes, count):
    """mutt copies what it finds out of both; it finds all."""
    for form, place in (("maildir", tree), ("mbox", boxes / "INBOX.mbox")):
        saved, rc = WORK / f"carry-mutt-{form}", WORK / f"carry-muttrc-{form}"
        rc.write_text('set mbox_type = Maildir\nset confirmappend = no\nset confirmcreate = no\nset wait_key = no\nset quit = yes\n'
                      f'set move = no\nset delete = no\nset folder = "{WORK}"\n'
                      f"push '<tag-pattern>~A<enter><tag-prefix><copy-message>{saved}<enter><quit>'\n")
        on_terminal("mutt", "-n", "-R", "-F", rc, "-f", place)
        found = [f for sub in ("new", "cur") for f in (saved / sub).iterdir()]
        check(len(found) == count, f"mutt found {len(found)} mails in the {form}, not {count}")
        idents = {re.search(rb"(?m)^X-Interop: (\S+)", f.read_bytes())[1] for f in found}
        check(len(idents) == count, f"mutt found {len(idents)} different mails in the {form}, not {count}")
