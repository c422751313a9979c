"""Storages: a method for each call of the contract, and what they have in common:
names, roles, the fields before what is delivered, the changes that watchers hear of.
stagecoach.mime has what there is to know of mail."""
from __future__ import annotations

import os
import threading
import unicodedata
from contextlib import closing
from typing import Callable, Iterable, Iterator, Optional

from stagecoach.fail import Failure
from stagecoach.mail import Message
from stagecoach.plugin import Plugin
from stagecoach.session import Call
from stagecoach.v1 import plugin_pb2, storage_pb2 as v1

# How many octets of fetched items travel in one reply.
BATCH = 64 << 10
# The longest names, in octets.
MAX_ACCOUNT, MAX_MAILBOX = 320, 1024

INBOX = "INBOX"
# All roles (RFC 6154, RFC 8621); "" is none. One mailbox per role.
ROLES = ("", "inbox", "drafts", "sent", "trash", "junk", "archive", "all", "flagged", "important")
# The mailboxes that a new account has, with their roles.
SPECIAL_USE = {INBOX: "inbox", "Drafts": "drafts", "Sent": "sent", "Trash": "trash", "Junk": "junk", "Archive": "archive"}


class Storage(Plugin):
    """Keeps mailboxes. storage.proto says what each call owes: above all, that what
    was answered survives a power cut. A method gets the account's name, the request
    of its name in the contract and the call, and returns the response. It comes in a
    thread of its own, many at a time. Failures: INVALID (a name that no account can
    have, a bad request), NOT_FOUND (the mailbox), EXISTS, OVER_QUOTA, NO_SPACE,
    UNAVAILABLE."""
    KIND = plugin_pb2.KIND_STORAGE
    max_concurrent = 1024  # every mailbox that a client idles in is a Watch with a thread

    def deposit(self, request: v1.DepositRequest, call: Call) -> v1.DepositResponse:
        """Delivers: each target is done, or not, for itself."""
        raise _unknown("deposit")

    def list_mailboxes(self, account: str, request: v1.ListMailboxesRequest, call: Call) -> v1.ListMailboxesResponse:
        """The mailboxes by name, containers too."""
        raise _unknown("list_mailboxes")

    def create_mailbox(self, account: str, request: v1.CreateMailboxRequest, call: Call) -> v1.Mailbox:
        """The new mailbox."""
        raise _unknown("create_mailbox")

    def rename_mailbox(self, account: str, request: v1.RenameMailboxRequest, call: Call) -> v1.Mailbox:
        """The mailbox of the new name."""
        raise _unknown("rename_mailbox")

    def delete_mailbox(self, account: str, request: v1.DeleteMailboxRequest, call: Call) -> v1.DeleteMailboxResponse:
        """Removes it with its messages."""
        raise _unknown("delete_mailbox")

    def update_mailbox(self, account: str, request: v1.UpdateMailboxRequest, call: Call) -> v1.Mailbox:
        """The mailbox; what is not to change is not set: request.HasField("role")."""
        raise _unknown("update_mailbox")

    def snapshot(self, account: str, request: v1.SnapshotRequest, call: Call) -> v1.SnapshotResponse:
        """The columns, as they are at one moment."""
        raise _unknown("snapshot")

    def fetch(self, account: str, request: v1.FetchRequest, call: Call) -> Iterable[v1.FetchResponse.Item]:
        """Yields the items by growing UID. A file that one names stays until the
        next is asked for."""
        raise _unknown("fetch")

    def append(self, account: str, request: v1.AppendRequest, call: Call) -> v1.AppendResponse:
        """Stores what a client brought: all or nothing."""
        raise _unknown("append")

    def set_flags(self, account: str, request: v1.SetFlagsRequest, call: Call) -> v1.SetFlagsResponse:
        """Changes flags: mime.apply_flags knows how."""
        raise _unknown("set_flags")

    def copy(self, account: str, request: v1.CopyRequest, call: Call) -> v1.CopyResponse:
        """Copies or moves: all or nothing."""
        raise _unknown("copy")

    def expunge(self, account: str, request: v1.ExpungeRequest, call: Call) -> v1.ExpungeResponse:
        """Removes messages and leaves their tombstones."""
        raise _unknown("expunge")

    def search(self, account: str, request: v1.SearchRequest, call: Call) -> v1.SearchResponse:
        """Finds: mime.compile_request makes a test of the request."""
        raise _unknown("search")

    def quota(self, account: str, request: v1.QuotaRequest, call: Call) -> v1.QuotaResponse:
        """What the account uses."""
        raise _unknown("quota")

    def watch(self, account: str, request: v1.WatchRequest, call: Call) -> Iterable[v1.ChangeEvent]:
        """Yields the changes, the first event at once, until the call is over:
        Changes does that."""
        raise _unknown("watch")

    def annotations(self, account: str, request: v1.AnnotationsRequest, call: Call) -> v1.AnnotationsResponse:
        """The annotations of a mailbox or of the account (both this and the next, or
        neither)."""
        raise _unknown("annotations")

    def set_annotations(self, account: str, request: v1.SetAnnotationsRequest, call: Call) -> v1.SetAnnotationsResponse:
        """Sets and removes them: all or nothing."""
        raise _unknown("set_annotations")

    def storage(self, request: v1.StorageCall, call: Call) -> v1.StorageReply:
        """Answers one call by the method of its name. Several replies (fetch,
        watch): all but the last through self.send(call, reply)."""
        op = request.WhichOneof("op")
        if op is None:
            raise Failure("UNSUPPORTED", "this storage does not know the call")
        asked = getattr(request, op)
        if op == "deposit":
            return v1.StorageReply(deposit=self.deposit(asked, call))
        # The class's, for an instance may keep something of its own by that name.
        method = getattr(type(self), op, None)
        if method is None:
            raise _unknown(op)
        answer = method(self, request.account, asked, call)
        if op == "fetch":
            return self._batches(answer, call)
        if op == "watch":
            with closing(_each(answer)) as events:
                for event in events:
                    self.send(call, v1.StorageReply(watch=event))
            raise call.failure() if call.cancelled else Failure("INTERNAL", "the watch ended by itself")
        return v1.StorageReply(**{op: answer})

    def _batches(self, items: Iterable[v1.FetchResponse.Item], call: Call) -> v1.StorageReply:
        """Sends items in batches and returns the last one. A file goes out at once:
        it is promised to stay until then."""
        reply, size = v1.StorageReply(fetch=v1.FetchResponse()), 0
        with closing(_each(items)) as items:
            for item in items:
                if call.cancelled:
                    raise call.failure()
                reply.fetch.items.append(item)
                size += item.ByteSize()
                if size >= BATCH or item.message.path:
                    self.send(call, reply)
                    reply, size = v1.StorageReply(fetch=v1.FetchResponse()), 0
        return reply

    def send(self, call: Call, reply: v1.StorageReply) -> None:
        """Sends a reply before the last one; waits while the caller is slow."""
        call.send(plugin_pb2.Reply(storage=reply))

    def handle(self, request: plugin_pb2.Call, call: Call) -> plugin_pb2.Reply:
        if request.WhichOneof("request") != "storage":
            raise Failure("UNSUPPORTED", "this plugin is a storage: the call is for another kind")
        return plugin_pb2.Reply(storage=self.storage(request.storage, call))


def _each(values: Iterable) -> Iterator:
    """A generator, which can be closed, of what may be a list."""
    yield from values


def _unknown(method: str) -> Failure:
    return Failure("UNSUPPORTED", "this storage has no " + method)


# --- names --------------------------------------------------------------------

def _control(text: str) -> bool:
    return any(unicodedata.category(c) == "Cc" for c in text)


def account_name(name: str) -> str:
    """The name, if an account can have it; else INVALID. It is text and no path: to
    make a path of it is dangerous."""
    if not name or len(name.encode("utf-8", "replace")) > MAX_ACCOUNT or _control(name):
        raise Failure("INVALID", "no account can be named %r" % name[:40])
    return name


def mailbox_name(name: str) -> str:
    """A mailbox's name as it is stored and compared: in NFC, INBOX in capitals.
    INVALID for an empty level, a control character, and more than 1024 octets."""
    levels = unicodedata.normalize("NFC", name[:MAX_MAILBOX + 1]).split("/")
    if len(name.encode("utf-8", "replace")) > MAX_MAILBOX or "" in levels or _control(name):
        raise Failure("INVALID", "no mailbox can be named %r" % name[:40])
    if levels[0].upper() == INBOX:  # RFC 9051 section 5.1
        levels[0] = INBOX
    return "/".join(levels)


def parent_of(name: str) -> str:
    """The name one level up; "" at the top."""
    return name.rpartition("/")[0]


def containers(names: Iterable[str]) -> set[str]:
    """Names that have children and are no mailboxes themselves."""
    known, out = set(names), set()
    for name in known:
        while name := parent_of(name):
            if name not in known:
                out.add(name)
    return out


def check_role(role: str) -> None:
    """INVALID for a role that there is not."""
    if role not in ROLES:
        raise Failure("INVALID", "%r is no mailbox role" % role[:40])


# --- deliveries ---------------------------------------------------------------

def delivery_fields(return_path: str, recipient: str) -> bytes:
    """The fields before a message that is delivered: Return-Path (RFC 5321 section
    4.4) and Delivered-To. INVALID for an address with a line end, which would add
    fields."""
    if any(c in return_path + recipient for c in "\r\n"):
        raise Failure("INVALID", "an address with a line end")
    return ("Return-Path: <%s>\r\nDelivered-To: %s\r\n" % (return_path, recipient)).encode()


def check_readable(message: Message) -> None:
    """INVALID for a message whose file is not there, or has another size."""
    try:
        size = os.stat(message.path).st_size if message.path else len(message.ref.inline)
    except OSError as e:
        raise Failure("INVALID", "the message cannot be read: %s" % e) from None
    if size != message.size:
        raise Failure("INVALID", "the message has %d octets, its reference says %d" % (size, message.size))


# --- changes ------------------------------------------------------------------

class _Watcher:
    def __init__(self) -> None:
        self.news = threading.Event()
        self.modseq, self.mailbox_ids, self.mailboxes = 0, set(), False


class Changes:
    """Tells the watchers of an account of its changes. Those that come faster than
    they are taken are merged: what waits does not grow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watchers: dict[str, list[_Watcher]] = {}

    def publish(self, account: str, modseq: int, mailbox_ids: Iterable[str], mailboxes: bool = False) -> None:
        """Tells of a change. Call it after the commit, and in the order of the
        MODSEQs: while you hold what makes one change wait for another."""
        with self._lock:
            for w in self._watchers.get(account, ()):
                w.modseq = modseq
                w.mailbox_ids.update(mailbox_ids)
                w.mailboxes = w.mailboxes or mailboxes
                w.news.set()

    def watch(self, account: str, call: Call, first: Callable[[], v1.ChangeEvent]) -> Iterator[v1.ChangeEvent]:
        """The events of a watch until its call is over. first makes the first one:
        it is asked when nothing that is published from then on will be missed."""
        w = _Watcher()
        with self._lock:
            self._watchers.setdefault(account, []).append(w)
        try:
            call.when_over(w.news.set)
            event: Optional[v1.ChangeEvent] = first()
            seen = 0
            while not call.cancelled:
                if event:
                    yield event
                    seen = event.modseq
                w.news.wait()
                event = self._take(w, seen)
        finally:
            with self._lock:
                self._watchers[account].remove(w)
                if not self._watchers[account]:
                    del self._watchers[account]

    def _take(self, w: _Watcher, seen: int) -> Optional[v1.ChangeEvent]:
        """What was published since, if it is news."""
        with self._lock:
            w.news.clear()
            event = v1.ChangeEvent(modseq=w.modseq, mailbox_ids=sorted(w.mailbox_ids), mailboxes=w.mailboxes)
            w.mailbox_ids, w.mailboxes = set(), False
        return event if event.modseq > seen else None
