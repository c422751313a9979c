"""Programs that keep mailboxes in step: offlineimap3, neomutt, aerc, mpop and
npm's imapflow; and two of them on one account, each seeing what the other did."""

import base64
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

from harness import (DEV, HOST, MEG, PASSWORD, PLUGINS, WORK, Failed, Mailbox, case, check, ident_of, new_mail, run, same_mail, submit, until)
from read import TUID, filled, kept_as, maildir, make_maildir, mbsync, on_terminal


def cleared():
    """Removes the folders of earlier cases, but those that an account begins with."""
    with Mailbox() as box:
        box.call("select", "INBOX")
        for name in sorted(box.folders(), reverse=True):
            if name not in ("INBOX", "Drafts", "Sent", "Trash", "Junk", "Archive"):
                box.call("delete", name)


# --- offlineimap ---


def offlineimap(name):
    """A folder and a function that brings it and the account in line."""
    top = WORK / name
    top.mkdir()
    (top / "rc").write_text(f"""[general]
accounts = meg
metadata = {top}/metadata

[Account meg]
localrepository = near
remoterepository = far

[Repository near]
type = Maildir
localfolders = {top}/near

[Repository far]
type = IMAP
remotehost = {HOST}
remoteport = {DEV.imap}
remoteuser = {MEG}
remotepass = {PASSWORD}
ssl = no
starttls = no
expunge = yes
""")

    def sync():
        said = run("offlineimap", "-c", top / "rc", "-o", "-u", "basic", timeout=100)
        check("ERROR" not in said and "Traceback" not in said, "offlineimap says that something went wrong (above)")

    return top / "near", sync


def tree(top):
    """What lies in a folder of Maildirs: names, and contents by name."""
    return {str(f.relative_to(top)): f.read_bytes() for f in sorted(Path(top).rglob("*")) if f.is_file() and f.parent.name in ("new", "cur")}


@case(seconds=180)
def offlineimap_both_ways():
    """Mails come and go byte-exact, flags and deletions in both directions, and a
    run with nothing to do changes nothing."""
    mails = filled()
    top, sync = offlineimap("offlineimap")
    sync()
    inbox = top / "INBOX"
    kept_as(mails, maildir(inbox), "offlineimap")
    before = tree(top)
    sync()
    check(tree(top) == before, "a second run changed something here")
    with Mailbox() as box:
        check(box.count() == len(mails), "a second run changed something there")

    # From here to there: a mark, a mail.
    read = maildir(inbox)[0]
    marked = ident_of(read.read_bytes())
    read.rename(inbox / "cur" / (read.name.partition(":2,")[0] + ":2,FS"))
    own = new_mail()
    (inbox / "new" / "1.own.hanks").write_bytes(own.replace(b"\r\n", b"\n"))
    sync()
    with Mailbox() as box:
        same_mail(own, next(m for m in box.wait(len(mails) + 1) if ident_of(m) == ident_of(own)), "offlineimap, to the server")
        found = box.call("search", None, "SEEN", "FLAGGED")[0].split()
        check(len(found) == 1, f"one mail is marked, not {found}")
        check(marked.encode() in box.call("fetch", found[0].decode(), "(BODY.PEEK[HEADER.FIELDS (X-Interop)])")[0][1], "it is another mail")
        # From there to here: a deletion.
        box.call("store", found[0].decode(), "+FLAGS", r"(\Deleted)")
        box.call("expunge")
    sync()
    check(len(maildir(inbox)) == len(mails), "the deletion did not come here")
    check(marked not in {ident_of(f.read_bytes()) for f in maildir(inbox)}, "another mail was deleted")


# --- neomutt and aerc ---


@case(seconds=120)
def neomutt_session():
    """neomutt with CONDSTORE, QRESYNC and compression saves all mails, byte by
    byte, marks one, removes one and moves one; and a second session, which takes up
    what the first has kept, sees it so."""
    mails = filled(4)
    saved = WORK / "neomutt-saved"
    rc = WORK / "neomuttrc"
    cache = WORK / "neomutt-cache"
    cache.mkdir()
    common = (f'set imap_user = "{MEG}"\nset imap_pass = "{PASSWORD}"\nset ssl_starttls = no\nset ssl_force_tls = no\n'
              'set imap_condstore = yes\nset imap_qresync = yes\nset imap_deflate = yes\nset imap_idle = yes\n'
              f'set header_cache = "{cache}"\nset mbox_type = Maildir\nset confirmappend = no\nset confirmcreate = no\nset wait_key = no\n'
              f'set quit = yes\nset move = no\nset delete = yes\nset sort = mailbox-order\nset folder = "{WORK}"\n')
    far = f"imap://{HOST}:{DEV.imap}/"
    with Mailbox() as box:
        order = [ident_of(m) for m in box.mails()]
    rc.write_text(common + f"push '<tag-pattern>~A<enter><tag-prefix><copy-message>{saved}<enter><untag-pattern>~A<enter>"
                  "<first-entry><flag-message><first-entry><next-entry><delete-message>"
                  f"<last-entry><save-message>{far}Archive<enter><sync-mailbox><quit>'\n")
    on_terminal("neomutt", "-n", "-F", rc, "-f", far + "INBOX")
    kept_as(mails, maildir(saved), "neomutt", notes=(b"Status", b"Content-Length", b"Lines"))
    with Mailbox() as box:
        left = {ident_of(m): n for n, m in enumerate(box.mails(), 1)}
        check(set(left) == {order[0], *order[2:-1]}, f"left are {left}, of {order}")
        check(box.call("search", None, "FLAGGED")[0] == str(left[order[0]]).encode(), "the mark is on the first")
        moved = box.mails("Archive")
        check([ident_of(m) for m in moved] == [order[-1]], f"moved are {len(moved)} mails")
        box.call("store", "1", "+FLAGS", r"(\Deleted)")
        box.call("expunge")
    again = WORK / "neomutt-again"
    rc.write_text(common + f"push '<tag-pattern>~A<enter><tag-prefix><copy-message>{again}<enter><quit>'\n")
    on_terminal("neomutt", "-n", "-F", rc, "-f", far + "INBOX")
    rest = [m for m in mails if ident_of(m) in left]
    kept_as(rest, maildir(again), "neomutt, again", notes=(b"Status", b"Content-Length", b"Lines"))


class Screen:
    """A program on a terminal, driven by its keys; what it shows is waited for."""

    def __init__(self, *argv, env):
        self.ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
        # The terminal is to be its own, /dev/tty.
        self.program = subprocess.Popen([str(a) for a in argv], stdin=its, stdout=its, stderr=its, env=env, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(its)
        self.shown = ""

    def read(self, seconds):
        if not select.select([self.ours], [], [], seconds)[0]:
            return False
        try:
            got = os.read(self.ours, 65536)
        except OSError:  # nobody has the terminal open any more
            return False
        if b"\x1b[6n" in got:
            os.write(self.ours, b"\x1b[1;1R")  # where the cursor is
        if b"\x1b[c" in got:
            os.write(self.ours, b"\x1b[?6c")  # what kind of terminal this is
        self.shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][0-9A-Z]|\x1b[=>]", " ", got.decode(errors="replace"))
        return bool(got)

    def wait(self, text, seconds=30):
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            if time.monotonic() > deadline or self.program.poll() is not None:
                print(self.shown[-3000:])
                raise Failed(f"{self.program.args[0]} does not show {text!r}")
            self.read(0.2)
        self.shown = ""

    def keys(self, text):
        os.write(self.ours, text.encode())

    def end(self, seconds=20):
        deadline = time.monotonic() + seconds
        while self.program.poll() is None and time.monotonic() < deadline:
            self.read(0.2)
        os.close(self.ours)
        check(self.program.poll() is not None, f"{self.program.args[0]} did not end within {seconds} s")


@case(seconds=120)
def aerc_session():
    """aerc lists the INBOX, saves a mail byte by byte, marks one, moves one."""
    mails = filled(3)
    with Mailbox() as box:
        order = [ident_of(m) for m in box.mails()]
    home = WORK / "aerc"
    config = home / ".config" / "aerc"
    config.mkdir(parents=True)
    quoted = MEG.replace("@", "%40")
    (config / "accounts.conf").write_text(f"""[meg]
source = imap+insecure://{quoted}:{PASSWORD}@{HOST}:{DEV.imap}
outgoing = /bin/true
default = INBOX
from = Meg <{MEG}>
cache-headers = false
""")
    (config / "accounts.conf").chmod(0o600)
    (config / "aerc.conf").write_text("[ui]\nindex-format=%s\nmouse-enabled=false\n[filters]\ntext/plain=cat\n")
    (config / "binds.conf").write_text("[messages]\n$ex = :\n")
    saved = home / "saved"
    env = dict(os.environ, TERM="xterm", HOME=str(home), XDG_CONFIG_HOME=str(home / ".config"), XDG_RUNTIME_DIR=str(home), LINES="40", COLUMNS="120")
    env.pop("XDG_DATA_HOME", None)
    screen = Screen("aerc", env=env)
    screen.wait("You have got mail", 60)
    # The newest stands first.
    screen.keys(f":pipe -mb sh -c 'cat > {saved}.part && mv {saved}.part {saved}'\r")

    def looking(probe):
        def look():
            screen.read(0.05)
            return probe()
        return look

    until(30, "the saved mail", looking(saved.exists))
    text = saved.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    same_mail(next(m for m in mails if ident_of(m) == ident_of(text)), text, "aerc")
    shown = ident_of(text)
    screen.keys(":flag\r")
    with Mailbox() as box:
        box.call("select", "INBOX")

        def flagged():
            box.call("noop")
            return box.call("search", None, "FLAGGED")[0].split()

        found = until(30, "the mark", looking(flagged))
        check(found == [str(order.index(shown) + 1).encode()], f"the mark is on {found}")
        screen.keys(":move Archive\r")

        def moved():
            box.call("select", "INBOX")
            return box.count() == len(mails) - 1

        until(30, "the mail is moved", looking(moved))
        check([ident_of(m) for m in box.mails("Archive")] == [shown], "the moved mail is in Archive")
    screen.keys(":quit\r")
    screen.end()


# --- mpop ---


@case(seconds=120)
def mpop_session():
    """mpop over STLS and in the clear, leaving the mail there and taking it away; a
    second run fetches nothing."""
    mails = filled()
    top = WORK / "mpop"
    top.mkdir()

    def fetch(name, tls, keep):
        box = make_maildir(top / name)
        rc = top / f"{name}.rc"
        rc.write_text(f"account meg\nhost {HOST}\nport {DEV.pop3}\nuser {MEG}\npassword {PASSWORD}\nauth user\n"
                      f"tls {'on' if tls else 'off'}\ntls_starttls on\ntls_certcheck off\nkeep {'on' if keep else 'off'}\n"
                      f"received_header off\nuidls_file {top}/{name}.uidls\ndelivery maildir {box}\n")
        rc.chmod(0o600)
        run("mpop", "-C", rc, "meg")
        kept_as(mails, maildir(box), f"mpop, {name}")
        run("mpop", "-C", rc, "meg")
        check(len(maildir(box)) == len(mails), f"mpop, {name}: a second run fetched a mail again")

    fetch("leave", tls=True, keep=True)
    with Mailbox() as reader:
        check(reader.count() == len(mails), f"{reader.count()} mails are left")
    fetch("take", tls=False, keep=False)
    with Mailbox() as reader:
        check(reader.count() == 0, f"{reader.count()} mails are left")


# --- imapflow ---


class Device:
    """An imapflow that stays connected."""

    def __init__(self, user=MEG):
        self.node = subprocess.Popen(["node", "device.mjs", str(DEV.imap), user, PASSWORD], cwd=PLUGINS / "imapflow",
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.node.kill()
        self.node.wait()

    def __getattr__(self, command):
        def do(*arguments):
            print(f"imapflow: {command} {arguments!r:.200}")
            self.node.stdin.write(json.dumps([command, *arguments]) + "\n")
            self.node.stdin.flush()
            answer = self.node.stdout.readline()
            check(answer, f"imapflow ended at {command}")
            answer = json.loads(answer)
            check("ok" in answer, f"imapflow: {answer.get('failed')}")
            return answer["ok"]

        return do

    def tree(self):
        """Every folder's mails, by their identity, with their flags."""
        out = {}
        for f in self.folders():
            if self.status(f["path"])["messages"]:
                out[f["path"]] = {ident_of(base64.b64decode(m["source"])): "".join(sorted(m["flags"])) for m in self.mails(f["path"])}
        return out

    def uid(self, folder, ident):
        found = self.search(folder, {"header": {"X-Interop": ident}})
        check(len(found) == 1, f"{ident} is {found} in {folder}")
        return found[0]


@case(seconds=120)
def imapflow_session():
    """imapflow over STARTTLS with QRESYNC: lists, reads byte by byte, searches,
    stores, marks, copies, moves, deletes, and hears at once what others did."""
    cleared()
    mails = filled(4)
    with Device() as d:
        check(d.secure(), "the session is encrypted")
        check({"CONDSTORE", "QRESYNC"} <= set(d.enabled()), f"enabled is {d.enabled()}")
        uses = {f["path"]: f["use"] for f in d.folders()}
        check(uses.get("Trash") == "\\Trash" and uses.get("Sent") == "\\Sent", f"special folders: {uses}")
        there = {ident_of(base64.b64decode(m["source"])): m for m in d.mails("INBOX")}
        for mail in mails:
            got = there[ident_of(mail)]
            same_mail(mail, base64.b64decode(got["source"]), "imapflow, FETCH")
            check(got["size"] == len(base64.b64decode(got["source"])), f"RFC822.SIZE {got['size']}")
            check(got["subject"] == "You have got mail" and got["type"] == "text/plain", f"{got['subject']} {got['type']}")
            same_mail(mail, base64.b64decode(d.download("INBOX", got["uid"])), "imapflow, download")
        before = d.status("INBOX")
        check(before["messages"] == 4 and before["unseen"] == 4, f"STATUS {before}")
        first = d.uid("INBOX", ident_of(mails[0]))
        d.flag("INBOX", first, ["\\Seen", "$Label1"])
        check(d.status("INBOX")["unseen"] == 3, "one is read")
        check(d.search("INBOX", {"keyword": "$Label1"}) == [first], "the keyword is found")
        d.unflag("INBOX", first, ["\\Seen"])
        check(d.status("INBOX")["unseen"] == 4, "and unread again")
        check(d.create("Letters/From Tom"), "a folder below another")
        own = new_mail(body="Grüße ✓\r\n".encode())
        uid = d.append("Letters/From Tom", base64.b64encode(own).decode(), ["\\Flagged"])
        check(base64.b64decode(d.download("Letters/From Tom", uid)) == own, "APPEND keeps the octets")
        copied = d.copy("INBOX", first, "Letters/From Tom")
        check(copied and copied[0][0] == first, f"COPYUID {copied}")
        moved = d.move("INBOX", first, "Trash")
        check(d.status("INBOX")["messages"] == 3 and d.status("Trash")["messages"] >= 1, "moved")
        check(ident_of(base64.b64decode(d.download("Trash", moved[0][1]))) == ident_of(mails[0]), "COPYUID names the moved mail")
        d.rename("Letters/From Tom", "Letters/Tom")
        check({ident_of(own), ident_of(mails[0])} == set(d.tree()["Letters/Tom"]), "RENAME keeps the mails")
        d.remove("Letters/Tom", uid)
        check(d.status("Letters/Tom")["messages"] == 1, "one is deleted")

        check(d.watch("INBOX") == 3, "three in the INBOX")
        heard = []

        def hears(event):
            def look():
                heard.extend(d.told())
                return any(h["event"] == event for h in heard)
            return look

        submit(new_mail())
        until(30, lambda: f"a new mail is told; heard {heard}", hears("exists"))
        with Mailbox() as box:
            box.call("select", "INBOX")
            box.call("store", "1", "+FLAGS", r"(\Flagged)")
            until(30, lambda: f"a mark is told; heard {heard}", hears("flags"))
            box.call("store", "1", "+FLAGS", r"(\Deleted)")
            box.call("expunge")
            until(30, lambda: f"a removal is told; heard {heard}", hears("expunge"))
        d.drop("Letters/Tom")
        d.bye()
    cleared()


# --- two devices ---


FLAGS = {"S": "\\Seen", "F": "\\Flagged", "R": "\\Answered", "D": "\\Draft", "T": "\\Deleted"}


def near_tree(top):
    """As Device.tree, of a folder of Maildirs with names as offlineimap and mbsync
    write them."""
    out = {}
    for f in sorted(Path(top).rglob("*")):
        if f.is_file() and f.parent.name in ("new", "cur"):
            marks = f.name.partition(":2,")[2]
            flags = "".join(sorted(FLAGS[m] for m in marks if m in FLAGS))
            name = str(f.parent.parent.relative_to(top)).replace(".", "/")
            text = f.read_bytes()
            out.setdefault(name, {})[ident_of(text)] = flags
    return out


def far_tree():
    """The same as a third one sees it."""
    out = {}
    with Mailbox() as box:
        for name in box.folders():
            if not int(box.call("select", f'"{name}"', True)[0]):
                continue
            data = box.call("fetch", "1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (X-Interop)])")
            for i, part in enumerate(data):
                if isinstance(part, tuple):
                    tail = data[i + 1] if i + 1 < len(data) and isinstance(data[i + 1], bytes) else b""
                    flags = sorted(re.search(rb"FLAGS \(([^)]*)\)", part[0] + tail)[1].decode().split())
                    out.setdefault(name, {})[ident_of(part[1])] = "".join(f for f in flags if f != "\\Recent")
    return out


def converse(top, sync):
    """One device keeps Maildirs and syncs now and then, the other is imapflow and
    stays connected. After each step both hold the same, and a third sees the same."""

    def agreed(what):
        sync()
        far, near, online = far_tree(), near_tree(top), d.tree()
        check(near == far, f"{what}: the Maildirs hold {near}, the server {far}")
        check(online == far, f"{what}: imapflow sees {online}, the server holds {far}")
        before = tree(top)
        sync()
        check(tree(top) == before, f"{what}: a second run changed something")
        return far

    def near_file(folder, ident):
        return next(f for f in maildir(top / folder) if ident_of(f.read_bytes()) == ident)

    def mark(folder, ident, flags):
        f = near_file(folder, ident)
        f.rename(f.parent.parent / "cur" / (f.name.partition(":2,")[0] + ":2," + flags))

    cleared()
    mails = filled(6)
    a, b, c, e, f, g = (ident_of(m) for m in mails)
    with Device() as d:
        state = agreed("at the beginning")
        check(set(state["INBOX"]) == {a, b, c, e, f, g}, f"{state}")

        # Flags: one from each side, then one that both set.
        mark("INBOX", a, "S")
        d.flag("INBOX", d.uid("INBOX", b), ["\\Seen", "\\Answered"])
        state = agreed("flags from both sides")
        check(state["INBOX"][a] == "\\Seen" and state["INBOX"][b] == "\\Answered\\Seen", f"{state}")
        mark("INBOX", b, "FRS")
        d.unflag("INBOX", d.uid("INBOX", a), ["\\Seen"])
        state = agreed("flags on what the other has marked")
        check(state["INBOX"][a] == "" and state["INBOX"][b] == "\\Answered\\Flagged\\Seen", f"{state}")

        # Folders: one from each side.
        d.create("Letters")
        d.move("INBOX", d.uid("INBOX", c), "Letters")
        state = agreed("a folder and a move from there")
        check(set(state["Letters"]) == {c} and c not in state["INBOX"], f"{state}")
        make_maildir(top / "Kept")
        near_file("INBOX", e).rename(top / "Kept" / "cur" / "1.moved.hanks:2,S")
        state = agreed("a folder and a move from here")
        check(state["Kept"] == {e: "\\Seen"} and e not in state["INBOX"], f"{state}")

        # Deletions: one from each side.
        near_file("INBOX", f).unlink()
        d.remove("INBOX", d.uid("INBOX", g))
        state = agreed("deletions from both sides")
        check(set(state["INBOX"]) == {a, b}, f"{state}")

        # Mails: one written by each, and one that comes meanwhile.
        mine, yours, new = new_mail(), new_mail(), new_mail()
        (top / "Kept" / "cur" / "2.mine.hanks:2,F").write_bytes(mine.replace(b"\r\n", b"\n"))
        d.append("Letters", base64.b64encode(yours).decode(), ["\\Draft"])
        submit(new)
        until(30, "the new mail", lambda: d.status("INBOX")["messages"] == 3)
        state = agreed("mails from both sides")
        check(state["Kept"][ident_of(mine)] == "\\Flagged" and state["Letters"][ident_of(yours)] == "\\Draft", f"{state}")
        check(ident_of(new) in state["INBOX"], f"{state}")
        d.bye()
    return f"the same on both devices after each of 7 steps: {sum(len(v) for v in state.values())} mails in {len(state)} folders"


@case(seconds=300)
def two_devices_mbsync():
    """mbsync and imapflow on one account."""
    inbox, sync = mbsync("two-mbsync")
    return converse(inbox.parent, sync)


@case(seconds=300)
def two_devices_offlineimap():
    """offlineimap and imapflow on one account."""
    top, sync = offlineimap("two-offlineimap")
    return converse(top, sync)


# --- Dovecot ---


@case(seconds=240)
def same_as_dovecot():
    """Random commands, the same to Dovecot: what is answered differently is
    explained in docs/imap-differences.md."""
    said = run(PLUGINS / "imapdiff", "-ours", f"{HOST}:{DEV.imap}", "-sequences", "40", timeout=220)
    return re.search(r"(?m)^\d+ sequences, .*$", said)[0]
