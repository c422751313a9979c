"""The message as plugins see it: a header to look into and a body to open,
wherever the bytes are."""
from __future__ import annotations

import email
import email.policy
import io
from email.message import EmailMessage
from typing import BinaryIO, Iterable, Iterator

from stagecoach.v1 import common_pb2

# INLINE_LIMIT is the largest message, in octets, that travels within a call; a
# larger one is a file.
INLINE_LIMIT = 16 << 10


class Message:
    """A message by value or by reference: the same to its reader. Its file stays
    until the call returns."""

    def __init__(self, ref: common_pb2.MessageRef):
        self._ref = ref

    @classmethod
    def from_bytes(cls, octets: bytes) -> Message:
        """A small message (at most INLINE_LIMIT octets, CRLF line ends)."""
        return cls(common_pb2.MessageRef(size=len(octets), inline=octets))

    @classmethod
    def from_file(cls, path: str, size: int) -> Message:
        """A file under the instance's data directory or a spool directory."""
        return cls(common_pb2.MessageRef(size=size, path=path))

    @property
    def ref(self) -> common_pb2.MessageRef:
        """The contract's form."""
        return self._ref

    @property
    def size(self) -> int:
        """Size in octets."""
        return self._ref.size

    @property
    def path(self) -> str:
        """Path of the file; "" for a message in memory."""
        return self._ref.path

    def open(self) -> BinaryIO:
        """Starts reading at the first octet of the header. Close it, or use with."""
        if self._ref.WhichOneof("where") == "path":
            return open(self._ref.path, "rb")
        return io.BytesIO(self._ref.inline)

    def read(self, limit: int = 0) -> bytes:
        """The whole message; ValueError above limit octets (0: no limit)."""
        if limit and self.size > limit:
            raise ValueError("a message of %d octets is over the limit of %d" % (self.size, limit))
        with self.open() as f:
            return f.read()

    def parse(self, limit: int = 0) -> EmailMessage:
        """The message as the standard library's email package has it; limit as in
        read. It parses in memory and never fails on malformed mail: see .defects."""
        return email.message_from_bytes(self.read(limit), policy=email.policy.SMTP)


class Header:
    """The fields asked for, in the message's order, looked up without case."""

    def __init__(self, fields: Iterable[common_pb2.HeaderField]):
        self.fields = list(fields)

    def get(self, name: str, default: str = "") -> str:
        """The first field of that name, unfolded and trimmed."""
        return next(iter(self.values(name)), default)

    def values(self, name: str) -> list[str]:
        """All fields of that name, unfolded and trimmed. Octets that are not UTF-8
        are kept as surrogates (errors="surrogateescape")."""
        return [unfold(f.value) for f in self.fields if f.name.lower() == name.lower()]

    def __contains__(self, name: str) -> bool:
        return any(f.name.lower() == name.lower() for f in self.fields)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((f.name, unfold(f.value)) for f in self.fields)

    def __len__(self) -> int:
        return len(self.fields)


def unfold(value: bytes) -> str:
    """Removes the line ends of a folded value (RFC 5322 section 2.2.3) and the
    white space around it."""
    return value.replace(b"\r\n", b"").replace(b"\n", b"").decode("utf-8", "surrogateescape").strip(" \t")
