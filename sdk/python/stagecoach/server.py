"""The contract's Plugin service for one instance of a plugin."""
from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

import grpc

from stagecoach import plugin as kinds
from stagecoach.peer import OPTIONS, Peer, PeerServer, Tokens
from stagecoach.schema import Mistake, Mistakes, decode, schema_of
from stagecoach.session import Deadlines, Serving, read_frame
from stagecoach.v1 import plugin_pb2 as v1

SERVICE = "stagecoach.plugin.v1.Plugin"

log = logging.getLogger("stagecoach")


def describe(plugin: type[kinds.Plugin]) -> v1.DescribeResponse:
    """What a plugin is. Runs nothing of it; TypeError if it is not well-formed."""
    if plugin.KIND == v1.KIND_UNSPECIFIED:
        raise TypeError("%s must derive from Filter, Deliverer, Directory, Storage or Access" % plugin.__name__)
    if not plugin.name:
        raise TypeError("%s has no name: the word that stands in the configuration" % plugin.__name__)
    d = v1.DescribeResponse(
        name=plugin.name, kind=plugin.KIND, version=plugin.version, summary=plugin.summary, features=plugin.features,
        schema=schema_of(plugin.config), max_concurrent=plugin.max_concurrent,
        needs=v1.Needs(network=plugin.needs.network, data_dir=plugin.needs.data_dir, read_paths=plugin.needs.read_paths,
                       write_paths=plugin.needs.write_paths, exclusive=plugin.needs.exclusive,
                       programs=plugin.needs.programs))
    if issubclass(plugin, kinds.Filter):
        d.filter.CopyFrom(plugin.interest(None).message())
    return d


class Service:
    """Serves one instance; a plugin's main uses serve instead, this is for tests."""

    def __init__(self, plugin: type[kinds.Plugin], directory: Optional[str] = None):
        self.description = describe(plugin)
        self.value = plugin()
        self.shutdown = threading.Event()  # the core told the process to end
        self._own_directory = None if directory else tempfile.TemporaryDirectory(prefix="stagecoach")
        self._directory = directory or self._own_directory.name
        self._lock, self._stage, self._fault = threading.Lock(), "fresh", None
        self._started, self._access = False, None
        self._peers: dict[str, Peer] = {}
        self._tokens, self._data_fd, self._peer_server = Tokens(), 0, None
        self._pool = ThreadPoolExecutor(plugin.max_concurrent, "call")
        self._deadlines = Deadlines()
        # A session holds a thread of this pool for as long as it lives.
        self._server = grpc.server(ThreadPoolExecutor(16, "control"), options=OPTIONS)
        self._server.add_generic_rpc_handlers((
            grpc.method_handlers_generic_handler(SERVICE, self._methods()),
            # grpc.health.v1: SERVING, which is all that go-plugin asks.
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
                "Check": grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01")}),
            grpc.method_handlers_generic_handler("plugin.GRPCController", {
                "Shutdown": grpc.unary_unary_rpc_method_handler(self._shut_down)}),
        ))

    def _methods(self) -> dict:
        methods = {"Session": grpc.stream_stream_rpc_method_handler(
            self._session, read_frame, v1.Frame.SerializeToString)}
        for name in ("Describe", "Configure", "Ready", "Drain", "Health", "Metrics", "Rebind"):
            methods[name] = grpc.unary_unary_rpc_method_handler(
                getattr(self, "_" + name.lower()), getattr(v1, name + "Request").FromString,
                getattr(v1, name + "Response").SerializeToString)
        return methods

    def listen(self, path: str, credentials: Optional[grpc.ServerCredentials] = None) -> None:
        """Binds a unix socket and serves on it."""
        address = "unix:" + path
        bound = self._server.add_secure_port(address, credentials) if credentials else self._server.add_insecure_port(address)
        if not bound:
            raise RuntimeError("cannot listen on %s (%d octets; a socket's path has at most 107)" % (path, len(path)))
        self._server.start()

    # --- the contract --------------------------------------------------------

    def _describe(self, request: v1.DescribeRequest, context) -> v1.DescribeResponse:
        return self.description

    def _configure(self, request: v1.ConfigureRequest, context) -> v1.ConfigureResponse:
        """Decodes and checks, and opens nothing but the files it was passed."""
        value = self.value
        with self._lock:
            if self._stage != "fresh":
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this process has been configured; start another one")
            if request.config_msgpack and not request.config_json:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "config_json is missing: it always comes with config_msgpack")
            response = v1.ConfigureResponse()
            try:
                config = decode(type(value).config, request.config_json)
                response.diagnostics.extend(m.diagnostic() for m in getattr(config, "_warnings", ()))
                if isinstance(value, kinds.Filter):
                    response.filter.CopyFrom(type(value).interest(config).message())
                if isinstance(value, kinds.Access):
                    self._configure_access(value, request)
            except Mistake as m:
                return v1.ConfigureResponse(diagnostics=[m.diagnostic()])
            except Mistakes as several:
                return v1.ConfigureResponse(diagnostics=[m.diagnostic() for m in several.mistakes])
            value.config = config
            value.instance, value.data_dir, value.hostname = request.instance, request.data_dir, request.hostname
            value.spool_dirs = tuple(request.spool_dirs)
            value.log = logging.getLogger(value.instance or value.name)
            self._tokens.add(request.data_tokens)
            self._data_fd = request.data_socket_fd
            self._stage = "configured"
        return response

    def _configure_access(self, value: kinds.Access, request: v1.ConfigureRequest) -> None:
        if request.tls.cert_pem:
            value.tls = (request.tls.cert_pem, request.tls.key_pem)
        value.insecure_auth = request.insecure_auth
        for g in request.grants:
            self._peers[g.role] = Peer(kinds.Grant(g.role, g.instance, g.address, g.token, g.upload_dir))
        value._peers = self._peers
        for l in request.listeners:
            if l.implicit_tls and not value.tls:
                raise Mistake("%s wants TLS from the first byte, but there is no certificate" % l.address, "tls")
            os.set_inheritable(l.fd, False)
            value.listeners.append(kinds.Listener(socket.socket(fileno=l.fd), l.address, l.implicit_tls))

    def _ready(self, request: v1.ReadyRequest, context) -> v1.ReadyResponse:
        with self._lock:
            if self._stage == "ready":
                return v1.ReadyResponse()
            if self._stage != "configured":
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "Ready comes once, after Configure and before Drain")
            self._stage = "readying"
        try:
            self.value.start()
            self._started = True
            if self._data_fd:
                self._peer_server = PeerServer(self._data_fd, self._directory, self._tokens, self.value.max_concurrent,
                                               self.value.handle, self._pool, self._deadlines)
        except Exception as e:
            log.exception("could not start: %s", e)
            with self._lock:
                self._stage = "configured"
            context.abort(grpc.StatusCode.UNAVAILABLE, "%s: %s" % (type(e).__name__, e))
        with self._lock:
            self._stage = "ready"
        if isinstance(self.value, kinds.Access):
            self._access = threading.Thread(target=self._serve_access, name="access", daemon=True)
            self._access.start()
        return v1.ReadyResponse()

    def _serve_access(self) -> None:
        why = "access stopped"
        try:
            self.value.serve()
        except Exception as e:
            why = "access stopped: %s" % e
            log.exception(why)
        if not self.value.stopping.is_set():
            self._fault = why

    def _session(self, requests, context):
        with self._lock:
            stage = self._stage
        if stage != "ready":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "Session comes after Ready and before Drain")
        if isinstance(self.value, kinds.Access):
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "an access plugin takes no calls")
        serving = Serving(self.value.handle, self.value.max_concurrent, self._pool, self._deadlines)
        context.add_callback(serving.close)
        return serving.run(requests)

    def _drain(self, request: v1.DrainRequest, context) -> v1.DrainResponse:
        try:
            self.drain(request.deadline_ms / 1000 if request.deadline_ms > 0 else None)
        except Exception as e:
            log.exception("could not drain: %s", e)
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "%s: %s" % (type(e).__name__, e))
        return v1.DrainResponse()

    def drain(self, seconds: Optional[float]) -> None:
        """Calls on Session go on being answered: the core sends no more. Peers are
        told to go elsewhere."""
        with self._lock:
            ready, self._stage = self._stage == "ready", "drained"
            peers, self._peer_server = self._peer_server, None
        if peers:
            peers.drain(seconds)
        if self._access:
            self.value.stopping.set()
            self._access.join(seconds)
        if ready:
            self.value.drain(seconds)

    def _health(self, request: v1.HealthRequest, context) -> v1.HealthResponse:
        trouble = self._fault or self.value.health()
        return v1.HealthResponse(ok=not trouble, detail=trouble or "")

    def _metrics(self, request: v1.MetricsRequest, context) -> v1.MetricsResponse:
        return v1.MetricsResponse(metrics=self.value.metrics.snapshot())

    def _rebind(self, request: v1.RebindRequest, context) -> v1.RebindResponse:
        self._tokens.add(request.data_tokens)
        for g in request.grants:
            if g.role in self._peers:
                self._peers[g.role].rebind(kinds.Grant(g.role, g.instance, g.address, g.token, g.upload_dir))
        return v1.RebindResponse()

    def _shut_down(self, request: bytes, context) -> bytes:
        self.shutdown.set()
        return b""

    def close(self) -> None:
        """Ends the instance. Calls under way are cancelled; a handler that does not
        look is not waited for."""
        self._stage = "closed"
        # Bounded: of a stream that broke in just this moment grpcio 1.51 may never hear
        # that it is over.
        self._server.stop(0.5).wait(3)
        if self._access:
            self.value.stopping.set()
            self._access.join(1)
        if self._peer_server:
            self._peer_server.stop()
        for p in self._peers.values():
            p.close()
        for l in getattr(self.value, "listeners", ()):
            l.socket.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._deadlines.close()
        try:
            if self._started:
                self.value.close()
        finally:
            if self._own_directory:
                self._own_directory.cleanup()
