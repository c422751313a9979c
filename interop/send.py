"""Clients that send: swaks, curl, mutt, Python's smtplib."""

import email
import email.policy
import email.utils
import smtplib

from harness import (DEV, HOST, MEG, PASSWORD, TOM, UNVERIFIED, WORK, Mailbox, arrived, case, check, emptied, file_of,
                     ident_of, new_mail, run, same_mail, until)


def swaks(mail, *more, port=DEV.mx, to=MEG, ok=True):
    # --data takes %...% and a backslash with an n apart: the mails have neither.
    # swaks ends the last line itself; all other octets are the file's.
    path = WORK / f"{ident_of(mail)}.swaks"
    path.write_bytes(mail.removesuffix(b"\r\n"))
    return run("swaks", "--server", HOST, "--port", port, "--from", TOM, "--to", to, "--helo", "hanks.example",
               "--data", f"@{path}", *more, ok=ok)


@case()
def swaks_mx():
    emptied()
    mail = new_mail()
    said = swaks(mail)
    check("250 2.6.0" in said, "250 2.6.0 after the data")
    arrived([mail])


@case()
def swaks_mx_starttls():
    emptied()
    mail = new_mail()
    said = swaks(mail, "--tls")
    check("TLS started" in said, "TLS was started")
    arrived([mail])


@case()
def swaks_submission_auth():
    emptied()
    plain, login, clear = new_mail(), new_mail(), new_mail()
    for mail, mechanism, more in ((plain, "PLAIN", ["--tls"]), (login, "LOGIN", ["--tls"]), (clear, "PLAIN", [])):
        said = swaks(mail, "--auth", mechanism, "--auth-user", TOM, "--auth-password", PASSWORD, *more, port=DEV.submission)
        check("235 2.7.0" in said, f"AUTH {mechanism} got its 235 2.7.0")
    arrived([plain, login, clear])


@case()
def swaks_wrong_password():
    said = swaks(new_mail(), "--tls", "--auth", "PLAIN", "--auth-user", TOM, "--auth-password", "wrong",
                 port=DEV.submission, ok=False)
    check("535 5.7.8" in said, "535 5.7.8 for a wrong password")
    said = swaks(new_mail(), port=DEV.submission, ok=False)
    check("530 5.7.0" in said, "530 5.7.0 without AUTH")


@case()
def swaks_unknown_user():
    said = swaks(new_mail(), to="nobody@ryan.example", ok=False)
    check("550 5.1.1" in said, "550 5.1.1 for an unknown user")


@case()
def swaks_relay_denied():
    said = swaks(new_mail(), to="annie@reed.example", ok=False)
    check("554 5.7.1" in said, "554 5.7.1 for a stranger's domain")


@case()
def curl_smtp():
    emptied()
    clear, tls = new_mail(), new_mail()
    for mail, more in ((clear, []), (tls, ["--ssl-reqd", "--insecure"])):
        run("curl", "-sS", "--url", f"smtp://{HOST}:{DEV.submission}", "--user", f"{TOM}:{PASSWORD}", "--mail-from", TOM,
            "--mail-rcpt", MEG, "--upload-file", file_of(mail), *more)
    arrived([clear, tls])


def taken_out(mail, *names):
    """The mail without these header fields of one line, and what they said."""
    head, end, body = mail.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    out = [line for line in lines if line.split(b":")[0] in names]
    rest = b"\r\n".join(line for line in lines if line not in out)
    return rest + end + body, [line.partition(b": ")[2].decode() for line in out]


@case()
def mutt_send():
    """What arrives is the copy that mutt keeps for itself, every field and octet."""
    emptied()
    body = "Hello Meg,\n\nümläute ✓ and a line of dots:\n.\n..\n.hidden\nFrom here on\n\ttab  \n"
    attached = bytes(range(256)) * 300
    (WORK / "mutt.txt").write_text(body)
    (WORK / "mutt.bin").write_bytes(attached)
    (WORK / "muttrc-send").write_text(
        f'set smtp_url = "smtp://{TOM}@{HOST}:{DEV.submission}"\nset smtp_pass = "{PASSWORD}"\nset smtp_authenticators = "plain"\n'
        f'set ssl_starttls = no\nset ssl_force_tls = no\nset from = "{TOM}"\nset realname = "Tom"\nset use_envelope_from = yes\nset use_8bitmime = yes\n'
        f'set mbox_type = Maildir\nset copy = yes\nset record = "{WORK}/mutt-sent"\nset fcc_attach = yes\n'
        'set charset = "utf-8"\nset send_charset = "utf-8"\n')
    for more in ([], ["-a", WORK / "mutt.bin"]):
        with open(WORK / "mutt.txt", "rb") as stdin:
            run("mutt", "-n", "-F", WORK / "muttrc-send", "-s", "Grüße from mutt", *more, "--", MEG, stdin=stdin)
    with Mailbox() as box:
        got = {email.message_from_bytes(m)["Message-ID"]: m for m in box.wait(2)}
    copies = [f.read_bytes() for sub in ("new", "cur") for f in (WORK / "mutt-sent" / sub).iterdir()]
    check(len(copies) == 2, f"mutt kept {len(copies)} copies")
    for copy in copies:
        # Status, Lines and Content-Length are in mutt's copy alone; its Date is of
        # the moment when it was written, a second later at times.
        sent, _ = taken_out(copy.replace(b"\n", b"\r\n"), b"Status", b"Lines", b"Content-Length")
        sent, kept = taken_out(sent, b"Date")
        arrived_as, dates = taken_out(got[email.message_from_bytes(copy)["Message-ID"]], b"Date")
        check(len(dates) == len(kept) == 1, f"the dates {dates}, in the copy {kept}")
        apart = email.utils.parsedate_to_datetime(kept[0]) - email.utils.parsedate_to_datetime(dates[0])
        check(abs(apart.total_seconds()) < 60, f"the date {dates[0]}, in the copy {kept[0]}")
        same_mail(sent, arrived_as, "mutt")
    texts = [email.message_from_bytes(m, policy=email.policy.default) for m in got.values()]
    for mail in texts:
        check(mail["Subject"] == "Grüße from mutt", f"subject {mail['Subject']!r}")
        check(mail.get_body().get_content() == body.replace("\n", "\r\n"), f"text {mail.get_body().get_content()!r}")
    check([part.get_payload(decode=True) for mail in texts for part in mail.iter_attachments()] == [attached], "the attachment's octets")


@case()
def smtplib_submission():
    emptied()
    mails = [new_mail() for _ in range(4)]
    with smtplib.SMTP(HOST, DEV.submission, timeout=30) as s:
        s.starttls(context=UNVERIFIED)
        s.login(TOM, PASSWORD)
        for mail in mails[:3]:  # one connection, several mails
            s.sendmail(TOM, [MEG], mail)
    with smtplib.SMTP(HOST, DEV.submission, timeout=30) as s:
        s.login(TOM, PASSWORD)
        s.sendmail(TOM, [MEG], mails[3])
    arrived(mails)


@case()
def smtplib_adds_fields():
    """A submitted mail without Message-ID and Date gets them, and nothing else changes."""
    emptied()
    whole = new_mail()
    bare = b"".join(l for l in whole.splitlines(True) if not l.startswith((b"Date:", b"Message-ID:")))
    with smtplib.SMTP(HOST, DEV.submission, timeout=30) as s:
        s.login(TOM, PASSWORD)
        s.sendmail(TOM, [MEG], bare)
    with Mailbox() as box:
        got = box.wait(1)[0]
    head = got[:got.index(b"\r\n\r\n")]
    for name in (b"\r\nDate: ", b"\r\nMessage-ID: <"):
        check(head.count(name) == 1, f"one {name!r} in {head!r}")
    kept = b"".join(l for l in got.splitlines(True) if not l.startswith((b"Date:", b"Message-ID:")))
    same_mail(bare, kept, "INBOX")


@case()
def smtplib_utf8():
    emptied()
    mail = new_mail(subject="Grüße, Мэг", body="Übergrößenträger ✓\r\n".encode())
    with smtplib.SMTP(HOST, DEV.mx, timeout=30) as s:
        s.ehlo("hanks.example")
        for word in ("8bitmime", "smtputf8", "size", "pipelining", "chunking", "dsn", "enhancedstatuscodes", "starttls"):
            check(s.has_extn(word), f"EHLO offers {word.upper()}")
        s.sendmail("jürgen@hanks.example", [MEG], mail, ["SMTPUTF8", "BODY=8BITMIME"])
    arrived([mail])


@case()
def smtplib_8bitmime():
    emptied()
    mail = new_mail(body=bytes(b for b in range(128, 256)) + b"\r\n" + b"\xff\xfe latin \xe4\xf6\xfc\r\n")
    with smtplib.SMTP(HOST, DEV.mx, timeout=30) as s:
        s.sendmail(TOM, [MEG], mail, ["BODY=8BITMIME"])
    arrived([mail])


@case()
def smtplib_dots():
    """Dot-stuffing, trailing blanks, empty lines: all octets come back."""
    emptied()
    mails = [
        new_mail(body=b".\r\n..\r\n...\r\n.a\r\n\r\n.\r\n"), new_mail(body=b""), new_mail(body=b"\r\n\r\n\r\n"),
        new_mail(body=b"From here\r\n>From there\r\n \t \r\n" + b"x" * 998 + b"\r\n"), new_mail(body=b"." * 70 + b"\r\n."  b"\r\n"),
    ]
    with smtplib.SMTP(HOST, DEV.mx, timeout=30) as s:
        for mail in mails:
            s.sendmail(TOM, [MEG], mail)
    arrived(mails)


@case(seconds=120)
def smtplib_20_megabytes():
    emptied()
    line = b"0123456789abcdef" * 4 + b"\r\n"
    mail = new_mail(body=line * (20_000_000 // len(line)))
    with smtplib.SMTP(HOST, DEV.submission, timeout=60) as s:
        s.login(TOM, PASSWORD)
        s.sendmail(TOM, [MEG], mail)
    arrived([mail], seconds=60)
    emptied()


@case()
def smtplib_size_refused():
    with smtplib.SMTP(HOST, DEV.mx, timeout=30) as s:
        s.ehlo("hanks.example")
        code, text = s.mail(TOM, [f"SIZE={1 << 40}"])
        check(code == 552 and text.startswith(b"5.3.4"), f"552 5.3.4 for a declared size beyond the limit: {code} {text}")


@case()
def smtplib_alias():
    """One address, two people; plus-addresses go to a folder."""
    emptied()
    emptied(TOM)
    both, tag = new_mail(to="both@ryan.example"), new_mail(to="meg+shop@ryan.example")
    with smtplib.SMTP(HOST, DEV.mx, timeout=30) as s:
        s.sendmail("kathleen@fox.example", ["both@ryan.example"], both)
        arrived([both])
        arrived([both], user=TOM)
        s.sendmail("kathleen@fox.example", ["meg+shop@ryan.example"], tag)
    with Mailbox() as box:
        until(20, "the folder of the plus-address", lambda: [f for f in box.folders() if f.lower() == "shop"])
        folder = [f for f in box.folders() if f.lower() == "shop"][0]
        same_mail(tag, box.wait(1, folder=folder)[0], folder)
        check(box.count() == 1, "the tagged mail is not in the INBOX too")
