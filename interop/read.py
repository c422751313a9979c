"""Clients that read: curl, mutt, isync's mbsync, fetchmail, getmail6, Python's
imaplib and poplib."""

import imaplib
import os
import poplib
import pty
import re
import ssl
import subprocess

from harness import (DEV, HOST, MEG, PASSWORD, ROOT, UNVERIFIED, WORK, Mailbox, arrived, case, check, emptied, file_of, ident_of,
                     new_mail, run, same_mail, same_text, submit)


def filled(count=3):
    """An INBOX that holds exactly these mails: one has all that is hard to keep,
    one is so large that the server keeps it in a file."""
    emptied()
    mails = [new_mail() for _ in range(count - 2)]
    mails.append(new_mail(body=b".\r\n..\r\n.dot\r\nno dot\r\n..two\r\nFrom here on\r\n \t \r\n" + "Grüße ✓\r\n".encode() + b"x" * 998 + b"\r\n\r\n"))
    mails.append(new_mail(body=b"".join(b"%070d\r\n" % n for n in range(3000))))
    submit(*mails)
    arrived(mails)
    return mails


def kept_as(mails, files, where, notes=()):
    """The files hold exactly these mails, as a program for Unix keeps them; notes
    are fields that the program adds for itself."""
    got = {}
    for f in files:
        head, _, body = f.read_bytes().partition(b"\n\n")
        head = b"\n".join(line for line in head.split(b"\n") if line.split(b":")[0] not in notes)
        got[ident_of(head)] = head + b"\n\n" + body
    check(len(files) == len(got) == len(mails), f"{where}: {len(files)} files for {len(mails)} mails")
    for mail in mails:
        check(ident_of(mail) in got, f"{where}: mail {ident_of(mail)} is missing")
        same_text(mail, got[ident_of(mail)], where)


def maildir(folder):
    return sorted(f for sub in ("new", "cur") if (folder / sub).is_dir() for f in (folder / sub).iterdir())


def make_maildir(folder):
    for sub in ("new", "cur", "tmp"):
        (folder / sub).mkdir(parents=True)
    return folder


# --- curl ---


def curl(url, *more):
    out = WORK / "curl.out"
    run("curl", "-sS", "--user", f"{MEG}:{PASSWORD}", "-o", out, *more, url)
    return out.read_bytes()


@case()
def curl_imap():
    """In the clear and over STARTTLS; and an APPEND."""
    mails = filled()
    with Mailbox() as box:
        order = [ident_of(m) for m in box.mails()]
    for more in ([], ["--ssl-reqd", "--insecure"]):
        for mail in mails:
            n = order.index(ident_of(mail)) + 1
            same_mail(mail, curl(f"imap://{HOST}:{DEV.imap}/INBOX;MAILINDEX={n}", *more), "curl, IMAP")
    mail = new_mail()
    curl(f"imap://{HOST}:{DEV.imap}/INBOX", "--ssl-reqd", "--insecure", "--upload-file", file_of(mail))
    arrived(mails + [mail])


@case()
def curl_pop3():
    """In the clear and over STLS."""
    mails = filled()
    for more in ([], ["--ssl-reqd", "--insecure"]):
        listed = curl(f"pop3://{HOST}:{DEV.pop3}/", *more).split(b"\r\n")
        check(len([line for line in listed if line]) == len(mails), f"LIST: {listed}")
        got = {}
        for n in range(1, len(mails) + 1):
            one = curl(f"pop3://{HOST}:{DEV.pop3}/{n}", *more)
            got[ident_of(one)] = one
        for mail in mails:
            same_mail(mail, got[ident_of(mail)], "curl, POP3")


# --- mutt ---


def on_terminal(*argv):
    """Runs a program that wants a terminal, and waits for its end."""
    ours, its = pty.openpty()
    program = subprocess.Popen([str(a) for a in argv], stdin=its, stdout=its, stderr=its, env=dict(os.environ, TERM="xterm"))
    os.close(its)
    try:
        while shown := os.read(ours, 65536):
            print(shown)
    except OSError:  # how Linux tells that nobody has the terminal open any more
        pass
    os.close(ours)
    check(program.wait() == 0, f"{argv[0]} ended with {program.returncode}")


@case()
def mutt_read():
    """mutt opens the INBOX over IMAP and over POP3 and saves all mails, byte by byte."""
    mails = filled()
    for kind, port in (("imap", DEV.imap), ("pop", DEV.pop3)):
        saved = WORK / f"mutt-{kind}"
        rc = WORK / f"muttrc-{kind}"
        rc.write_text(f'set ssl_starttls = no\nset ssl_force_tls = no\nset {kind}_user = "{MEG}"\nset {kind}_pass = "{PASSWORD}"\n'
                      'set mbox_type = Maildir\nset confirmappend = no\nset confirmcreate = no\nset wait_key = no\nset quit = yes\n'
                      'set move = no\nset delete = no\nset pop_delete = no\n'
                      # Without its folder mutt would first ask whether to make it.
                      f'set folder = "{WORK}"\n'
                      f"push '<tag-pattern>~A<enter><tag-prefix><copy-message>{saved}<enter><quit>'\n")
        on_terminal("mutt", "-n", "-F", rc, "-f", f"{kind}://{HOST}:{port}/")
        kept_as(mails, maildir(saved), f"mutt, {kind}", notes=(b"Status", b"Content-Length", b"Lines"))


# --- mbsync ---


TUID = (b"X-TUID",)  # by this mbsync finds again what it wrote


def mbsync(name, tls="None"):
    """A folder and a function that brings it and the INBOX in line."""
    top = WORK / name
    top.mkdir()
    way = f"Host {HOST}\nPort {DEV.imap}"
    if tls == "STARTTLS":
        # mbsync is to trust the server's own certificate, under the server's own
        # name; the tunnel is how it gets to that name without DNS.
        (top / "server.pem").write_text(certificate())
        way = (f"Host mx.ryan.example\nCertificateFile {top}/server.pem\n"
               f"""Tunnel "bash -c 'exec 3<>/dev/tcp/{HOST}/{DEV.imap}; cat <&3 & exec cat >&3'\"""")
    (top / "rc").write_text(f"""IMAPAccount meg
{way}
User {MEG}
Pass {PASSWORD}
SSLType {tls}
AuthMechs LOGIN

IMAPStore far
Account meg

MaildirStore near
Path {top}/near/
Inbox {top}/near/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
SyncState *
""")
    (top / "near").mkdir()
    return top / "near" / "INBOX", lambda: run("mbsync", "-V", "-c", top / "rc", "-a")


def certificate():
    c = imaplib.IMAP4(HOST, DEV.imap)
    c.starttls(UNVERIFIED)
    text = ssl.DER_cert_to_PEM_cert(c.sock.getpeercert(binary_form=True))
    c.logout()
    return text


@case(seconds=120)
def mbsync_both_ways():
    """Mails come and go byte-exact, flags and deletions in both directions, and a
    run with nothing to do changes nothing."""
    mails = filled()
    inbox, sync = mbsync("mbsync")
    sync()
    kept_as(mails, maildir(inbox), "mbsync", notes=TUID)
    before = [f.name for f in maildir(inbox)]
    sync()
    check([f.name for f in maildir(inbox)] == before, "a second run changed something")

    # From here to there: a read mark, a mail.
    read = maildir(inbox)[0]
    read.rename(inbox / "cur" / (read.name.partition(":2,")[0] + ":2,S"))
    own = new_mail()
    (inbox / "new" / "1.own.hanks").write_bytes(own.replace(b"\r\n", b"\n"))
    sync()
    with Mailbox() as box:
        there = [re.sub(rb"(?m)^X-TUID: .*\r\n", b"", mail) for mail in box.wait(len(mails) + 1)]
        same_mail(own, next(m for m in there if ident_of(m) == ident_of(own)), "mbsync, to the server")
        seen = box.call("search", None, "SEEN")[0].split()
        check(len(seen) == 1, f"one mail is read, not {seen}")
        # From there to here: a deletion.
        box.call("store", seen[0].decode(), "+FLAGS", r"(\Deleted)")
        box.call("expunge")
    sync()
    check(len(maildir(inbox)) == len(mails), "the deletion did not come here")


@case(seconds=120)
def mbsync_starttls():
    mails = filled()
    inbox, sync = mbsync("mbsync-tls", tls="STARTTLS")
    sync()
    kept_as(mails, maildir(inbox), "mbsync, STARTTLS", notes=TUID)


# --- fetchmail and getmail ---


def mda(top, box):
    """A program that keeps what a fetcher gives it, a file for each mail."""
    path = top / "mda"
    path.write_text(f"#!/bin/sh\nexec cat > {box}/new/$$\n")
    path.chmod(0o755)
    return path


def fetchmail(mails, protocol, port, tls, keep):
    top = WORK / f"fetchmail-{protocol}-{'tls' if tls else 'clear'}"
    box = make_maildir(top / "box")
    (top / "rc").touch(0o600)
    (top / "rc").write_text(f"""poll {HOST} protocol {protocol} port {port} username "{MEG}" password "{PASSWORD}"
  {"sslproto 'tls1.2+' no sslcertck" if tls else "sslproto ''"} no rewrite {"keep" if keep else "nokeep"} fetchall mda "{mda(top, box)}"
""")
    run("fetchmail", "-v", "-f", top / "rc", "--nosyslog", "--nodetach", "--pidfile", top / "pid", "--idfile", top / "ids", "--invisible")
    kept_as(mails, maildir(box), f"fetchmail, {protocol}")
    with Mailbox() as reader:
        check(reader.count() == (len(mails) if keep else 0), f"{reader.count()} mails are left")


@case(seconds=120)
def fetchmail_pop3():
    """Over STLS and leaving the mail there; in the clear and taking it away."""
    mails = filled()
    fetchmail(mails, "POP3", DEV.pop3, tls=True, keep=True)
    fetchmail(mails, "POP3", DEV.pop3, tls=False, keep=False)


@case(seconds=120)
def fetchmail_imap():
    mails = filled()
    fetchmail(mails, "IMAP", DEV.imap, tls=True, keep=True)
    fetchmail(mails, "IMAP", DEV.imap, tls=False, keep=False)


def getmail(mails, kind, port, delete):
    top = WORK / f"getmail-{kind}-{'delete' if delete else 'leave'}"
    box = make_maildir(top / "box")
    (top / "rc").write_text(f"""[retriever]
type = Simple{kind}Retriever
server = {HOST}
port = {port}
username = {MEG}
password = {PASSWORD}
[destination]
type = MDA_external
path = {mda(top, box)}
allow_root_commands = true
[options]
read_all = false
delete = {delete}
delivered_to = false
received = false
""")
    run("getmail", "-v", "-g", top, "-r", top / "rc")
    kept_as(mails, maildir(box), f"getmail, {kind}", notes=(b"X-getmail-retrieved-from-mailbox",))
    with Mailbox() as reader:
        check(reader.count() == (0 if delete else len(mails)), f"{reader.count()} mails are left")
    run("getmail", "-v", "-g", top, "-r", top / "rc")
    check(len(maildir(box)) == len(mails), "a second run fetched a mail again")


@case(seconds=120)
def getmail_pop3():
    mails = filled()
    getmail(mails, "POP3", DEV.pop3, delete=False)
    getmail(mails, "POP3", DEV.pop3, delete=True)


@case(seconds=120)
def getmail_imap():
    mails = filled()
    getmail(mails, "IMAP", DEV.imap, delete=False)
    getmail(mails, "IMAP", DEV.imap, delete=True)


# --- Python ---


@case()
def poplib_session():
    """STLS, all octets of all mails, one session at a time, deletion at QUIT,
    unique ids that stay."""
    mails = filled()

    def login(tls):
        c = poplib.POP3(HOST, DEV.pop3, timeout=30)
        if tls:
            c.stls(UNVERIFIED)
        c.user(MEG)
        c.pass_(PASSWORD)
        return c

    c = login(tls=True)
    check(c.stat()[0] == len(mails), f"STAT {c.stat()}")
    ids = [line.split()[1] for line in c.uidl()[1]]
    got = {}
    for n in range(1, len(mails) + 1):
        one = b"".join(line + b"\r\n" for line in c.retr(n)[1])
        got[ident_of(one)] = one
    for mail in mails:
        same_mail(mail, got[ident_of(mail)], "poplib")
    top = b"\r\n".join(c.top(1, 0)[1])
    check(b"\r\nSubject: " in top and b"Hello" not in top, f"TOP 1 0: {top!r}")
    try:
        login(tls=False)
        check(False, "the maildrop was opened twice")
    except poplib.error_proto as why:
        check(b"IN-USE" in why.args[0], f"a second session: {why}")
    c.dele(1)
    c.quit()
    c = login(tls=False)
    check([line.split()[1] for line in c.uidl()[1]] == ids[1:], "the unique ids stay")
    c.dele(1)
    c.rset()
    c.quit()
    with Mailbox() as box:
        check(box.count() == len(mails) - 1, "RSET takes the deletion back")


@case()
def imaplib_session():
    """STARTTLS, APPEND, SEARCH, FETCH in parts, COPY, flags, folders."""
    emptied()
    mail = new_mail(body=b"first\r\n" + b"\xe4" * 3000 + b"\r\n.\r\n")
    with Mailbox() as box:
        box.imap.logout()
        box.imap = imaplib.IMAP4(HOST, DEV.imap, timeout=30)
        box.imap.starttls(UNVERIFIED)
        box.imap.login(MEG, PASSWORD)
        box.call("append", "INBOX", r"(\Flagged)", None, mail)
        check(box.count() == 1, "one mail after APPEND")
        check(box.call("search", None, "HEADER", "X-Interop", ident_of(mail)) == [b"1"], "SEARCH finds it")
        data = box.call("fetch", "1", "(FLAGS BODY[])")
        check(data[0][1] == mail, "the octets of APPEND come back")
        check(b"\\Flagged" in data[0][0] + data[1], f"the flag of APPEND: {data[0][0]} {data[1]}")
        check(box.call("fetch", "1", "(BODY[]<7.100>)")[0][1] == mail[7:107], "a part by octets")
        check(box.call("fetch", "1", "(BODY[TEXT])")[0][1] == mail.partition(b"\r\n\r\n")[2], "BODY[TEXT]")
        box.call("create", "Letters")
        box.call("copy", "1", "Letters")
        box.call("store", "1", "+FLAGS", r"(\Deleted)")
        box.call("expunge")
        check(box.count() == 0, "EXPUNGE")
        check(box.mails("Letters") == [mail], "COPY keeps the octets")
        box.call("rename", "Letters", "Kept")
        check(box.mails("Kept") == [mail], "RENAME keeps the mail")
        box.call("select", "INBOX")
        box.call("delete", "Kept")
        check("Kept" not in box.folders(), "DELETE")


# --- the scripts of Dovecot's imaptest ---


@case(seconds=300)
def imaptest_scripts():
    """The groups of SUITES/imaptest whose capabilities are announced, or else our
    own scripts, against the running server."""
    emptied()
    said = run("go", "test", "-count=1", "-v", "-run", "TestScripts", "./plugins/imap/imaptest", cwd=ROOT,
               env=dict(os.environ, IMAPTEST_SERVER=f"{HOST}:{DEV.imap} {MEG} {PASSWORD}"))
    check(" played; not announced: " in said, f"the scripts were not played:\n{said}")
