"""The first minute of a new user: the server starts and says what to do, and what
it says works."""

import os
import re
import subprocess
import time

from harness import BIN, CONFIGS, MEG, PASSWORD, PRIVATE, ROOT, TOM, WORK, Mailbox, case, check, emptied, listening, private, run, until


@case(shared=False)
def first_start():
    """On an empty data directory: up within seconds, and it prints what listens, who
    the users are, how to send a mail and how to read it. SIGTERM ends it in order."""
    server, begin = private("first_start"), time.monotonic()
    with open(server.log, "wb") as log:
        server.process = subprocess.Popen([BIN, "serve", "-c", server.config, "--data-dir", server.data], stdout=log, stderr=log)
    try:
        until(30, "the server listens", lambda: all(listening(p) for p in PRIVATE.all()))
        took = time.monotonic() - begin
        until(10, "the two commands", lambda: b"Read it:" in server.log.read_bytes())
        said = server.log.read_text()
        for what in [f"127.0.0.1:{port}" for port in PRIVATE.all()] + [TOM, MEG, PASSWORD, "Send a mail:", str(server.data)]:
            check(what in said, f"the server does not say {what}:\n{said}")
        server.stop(20)
    finally:
        server.kill()
    return f"up after {took:.1f} s"


@case(seconds=180, shared=False)
def strangers_path():
    """The first block of sdk/README.md, as it is printed: from an empty folder to a
    plugin of one's own that refuses a mail. It runs before the shared server, whose
    ports it uses."""
    block = re.search(r"(?s)\n```sh\n(.*?)\n```\n", (ROOT / "sdk" / "README.md").read_text())[1]
    folder = WORK / "strangers_path"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "stagecoach").symlink_to(BIN)
    # A person would see the server start; here the line after it waits for that.
    started = "stagecoach serve -c dev.hcl &"
    check(started in block, f"sdk/README.md starts the server another way:\n{block}")
    wait = "until stagecoach plugin list -c dev.hcl >/dev/null 2>&1; do sleep 0.1; done"
    typed = f"set -ex\n{block.replace(started, started + chr(10) + wait)}\nkill $!\nwait $!\n"
    (folder / "typed.sh").write_text(typed)
    env = dict(os.environ, PATH=f"{folder}/bin:{os.environ['PATH']}", STAGECOACH=str(ROOT))
    said = run("bash", folder / "typed.sh", cwd=folder, env=env)
    check("550 5.7.1 We do not take mail about lottery" in said, "the mail is refused in the words of the README")


@case()
def curl_welcome():
    """The two commands that `make run` prints do what they say."""
    emptied()
    welcome = re.search(r"(?s)<<-EOT\n(.*?)\n\s*EOT\n", (CONFIGS / "dev.hcl").read_text())[1]
    send = welcome.split("Send a mail:\n")[1].split("Read it:")[0].strip()
    fetch = welcome.split("Read it:\n")[1].strip()
    run("bash", "-c", send.replace("curl ", "curl -sS ", 1))
    with Mailbox() as box:
        box.wait(1)
    said = run("bash", "-c", fetch.replace("curl ", "curl -sS ", 1))
    check("Subject: You have got mail" in said and said.endswith("Hello Meg\r\n"), "the mail is printed")
