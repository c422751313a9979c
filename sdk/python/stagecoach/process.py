"""The process around an instance: what the core and it agree on at the start
(hashicorp/go-plugin's handshake), and its end."""
from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time

import grpc

from stagecoach import certificate, log
from stagecoach.plugin import Plugin
from stagecoach.server import Service, describe
from stagecoach.v1 import plugin_pb2 as v1

PROTOCOL_VERSION = 1
COOKIE_KEY, COOKIE_VALUE = "STAGECOACH_PLUGIN", "dbcf8a2c-stagecoach-plugin-v1"
# How long a plugin that gets SIGTERM drains, in seconds.
TERM_GRACE = 5.0


def serve(plugin: type[Plugin]) -> None:
    """The main of a plugin. It does not return: the process ends when the core has
    told it to, with status 0. Started by hand it says what it is, status 2."""
    if os.environ.get(COOKIE_KEY) != COOKIE_VALUE:
        by_hand(plugin)
        sys.exit(2)
    # The handshake has stdout for itself: what anybody prints becomes log lines.
    stdout = os.dup(1)
    os.dup2(2, 1)
    log.to(sys.stderr)
    try:
        service = Service(plugin, os.environ.get("PLUGIN_UNIX_SOCKET_DIR"))
        # Not the process's number: in a namespace of its own it is always the same.
        # Not longer either: the core left room for so much of a socket's 107 octets.
        path = os.path.join(service._directory, "plugin-" + secrets.token_hex(4))
        line = listen(service, path)
    except Exception as e:
        print("stagecoach plugin: %s" % e, file=sys.stderr, flush=True)
        sys.exit(1)
    # A Ctrl-C goes to the whole foreground group, and the core ends us in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end = End(service)
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    os.write(stdout, line.encode())
    term = end.wait()
    status = 0
    try:
        if term:
            service.drain(TERM_GRACE)
        service.close()
    except Exception as e:
        service.value.log.exception("could not close: %s", e)
        status = 1
    if os.path.exists(path):
        os.unlink(path)
    sys.stderr.flush()
    # Not sys.exit: that would wait for handlers that do not end.
    os._exit(status)


def listen(service: Service, path: str) -> str:
    """Serves on a socket at path; returns the handshake line."""
    offered = os.environ.get("PLUGIN_PROTOCOL_VERSIONS", str(PROTOCOL_VERSION))
    if str(PROTOCOL_VERSION) not in offered.split(","):
        raise RuntimeError("the core speaks the contract's versions %s, this plugin %d" % (offered, PROTOCOL_VERSION))
    client, cert, credentials = os.environ.get("PLUGIN_CLIENT_CERT", ""), "", None
    if client:
        key, own = certificate.own()
        cert = certificate.der(own)
        credentials = grpc.ssl_server_credentials([(key, own)], root_certificates=client.encode(), require_client_auth=True)
    service.listen(path, credentials)
    return "1|%d|unix|%s|grpc|%s\n" % (PROTOCOL_VERSION, path, cert)


class End:
    """The end of the process: a Shutdown or a SIGTERM.

    The kernel may give the signal to any thread, gRPC's among them. Python's own
    handler would run when the main thread wakes up, which an Event does not see to:
    so the main thread reads a pipe, into which the signal's number is written
    whichever thread got it."""

    def __init__(self, service: Service):
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        threading.Thread(target=self._shutdown, args=(service,), daemon=True).start()

    def _shutdown(self, service: Service) -> None:
        service.shutdown.wait()
        os.write(self._write, b"\0")

    def wait(self) -> bool:
        """Whether it is by SIGTERM."""
        while True:
            what = os.read(self._read, 1)[0]
            if what in (0, signal.SIGTERM):  # the plugin may handle other signals
                return what != 0


def end_with_parent(parent: int) -> None:
    """Ends the process when the core is gone: the kernel then gives it another
    parent. It backs up the signal that the core asks the kernel for."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(3)


def by_hand(plugin: type[Plugin]) -> None:
    """Tells a person what this program is."""
    try:
        d = describe(plugin)
    except TypeError as e:
        print("stagecoach plugin: %s" % e, file=sys.stderr)
        return
    kind = v1.Kind.Name(d.kind)[len("KIND_"):].lower()
    print("""This is a Stagecoach plugin: %s "%s" %s
%s
Stagecoach starts it itself. Name it in the configuration:

  plugin "%s" { path = "%s" }
  %s "%s" "my" { }""" % (kind, d.name, d.version, d.summary, d.name, os.path.abspath(sys.argv[0]), kind, d.name), file=sys.stderr)
