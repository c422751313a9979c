"""Sieve: Pigeonhole's own tests, and a real ManageSieve client whose script decides where mail goes."""

import os
import re

from harness import HOST, MEG, PRIVATE, ROOT, Mailbox, case, check, new_mail, private, run, submit

MANAGESIEVE = 14190


@case(seconds=300)
def sieve_suite():
    """SUITES/sieve, or without SUITES our own tests."""
    suites = os.environ.get("SUITES")
    env = dict(os.environ, SUITES=os.path.realpath(suites)) if suites else dict(os.environ)
    said = run("go", "test", "-count=1", "-v", "-run", "TestSuite", "./plugins/sieve/engine", cwd=ROOT, env=env)
    found = re.findall(r"(\d+)/(\d+) tests in (\d+) files pass; (\d+) files", said)
    check(len(found) == (2 if suites else 1) and all(f[0] == f[1] for f in found), f"the suite:\n{said}")
    check(re.search(r"^ok\b", said, re.M), said)
    return f"{found[-1][0]} of Pigeonhole's tests, {found[-1][3]} files left out" if suites else "no SUITES: our own tests only"


@case(shared=False)
def sieve_connect():
    """Debian's sieve-connect puts, lists, activates and fetches a script; mail obeys it."""
    server = private("sieve", extra=f'''
filter "sieve" "users" {{
  storage = storage.local.mail
}}
access "managesieve" "sieve" {{
  listen        = ["{HOST}:{MANAGESIEVE}"]
  storage       = storage.local.mail
  auth          = directory.file.people
  insecure_auth = true
}}
''')
    folder = server.config.parent
    text, n = re.subn(r'(deliver "storage" "\w+" \{)', r"\1\n  filters = [filter.sieve.users]", server.config.read_text())
    check(n == 1, f"configs/dev.hcl has {n} deliver blocks of a storage: change it here too")
    server.config.write_text(text)
    server.listen = server.listen + [MANAGESIEVE]
    script = folder / "main.sieve"
    script.write_text('require ["fileinto", "imap4flags"];\nif header :contains "subject" "film" { fileinto :flags "\\\\Flagged" "Films"; }\n')
    password = folder / "password"
    password.write_text("sleepless\n")

    def client(*words, ok=True):
        with open(password) as secret:
            return run("sieve-connect", "-s", HOST, "-p", MANAGESIEVE, "-u", MEG, "--passwordfd", "0", "--notlsverify", "-m", "PLAIN", *words, ok=ok, stdin=secret)

    with server:
        client("--localsieve", script, "--remotesieve", "main", "--upload")
        client("--remotesieve", "main", "--activate")
        check(re.search(r"main.*ACTIVE", client("--list")), "the script is not listed as active")
        fetched = folder / "fetched.sieve"
        client("--remotesieve", "main", "--localsieve", fetched, "--download")
        check(fetched.read_bytes().replace(b"\r\n", b"\n").strip() == script.read_bytes().strip(), f"fetched {fetched.read_bytes()}")
        bad = folder / "bad.sieve"
        bad.write_text("nonsense;\n")
        check("unknown command" in client("--localsieve", bad, "--remotesieve", "bad", "--upload", ok=False), "a script with a mistake was taken")
        submit(new_mail(subject="A film tonight"), new_mail(subject="Dinner"), port=PRIVATE.submission)
        server.drained(30)
        with Mailbox(port=PRIVATE.imap) as box:
            films, inbox = box.count("Films"), box.count("INBOX")
            check((films, inbox) == (1, 1), f"{films} mails in Films and {inbox} in the inbox, not one each")
            flags = box.call("fetch", "1", "(FLAGS)") if box.count("Films") else b""
            check(b"Flagged" in flags[0], f"the mail in Films has {flags}")
