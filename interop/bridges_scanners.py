"""The scanners that people run, asked by protocols of their own: Debian's rspamd,
spamd and clamd. Each accepts and refuses, changes if it can, and is killed and comes back."""

import os
import shutil

from bridges_milter import GTUBE, VIRUS, Daemon, above, connects, folder_of, got, killed, lend, send, unfolded
from harness import HOST, PRIVATE, case, check, new_mail, private, until
from plugins import starts


def scanner(kind, name, attributes):
    return f'filter "{kind}" "{name}" {{\n  timeout = "20s"\n  {attributes}\n}}\n'


@case(seconds=300, shared=False)
def scanner_rspamd():
    """rspamd over HTTP: mail is marked by it and by us, the test for spam refused; killed, in each mode."""
    folder, place, dead = folder_of("scanner_rspamd"), PRIVATE.base + 11333, PRIVATE.base + 11334
    # Nobody answers DNS, and no rules are fetched.
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
worker "normal" {{ bind_socket = "{HOST}:{place}"; count = 1; }}
actions {{ reject = 15; add_header = 6; }}
modules {{ path = "/usr/share/rspamd/plugins/milter_headers.lua"; }}
milter_headers {{ use = ["x-spamd-result"]; skip_local = false; }}
""")
    daemon = Daemon("rspamd", folder, "rspamd", "-f", "-c", config, *(f"--var={name}={folder}" for name in ("RUNDIR", "DBDIR", "LOGDIR")), there=connects(place))
    # The first server is never there.
    block = scanner("rspamd", "spam", f'servers = ["http://{HOST}:{dead}", "http://{HOST}:{place}"]\n  mark = "all"')
    with daemon:
        with private("scanner_rspamd", mx="filters = [filter.rspamd.spam]", extra=block):
            for body in (b"Hello Meg\r\n", b"Hello Meg\r\n" * 50000):
                mail = new_mail(body=body)
                starts(send(mail), "250")
                whole = unfolded(got(mail))
                for field in ("X-Spamd-Result:", "X-Spam-Action: no action", "X-Spam-Score:"):
                    check(field in whole, f"{field} is missing: {whole[:2000]}")
            refused = send(new_mail(body=GTUBE))
            starts(refused, "550 5.7.1")
            check("Gtube pattern" in refused, f"the reply is rspamd's: {refused}")
        # rspamd's own field stands at the header's end: here only ours, above the mail.
        killed("scanner_rspamd", daemon, block.replace('mark =', 'changes = false\n  mark ='), "X-Spam-Action:")


@case(seconds=300, shared=False)
def scanner_spamd():
    """spamd as spamc asks it: mail is marked and forged marks go, the test for spam tagged, then refused; killed, in each mode."""
    folder, place, dead = folder_of("scanner_spamd"), PRIVATE.base + 7784, PRIVATE.base + 7785
    env = {"HOME": str(folder), "PATH": os.environ["PATH"] + ":/usr/sbin"}
    daemon = Daemon("spamd", folder, shutil.which("spamd", path=env["PATH"]), "-L", "-x", "-m", "1", f"--listen={HOST}:{place}", "-s", "stderr", "-H", folder,
                    there=connects(place), env=env)
    # The first server is never there.
    block = scanner("spamd", "spam", f'servers = ["inet:{HOST}:{dead}", "inet:{HOST}:{place}"]')
    refusing = block.replace("servers =", "reject_at = 15\n  servers =")
    with daemon:
        with private("scanner_spamd", mx="filters = [filter.spamd.spam]", extra=block):
            for body in (b"Hello Meg, how was your day?\r\n", b"Hello Meg\r\n" * 20000):
                mail = new_mail(body=body)
                starts(send(b"X-Spam-Status: No, forged\r\nX-Spam-Forged: yes\r\n" + mail), "250")
                top = above(mail)
                check("X-Spam-Checker-Version:" in top and "X-Spam-Status: No" in top, f"marked: {top}")
                check("forged" not in top.lower(), f"the sender's marks are gone: {top}")
            large = new_mail(body=b"Hello Meg\r\n" * 50000)  # above max_size
            starts(send(large), "250")
            check("X-Spam-" not in above(large), "a large mail is not looked at")
            spam = new_mail(body=GTUBE)
            starts(send(spam), "250")
            top = above(spam)
            check("X-Spam-Flag: YES" in top and "X-Spam-Status: Yes" in top and "GTUBE" in top, f"tagged: {top}")
        with private("scanner_spamd_refuses", mx="filters = [filter.spamd.spam]", extra=refusing):
            starts(send(new_mail(body=GTUBE)), "550 5.7.1 The message looks like spam")
            starts(send(new_mail()), "250")
        killed("scanner_spamd", daemon, block, "X-Spam-Status:")


@case(seconds=300, shared=False)
def scanner_clamd():
    """clamd with one signature of our own: the virus is refused; what is too long, or comes while it is dead, is put off."""
    folder = folder_of("scanner_clamd")
    signatures = folder / "db"
    signatures.mkdir()
    lend(signatures / "own.ndb", f"Stagecoach.Test:0:*:{VIRUS[:60].hex()}\n")
    lend(signatures, None, 0o755)
    place = folder / "clamd.sock"
    config = lend(folder / "clamd.conf", f"Foreground yes\nDatabaseDirectory {signatures}\nLocalSocket {place}\nTemporaryDirectory {folder}\nStreamMaxLength 1M\n")
    daemon = Daemon("clamd", folder, shutil.which("clamd", path=os.environ["PATH"] + ":/usr/sbin"), "-c", config, there=connects(place))
    block = scanner("clamav", "virus", f'address = "unix:{place}"')
    with daemon:
        with private("scanner_clamd", mx="filters = [filter.clamav.virus]", extra=block):
            mail = new_mail(body=b"Hello Meg\r\n" * 20000)
            starts(send(mail), "250")
            above(mail)
            starts(send(new_mail(body=VIRUS)), "550 5.7.1 The message has a virus: Stagecoach.Test")
            starts(send(new_mail(body=b"Hello Meg\r\n" * 200000)), "451 4.7.1")  # above StreamMaxLength
            daemon.kill()
            starts(send(new_mail()), "451 4.7.1")
            place.unlink(missing_ok=True)
            daemon.start()
            until(60, "it scans again", lambda: send(new_mail()) == "250")
