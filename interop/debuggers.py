"""A plugin under its author's debugger: `stagecoach plugin dev --debug` starts it
stopped, a breakpoint holds the call for longer than any call may take, and the answer
still comes."""

import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time

from harness import BIN, WORK, case, check, run, until

HELD = 7  # seconds: a filter's time-out is 5


class Dev:
    """`plugin dev --debug --once --json` of a new filter."""

    def __init__(self, language):
        self.folder = WORK / f"debugged-{language}"
        run(BIN, "plugin", "new", "filter", "held", "--lang", language, "--dir", self.folder, "--json")
        mail = WORK / f"debugged-{language}.eml"
        mail.write_text("Subject: lottery\n\nx\n")
        self.process = subprocess.Popen([BIN, "plugin", "dev", self.folder, "--mail", mail, "--once", "--json", "--debug"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self.said, self.lock = [], threading.Lock()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            print(line.decode(errors="replace"), end="")
            with self.lock:
                self.said.append(line.decode(errors="replace"))

    def text(self):
        with self.lock:
            return "".join(self.said)

    def connected(self, debugger):
        """The debugger's socket, as dev says where it is."""
        where = re.compile(r'"debug".*?127\.0\.0\.1[^0-9]+(\d+)', re.S)
        until(180, "dev says how to connect", lambda: where.search(self.text()) or self.process.poll() is not None)
        check(debugger in self.text(), f"dev does not use {debugger}: {self.text()[-600:]}")
        port = int(where.search(self.text()).group(1))

        def connect():
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=60)
            except OSError:
                return None

        return until(60, "the debugger listens", connect)

    def answers(self):
        """The call was held for long, and is answered all the same."""
        check("REJECT" not in self.text(), "there is an answer while the breakpoint holds the call")
        time.sleep(HELD)
        check(self.process.poll() is None, f"dev ended while the breakpoint held the call: {self.text()[-600:]}")

    def ended(self):
        code = self.process.wait(120)
        text = self.text()
        check(code == 0, f"dev ended with {code}: {text[-1500:]}")
        check("REJECT" in text and "550" in text, f"no refusal in what dev says: {text[-1500:]}")
        return f"held {HELD} s at a breakpoint, then answered"


@contextlib.contextmanager
def developing(language):
    dev = Dev(language)
    try:
        yield dev
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(dev.process.pid, signal.SIGKILL)
        dev.process.wait()


# --- Go: Delve's own protocol, JSON-RPC on a socket ---


class Delve:
    def __init__(self, sock):
        self.sock, self.file, self.id = sock, sock.makefile("rb"), 0

    def send(self, method, **args):
        self.id += 1
        self.sock.sendall(json.dumps({"method": f"RPCServer.{method}", "params": [args], "id": self.id}).encode() + b"\n")

    def call(self, method, **args):
        self.send(method, **args)
        reply = json.loads(self.file.readline())
        check(not reply["error"], f"{method}: {reply['error']}")
        return reply["result"]


@case(seconds=400, shared=False)
def dev_under_delve():
    with developing("go") as dev:
        delve = Delve(dev.connected("dlv"))
        of = re.search(r"func \(\w+ \*(\w+)\) Filter\(", (dev.folder / "main.go").read_text()).group(1)
        point = delve.call("CreateBreakpoint", Breakpoint={"functionName": f"main.(*{of}).Filter"})["Breakpoint"]
        state = delve.call("Command", name="continue")["State"]
        thread = state["currentThread"]
        check(thread["breakPoint"]["id"] == point["id"], f"it stopped elsewhere: {thread}")
        dev.answers()
        delve.call("ClearBreakpoint", Id=point["id"])
        delve.send("Command", name="continue")  # answered when the program ends
        return dev.ended()


# --- Python: the debug adapter protocol ---


class Adapter:
    def __init__(self, sock):
        self.sock, self.file, self.seq = sock, sock.makefile("rb"), 0
        self.events, self.replies = queue.Queue(), queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        with contextlib.suppress(OSError, ValueError):
            while True:
                length = 0
                while line := self.file.readline().strip():
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                if not length:
                    return
                message = json.loads(self.file.read(length))
                (self.events if message["type"] == "event" else self.replies).put(message)

    def send(self, command, **arguments):
        self.seq += 1
        body = json.dumps({"seq": self.seq, "type": "request", "command": command, "arguments": arguments}).encode()
        self.sock.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return self.seq

    def call(self, command, **arguments):
        seq = self.send(command, **arguments)
        while True:
            reply = self.replies.get(timeout=60)
            if reply.get("request_seq") == seq:
                check(reply.get("success"), f"{command}: {reply}")
                return reply.get("body") or {}

    def event(self, name):
        while True:
            event = self.events.get(timeout=120)
            if event["event"] == name:
                return event.get("body") or {}


@case(seconds=300, shared=False)
def dev_under_debugpy():
    with developing("python") as dev:
        program = dev.folder / "main.py"
        line = next(n for n, text in enumerate(program.read_text().splitlines(), 1) if "def filter(" in text)
        body = next(n for n, text in enumerate(program.read_text().splitlines(), 1)
                    if n > line and text.strip() and not text.strip().startswith(('"""', "#")))
        adapter = Adapter(dev.connected("debugpy"))
        adapter.call("initialize", adapterID="stagecoach", pathFormat="path")
        adapter.send("attach", justMyCode=True)
        adapter.event("initialized")
        adapter.call("setBreakpoints", source={"path": str(program)}, breakpoints=[{"line": body}])
        adapter.call("configurationDone")
        stopped = adapter.event("stopped")
        check(stopped.get("reason") == "breakpoint", f"it stopped for another reason: {stopped}")
        dev.answers()
        adapter.call("setBreakpoints", source={"path": str(program)}, breakpoints=[])
        adapter.call("continue", threadId=stopped["threadId"])
        return dev.ended()
