"""Senders that keep a ledger: what was acknowledged, what was put off, which
sessions were cut. What they sent is compared with what arrived."""

import collections
import smtplib
import threading
import time

from harness import HOST, MEG, PRIVATE, Mailbox, check, ident_of, new_mail, same_mail, until


class Load:
    """Several senders at a time, who go on after trouble, to a server of a case's
    own: until so many mails are acknowledged, or the with block ends."""

    LIMIT = 30000
    PER_SESSION = 500  # the server ends a session after 1,000 with a 421

    def __init__(self, mails=LIMIT, senders=8, seconds=180, to=MEG, prefix="load", sender=None, sizes=(100,)):
        self.to, self.from_, self.sizes = to, sender, sizes
        self.end = time.monotonic() + seconds
        self.open_end = mails == self.LIMIT
        self.names = iter([f"{prefix}-{n:05d}" for n in range(1, mails + 1)])
        self.lock, self.enough = threading.Lock(), threading.Event()
        self.mails, self.acknowledged = {}, set()
        self.deferred = []  # replies of 4xx and 5xx, but for a 421
        self.cut = set()  # the mails whose session ended before there was a 250, or a 221 to QUIT
        self.quits = 0
        self.threads = [threading.Thread(target=self.sender, daemon=True) for _ in range(senders)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, kind, *_):
        if self.open_end or kind is not None:
            self.enough.set()
        if kind is not None:
            self.end = 0
        for t in self.threads:
            t.join()

    def reaches(self, count):
        """Waits until so many are acknowledged."""
        until(120, lambda: f"{count} mails acknowledged: {self}", lambda: len(self.acknowledged) >= count)

    def done(self):
        """Whether all senders have ended."""
        return not any(t.is_alive() for t in self.threads)

    def also(self, other):
        """What another load sent before, to the same mailbox."""
        self.mails.update(other.mails)
        self.acknowledged |= other.acknowledged

    def sender(self):
        """A mail that got no 250 is offered again, as clients do."""
        session, name, sent = None, None, 0
        while time.monotonic() < self.end:
            if name is None:
                with self.lock:
                    name = None if self.enough.is_set() else next(self.names, None)
                if name is None:
                    break
                with self.lock:
                    size = self.sizes[len(self.mails) % len(self.sizes)]
                    mail = new_mail(name, body=(name + " ").encode() * 20 + b"\r\n" + (b"x" * 78 + b"\r\n") * max(1, size // 80))
                    self.mails[name] = mail
            try:
                if session is None:
                    session = smtplib.SMTP(HOST, PRIVATE.mx, timeout=60)
                # The sender's address is the mail's name: the queue lists it.
                session.sendmail(self.from_ or f"{name}@hanks.example", [self.to], mail)
            except ConnectionRefusedError:  # there is no server at the moment
                time.sleep(0.05)
            except (smtplib.SMTPException, OSError) as why:
                reply = answer(why)
                with self.lock:
                    if reply and reply[0] != 421:
                        self.deferred.append(reply)
                    else:
                        self.cut.add(name)
                        session = None
                time.sleep(0.05)  # a client's pause
            else:
                with self.lock:
                    self.acknowledged.add(name)
                name, sent = None, sent + 1
                if sent % self.PER_SESSION == 0:
                    self.quit(session, "after its share of mails")
                    session = None
        if session:
            self.quit(session, name or "at the end")

    def quit(self, session, name):
        """The end of a session that nothing has cut."""
        try:
            ended = session.quit()[0] == 221
        except (smtplib.SMTPException, OSError):
            ended = False
        with self.lock:
            if not ended:
                self.cut.add(name)
            self.quits += ended

    def all_acknowledged(self):
        check(len(self.acknowledged) == len(self.mails) and (self.open_end or next(self.names, None) is None),
              f"not all mails could be sent: {self}; the last replies: {self.deferred[-3:]}")

    def arrived(self, maybe_twice=(), elsewhere=(), edited=lambda mail: mail):
        """Every acknowledged mail is in the INBOX or elsewhere, once and byte-exact
        but for what edited does, and nothing else is there. Returns the mails in the
        INBOX."""
        with Mailbox(port=PRIVATE.imap) as box:
            got = box.mails()
        self.each_once([ident_of(m) for m in got] + list(elsewhere), maybe_twice)
        for mail in got:
            same_mail(edited(self.mails[ident_of(mail)]), mail, "INBOX")
        return got

    def each_once(self, names, maybe_twice=()):
        """The names of the mails that arrived are those of the acknowledged ones."""
        count = collections.Counter(names)
        missing = self.acknowledged - set(count)
        check(not missing, f"{len(missing)} acknowledged mails are missing: {sorted(missing)[:5]}")
        strange = set(count) - set(self.mails)
        check(not strange, f"mails that nobody sent: {sorted(strange)[:5]}")
        twice = {name for name, times in count.items() if times > 1} - set(maybe_twice)
        check(not twice, f"{len(twice)} mails arrived more than once: {sorted(twice)[:5]}")

    def __str__(self):
        return (f"{len(self.acknowledged)} mails acknowledged, {len(self.deferred)} put off, "
                f"{len(self.cut)} met the end of their session")


def answer(why):
    """The (code, text) that a server gave, or None."""
    if isinstance(why, smtplib.SMTPRecipientsRefused):
        return next(iter(why.recipients.values()))
    if isinstance(why, smtplib.SMTPResponseException):
        return why.smtp_code, why.smtp_error
    return None
