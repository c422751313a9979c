"""Runs a plugin in its own unit test: over a real socket, through Describe,
Configure, Ready, Session and Drain as the core does it, but without a process.

    with testing.run(Subject, {"forbid": ["lottery"]}) as subject:
        reply = subject.ask(testing.message("Subject: Lottery\\n\\nhello\\n"))
        assert testing.action(reply) == "REJECT"
"""
from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
from contextlib import contextmanager
from typing import Any, Iterable, Iterator, Optional

import grpc

from stagecoach.mail import INLINE_LIMIT
from stagecoach.peer import OPTIONS
from stagecoach.plugin import Plugin
from stagecoach.schema import Mistake
from stagecoach.server import SERVICE, Service
from stagecoach.session import Caller
from stagecoach.v1 import common_pb2, deliver_pb2, directory_pb2, filter_pb2, plugin_pb2 as v1, storage_pb2


class run:
    """A plugin under test, as a context manager. config has the attributes that the
    operator would write, as JSON has them ("2m", "25MB"). A configuration that the
    plugin refuses raises AssertionError."""

    def __init__(self, plugin: type[Plugin], config: Optional[dict[str, Any]] = None, **configure: Any):
        self._plugin, self._config, self._configure = plugin, config or {}, configure

    def __enter__(self) -> run:
        self._dir = tempfile.TemporaryDirectory(prefix="stagecoach")
        self.service = Service(self._plugin, self._dir.name)
        path = os.path.join(self._dir.name, "plugin.sock")
        self.service.listen(path)
        self._channel = grpc.insecure_channel("unix:" + path, options=OPTIONS)
        self.caller: Optional[Caller] = None
        try:
            self.description = self.control("Describe")
            self.diagnostics = self._diagnose()
            wrong = [d for d in self.diagnostics if d.severity == v1.Diagnostic.ERROR]
            assert not wrong, "the plugin refuses its configuration: %s" % "; ".join(text(d) for d in wrong)
            self.control("Ready")
            if self.description.kind != v1.KIND_ACCESS:
                stream = self._channel.stream_stream("/%s/Session" % SERVICE, v1.Frame.SerializeToString, v1.Frame.FromString)
                self.caller = Caller(stream, self.description.max_concurrent or 64)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            if kind is None:
                self.control("Drain", deadline_ms=10_000)
        finally:
            self._end()

    def _end(self) -> None:
        if self.caller:
            self.caller.close()
        self._channel.close()
        self.service.close()
        self._dir.cleanup()

    def _diagnose(self) -> list[v1.Diagnostic]:
        data = os.path.join(self._dir.name, "data")
        if self.description.needs.data_dir:
            os.mkdir(data)
        request = dict(instance="test.%s.test" % self.description.name, hostname="mx.ryan.example",
                       data_dir=data if self.description.needs.data_dir else "",
                       config_json=json.dumps(with_defaults(self._config, self.description.schema.block)).encode())
        request.update(self._configure)
        response = self.control("Configure", **request)
        self.interest = response.filter
        return list(response.diagnostics)

    def control(self, name: str, **fields: Any) -> Any:
        """A unary call of the contract: control("Health")."""
        request = getattr(v1, name + "Request")
        method = self._channel.unary_unary("/%s/%s" % (SERVICE, name), request.SerializeToString,
                                           getattr(v1, name + "Response").FromString)
        return method(request(**fields), timeout=60)

    def metrics(self) -> dict[str, float]:
        """The counters and gauges by name; labels follow it in braces."""
        out = {}
        for m in self.control("Metrics").metrics:
            labels = ",".join('%s="%s"' % kv for kv in sorted(m.labels.items()))
            out[m.name + ("{%s}" % labels if labels else "")] = m.value
        return out

    def ask(self, call: filter_pb2.FilterCall, timeout: float = 60) -> filter_pb2.FilterReply:
        """Asks a filter. Of the call only what its interest names arrives."""
        want = self.interest
        if call.event not in want.events:
            raise AssertionError("the filter did not ask for %s" % filter_pb2.FilterEvent.Name(call.event))
        if want.max_size and call.message.size > want.max_size:
            raise AssertionError("the filter wants no message above %d octets; this one has %d" % (want.max_size, call.message.size))
        sent = filter_pb2.FilterCall()
        sent.CopyFrom(call)
        if want.body != filter_pb2.FilterInterest.FULL:
            sent.ClearField("message")
        del sent.header[:]
        if want.body != filter_pb2.FilterInterest.NONE:
            sent.header.extend(f for f in call.header if not want.header_names or f.name.lower() in want.header_names)
        return self.caller.call(v1.Call(filter=sent), timeout).filter

    def deliver(self, call: deliver_pb2.DeliverCall, timeout: float = 60) -> dict[int, deliver_pb2.DeliverOutcome]:
        """Gives a message to a delivery plugin; the outcomes by recipient's index."""
        reply = self.caller.call(v1.Call(deliver=call), timeout)
        return {o.recipient: o for o in reply.deliver.outcomes}

    def resolve(self, address: str, timeout: float = 60) -> directory_pb2.ResolveResponse:
        """Asks a directory."""
        call = v1.Call()
        call.directory.resolve.address = address
        return self.caller.call(call, timeout).directory.resolve

    def store(self, account: str, op: str, request: Any = None, timeout: float = 60) -> Any:
        """Asks a storage: store("meg@ryan.example", "snapshot", SnapshotRequest(…)). op
        and the answer are as StorageCall and StorageReply have them; fetch answers
        with all items in a list."""
        call = v1.Call(storage=storage_pb2.StorageCall(account=account))
        getattr(call.storage, op).SetInParent()
        if request is not None:
            getattr(call.storage, op).CopyFrom(request)
        answer, items = None, []
        for reply in self.caller.stream(call, timeout):
            answer = getattr(reply.storage, op)
            if op == "fetch":
                items.extend(answer.items)
        return items if op == "fetch" else answer

    def watch(self, account: str, since_modseq: int = 0) -> Iterator[storage_pb2.ChangeEvent]:
        """A storage's change events; leaving the loop ends them."""
        call = v1.Call(storage=storage_pb2.StorageCall(account=account))
        call.storage.watch.since_modseq = since_modseq
        return (reply.storage.watch for reply in self.caller.stream(call))


@contextmanager
def peer(plugin: type[Plugin], role: str, config: Optional[dict[str, Any]] = None) -> Iterator[v1.Grant]:
    """Runs a storage or a directory that an access plugin under test calls; role is
    "storage" or "auth".

        with testing.peer(Memory, "storage") as grant:
            address, listener = testing.listener()
            with testing.run(Reader, grants=[grant], listeners=[listener]):
                socket.create_connection(address)
    """
    with tempfile.TemporaryDirectory(prefix="stagecoach") as folder, socket.socket(socket.AF_UNIX) as data:
        path, token = os.path.join(folder, "data.sock"), secrets.token_hex(16)
        data.bind(path)
        data.listen()
        with run(plugin, config, data_socket_fd=os.dup(data.fileno()), data_tokens=[token]):
            yield v1.Grant(role=role, instance="%s.test.test" % role, address=path, token=token)


def listener(implicit_tls: bool = False) -> tuple[tuple[str, int], v1.Listener]:
    """A port on loopback, bound for an access plugin under test: its address, and
    what Configure passes. The plugin closes it at its end."""
    front = socket.create_server(("127.0.0.1", 0))
    return front.getsockname(), v1.Listener(address="127.0.0.1", fd=front.detach(), implicit_tls=implicit_tls)


def diagnostics(plugin: type[Plugin], config: dict[str, Any]) -> list[str]:
    """What a plugin has to say against a configuration: "path: summary" for each."""
    r = run(plugin, config)
    try:
        with r:
            pass
    except AssertionError:
        pass
    return [text(d) for d in r.diagnostics]


def text(d: v1.Diagnostic) -> str:
    """A diagnostic as "path: summary"."""
    return str(Mistake(d.summary, *(s.name if s.WhichOneof("step") == "name" else s.index for s in d.path)))


def with_defaults(config: dict[str, Any], block: v1.Schema.Block, labels: Iterable[str] = ()) -> dict[str, Any]:
    """Fills in what the core fills in."""
    out = dict(config)
    unknown = set(out) - {a.name for a in block.attributes} - {nb.name for nb in block.blocks} - set(labels)
    assert not unknown, "the plugin has no attribute %s" % ", ".join(sorted(unknown))
    for a in block.attributes:
        if out.get(a.name) is None and a.default_json:
            out[a.name] = json.loads(a.default_json)
    for nb in block.blocks:
        inner = out.get(nb.name)
        if isinstance(inner, dict):
            out[nb.name] = with_defaults(inner, nb.block, nb.labels)
        elif isinstance(inner, list):
            out[nb.name] = [with_defaults(one, nb.block, nb.labels) for one in inner]
    return out


def envelope(sender: str = "tom@hanks.example", recipients: Iterable[str] = ("meg@ryan.example",)) -> common_pb2.Envelope:
    """A mail's envelope, from Tom to Meg."""
    e = common_pb2.Envelope(transaction="test", queue_id="test", sender=sender,
                            client=common_pb2.Client(ip="192.0.2.1", hello="mx.hanks.example", protocol="ESMTP"))
    for i, address in enumerate(recipients):
        e.recipients.add(address=address, index=i)
    return e


def reference(octets: bytes) -> common_pb2.MessageRef:
    """A message as the core hands it over: above the inline limit it is a file."""
    if len(octets) <= INLINE_LIMIT:
        return common_pb2.MessageRef(size=len(octets), inline=octets)
    f = tempfile.NamedTemporaryFile(prefix="message", delete=False)
    with f:
        f.write(octets)
    _files.append(f.name)
    return common_pb2.MessageRef(size=len(octets), path=f.name)


_files: list[str] = []


def remove_files() -> None:
    """Removes the files of large messages; call it in tearDown."""
    while _files:
        os.unlink(_files.pop())


def crlf(content: str) -> bytes:
    """A text with the line ends of mail."""
    return content.replace("\r\n", "\n").replace("\n", "\r\n").encode("utf-8", "surrogateescape")


def message(content: str, event: str = "MESSAGE", **env: Any) -> filter_pb2.FilterCall:
    """A question about a message (line ends as in Python source)."""
    octets = crlf(content)
    call = filter_pb2.FilterCall(event=event, recipient=-1, message=reference(octets), idempotency_key="test", envelope=envelope(**env))
    call.envelope.size = len(octets)
    for line in octets.split(b"\r\n\r\n", 1)[0].split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and call.header:
            call.header[-1].value += b"\r\n" + line
        elif b":" in line:
            name, value = line.split(b":", 1)
            call.header.add(name=name.decode("ascii", "replace"), value=value)
    return call


def delivery(content: str, key: str = "test", **env: Any) -> deliver_pb2.DeliverCall:
    """A message to deliver."""
    octets = crlf(content)
    call = deliver_pb2.DeliverCall(message=reference(octets), idempotency_key=key, envelope=envelope(**env))
    call.envelope.size = len(octets)
    return call


def deposit(octets: bytes, *targets: storage_pb2.DepositRequest.Target, queue_id: str = "q1",
            return_path: str = "tom@hanks.example", received_ms: int = 1171494123000) -> storage_pb2.DepositRequest:
    """A deposit of a message for targets. A target's key is its index, its recipient
    its account unless it says otherwise."""
    request = storage_pb2.DepositRequest(queue_id=queue_id, return_path=return_path, received_ms=received_ms,
                                         message=reference(octets), targets=targets)
    for i, target in enumerate(request.targets):
        target.key, target.recipient = i, target.recipient or target.account
    return request


def action(reply: filter_pb2.FilterReply, recipient: Optional[int] = None) -> str:
    """The verdict's action, also for one recipient."""
    v = reply.verdict if recipient is None or recipient not in reply.per_recipient else reply.per_recipient[recipient]
    return filter_pb2.Verdict.Action.Name(v.action)
