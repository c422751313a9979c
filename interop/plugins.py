"""The example plugins in a running server: what each is for, seen by those who send
and who read; then killed and reloaded under load, which costs nobody a mail."""

import base64
import collections
import hashlib
import hmac
import json
import os
import poplib
import re
import smtplib
import threading

from conform import TAGGER, WEBHOOK, Answers, script
from crash import killing, only_held
from harness import (BIN, CONFIGS, HOST, MEG, PASSWORD, PLUGINS, PRIVATE, TOM, WORK, Failed, Mailbox, arrived, case, check, ident_of, new_mail,
                     private, run, same_mail, until)
from protocol import Wire, stuffed

HOOK = PRIVATE.base + 8080
LMTP = PRIVATE.base + 2424
SALES = "sales@ryan.example"


def send(mail, *to, sender=TOM):
    """One mail by SMTP; returns the last reply."""
    with smtplib.SMTP(HOST, PRIVATE.mx, timeout=60) as s:
        try:
            s.sendmail(sender, to, mail)
        except smtplib.SMTPDataError as why:
            return f"{why.smtp_code} {why.smtp_error.decode()}"
        return "250"


def starts(got, expected):
    check(got.startswith(expected), f"{expected!r} expected, got {got!r}")


def reloads(server, instance):
    """For killing: waits until the instance is there again, and reloads it."""

    def there():
        return server.plugins().get(instance)

    def between():
        old = until(60, f"{instance} is there again", there)
        server.command("plugin", "reload", instance)
        check(there() != old, f"{instance} has its old process after a reload")

    return between


# --- Python ---

SUBJECTS = f"""
plugin "subject-tagger" {{
  path = "{TAGGER}"
}}

filter "subject-tagger" "inbox" {{
  inside   = ["ryan.example"]
  external = "[external]"

  rule "lottery" {{
    pattern = "lottery|you have won"
    score   = 3
    not_for = ["{MEG}"]
  }}

  rule "urgent" {{
    pattern = "urgent"
    score   = 3
  }}
}}
"""
MARKED = dict(mx="filters = [filter.subject-tagger.inbox]")


def marked(mail):
    return mail.replace(b"\r\nSubject: ", b"\r\nSubject: [external] ", 1)


@case(seconds=120, shared=False)
def subject_tagger():
    """It marks, tags, and refuses a mail for one of its recipients."""
    lmtp = f"""
receive "lmtp" "in" {{
  listen  = ["{HOST}:{LMTP}"]
  filters = [filter.subject-tagger.inbox]
}}
"""
    held = 'route "adverts" {\n  when = tags.score > 5\n  hold = "an urgent advert"\n}'
    with private("subject_tagger", routes=held, extra=SUBJECTS + lmtp, **MARKED) as server:
        plain = new_mail()
        starts(send(plain, MEG), "250")
        arrived([marked(plain)], port=PRIVATE.imap)

        # One of two takes it: the client is told that it is taken, and Tom that Meg
        # does not.
        both = new_mail(subject="A lottery")
        starts(send(both, MEG, TOM), "250")
        with Mailbox(TOM, PRIVATE.imap) as box:
            mails = box.wait(2)
        notice = next(m for m in mails if b"multipart/report" in m)
        mails.remove(notice)
        same_mail(marked(both), mails[0], "Tom's INBOX")
        check(b"Final-Recipient: rfc822;" + MEG.encode() in notice.replace(b"rfc822; ", b"rfc822;"), f"a notice about Meg: {notice!r}")
        check(b"takes no mail of this kind: lottery" in notice, f"the notice says why: {notice!r}")

        # LMTP has a reply for each.
        local = new_mail(subject="You have won")
        with Wire(LMTP) as w:
            w.say("LHLO hanks.example", "250")
            w.send(f"MAIL FROM:<{TOM}>\r\nRCPT TO:<{MEG}>\r\nRCPT TO:<{TOM}>\r\nDATA\r\n".encode())
            w.expect("250", "250", "250", "354")
            w.send(stuffed(local))
            w.expect(f"550 5.7.1 <{MEG}> takes no mail of this kind: lottery", "250")
            w.say("QUIT", "221")
        with Mailbox(TOM, PRIVATE.imap) as box:
            check(ident_of(local) in [ident_of(m) for m in box.wait(3) if b"X-Interop: " in m], "Tom got what LMTP took for him")

        # Nobody is left.
        starts(send(new_mail(subject="The lottery"), MEG), f"550 5.7.1 <{MEG}> takes no mail of this kind: lottery")
        arrived([marked(plain)], port=PRIVATE.imap)

        starts(send(new_mail(subject="Urgent: lottery"), TOM), "250")
        queued = until(20, "one held mail", lambda: [m for m in server.queue() if m["recipients"][0]["state"] == "held"])[0]
        check(queued["recipients"][0]["reason"] == "an urgent advert" and queued["subject"], f"the held mail: {queued}")
        check("lottery" in json.dumps(queued["tags"]) and "urgent" in json.dumps(queued["tags"]), f"its tags: {queued['tags']}")


@case(seconds=240, shared=False)
def subject_tagger_killed():
    """on_failure = "defer": 451, and no mail goes past it."""
    with private("subject_tagger_killed", extra=SUBJECTS, **MARKED) as server:
        load = killing(server, "filter.subject-tagger.inbox", between=reloads(server, "filter.subject-tagger.inbox"), kills=4)
        check(load.deferred, "no mail was put off: the kills did not meet the load")
        others = [reply for reply in load.deferred if reply[0] != 451]
        check(not others, f"other replies than 451: {others[:3]}")
        server.drained(120)
        load.arrived(edited=marked)
    return f"4 kills and reloads: {load}"


# --- Node ---

SECRET = "a long and random word"
HASH = re.search(r'password += ("\$argon2id.*")', (CONFIGS / "dev-people.hcl").read_text())[1]
HOOKED = dict(
    people=f'\nuser "{SALES}" {{\n  password = {HASH}\n}}\n',
    routes=f'route "sales" {{\n  when    = recipient.address == "{SALES}"\n  deliver = deliver.webhook.crm\n}}\n',
    extra=f"""
plugin "webhook" {{
  path = "{WEBHOOK}"
}}

deliver "webhook" "crm" {{
  url      = "http://{HOST}:{HOOK}/mail"
  secret   = "{SECRET}"
  max_wait = "5s"
}}
""")


class Hook(Answers):
    """A server as examples/webhook/README.md asks for: it keeps the keys that it has
    seen. How it treats the nth request with a key, says say(n, subject): a status,
    or None to take the mail and not say so."""

    def __init__(self, say):
        super().__init__(HOOK, self.post)
        self.say, self.lock = say, threading.Lock()
        self.asked, self.taken, self.wrong = collections.Counter(), {}, []

    def post(self, post, body):
        key, signed = post.headers["Idempotency-Key"], "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        said = json.loads(body)
        mail = base64.b64decode(said["message"])
        with self.lock:
            if not key or post.headers["Stagecoach-Signature"] != signed:
                self.wrong.append(dict(post.headers))
            self.asked[key] += 1
            if key in self.taken:
                if self.taken[key] != mail:
                    self.wrong.append(f"another mail with the key {key}")
                return 204
            status = self.say(self.asked[key], dict(said["header"])["Subject"])
            if status is None or status < 300:
                self.taken[key] = mail
            return status

    def once(self):
        """The mails that were taken, each under one key."""
        check(not self.wrong, f"{len(self.wrong)} requests were wrong: {self.wrong[:1]}")
        mails = {ident_of(m): m for m in self.taken.values()}
        check(len(mails) == len(self.taken), f"{len(self.taken)} keys for {len(mails)} mails: some came twice")
        return mails


@case(seconds=120, shared=False)
def webhook():
    """A web server fails first and then takes each mail without saying so: each is
    put off, and delivered once for its key. What it refuses for good comes back."""
    mails, refused = [new_mail(to=SALES) for _ in range(20)], new_mail(to=SALES, subject="No such customer")

    def say(n, subject):
        return 410 if subject == "No such customer" else [503, None, 204][min(n, 3) - 1]

    with private("webhook", **HOOKED) as server, Hook(say) as hook:
        for mail in mails + [refused]:
            starts(send(mail, SALES), "250")

        def put_off():
            return [r for m in server.queue() for r in m["recipients"] if r.get("last", {}).get("text", "").find("503") >= 0]

        until(30, lambda: f"a mail that was put off for a 503: {server.queue()[:1]}", put_off)
        server.drained(60)
        got = hook.once()
        check(set(got) == {ident_of(m) for m in mails}, f"{len(got)} mails were taken, not {len(mails)}")
        for mail in mails:
            same_mail(mail, got[ident_of(mail)], "the web server")
        asked = sorted(hook.asked.values())
        check(asked == [1] + [3] * len(mails), f"requests by key: {asked}")
        with Mailbox(TOM, PRIVATE.imap) as box:
            notice = box.wait(1)[0]
        check(b"multipart/report" in notice and b"410" in notice and SALES.encode() in notice, f"a notice with the server's 410: {notice!r}")
    return f"{len(mails)} mails, {sum(asked)} requests"


@case(seconds=480, shared=False)
def webhook_killed():
    """Its deliveries are tried again under the same key: nothing is lost, nothing is
    taken twice, and no client notices."""
    with private("webhook_killed", **HOOKED) as server, Hook(lambda *_: 204) as hook:
        load = killing(server, "deliver.webhook.crm", between=reloads(server, "deliver.webhook.crm"), kills=4, to=SALES)
        check(not load.deferred, f"{len(load.deferred)} mails were put off: {load.deferred[:1]}")
        server.drained(60)
        load.each_once(list(hook.once()))
        again = sum(hook.asked.values()) - len(hook.asked)
    return f"4 kills and reloads: {load}, {again} requests with a key once more"


# --- Go ---

def attachments(on_failure):
    program = PLUGINS / "attachments"
    return dict(mx="filters = [filter.attachments.no_exe]", extra=f"""
plugin "attachments" {{
  path   = "{program}"
  sha256 = "{hashlib.sha256(program.read_bytes()).hexdigest()}"
}}

filter "attachments" "no_exe" {{
  forbid     = [".exe"]
  on_failure = "{on_failure}"
}}
""")


def attached(name):
    mail = new_mail(body=f'--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n--b\r\nContent-Disposition: attachment; filename="{name}"\r\n'
                    "\r\nMZ\r\n--b--\r\n".encode())
    return mail.replace(b"\r\n\r\n", b'\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n', 1)


@case(seconds=120, shared=False)
def attachments_refused():
    with private("attachments_refused", **attachments("defer")):
        good = attached("letter.pdf")
        starts(send(attached("setup.exe"), MEG), "550 5.7.1 We take no attachments that end in .exe")
        starts(send(good, MEG), "250")
        arrived([good], port=PRIVATE.imap)


@case(seconds=240, shared=False)
def attachments_killed():
    """on_failure = "accept": nobody sees anything."""
    with private("attachments_killed", **attachments("accept")) as server:
        load = killing(server, "filter.attachments.no_exe", between=reloads(server, "filter.attachments.no_exe"), kills=4)
        check(not load.deferred, f"{len(load.deferred)} mails were put off: {load.deferred[:1]}")
        server.drained(120)
        load.arrived()
        starts(send(attached("setup.exe"), MEG), "550 5.7.1")
    return f"4 kills and reloads: {load}"


BOOK = f"""
plugin "audit" {{
  path = "{PLUGINS}/audit"
}}

filter "audit" "book" {{}}

observe {{
  filters = [filter.audit.book]
}}
"""


@case(seconds=240, shared=False)
def audit_killed():
    """The book has a line for each mail that came, was refused, and was delivered,
    whatever happens to who writes it; nobody waits for it."""
    with private("audit_killed", extra=BOOK) as server:
        load = killing(server, "filter.audit.book", between=reloads(server, "filter.audit.book"), kills=4)
        check(not load.deferred, f"{len(load.deferred)} mails were put off: {load.deferred[:1]}")
        server.drained(120)
        load.arrived()
        try:
            send(new_mail(), "nobody@ryan.example")
            raise Failed("an unknown user was taken")
        except smtplib.SMTPRecipientsRefused:
            pass
        pages = list(server.data.rglob("audit.jsonl"))
        check(len(pages) == 1, f"one book, not {pages}")

        def lines():
            return [json.loads(line) for line in pages[0].read_text().splitlines(True) if line.endswith("\n")]

        until(30, lambda: f"the last line is of the refusal: {lines()[-1:]}", lambda: "REFUSED" in [l["what"] for l in lines()])
        numbers = [l["sequence"] for l in lines()]
        check(numbers == sorted(set(numbers)), "a line is there twice, or out of order")
        for what in ("QUEUED", "DELIVERED"):
            load.each_once([l["from"].partition("@")[0] for l in lines() if l["what"] == what])
    return f"4 kills and reloads: {load}, {len(numbers)} lines"


# --- a shell script ---

CHECK = """cat >/dev/null
case "$SENDER" in
  annie@*) echo "We know you, $SENDER" >&2; exit 77 ;;
  later@*) exit 75 ;;
esac
echo "X-Checked: yes"
"""


def checked(on_failure):
    return dict(mx="filters = [filter.exec.checked]", extra=f"""
filter "exec" "checked" {{
  command    = ["{script("check", CHECK)}"]
  mode       = "headers"
  on_failure = "{on_failure}"
}}
""")


@case(seconds=120, shared=False)
def exec_script():
    """Exit statuses are verdicts, its output is a header field."""
    with private("exec_script", **checked("defer")):
        mail = new_mail()
        starts(send(mail, MEG), "250")
        starts(send(new_mail(), MEG, sender="annie@reed.example"), "550 5.7.1 We know you, annie@reed.example")
        starts(send(new_mail(), MEG, sender="later@reed.example"), "451 4.7.1")
        arrived([mail], port=PRIVATE.imap)
        with Mailbox(port=PRIVATE.imap) as box:
            check(box.fields("X-Checked") == ["yes"], f"its field: {box.fields('X-Checked')}")


@case(seconds=240, shared=False)
def exec_killed():
    """on_failure = "hold": mail in that moment is held, all other mail has its field."""
    with private("exec_killed", **checked("hold")) as server:
        load = killing(server, "filter.exec.checked", between=reloads(server, "filter.exec.checked"), kills=4)
        check(not load.deferred, f"{len(load.deferred)} mails were put off: {load.deferred[:1]}")
        held = only_held(server)
        got = load.arrived(elsewhere=held)
        check(all(b"\r\nX-Checked: yes\r\n" in b"\r\n" + mail[:mail.index(b"\r\n\r\n")] for mail in got), "a mail went past the script")
    return f"4 kills and reloads: {load}, {len(held)} held"


# --- a storage as `plugin new` writes it ---


def on_new_storage(language, name):
    """A server of a case's own whose mail is kept by a new storage, named "shelf"."""
    folder = WORK / f"{name}-shelf"
    written = json.loads(run(BIN, "plugin", "new", "storage", "shelf", "--lang", language, "--dir", folder, "--json"))
    if "npm ci" in written["Commands"]:
        run("npm", "ci", cwd=folder, env=dict(os.environ, npm_config_offline="true"))
    server = private(name)
    text, embedded = server.config.read_text(), 'storage "local" "mail" {}'
    check(embedded in text and "storage.local.mail" in text, f"configs/dev.hcl has no {embedded}: change it here too")
    named = written["Config"].replace('storage "shelf" "my" {}', 'storage "shelf" "mail" {}')
    server.config.write_text(text.replace(embedded, named).replace("storage.local.mail", "storage.shelf.mail"))
    return server


def reads_it(server):
    """IMAP and POP3 read what was sent, sort it into folders, find it, and remove it."""
    mails = [new_mail(), new_mail(body="Gr\u00fc\u00dfe \u2713\r\n.\r\n..\r\n".encode(), subject="=?utf-8?q?Gr=C3=BC=C3=9Fe?="),
             new_mail(body=b"".join(b"%070d\r\n" % n for n in range(3000)))]
    for mail in mails:
        starts(send(mail, MEG), "250")
    arrived(mails, port=PRIVATE.imap)
    pop = poplib.POP3(HOST, PRIVATE.pop3, timeout=60)
    pop.user(MEG)
    pop.pass_(PASSWORD)
    got = {ident_of(m): m for m in (b"\r\n".join(pop.retr(n)[1]) + b"\r\n" for n in range(1, pop.stat()[0] + 1))}
    for mail in mails:
        same_mail(mail, got[ident_of(mail)], "POP3")
    with Mailbox(port=PRIVATE.imap) as box:
        box.call("create", "Lists/Nuts")
        box.call("select", "INBOX")
        sizes = re.findall(r"RFC822.SIZE (\d+)", str(box.call("fetch", "1:*", "(RFC822.SIZE ENVELOPE BODYSTRUCTURE)")))
        check(sorted(map(int, sizes)) == sorted(len(m) for m in box.mails()), f"sizes: {sizes}")
        box.imap.literal = "gr\u00fc\u00dfe".encode()
        found = box.call("search", "UTF-8", "SUBJECT")[0].split()
        check(len(found) == 1, f"found by an encoded subject: {found}")
        box.call("store", found[0].decode(), "+FLAGS", "(\\Flagged $Work)")
        box.call("copy", found[0].decode(), "Lists/Nuts")
        same_mail(mails[1], box.mails("Lists/Nuts")[0], "Lists/Nuts")
        flags = str(box.call("fetch", "1", "(FLAGS)"))
        check("Flagged" in flags and "$Work" in flags, f"flags of the copy: {flags}")
    pop.dele(1)
    pop.quit()
    with Mailbox(port=PRIVATE.imap) as box:
        check(box.count() == len(mails) - 1, f"{box.count()} mails after one was removed by POP3")
        box.empty()


def keeps_it(server):
    """Killed and reloaded under load: each mail is there once, and IMAP never sees
    less than before."""
    seen, instance = [0], "storage.shelf.mail"
    again = reloads(server, instance)

    def look():
        try:
            with Mailbox(port=PRIVATE.imap) as box:
                now = box.count()
        except (OSError, Mailbox.Error):
            return False
        check(now >= seen[0], f"{now} mails in the INBOX, and before the kill {seen[0]}")
        seen[0] = now
        return True

    def between():
        again()
        until(60, "IMAP works again", look)

    load = killing(server, instance, between=between, kills=4)
    check(not load.deferred, f"{len(load.deferred)} mails were put off: {load.deferred[:1]}")
    server.drained(120)
    load.arrived()
    return f"4 kills and reloads: {load}"


@case(seconds=300, shared=False)
def new_node_storage():
    with on_new_storage("node", "new_node_storage") as server:
        reads_it(server)
        return keeps_it(server)


@case(seconds=300, shared=False)
def new_python_storage():
    with on_new_storage("python", "new_python_storage") as server:
        reads_it(server)
        return keeps_it(server)
