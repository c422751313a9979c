"""Plugin to plugin. A directory or a storage is called by access plugins on a
data socket whose listening end the core passed to it as an open file; an access
plugin calls theirs. Who may call shows a granted token, and is of the same user."""
from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Optional

import grpc

from stagecoach.fail import Failure
from stagecoach.session import DEFAULT_CREDITS, Caller, Deadlines, Handler, Serving, read_frame
from stagecoach.v1 import plugin_pb2 as v1

TOKEN_KEY = "stagecoach-token"
SERVICE = "stagecoach.plugin.v1.Peer"
# Users, beside root and its own, whose processes may call: the core gave some
# plugins a user of their own.
CALLERS_ENV = "STAGECOACH_CALLERS"
# gRPC's own limit of 4 MiB is too small for a large mailbox's columns.
OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
# How long a draining end waits for calls that were written before the other side
# knew of it, in seconds.
QUIET = 0.05

log = logging.getLogger("stagecoach")


class Tokens:
    """The tokens that open a data socket, as hashes: the time that a look-up takes
    says nothing."""

    def __init__(self, tokens=()):
        self._lock, self._set = threading.Lock(), set()
        self.add(tokens)

    def add(self, tokens) -> None:
        with self._lock:
            self._set.update(hashlib.sha256(t.encode()).digest() for t in tokens if t)

    def __contains__(self, token: str) -> bool:
        with self._lock:
            return hashlib.sha256(token.encode()).digest() in self._set


class PeerServer:
    """Serves Peer on the listening socket that the core passed. gRPC for Python
    cannot take an open socket, so its connections are handed on, octet by octet, to
    a gRPC server on a socket of this process's own."""

    def __init__(self, fd: int, directory: str, tokens: Tokens, max_concurrent: int, handler: Handler,
                 pool: ThreadPoolExecutor, deadlines: Deadlines):
        self._tokens, self._max, self._handler = tokens, max_concurrent, handler
        self._pool, self._deadlines = pool, deadlines
        self._lock, self._sessions, self._draining = threading.Lock(), set(), False
        self._callers = {0, os.getuid(), *map(int, os.environ.get(CALLERS_ENV, "").split())}
        self._path = os.path.join(directory, "peer-" + secrets.token_hex(4))
        self._listener = socket.socket(fileno=fd)
        os.set_inheritable(fd, False)
        self._listener.settimeout(0.2)
        self._server = grpc.server(ThreadPoolExecutor(256, "peer"), options=OPTIONS)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {
            "Session": grpc.stream_stream_rpc_method_handler(self._session, read_frame, v1.Frame.SerializeToString)}),))
        self._server.add_insecure_port("unix:" + self._path)
        self._server.start()
        self._accepting = threading.Thread(target=self._accept, name="data socket", daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while not self._draining:
            try:
                conn, _ = self._listener.accept()
            except socket.timeout:
                continue
            except OSError:
                if not self._draining:
                    log.exception("the data socket stopped")
                return
            uid = struct.unpack("3i", conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
            if uid not in self._callers:
                log.warning("a process of user %d was refused on the data socket", uid)
                conn.close()
                continue
            try:
                inner = socket.socket(socket.AF_UNIX)
                inner.connect(self._path)
            except OSError:
                conn.close()
                continue
            conn.settimeout(None)
            threading.Thread(target=_join, args=(conn, inner), name="data socket", daemon=True).start()

    def _session(self, requests, context):
        token = dict(context.invocation_metadata()).get(TOKEN_KEY, "")
        if token not in self._tokens:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not one that was granted")
        serving = Serving(self._handler, self._max, self._pool, self._deadlines)
        with self._lock:
            if self._draining:
                context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
            self._sessions.add(serving)
        context.add_callback(lambda: self._sessions.discard(serving))
        # A peer has not seen Describe: it begins with the default and is told the
        # difference. Sent even if there is none: it opens the stream.
        serving.credit(self._max - DEFAULT_CREDITS)
        return serving.run(requests)

    def drain(self, seconds: Optional[float]) -> None:
        """Takes nothing new, tells the callers so, waits for what is under way."""
        with self._lock:
            self._draining, sessions = True, list(self._sessions)
        self._accepting.join()
        self._listener.close()
        end = time.monotonic() + (seconds if seconds is not None else 3600)
        for s in sessions:
            s.credit(-self._max)
        quiet = time.monotonic()
        while time.monotonic() < end and time.monotonic() - quiet < QUIET:
            for s in sessions:
                s.end_endless()
                if not s.idle():
                    quiet = time.monotonic()
            time.sleep(QUIET / 10)
        for s in sessions:
            s.close()
        self.stop()

    def stop(self) -> None:
        """Ends all at once."""
        self._draining = True
        self._server.stop(0.2)
        if os.path.exists(self._path):
            os.unlink(self._path)


def _join(a: socket.socket, b: socket.socket) -> None:
    """Hands octets on in both directions until both have ended."""
    with a, b:
        back = threading.Thread(target=_pump, args=(b, a), name="data socket", daemon=True)
        back.start()
        _pump(a, b)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(64 << 10):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Peer:
    """The way to another plugin: dials when asked, and again after a break."""

    def __init__(self, grant):
        self.grant = grant
        self._lock, self._caller = threading.Lock(), None

    def rebind(self, grant) -> None:
        with self._lock:
            moved, self.grant = (grant.address, grant.token) != (self.grant.address, self.grant.token), grant
            if moved and self._caller:
                self._caller.close()
                self._caller = None

    def caller(self) -> Caller:
        with self._lock:
            if self._caller is None or self._caller.broken:
                self._caller = dial(self.grant.address, self.grant.token)
            return self._caller

    def close(self) -> None:
        with self._lock:
            if self._caller:
                self._caller.close()


def dial(address: str, token: str) -> Caller:
    """Opens a session on a data socket."""
    channel = grpc.insecure_channel("unix:" + address, options=OPTIONS)
    open_stream: Callable = channel.stream_stream("/%s/Session" % SERVICE, v1.Frame.SerializeToString, v1.Frame.FromString)
    try:
        return Caller(lambda frames: open_stream(frames, metadata=((TOKEN_KEY, token),), wait_for_ready=True), closed=channel.close)
    except grpc.RpcError as e:
        raise Failure("UNAVAILABLE", "dial %s: %s" % (address, e)) from None
