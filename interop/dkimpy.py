"""DKIM beside Debian's python3-dkim and OpenDKIM: each signs what the other verifies,
and both say the same of mails that were changed on the way."""

import base64
import json
import os
import random
import re
import subprocess
from pathlib import Path

import dkim

from bridges_milter import Daemon, connects, folder_of, lend
from harness import BIN, WORK, case, check, run

FORMS = ["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"]
MAILS = 2000


def letter(rng):
    """A mail with what canonical forms differ about."""
    blank = lambda most: "".join(rng.choice(" \t") for _ in range(rng.randrange(most)))
    word = lambda: "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCDEÄß0123456789=;:.,-_") for _ in range(rng.randrange(1, 12)))
    fold = lambda: rng.choice([" ", " ", " ", "  ", "\t", "\r\n ", "\r\n\t", " \r\n  "])
    text = lambda: "".join(word() + fold() for _ in range(rng.randrange(1, 9))) + word()
    fields = [("From", "Tom <tom@hanks.example>")]
    for name in ["To", "Subject", "Date", "Message-ID", "Cc", "MIME-Version", "Content-Type", "X-Odd", "Reply-To", "List-Id", "Subject"]:
        if rng.random() < 0.6:
            fields.append((name, text()))
    rng.shuffle(fields)
    head = ""
    for name, value in fields:
        name = rng.choice([name, name, name.lower(), name.upper()])
        head += f"{name}:{blank(3)}{value}{blank(3)}\r\n"
    lines = []
    for _ in range(rng.randrange(12)):
        lines.append(rng.choice(["", "", blank(5), text().replace("\r\n", ""), ".", "..", "--", "x" * rng.randrange(200), blank(3) + word() + blank(4)]))
    body = "".join(line + "\r\n" for line in lines)
    return (head + "\r\n" + body).encode()


def changed(rng, mail):
    """The mail with an octet more or another one somewhere below its signatures.
    A line end stays one: mail with a bare CR or LF is refused before it is verified."""
    begin = mail.index(b"From:") if b"From:" in mail else len(mail) // 2
    at = rng.randrange(begin, len(mail))
    out = [mail[:at] + b" " + mail[at:], mail[:at] + mail[at:].replace(b" ", b"  ", 1), mail + b"\r\n",
           mail[:at] + bytes([mail[at] ^ 1 if mail[at] > 64 else mail[at]]) + mail[at + 1:]][rng.randrange(4)]
    return mail + b"more\r\n" if re.search(rb"\r(?!\n)|(?<!\r)\n", out) else out


class Ours:
    def __init__(self, keys):
        self.process = subprocess.Popen([os.path.join(os.environ["PLUGINS"], "dkimdiff"), keys], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, mail, sign="", milter=""):
        self.process.stdin.write(json.dumps({"mail": base64.b64encode(mail).decode(), "sign": sign, "milter": milter}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        check(line, "dkimdiff ended")
        return json.loads(line)

    def through(self, milter, mail):
        return base64.b64decode(self.ask(mail, milter=f"unix:{milter}")["mail"])

    def close(self):
        self.process.stdin.close()
        check(self.process.wait(20) == 0, "dkimdiff failed")


@case(seconds=300)
def dkim_beside_dkimpy():
    """2,000 generated mails signed and verified by python3-dkim and by us, and each changed."""
    keys = os.path.join(WORK, "dkim-keys")
    made = json.loads(run(BIN, "dkim", "new", "hanks.example", "--keys", keys, "--selector", "a", "--json"))
    zone = {k["name"]: k["record"] for k in made}
    pem = {k["type"]: Path(k["path"]).read_bytes() for k in made}
    der = base64.b64decode(re.sub(rb"-----.*-----|\s", b"", pem["ed25519"]))
    private = {"rsa": pem["rsa"], "ed25519": base64.b64encode(der[-32:])}

    def dnsfunc(name, timeout=5):
        return zone.get((name.decode() if isinstance(name, bytes) else name).rstrip("."), "").encode()

    def theirs(mail):
        """Of each signature from the top, whether it passes."""
        out = []
        try:
            d = dkim.DKIM(mail)
        except dkim.MessageFormatError:
            return None
        for n in range(len([1 for name, _ in d.headers if name.lower() == b"dkim-signature"])):
            try:
                out.append(bool(dkim.DKIM(mail).verify(idx=n, dnsfunc=dnsfunc)))
            except (dkim.DKIMException, ValueError):  # ValueError: of a damaged b=
                out.append(False)
        return out

    rng = random.Random(os.environ.get("SEED", "hanks"))
    ours, passed, failed, explained = Ours(keys), 0, 0, 0
    try:
        for n in range(MAILS):
            mail, form = letter(rng), rng.choice(FORMS)
            if n % 2:
                signed = base64.b64decode(ours.ask(mail, form)["mail"])
            else:
                kind = rng.choice(["rsa", "ed25519"])
                head, body = form.split("/")
                selector = next(k["selector"] for k in made if k["type"] == kind).encode()
                signed = dkim.sign(mail, selector, b"hanks.example", private[kind], canonicalize=(head.encode(), body.encode()),
                                   signature_algorithm=b"ed25519-sha256" if kind == "ed25519" else b"rsa-sha256", linesep=b"\r\n") + mail
            for what in (signed, changed(rng, signed)):
                reply = ours.ask(what)
                we, they = [r == "pass" for r in reply.get("results", [])], theirs(what)
                if they is None or re.search(rb"^[!-9;-~]+[ \t]+:", what.partition(b"\r\n\r\n")[0], re.M):
                    # It gives up on a header with a line that is no field, and takes
                    # blanks before a colon for a part of the name, which RFC 6376
                    # section 3.4.2 deletes.
                    explained += 1
                    continue
                check(we == they, f"mail {n}, {form}: we say {reply}, python3-dkim {they}\n{what!r}")
                if what is signed:
                    check(we and all(we), f"mail {n}, {form}: it does not pass: {reply}\n{what!r}")
                passed += sum(we)
                failed += len(we) - sum(we)
    finally:
        ours.close()
    return f"{MAILS} mails, and each changed: {passed} signatures pass and {failed} fail on both sides; {explained} whose header it reads otherwise are not compared"


# --- OpenDKIM ---


class OpenDKIM:
    """One that verifies, and one that signs for each canonical form. Of RSA alone: what
    Debian's OpenDKIM signs with ed25519-sha256 passes neither here nor with
    python3-dkim, which agree with each other and with RFC 8463's example."""

    def __init__(self, made):
        self.folder = folder_of("dkim_opendkim")
        common = "Syslog no\nBackground no\nUMask 000\nRequireSafeKeys no\n"
        public = lend(self.folder / "public", "".join(f"{k['name'].rstrip('.')} {k['record']}\n" for k in made))
        hosts = lend(self.folder / "hosts", "198.51.100.1\n")
        self.daemons, self.signers = [], {}
        self.verifier = self.add("verify", common + f"Mode v\nAuthservID mx.ryan.example\nInternalHosts {hosts}\nTestPublicKeys {public}\n"
                                 "On-Default accept\nAlwaysAddARHeader yes\n")
        hosts = lend(self.folder / "signed", "192.0.2.7\n")
        rsa = next(k for k in made if k["type"] == "rsa")
        key = lend(self.folder / "rsa.pem", Path(rsa["path"]).read_bytes())
        for form in FORMS:
            self.signers[form] = self.add(form.replace("/", "-"), common + f"Mode s\nDomain hanks.example\nSelector {rsa['selector']}\nKeyFile {key}\n"
                                          f"Canonicalization {form}\nInternalHosts {hosts}\n")

    def add(self, name, text):
        place, config = self.folder / f"{name}.sock", lend(self.folder / f"{name}.conf", text)
        self.daemons.append(Daemon(f"opendkim-{name}", self.folder, "opendkim", "-f", "-x", config, "-p", f"local:{place}", there=connects(place)))
        return place

    def __enter__(self):
        for d in self.daemons:
            d.start()
        return self

    def __exit__(self, *_):
        for d in self.daemons:
            d.kill()


def passing(mail, results):
    """How many RSA signatures pass: ours are told from the top."""
    head = mail.partition(b"\r\n\r\n")[0]
    found = re.findall(rb"^dkim-signature[ \t]*:((?:[^\r]|\r\n[ \t])*)", head, re.I | re.M)
    return sum(result == "pass" and b"a=rsa-" in re.sub(rb"\s", b"", value) for value, result in zip(found, results))


@case(seconds=300, shared=False)
def dkim_beside_opendkim():
    """2,000 generated mails signed and verified by OpenDKIM and by us, and each changed."""
    keys = os.path.join(WORK, "opendkim-keys")
    made = json.loads(run(BIN, "dkim", "new", "hanks.example", "--keys", keys, "--selector", "a", "--json"))
    rng = random.Random(os.environ.get("SEED", "ryan"))
    passed = failed = odd = 0
    ours = Ours(keys)
    try:
        with OpenDKIM(made) as theirs:
            for n in range(MAILS):
                mail, form = letter(rng), rng.choice(FORMS)
                if n % 2:
                    signed = base64.b64decode(ours.ask(mail, form)["mail"])
                else:
                    signed = ours.through(theirs.signers[form], mail)
                for what in (signed, changed(rng, signed)):
                    if not re.fullmatch(rb"([!-9;-~]+:([^\r]|\r\n[ \t])*\r\n)+", what.partition(b"\r\n\r\n")[0] + b"\r\n"):
                        odd += 1  # of a header with a line that is no field each makes what it likes
                        continue
                    reply = ours.ask(what)
                    we = passing(what, reply.get("results", []))
                    told = ours.through(theirs.verifier, what)[:-len(what)].decode()
                    they = len(re.findall(r"dkim=pass[^;]*?header\.a=rsa-", told))
                    check(we == they, f"mail {n}, {form}: we say {reply}, OpenDKIM {told!r}\n{what!r}")
                    if what is signed:
                        check(we, f"mail {n}, {form}: it does not pass: {reply}\n{what!r}")
                    passed, failed = passed + we, failed + (not we)
    finally:
        ours.close()
    return f"{MAILS} mails, and each changed: {passed} pass and {failed} fail on both sides; {odd} whose header has a line that is no field are not compared"
