"""The daemons that people run beside Sendmail and Postfix, behind filter "milter"
and filter "policy": Debian's OpenDKIM, OpenDMARC, spamass-milter, clamav-milter,
rspamd's proxy, postgrey and policyd-spf. Each accepts, refuses and changes mail, and is killed in the middle."""

import contextlib
import grp
import json
import os
import pwd
import re
import shutil
import signal
import smtplib
import socket
import struct
import subprocess
import threading
from pathlib import Path

import dkim

from harness import BIN, HOST, MEG, PRIVATE, TOM, WORK, Mailbox, case, check, ident_of, new_mail, private, run, tail, until
from plugins import starts

SIGNING = PRIVATE.base + 2526
NOBODY = pwd.getpwnam("nobody").pw_uid
NOGROUP = grp.getgrnam("nogroup").gr_gid


class Daemon:
    """A daemon in the foreground, by a user who may do nothing."""

    def __init__(self, name, folder, *argv, there, env=None, alone=None):
        self.name, self.argv, self.there = name, [str(a) for a in argv], there
        self.env, self.alone, self.log = env, alone, folder / f"{name}.log"
        self.process = None

    def start(self):
        argv, who = self.argv, {}
        if self.alone:  # with a resolv.conf of its own
            argv = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" /etc/resolv.conf && shift && exec setpriv --reuid=nobody --regid=nogroup --clear-groups -- "$@"',
                    "sh", str(self.alone), *argv]
        elif os.getuid() == 0:
            who = dict(user=NOBODY, group=NOGROUP, extra_groups=[])
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=dict(os.environ, **(self.env or {})), **who)
        try:
            until(60, lambda: f"{self.name} is there:\n{tail(self.log)}", self.up)
        except BaseException:
            self.kill()
            raise
        return self

    def up(self):
        check(self.process.poll() is None, f"{self.name} ended with {self.process.poll()}:\n{tail(self.log)}")
        return self.there()

    def kill(self):
        """All of it, as a crash does."""
        if self.process and self.process.poll() is None:
            for pid in list(family(self.process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(20)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()


def family(pid):
    """A process and those that it has started."""
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from family(int(child))


def connects(place):
    """Whether somebody listens at a port or a path."""

    def there():
        family = socket.AF_INET if isinstance(place, int) else socket.AF_UNIX
        with socket.socket(family) as s:
            return s.connect_ex((HOST, place) if isinstance(place, int) else str(place)) == 0

    return there


def folder_of(name):
    """A case's folder for a daemon, which is nobody's."""
    path = WORK / f"{name}_daemon"
    path.mkdir()
    if os.getuid() == 0:
        os.chown(path, NOBODY, NOGROUP)
    return path


def lend(path, text, mode=0o600):
    """A file or folder that is the daemon's."""
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    if os.getuid() == 0:
        os.chown(path, NOBODY, NOGROUP)
    return path


def milter(name, address, extra=""):
    return f'filter "milter" "{name}" {{\n  address = "{address}"\n  timeout = "20s"\n{extra}\n}}\n'


def policy(name, address, extra=""):
    return milter(name, address, extra).replace('"milter"', '"policy"')


def send(mail, to=MEG, sender=TOM, port=PRIVATE.mx):
    """One mail; the last reply, of a recipient too."""
    with smtplib.SMTP(HOST, port, timeout=60) as s:
        try:
            s.sendmail(sender, [to], mail)
        except smtplib.SMTPRecipientsRefused as why:
            code, text = why.recipients[to]
            return f"{code} {text.decode()}"
        except smtplib.SMTPResponseException as why:
            return f"{why.smtp_code} {why.smtp_error.decode()}"
        return "250"


def got(mail):
    """How a mail arrived: its header above what was sent, and that is unchanged."""
    with Mailbox(port=PRIVATE.imap) as box:
        def mine():
            return [m for m in box.mails() if ident_of(mail).encode() in m]

        arrived = until(30, f"mail {ident_of(mail)} arrives", mine)
    check(len(arrived) == 1, f"mail {ident_of(mail)} arrived {len(arrived)} times")
    return arrived[0]


def above(mail):
    """What was put on top of a mail that is otherwise as it was."""
    whole = got(mail)
    check(whole.endswith(mail), f"the mail is another one:\n{whole!r}\nsent was\n{mail!r}")
    return unfolded(whole[:-len(mail)])


def unfolded(text):
    return re.sub(r"\r\n[ \t]+", " ", text.decode(errors="replace"))


def killed(name, daemon, block, field, before="DATA"):
    """on_failure in each mode: the daemon dies in the middle of a mail, the session
    goes on, and the next mail finds it again."""
    _, kind, instance, *_ = block.replace('"', "").split()
    for mode in ("defer", "accept", "hold"):
        with private(f"{name}_{mode}", mx=f"filters = [filter.{kind}.{instance}]",
                     extra=block.replace("timeout =", f'on_failure = "{mode}"\n  timeout =')) as server:
            daemon.kill()
            daemon.start()
            mail, after = new_mail(), new_mail()
            with smtplib.SMTP(HOST, PRIVATE.mx, timeout=60) as s:
                s.ehlo("hanks.example")
                check(s.mail(TOM)[0] == 250, "MAIL")
                if before == "DATA":
                    check(s.rcpt(MEG)[0] == 250, "RCPT")
                daemon.kill()
                code, text = s.rcpt(MEG) if before == "RCPT" else (250, "")
                if code == 250:
                    try:
                        code, text = s.data(mail)
                    except smtplib.SMTPDataError as why:
                        code, text = why.smtp_code, why.smtp_error
                check(code == (451 if mode == "defer" else 250), f"{mode}: {code} {text}")
                if mode == "hold":
                    held = until(20, "a held mail", lambda: [m for m in server.queue() if m["recipients"][0]["state"] == "held"])
                    check(len(held) == 1, f"held: {held}")
                elif mode == "accept":
                    check(field not in above(mail), f"{mode}: the dead daemon wrote {field}")
                daemon.start()
                s.rset()
                s.sendmail(TOM, [MEG], after)
            check(field in above(after), f"{mode}: after the restart {field} is missing in {above(after)}")


# --- DNS for the daemons ---


class Zone:
    """A name server on loopback with TXT records alone."""

    def __init__(self, records, port):
        self.records, self.socket = records, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, port))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                query, peer = self.socket.recvfrom(4096)
            except OSError:
                return
            with contextlib.suppress(IndexError, struct.error):
                self.socket.sendto(self.answer(query), peer)

    def answer(self, query):
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        question = query[12:at + 5]
        kind = struct.unpack(">H", query[at + 1:at + 3])[0]
        name = ".".join(labels)
        text = self.records.get(name) if kind == 16 else None
        known = any(n == name or n.endswith("." + name) for n in self.records)
        head = query[:2] + struct.pack(">HHHHH", 0x8580 | (0 if known else 3), 1, 1 if text else 0, 0, 0)
        if not text:
            return head + question
        data = b"".join(bytes([len(part)]) + part for part in (text[i:i + 255].encode() for i in range(0, len(text), 255)))
        return head + question + b"\xc0\x0c" + struct.pack(">HHIH", 16, 1, 60, len(data)) + data

    def close(self):
        self.socket.close()


# --- OpenDKIM ---


class OpenDKIM:
    """Two of them: one signs, one verifies, with a key of our own making."""

    def __init__(self, name):
        self.folder = folder_of(name)
        made = json.loads(run(BIN, "dkim", "new", "hanks.example", "--keys", self.folder / "keys", "--selector", "a", "--json"))
        rsa = next(k for k in made if k["type"] == "rsa")
        self.record = (rsa["name"].rstrip("."), rsa["record"])
        self.key = lend(self.folder / "rsa.pem", Path(rsa["path"]).read_bytes())
        self.selector = rsa["selector"]
        lend(self.folder / "public", f"{self.record[0]} {self.record[1]}\n")
        lend(self.folder / "hosts", "192.0.2.1\n")
        common = "Syslog no\nBackground no\nUMask 000\nRequireSafeKeys no\n"  # below /tmp nothing is safe
        signs = lend(self.folder / "sign.conf", common + f"Mode s\nDomain hanks.example\nSelector {self.selector}\nKeyFile {self.key}\nCanonicalization relaxed/relaxed\n")
        # By default a host of one's own is not checked, and loopback is one.
        checks = lend(self.folder / "verify.conf", common + f"Mode v\nAuthservID mx.ryan.example\nInternalHosts {self.folder}/hosts\nTestPublicKeys {self.folder}/public\n"
                      "On-BadSignature reject\nOn-NoSignature accept\nAlwaysAddARHeader yes\n")
        self.sockets = {n: self.folder / f"{n}.sock" for n in ("sign", "verify")}
        self.signer, self.verifier = (
            Daemon(f"opendkim-{n}", self.folder, "opendkim", "-f", "-x", config, "-p", f"local:{self.sockets[n]}", there=connects(self.sockets[n]))
            for n, config in (("sign", signs), ("verify", checks)))

    def blocks(self):
        return milter("sign", f"unix:{self.sockets['sign']}") + milter("verify", f"unix:{self.sockets['verify']}") + f"""
receive "smtp" "signing" {{
  listen  = ["{HOST}:{SIGNING}"]
  filters = [filter.milter.sign]
}}
"""


def signed(mail):
    """The mail with OpenDKIM's signature, as Meg has it."""
    starts(send(mail, port=SIGNING), "250")
    whole = got(mail)
    check(whole.endswith(mail), f"the signed mail is another one: {whole!r}")
    # From the signature on: what is above it is this server's and OpenDKIM's.
    return whole[whole.index(b"DKIM-Signature:"):]


@case(seconds=180, shared=False)
def milter_opendkim():
    """It signs, we and python3-dkim verify; it verifies, refuses what was changed, and is killed."""
    keys = OpenDKIM("milter_opendkim")
    with keys.signer, keys.verifier, private("milter_opendkim", mx="filters = [filter.milter.verify]", extra=keys.blocks()) as server:
        letter = signed(new_mail(body=b"Hello Meg\r\n" * 5000))
        check(dkim.verify(letter, dnsfunc=lambda name, timeout=5: keys.record[1].encode()), f"python3-dkim does not verify:\n{letter[:2000]!r}")
        letter = signed(new_mail())
        check(dkim.verify(letter, dnsfunc=lambda name, timeout=5: keys.record[1].encode()), f"python3-dkim does not verify:\n{letter!r}")

        again = letter.replace(ident_of(letter).encode(), b"again." + ident_of(letter).encode(), 1)  # X-Interop is not signed
        starts(send(again), "250")
        results = above(again)
        check(re.search(r"Authentication-Results: mx\.ryan\.example;.*dkim=pass", results), f"verified: {results}")

        starts(send(letter.replace(b"Hello Meg", b"Hello Tom")), "550 5.7.")
        plain = new_mail()
        starts(send(plain), "250")
        check("dkim=none" in above(plain), f"no signature: {above(plain)}")

        metrics = json.loads(server.command("plugin", "list", "--json").stdout)
        check(any(p["instance"] == "filter.milter.verify" for p in metrics), f"the plugins: {metrics}")
    with keys.verifier:
        killed("milter_opendkim", keys.verifier, milter("verify", f"unix:{keys.sockets['verify']}"), "Authentication-Results:")


@case(seconds=120, shared=False)
def milter_opendmarc():
    """Behind OpenDKIM: what passes is marked, what is forged is refused."""
    keys = OpenDKIM("milter_opendmarc")
    zone = Zone({"_dmarc.hanks.example": "v=DMARC1; p=reject", "hanks.example": "v=spf1 -all", keys.record[0]: keys.record[1]}, 53)
    resolv = keys.folder / "resolv.conf"
    resolv.write_text(f"nameserver {HOST}\n")
    resolv.chmod(0o644)
    place = PRIVATE.base + 8893
    config = lend(keys.folder / "opendmarc.conf", "Syslog false\nBackground false\nAuthservID mx.ryan.example\nTrustedAuthservIDs mx.ryan.example\n"
                  f"RejectFailures true\nIgnoreHosts {keys.folder}/hosts\n")
    dmarc = Daemon("opendmarc", keys.folder, "opendmarc", "-f", "-c", config, "-p", f"inet:{place}@{HOST}", there=connects(place), alone=resolv)
    block = milter("dmarc", f"inet:{place}@{HOST}")
    try:
        with keys.signer, keys.verifier, dmarc:
            with private("milter_opendmarc", mx="filters = [filter.milter.verify, filter.milter.dmarc]", extra=keys.blocks() + block):
                letter = signed(new_mail())
                again = letter.replace(ident_of(letter).encode(), b"again." + ident_of(letter).encode(), 1)
                starts(send(again), "250")
                results = above(again)
                check("dmarc=pass" in results and "dkim=pass" in results, f"results: {results}")
                starts(send(new_mail()), "550 5.7.1 rejected by DMARC policy for hanks.example")
                other = new_mail(sender="meg@ryan.example")
                starts(send(other, sender="meg@ryan.example"), "250")
                check("dmarc=none" in above(other), f"a domain without a policy: {above(other)}")
    finally:
        zone.close()


# --- SpamAssassin ---

GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"


@case(seconds=240, shared=False)
def milter_spamass():
    """spamass-milter with a spamd of its own: mail is marked, the test for spam refused."""
    folder = folder_of("milter_spamass")
    port, place = PRIVATE.base + 7783, folder / "spamass.sock"
    env = {"HOME": str(folder), "PATH": os.environ["PATH"] + ":/usr/sbin"}
    spamd = Daemon("spamd", folder, shutil.which("spamd", path=env["PATH"]), "-L", "-x", "-m", "1", f"--listen={HOST}:{port}", "-s", "stderr", "-H", folder,
                   there=connects(port), env=env)
    scan = Daemon("spamass-milter", folder, shutil.which("spamass-milter", path=env["PATH"]), "-p", place, "-r", "15", "--", "-d", HOST, "-p", str(port),
                  there=connects(place), env=env)
    # Another one sends spam to Tom in place of Meg, with SpamAssassin's report.
    bucket = Daemon("spamass-bucket", folder, *scan.argv[:1], "-p", f"{place}.bucket", "-b", TOM, "--", "-d", HOST, "-p", str(port),
                    there=connects(f"{place}.bucket"), env=env)
    block = milter("spam", f"unix:{place}") + milter("bucket", f"unix:{place}.bucket") + f"""
receive "smtp" "bucket" {{
  listen  = ["{HOST}:{SIGNING}"]
  filters = [filter.milter.bucket]
}}
"""
    with spamd, scan, bucket:
        with private("milter_spamass", mx="filters = [filter.milter.spam]", extra=block):
            mail = new_mail(body=b"Hello Meg, how was your day?\r\n")
            starts(send(mail), "250")
            whole = unfolded(got(mail))
            check("X-Spam-Checker-Version:" in whole and "X-Spam-Status: No" in whole, f"marked: {whole}")
            starts(send(new_mail(body=GTUBE)), "550 5.7.1 Blocked by SpamAssassin")
            spam = new_mail(body=GTUBE)
            starts(send(spam, port=SIGNING), "250")
            with Mailbox(TOM, PRIVATE.imap) as box:
                (report,) = box.wait(1)
            check(b"X-Spam-Flag: YES" in report and b"Content-Type: multipart/mixed" in report and b"Content analysis details" in report and GTUBE in report,
                  f"the report to Tom: {report!r}")
            with Mailbox(port=PRIVATE.imap) as box:
                check(not any(GTUBE in m for m in box.mails()), "Meg got the spam all the same")
            # Killed, and it comes again: the mail between was put off.
            scan.kill()
            starts(send(new_mail()), "451 4.7.1")
            scan.start()
            after = new_mail()
            starts(send(after), "250")
            check("X-Spam-Status:" in unfolded(got(after)), "after the restart")


# --- ClamAV ---

VIRUS = b"This line is a virus of our own making, for clamd cannot fetch the real ones.\r\n"


@case(seconds=180, shared=False)
def milter_clamav():
    """clamav-milter with a clamd of its own and one signature: mail is marked, the virus refused."""
    folder = folder_of("milter_clamav")
    signatures = folder / "db"
    signatures.mkdir()
    lend(signatures / "own.ndb", f"Stagecoach.Test:0:*:{VIRUS[:60].hex()}\n")
    lend(signatures, None, 0o755)
    socket_, place = folder / "clamd.sock", folder / "milter.sock"
    scanner = lend(folder / "clamd.conf", f"Foreground yes\nDatabaseDirectory {signatures}\nLocalSocket {socket_}\nTemporaryDirectory {folder}\n")
    config = lend(folder / "milter.conf", f"Foreground yes\nMilterSocket unix:{place}\nClamdSocket unix:{socket_}\nTemporaryDirectory {folder}\n"
                  "OnInfected Reject\nRejectMsg Infected by %v\nAddHeader Replace\nOnFail Defer\n")
    path = os.environ["PATH"] + ":/usr/sbin"
    clamd = Daemon("clamd", folder, shutil.which("clamd", path=path), "-c", scanner, there=connects(socket_))
    scan = Daemon("clamav-milter", folder, shutil.which("clamav-milter", path=path), "-c", config, there=connects(place))
    block = milter("virus", f"unix:{place}")
    with clamd, scan:
        with private("milter_clamav", mx="filters = [filter.milter.virus]", extra=block):
            mail = new_mail(body=b"Hello Meg\r\n" * 20000)
            starts(send(mail), "250")
            whole = unfolded(got(mail)[:2000])
            check("X-Virus-Status: Clean" in whole, f"marked: {whole}")
            starts(send(new_mail(body=VIRUS)), "550 5.7.1 Infected by Stagecoach.Test")
            # Its own scanner dies: the milter says so itself. Then it dies too.
            clamd.kill()
            starts(send(new_mail()), "451 4.7.1")
            clamd.start()
            scan.kill()
            starts(send(new_mail()), "451 4.7.1")
            scan.start()
            until(60, "it scans again", lambda: send(new_mail()) == "250")


# --- rspamd ---


@case(seconds=240, shared=False)
def milter_rspamd():
    """rspamd's proxy as a milter that scans by itself: mail is marked, the test for spam refused."""
    folder, place = folder_of("milter_rspamd"), PRIVATE.base + 11332
    # Of the many domains that end in "public suffixes" four are enough: the list is
    # compiled at the start. Nobody answers DNS, and no rules are fetched.
    suffixes = lend(folder / "suffixes", "com\nnet\norg\nexample\n")
    config = lend(folder / "rspamd.conf", f"""
options {{
  filters = []
  url_tld = "{suffixes}"
  tempdir = "{folder}"
  pidfile = "{folder}/pid"
  dns {{ nameserver = ["{HOST}:9"]; timeout = 0.1s; retransmits = 1; }}
}}
logging {{ type = "console"; level = "info"; }}
worker "rspamd_proxy" {{
  bind_socket = "{HOST}:{place}"
  milter = yes
  upstream "local" {{ self_scan = yes; default = yes; }}
  count = 1
}}
actions {{ reject = 15; add_header = 6; }}
modules {{ path = "/usr/share/rspamd/plugins/milter_headers.lua"; }}
milter_headers {{ use = ["x-spamd-result"]; skip_local = false; }}
""")
    scan = Daemon("rspamd", folder, "rspamd", "-f", "-c", config, *(f"--var={name}={folder}" for name in ("RUNDIR", "DBDIR", "LOGDIR")), there=connects(place))
    block = milter("rspamd", f"inet:{place}@{HOST}", 'reuse = true\n  early = ["connect", "helo", "mail", "rcpt"]')
    with scan:
        with private("milter_rspamd", mx="filters = [filter.milter.rspamd]", extra=block):
            mail = new_mail()
            starts(send(mail), "250")
            whole = unfolded(got(mail))
            check("X-Spamd-Result:" in whole, f"marked: {whole}")
            refused = send(new_mail(body=GTUBE))
            starts(refused, "554 5.7.1")
            check("Gtube pattern" in refused, f"the reply is rspamd's: {refused}")
            scan.kill()
            starts(send(new_mail()), "451 4.7.1")
            scan.start()
            after = new_mail()
            starts(send(after), "250")
            check("X-Spamd-Result:" in unfolded(got(after)), "after the restart")


# --- policy servers ---


@case(seconds=180, shared=False)
def policy_postgrey():
    """The first mail of a stranger waits, and its second attempt is taken and marked."""
    folder = folder_of("policy_postgrey")
    port = PRIVATE.base + 10023
    lend(folder / "none", "")
    grey = Daemon("postgrey", folder, shutil.which("postgrey", path=os.environ["PATH"] + ":/usr/sbin"), f"--inet={HOST}:{port}", f"--dbdir={folder}", "--delay=2",
                  "--user=nobody", "--group=nogroup", f"--whitelist-clients={folder}/none", f"--whitelist-recipients={folder}/none", there=connects(port))
    block = policy("postgrey", f"inet:{HOST}:{port}")
    with grey:
        with private("policy_postgrey", mx="filters = [filter.policy.postgrey]", extra=block):
            mail = new_mail()
            first = send(mail)
            starts(first, "450 4.")
            check("reylist" in first, f"the reply is postgrey's: {first}")
            until(30, "the second attempt is taken", lambda: send(mail) == "250")
            check("X-Greylist: delayed" in above(mail), f"marked: {above(mail)}")
            second = new_mail()
            starts(send(second), "250")
            check("X-Greylist" not in above(second), "who is known is not marked")
            grey.kill()
            starts(send(new_mail()), "451 4.7.1")
            grey.start()
            starts(send(new_mail()), "250")


class Spawned:
    """What Postfix's spawn does: a process for each connection, with it as its
    standard input and output."""

    def __init__(self, folder, *argv):
        self.place, self.argv, self.log = folder / "spawn.sock", argv, folder / "spawned.log"
        self.socket = self.folder = None
        self.children = []

    def start(self):
        self.place.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.place))
        self.socket.listen()
        threading.Thread(target=self.serve, args=[self.socket], daemon=True).start()
        return self

    def serve(self, listener):
        who = dict(user=NOBODY, group=NOGROUP, extra_groups=[]) if os.getuid() == 0 else {}
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, open(self.log, "ab") as log:
                self.children.append(subprocess.Popen(self.argv, stdin=peer, stdout=peer, stderr=log, **who))

    def kill(self):
        if self.socket:
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes accept
            self.socket.close()
            self.socket = None
        for child in self.children:
            child.kill()
            child.wait(20)
        self.children.clear()
        self.place.unlink(missing_ok=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()


# Its name servers are those of resolv.conf, on port 53: here they are another one.
SPF = """
import sys, dns.resolver
names = dns.resolver.default_resolver = dns.resolver.Resolver(configure=False)
names.nameservers, names.port = ["127.0.0.1"], int(sys.argv.pop(1))
from spf_engine.policyd_spf import main
sys.exit(main())
"""


@case(seconds=180, shared=False)
def policy_spf():
    """policyd-spf: Received-SPF on what passes, 550 for what fails; killed in the middle, in each mode."""
    folder = folder_of("policy_spf")
    zone = Zone({"hanks.example": "v=spf1 ip4:127.0.0.1 -all", "reed.example": "v=spf1 -all"}, 0)
    config = lend(folder / "spf.conf", "debugLevel = 1\nTestOnly = 1\nHELO_reject = Fail\nMail_From_reject = Fail\nPermError_reject = False\nTempError_Defer = False\nskip_addresses = 192.0.2.1\n")
    daemon = Spawned(folder, "/usr/bin/python3", "-c", SPF, str(zone.port), str(config))
    block = policy("spf", f"unix:{daemon.place}")
    try:
        with daemon:
            with private("policy_spf", mx="filters = [filter.policy.spf]", extra=block):
                mail = new_mail()
                starts(send(mail), "250")
                check(re.search(r"Received-SPF: Pass", above(mail), re.I), f"marked: {above(mail)}\n{tail(daemon.log)}")
                refused = send(new_mail(), sender="annie@reed.example")
                starts(refused, "550 5.7.")
                check("spf" in refused.lower(), f"the reply is policyd-spf's: {refused}")
            killed("policy_spf", daemon, block, "Received-SPF:", before="RCPT")
    finally:
        zone.close()
