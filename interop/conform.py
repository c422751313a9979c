"""Plugins in every language under `stagecoach plugin conform`, as their authors
would try them: the examples, a shell script by way of exec, and new ones as
`stagecoach plugin new` writes them."""

import json
import os
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from harness import BIN, CONFIGS, HOST, PLUGINS, ROOT, WORK, case, check, run

EXAMPLES = ROOT / "examples"
TAGGER, WEBHOOK = PLUGINS / "subject-tagger" / "subject_tagger.py", PLUGINS / "examples" / "webhook" / "webhook.js"
PYTHON = "/usr/bin/python3"  # Debian's, which has grpc


class Answers(ThreadingHTTPServer):
    """A web server: answers each POST with what answer(key, body) returns, a status,
    or None to end the connection without a word."""

    daemon_threads, request_queue_size = True, 128

    def __init__(self, port, answer):
        super().__init__((HOST, port), Post)
        self.answer = answer

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        """A client that is killed leaves its connection: no news."""


class Post(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.answer(self, body)
        if status is None:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def conforms(*program, config=None, facts=None, skipped=()):
    """All checks pass but those that do not apply to this plugin."""
    words = [BIN, "plugin", "conform", *program, "--json"]
    for flag, file in (("--config", config), ("--facts", facts)):
        if file:
            words += [flag, file]
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    check(done.stdout.startswith("{"), f"exit {done.returncode}\n{done.stdout}{done.stderr}")
    report = json.loads(done.stdout)
    bad = [r for r in report["results"] if r["status"] == "fail" or (r["status"] == "skip") != (r["check"] in skipped)]
    check(not bad, f"exit {done.returncode}: {json.dumps(bad, indent=1)}")
    check(done.returncode == 0 and report["passed"] > 30, f"exit {done.returncode}: {done.stderr}")
    plugin = report["plugin"]
    return f"{plugin['kind']} {plugin['name']}: {report['passed']} checks in {report['took_ms'] / 1000:.1f} s"


@case(seconds=180, shared=False)
def conform_go_attachments():
    return conforms(PLUGINS / "attachments", config=EXAMPLES / "attachments" / "conform.hcl", skipped=["edits: fit the message"])


@case(seconds=180, shared=False)
def conform_go_audit():
    return conforms(PLUGINS / "audit", config=EXAMPLES / "audit" / "conform.hcl",
                    skipped=["edits: fit the message", "configure: mistakes point at their attribute"])


@case(seconds=180, shared=False)
def conform_python_subject_tagger():
    return conforms(TAGGER, config=EXAMPLES / "subject-tagger" / "conform.hcl", facts=EXAMPLES / "subject-tagger" / "facts.hcl")


@case(seconds=240, shared=False)
def conform_node_webhook():
    released = threading.Event()

    def answer(post, _):
        if post.path == "/never":
            released.wait()
        return 204

    with Answers(8181, answer):
        note = conforms(WEBHOOK, config=EXAMPLES / "webhook" / "conform.hcl", facts=EXAMPLES / "webhook" / "facts.hcl")
        released.set()
    return note


def script(name, text):
    path = WORK / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


@case(seconds=180, shared=False)
def conform_shell_exec():
    program = script("seen", "cat >/dev/null; echo X-Seen-By: mx\n")
    (WORK / "exec.hcl").write_text(f'command = ["{program}"]\nmode = "headers"\n')
    (WORK / "exec-facts.hcl").write_text('slow = "command = [\\"/bin/sleep\\", \\"600\\"]"\n')
    return conforms("exec", config=WORK / "exec.hcl", facts=WORK / "exec-facts.hcl")


SERVER = """
hostname = "mx.ryan.example"
data_dir = "{data}"

directory "file" "people" {{
  path = "dev-people.hcl"
}}

storage "local" "mail" {{}}

{piece}

route "rest" {{
  deliver = deliver.storage.mail
}}

deliver "storage" "mail" {{
  storage = storage.local.mail
}}
"""
LISTENER = 'receive "smtp" "mx" {\n  listen = [":25"]\n}\n'


@case(seconds=60, shared=False)
def examples_readmes():
    """The configuration in the READMEs of the examples that need more than Go is
    valid: the plugins' own programs say so."""
    folder = WORK / "examples_readmes"
    folder.mkdir()
    (folder / "dev-people.hcl").write_bytes((CONFIGS / "dev-people.hcl").read_bytes())
    for page, program in ((EXAMPLES / "subject-tagger", TAGGER), (EXAMPLES / "webhook", WEBHOOK)):
        blocks = re.findall(r"(?ms)^```hcl\n(.*?)^```$", (page / "README.md").read_text())
        wholes = [b for b in blocks if b.startswith("plugin ")]
        check(wholes, f"{page.name}/README.md has a whole example")
        for block in wholes:
            piece = re.sub(r'(?m)^  path = ".*"$', lambda _: f'  path = "{program}"', block, count=1)
            piece += "" if "\nreceive " in piece else LISTENER
            (folder / "server.hcl").write_text(SERVER.format(data=folder / "data", piece=piece))
            run(BIN, "validate", "-c", folder / "server.hcl")


def new_plugins(language):
    """`stagecoach plugin new`, for every kind that there is in a language: the
    commands that it prints are run as they stand."""
    told = re.search(rf"(?m)^  {language} +(\w+(?:, \w+)*)$", run(BIN, "plugin", "new", "--help"))
    check(told, f"the help names the kinds in {language}")
    kinds = told[1].split(", ")
    (WORK / "bin").mkdir(exist_ok=True)
    if not (WORK / "bin" / "stagecoach").exists():
        (WORK / "bin" / "stagecoach").symlink_to(BIN)
    env = dict(os.environ, PATH=f"{WORK}/bin:{os.environ['PATH']}", npm_config_offline="true")
    for kind in kinds:
        folder = WORK / f"new-{language}-{kind}"
        written = json.loads(run(BIN, "plugin", "new", kind, f"my{kind}", "--lang", language, "--dir", folder, "--json"))
        check(any("conform" in c for c in written["Commands"]), f"the commands: {written['Commands']}")
        for command in written["Commands"]:
            run("bash", "-c", command, cwd=folder, env=env)
    return ", ".join(kinds)


@case(seconds=900, shared=False)
def new_python_plugins():
    return new_plugins("python")


@case(seconds=900, shared=False)
def new_node_plugins():
    return new_plugins("node")


@case(seconds=180, shared=False)
def python_tests():
    """The Python SDK's and its example's own tests."""
    for folder in (ROOT / "sdk" / "python", PLUGINS / "subject-tagger"):
        run(PYTHON, "-m", "unittest", cwd=folder)


@case(seconds=180, shared=False)
def node_tests():
    """The Node SDK's and its example's own tests."""
    for folder in (PLUGINS / "sdk" / "node", PLUGINS / "examples" / "webhook"):
        run("npm", "test", cwd=folder)
