"""What a filter answers, in the words of the Go SDK."""
from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Iterable, Mapping, Optional, Union

from stagecoach.fail import smtp_reply
from stagecoach.mail import INLINE_LIMIT, Message
from stagecoach.v1 import common_pb2, filter_pb2

Scalar = Union[str, float, bool, Iterable[str]]
TagValue = Union[Scalar, Mapping[str, Scalar]]


@dataclass(frozen=True)
class Copy:
    """One copy of a mail in a storage: mailbox by name, created if missing ("" is
    INBOX); flags that it begins with, "\\Seen" and the like or keywords; message, if
    it is not the mail as it is but an edited one: small, or a file as in
    replace_body_file."""

    mailbox: str = ""
    flags: Iterable[str] = ()
    message: Optional[Message] = None


class Verdict:
    """The answer; make one with accept, reject, defer, discard, hold or disconnect
    and add to it. The methods return the Verdict itself, so that calls can be
    chained."""

    def __init__(self, action: str = "ACCEPT", reply: Optional[tuple[int, str, str]] = None, why: str = ""):
        self.reply = filter_pb2.FilterReply()
        v = self.reply.verdict
        v.action = filter_pb2.Verdict.Action.Value(action)
        v.reason = why
        if reply:
            v.reply.CopyFrom(smtp_reply(*reply))

    def reason(self, reason: str) -> Verdict:
        """Written into the mail's trace beside the verdict."""
        self.reply.verdict.reason = reason
        return self

    def delay(self, seconds: Union[float, timedelta]) -> Verdict:
        """The client waits so long for the reply: at most 60 s."""
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        self.reply.verdict.delay_ms = int(seconds * 1000)
        return self

    def skip_rest(self) -> Verdict:
        """No later filter of this stage is asked."""
        self.reply.verdict.skip_rest = True
        return self

    def for_recipient(self, index: int, other: Verdict) -> Verdict:
        """Another verdict for one recipient (Recipient.index of the envelope). Of
        other only the verdict itself counts, not what was added to it."""
        self.reply.per_recipient[index].CopyFrom(other.reply.verdict)
        return self

    def note(self, text: str) -> Verdict:
        """Goes into the mail's trace."""
        self.reply.note = text
        return self

    def score(self, points: float) -> Verdict:
        """Added to the mail's score, which `when` reads; negative speaks for it."""
        self.reply.score = points
        return self

    def tag(self, name: str, value: TagValue) -> Verdict:
        """Sets tags.NAME, which routes and later filters read, to a string, a
        number, true or false, a list of strings, or a dict of those: values by name,
        which routes read as tags.NAME.KEY or tags.NAME["key"]. A key may be any
        text, so that a domain can be one. TypeError for anything else; a dict within
        a dict is something else."""
        tag = common_pb2.Tag()
        if isinstance(value, Mapping):
            tag.map.SetInParent()
            for key, one in value.items():
                _set_tag(tag.map.entries[key], "%s[%r]" % (name, key), one)
        else:
            _set_tag(tag, name, value)
        self.reply.tags[name].CopyFrom(tag)
        return self

    # Edits count only from a filter that declared effect = "EDIT".

    def add_header(self, name: str, value: Union[str, bytes]) -> Verdict:
        """Puts a field at the top of the header, as a trace field stands (RFC 5321
        section 4.4). The value has no final CRLF; a folded one keeps its folding."""
        return self.insert_header(0, name, value)

    def insert_header(self, position: int, name: str, value: Union[str, bytes]) -> Verdict:
        """Puts a field at a position: 0 is the top, -1 the end."""
        e = self.reply.edits.add().insert_header
        e.position, e.field.name, e.field.value = position, name, _field_value(value)
        return self

    def replace_header(self, name: str, index: int, value: Union[str, bytes]) -> Verdict:
        """Replaces the value of the index-th field of that name, counted from 1 and
        before this verdict's edits."""
        e = self.reply.edits.add().replace_header
        e.name, e.index, e.value = name, index, _field_value(value)
        return self

    def delete_header(self, name: str, index: int = 0) -> Verdict:
        """Deletes the index-th field of that name, counted as in replace_header;
        index 0: all of them."""
        e = self.reply.edits.add().delete_header
        e.name, e.index = name, index
        return self

    def replace_body(self, body: bytes) -> Verdict:
        """Replaces all after the header's empty line with a small body: at most
        INLINE_LIMIT octets, lines ended by CRLF. A larger one is a file that
        replace_body_file names."""
        if len(body) > INLINE_LIMIT:
            raise ValueError("a body of %d octets does not travel inline: write it to a file under data_dir "
                             "and use replace_body_file" % len(body))
        self.reply.edits.add().replace_body.body.CopyFrom(Message.from_bytes(body).ref)
        return self

    def replace_body_file(self, path: str, size: int) -> Verdict:
        """replace_body with a file under the instance's data directory or a spool
        directory."""
        self.reply.edits.add().replace_body.body.CopyFrom(Message.from_file(path, size).ref)
        return self

    def add_recipient(self, address: str, **dsn) -> Verdict:
        """Adds a forward-path without brackets; dsn are the fields notify and
        original_recipient of Recipient (RFC 3461)."""
        self.reply.edits.add().add_recipient.recipient.CopyFrom(common_pb2.Recipient(address=address, **dsn))
        return self

    def delete_recipient(self, index: int) -> Verdict:
        """Removes the recipient with that index of the envelope."""
        e = self.reply.edits.add().delete_recipient
        e.index = index
        e.SetInParent()
        return self

    def set_sender(self, address: str, parameters: Optional[common_pb2.MailParameters] = None) -> Verdict:
        """Replaces the reverse-path; "" is the null one. Without parameters those
        there are stay."""
        e = self.reply.edits.add().set_sender
        e.address = address
        e.SetInParent()
        if parameters is not None:
            e.parameters.CopyFrom(parameters)
        return self

    def hints(self, **hints) -> Verdict:
        """Steer the queue and the routes: queue, priority, not_before_ms,
        expires_ms, next_hop, tls_level (RouteHints in filter.proto)."""
        self.reply.hints.MergeFrom(filter_pb2.RouteHints(**hints))
        return self

    def inject(self, sender: str, recipients: Iterable[str], message: Message) -> Verdict:
        """Queues a further message: an auto-reply, a copy."""
        i = self.reply.inject.add(sender=sender, message=message.ref)
        for n, address in enumerate(recipients):
            i.recipients.add(address=address, index=n)
        return self

    def place(self, recipient: int, *copies: Union[str, Copy]) -> Verdict:
        """Says where a storage keeps a recipient's copies (Recipient.index of the
        envelope), at most 64, in place of what the deliver block says; a string is a
        mailbox. It counts at PRE_DELIVERY of a delivery into a storage. A repeated
        delivery stores nothing twice if it gets the same list. Without copies it says
        nothing: discard() is the verdict for that."""
        placement = filter_pb2.Placement()
        for copy in copies:
            if isinstance(copy, str):
                copy = Copy(copy)
            if isinstance(copy.flags, str):
                raise TypeError("flags of a copy are a list of strings, not %r" % copy.flags)
            to = placement.copies.add(mailbox=copy.mailbox, flags=copy.flags)
            if copy.message is not None:
                to.message.CopyFrom(copy.message.ref)
        self.reply.placements[recipient].CopyFrom(placement)
        return self


def _set_tag(tag: common_pb2.Tag, where: str, value: Scalar) -> None:
    if isinstance(value, bool):
        tag.flag = value
    elif isinstance(value, str):
        tag.text = value
    elif isinstance(value, (int, float)):
        tag.number = value
    elif isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, Mapping)):
        tag.list.values.extend(value)
        tag.list.SetInParent()
    else:
        raise TypeError("tag %s: a string, a number, True, False or a list of strings, not %r" % (where, value))


def _field_value(value: Union[str, bytes]) -> bytes:
    """Begins with the space that follows the colon of a field."""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    return value if not value or value[:1] in b" \t\r" else b" " + value


def accept() -> Verdict:
    """Nothing against the mail."""
    return Verdict()


def reject(code: int, enhanced: str, text: str) -> Verdict:
    """Refuses the mail, or the recipient asked about, for good. code is 5xx;
    enhanced the status code of RFC 3463 ("5.7.1"; "": derived from code); text is
    said to the client."""
    return Verdict("REJECT", (code, enhanced, text))


def defer(code: int, enhanced: str, text: str) -> Verdict:
    """Refuses it for now: the client will try again. code is 4xx."""
    return Verdict("DEFER", (code, enhanced, text))


def discard() -> Verdict:
    """Answers success and delivers to nobody."""
    return Verdict("DISCARD")


def hold(reason: str) -> Verdict:
    """Accepts the mail and keeps it in the queue until an operator releases it."""
    return Verdict("HOLD", why=reason)


def disconnect(code: int, enhanced: str, text: str) -> Verdict:
    """Says the reply (421 or 554) and ends the connection."""
    return Verdict("DISCONNECT", (code, enhanced, text))
