"""What an author derives from: a class per kind. The class says what the plugin
is, an object of it is one instance: one block of the operator's configuration."""
from __future__ import annotations

import logging
import os
import ssl
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Iterable, Optional, Union

from stagecoach.fail import Failure, smtp_reply
from stagecoach.mail import Header, Message
from stagecoach.metrics import Metrics
from stagecoach.session import Call, Caller
from stagecoach.v1 import common_pb2, deliver_pb2, directory_pb2, filter_pb2, plugin_pb2
from stagecoach.verdict import Verdict


@dataclass(frozen=True)
class Needs:
    """What a plugin needs beyond its own process; the sandbox denies the rest."""
    network: bool = False
    data_dir: bool = False  # a directory of its own: self.data_dir
    read_paths: tuple[str, ...] = ()
    write_paths: tuple[str, ...] = ()
    exclusive: bool = False  # only one process may have the data directory
    programs: bool = False  # it runs the system's programs


@dataclass(frozen=True)
class Interest:
    """What a filter is asked and given to see; filter.proto says what the words
    mean. Nothing comes that is not named here."""
    events: tuple[str, ...]
    effect: str = "JUDGE"
    body: str = "NONE"
    header_names: tuple[str, ...] = ()
    max_size: int = 0

    def message(self) -> filter_pb2.FilterInterest:
        """The contract's form; TypeError for a word that it does not have."""
        for words, known in ((self.events, filter_pb2.FilterEvent), ((self.effect,), filter_pb2.FilterInterest.Effect),
                             ((self.body,), filter_pb2.FilterInterest.Body)):
            for word in words:
                if word not in known.keys():
                    raise TypeError("%r is none of %s" % (word, ", ".join(known.keys())))
        if not self.events:
            raise TypeError("a filter without events would never be asked")
        return filter_pb2.FilterInterest(
            events=[filter_pb2.FilterEvent.Value(e) for e in self.events], effect=self.effect, body=self.body,
            header_names=[n.lower() for n in self.header_names], max_size=self.max_size)


class Plugin:
    """The part that all kinds have in common.

    Life of an instance: config is decoded and checked; start opens files and may
    take its time; then calls come, many at a time, each in a thread of its own;
    drain finishes what is under way; close closes. The process then ends.
    """
    KIND = plugin_pb2.KIND_UNSPECIFIED

    name = ""  # as it stands in HCL: filter "NAME" "…"
    version = "0.0.0"
    summary = ""  # in one line
    needs = Needs()
    max_concurrent = 32  # calls at a time; each has a thread
    features: tuple[str, ...] = ()  # of the contract's minor versions
    # config is a dataclass (see stagecoach.schema) in the class, and a filled one
    # in the instance; None: the block has no attributes.
    config: Any = None

    # Set before start:
    instance = ""  # the block's address: "filter.greylist.calm"
    data_dir = ""  # belongs to this instance and outlives it; "" unless needed
    hostname = ""  # of the server
    spool_dirs: tuple[str, ...] = ()  # under which the messages' files lie

    def __init__(self) -> None:
        self.log = logging.getLogger(self.name or "plugin")
        self.metrics = Metrics()

    def start(self) -> None:
        """Open files, load caches. On a reload of a plugin with needs.exclusive the
        old process has ended by then."""

    def drain(self, seconds: Optional[float]) -> None:
        """Finish what is under way, within so many seconds (None: no limit)."""

    def close(self) -> None:
        """Close what start opened. Comes only if start returned."""

    def health(self) -> Optional[str]:
        """What an operator should know of trouble; None for none. Answer at once."""

    def handle(self, request: plugin_pb2.Call, call: Call) -> plugin_pb2.Reply:
        """Answers one call in the contract's form. The kinds do that for you."""
        raise Failure("UNSUPPORTED", "this plugin takes no calls")


# --- filter -----------------------------------------------------------------

class Event:
    """One question to a filter."""

    def __init__(self, request: filter_pb2.FilterCall, call: Optional[Call] = None):
        self.request = request
        self.call = call
        self.kind: str = filter_pb2.FilterEvent.Name(request.event)  # "MESSAGE" and so on
        self.envelope: common_pb2.Envelope = request.envelope
        self.header = Header(request.header)
        self.message = Message(request.message) if request.HasField("message") else None
        self.results: Iterable[filter_pb2.RecipientResult] = request.results
        self.authenticated: bool = request.authenticated
        # The same when the question is repeated after a crash.
        self.idempotency_key: str = request.idempotency_key

    @property
    def recipient(self) -> Optional[common_pb2.Recipient]:
        """The one concerned by RCPT and RCPT_REJECTED, else None."""
        if self.kind not in ("RCPT", "RCPT_REJECTED"):
            return None
        return next((r for r in self.envelope.recipients if r.index == self.request.recipient), None)

    @property
    def cancelled(self) -> bool:
        """Nobody waits for the verdict any more."""
        return self.call is not None and self.call.cancelled

    def remaining(self) -> Optional[float]:
        """Seconds left of the operator's time-out; None: no limit."""
        return self.call.remaining() if self.call else None


class Filter(Plugin):
    """Is asked about a mail and answers with a verdict, tags and edits."""
    KIND = plugin_pb2.KIND_FILTER

    # The interest; filter.proto says what the words mean.
    events: tuple[str, ...] = ()
    effect = "JUDGE"
    body = "NONE"
    header_names: tuple[str, ...] = ()
    max_size = 0

    @classmethod
    def interest(cls, config: Any) -> Interest:
        """What this configuration asks for; config is None for Describe, which
        names the most that the filter may ask for."""
        return Interest(tuple(cls.events), cls.effect, cls.body, tuple(cls.header_names), cls.max_size)

    def filter(self, event: Event) -> Optional[Verdict]:
        """The verdict; None accepts. An exception is not a verdict: the operator's
        on_failure decides then."""
        raise NotImplementedError

    def handle(self, request: plugin_pb2.Call, call: Call) -> plugin_pb2.Reply:
        if request.WhichOneof("request") != "filter":
            raise Failure("UNSUPPORTED", "this plugin is a filter: the call is for another kind")
        verdict = self.filter(Event(request.filter, call)) or Verdict()
        return plugin_pb2.Reply(filter=verdict.reply)


# --- deliver ----------------------------------------------------------------

@dataclass(frozen=True)
class Outcome:
    """What became of one recipient; make one with delivered, later or failed."""
    code: int
    enhanced: str
    text: str
    remote_mta: str = ""  # whose words they are, for the DSN; "": this plugin's
    retry_after: float = 0  # seconds; 0: the queue's own schedule


def delivered(text: str = "delivered", *, remote_mta: str = "") -> Outcome:
    """Handed over, and durable there."""
    return Outcome(250, "2.0.0", text, remote_mta)


def later(text: str, *, code: int = 451, enhanced: str = "4.3.0", remote_mta: str = "",
          retry_after: Union[float, timedelta] = 0) -> Outcome:
    """Not now: the queue tries again, not before retry_after."""
    if isinstance(retry_after, timedelta):
        retry_after = retry_after.total_seconds()
    return Outcome(code, enhanced, text, remote_mta, retry_after)


def failed(text: str, *, code: int = 554, enhanced: str = "5.3.0", remote_mta: str = "") -> Outcome:
    """Never: the sender gets a notice."""
    return Outcome(code, enhanced, text, remote_mta)


class Delivery:
    """One message for recipients that were all routed to this instance."""

    def __init__(self, request: deliver_pb2.DeliverCall, call: Optional[Call] = None):
        self.call = call
        self.envelope: common_pb2.Envelope = request.envelope
        self.recipients: list[common_pb2.Recipient] = list(request.envelope.recipients)
        self.message = Message(request.message)
        # Together with a recipient's index it names one delivery, however often
        # that is tried.
        self.idempotency_key: str = request.idempotency_key

    @property
    def cancelled(self) -> bool:
        """Nobody waits for the outcome any more."""
        return self.call is not None and self.call.cancelled

    def remaining(self) -> Optional[float]:
        """Seconds left of the time for this call; None: no limit."""
        return self.call.remaining() if self.call else None


class Deliverer(Plugin):
    """A way out: a program, an API, a chat.

    Final outcomes are remembered for REMEMBERED deliveries: if the queue asks again
    because it did not get the answer, they are not delivered twice, and while the
    first is still under way the queue is told to come back later. The memory ends
    with the process; what must hold beyond gives idempotency_key to the other
    side."""
    KIND = plugin_pb2.KIND_DELIVER
    REMEMBERED = 10_000

    def __init__(self) -> None:
        super().__init__()
        self._lock, self._final, self._under_way = threading.Lock(), OrderedDict(), set()

    def deliver(self, delivery: Delivery) -> Union[Outcome, dict[int, Outcome]]:
        """An outcome for all recipients, or one by each recipient's index. An
        exception fails them all for now."""
        raise NotImplementedError

    def handle(self, request: plugin_pb2.Call, call: Call) -> plugin_pb2.Reply:
        if request.WhichOneof("request") != "deliver":
            raise Failure("UNSUPPORTED", "this plugin delivers: the call is for another kind")
        delivery = Delivery(request.deliver, call)
        known = self._begin(delivery)
        got: dict[int, Outcome] = {}
        if delivery.recipients:
            try:
                answer = self.deliver(delivery)
                got = {r.index: answer for r in delivery.recipients} if isinstance(answer, Outcome) else answer
            finally:
                self._end(delivery, got)
        reply = plugin_pb2.Reply()
        reply.deliver.SetInParent()
        for r in request.deliver.envelope.recipients:
            o = known.get(r.index) or got.get(r.index) or later("the plugin %s said nothing about %s" % (self.name, r.address))
            reply.deliver.outcomes.add(recipient=r.index, reply=smtp_reply(o.code, o.enhanced, o.text),
                                       remote_mta=o.remote_mta, retry_after_ms=int(o.retry_after * 1000))
        return reply

    def _begin(self, delivery: Delivery) -> dict[int, Outcome]:
        """Takes out of a delivery whom it need not reach, and says why."""
        known: dict[int, Outcome] = {}
        if not delivery.idempotency_key:
            return known
        with self._lock:
            for r in delivery.recipients:
                key = delivery.idempotency_key, r.index
                if key in self._final:
                    known[r.index] = self._final[key]
                elif key in self._under_way:
                    known[r.index] = later("this delivery is still under way", retry_after=10)
            delivery.recipients = [r for r in delivery.recipients if r.index not in known]
            self._under_way.update((delivery.idempotency_key, r.index) for r in delivery.recipients)
        return known

    def _end(self, delivery: Delivery, outcomes: dict[int, Outcome]) -> None:
        if not delivery.idempotency_key:
            return
        with self._lock:
            for r in delivery.recipients:
                key = delivery.idempotency_key, r.index
                self._under_way.discard(key)
                o = outcomes.get(r.index)
                if o and not 400 <= o.code < 500:
                    self._final[key] = o
            while len(self._final) > self.REMEMBERED:
                self._final.popitem(last=False)


# --- directory --------------------------------------------------------------

_RESOLVE = directory_pb2.ResolveResponse


def not_mine() -> _RESOLVE:
    """The domain is not this directory's."""
    return _RESOLVE(result=_RESOLVE.NOT_MINE)


def no_such_user() -> _RESOLVE:
    """The domain is this directory's, the user does not exist."""
    return _RESOLVE(result=_RESOLVE.NO_SUCH_USER)


def mailbox(account: str, *, detail: str = "", quota_bytes: int = 0, catch_all: bool = False) -> _RESOLVE:
    """A mailbox. detail is the part after the separator of a plus-address."""
    return _RESOLVE(result=_RESOLVE.MAILBOX, account=account, detail=detail, quota_bytes=quota_bytes, catch_all=catch_all)


def alias(*targets: str, catch_all: bool = False) -> _RESOLVE:
    """Stands for other addresses, one step: the core follows and stops at loops."""
    return _RESOLVE(result=_RESOLVE.ALIAS, targets=targets, catch_all=catch_all)


def disabled(code: int, enhanced: str, text: str) -> _RESOLVE:
    """Exists and takes no mail now."""
    return _RESOLVE(result=_RESOLVE.DISABLED, reply=smtp_reply(code, enhanced, text))


class Directory(Plugin):
    """Knows who exists, what an alias stands for, who may log in."""
    KIND = plugin_pb2.KIND_DIRECTORY

    def resolve(self, address: str) -> _RESOLVE:
        """What an address stands for: not_mine, no_such_user, mailbox, alias or
        disabled."""
        raise NotImplementedError

    def authenticate(self, request: directory_pb2.AuthenticateRequest) -> Union[str, directory_pb2.AuthenticateResponse]:
        """The account that the password opens; Failure("DENIED", …) for a wrong
        one, with no word on whether the user exists."""
        raise Failure("UNSUPPORTED", "this directory checks no passwords")

    def credentials(self, request: directory_pb2.CredentialsRequest) -> directory_pb2.CredentialsResponse:
        """The verifier of a challenge mechanism (SCRAM-SHA-256)."""
        raise Failure("UNSUPPORTED", "this directory has no verifiers")

    def domains(self) -> Iterable[str]:
        """The domains whose users it knows."""
        return ()

    def handle(self, request: plugin_pb2.Call, call: Call) -> plugin_pb2.Reply:
        op = request.directory.WhichOneof("op")
        reply = plugin_pb2.Reply()
        if op == "resolve":
            reply.directory.resolve.CopyFrom(self.resolve(request.directory.resolve.address))
        elif op == "authenticate":
            got = self.authenticate(request.directory.authenticate)
            reply.directory.authenticate.CopyFrom(directory_pb2.AuthenticateResponse(account=got) if isinstance(got, str) else got)
        elif op == "credentials":
            reply.directory.credentials.CopyFrom(self.credentials(request.directory.credentials))
        elif op == "domains":
            reply.directory.domains.domains.extend(self.domains())
            reply.directory.domains.SetInParent()
        else:
            raise Failure("UNSUPPORTED", "this plugin is a directory: the call is for another kind")
        return reply


# --- access, in the contract's own words ----------------------------------------

@dataclass
class Listener:
    """A bound socket that the core passed; accept on it."""
    socket: Any
    address: str = ""
    implicit_tls: bool = False


@dataclass
class Grant:
    """How to reach another plugin."""
    role: str
    instance: str
    address: str
    token: str = field(repr=False, default="")
    upload_dir: str = ""


class Access(Plugin):
    """Serves a storage's mailboxes to clients, in the contract's own words."""
    KIND = plugin_pb2.KIND_ACCESS

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[Listener] = []
        self.tls: Optional[tuple[bytes, bytes]] = None  # certificate and key as PEM
        self.insecure_auth = False
        # Set when the process drains: accept no more.
        self.stopping = threading.Event()
        self._peers: dict[str, Any] = {}

    def serve(self) -> None:
        """Runs from Ready on, in a thread of its own; returns soon after
        self.stopping is set."""
        raise NotImplementedError

    def tls_context(self) -> Optional[ssl.SSLContext]:
        """The server's side of TLS with that certificate; None without one."""
        if self.tls is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # ssl reads files only: this one lies in memory.
        fd = os.memfd_create("certificate")
        try:
            os.write(fd, b"\n".join(self.tls))
            context.load_cert_chain("/proc/self/fd/%d" % fd)
        finally:
            os.close(fd)
        return context

    def grant(self, role: str) -> Grant:
        """The grant of a role: "storage", "auth"."""
        return self._peers[role].grant

    def peer(self, role: str) -> Caller:
        """A session to the plugin of that role. Ask for it before every call: after
        a restart of the other one it is a new one. A call that fails as UNAVAILABLE
        may be repeated if it changes nothing."""
        return self._peers[role].caller()
