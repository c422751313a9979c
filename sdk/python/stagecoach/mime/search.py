"""Searches: a Criterion of the contract, compiled once and asked of each message."""
from __future__ import annotations

from typing import Any, BinaryIO, Callable, Optional

from stagecoach.fail import Failure
from stagecoach.mime.flags import Flags, parse_flags
from stagecoach.mime.text import Decoder, decode_words, fold
from stagecoach.mime.uids import UIDSet
from stagecoach.v1 import storage_pb2

# What a search may have: tests in all, and how deep they nest. (A call that nests
# deeper than 100 in all does not come through: Python's protobuf refuses it.)
MAX_TESTS, MAX_DEPTH = 10_000, 100
PIECE = 64 << 10
# How much of an embedded message's header is searched, in octets.
MAX_HEADER = 256 << 10

# The costs by which the tests of a list are ordered.
_COLUMNS, _SUMMARY, _HEADER, _BODY = range(4)


class Candidate:
    """A message that is asked: derive from it. Its methods are called only where
    what is cheaper does not decide."""
    uid: int
    flags: Flags
    modseq: int
    size: int
    received_ms: int
    saved_ms: int
    message_id: str
    thread_id: str

    def summary(self) -> storage_pb2.Summary:
        """As it was rendered."""
        raise NotImplementedError

    def structure(self) -> storage_pb2.Part:
        """As it was rendered."""
        raise NotImplementedError

    def header(self) -> bytes:
        """The raw header."""
        raise NotImplementedError

    def open(self) -> BinaryIO:
        """The message; it is closed afterwards."""
        raise NotImplementedError


class _Look:
    """Keeps what was read of one message."""

    def __init__(self, candidate: Candidate):
        self.candidate = candidate
        self._fields: Optional[list[tuple[str, str]]] = None

    def fields(self) -> list[tuple[str, str]]:
        if self._fields is None:
            self._fields = _folded(self.candidate.header())
        return self._fields


Test = Callable[[_Look], bool]


class Matcher:
    """A compiled criterion; many threads may use it."""

    def __init__(self, test: Test):
        self._test = test

    def matches(self, candidate: Candidate) -> bool:
        """Whether the message is found."""
        return self._test(_Look(candidate))


def compile(criterion: storage_pb2.Criterion) -> Matcher:
    """Compiles a criterion; use compile_request for what a SearchRequest has.
    INVALID for one that is malformed or too large."""
    return Matcher(_Compiling().one(criterion, 0)[1])


def compile_request(request: storage_pb2.SearchRequest) -> Matcher:
    """Compiles what a search asks for; without a criterion it finds everything."""
    return compile(request.criterion) if request.HasField("criterion") else Matcher(lambda look: True)


class _Compiling:
    def __init__(self) -> None:
        self._tests = 0

    def one(self, c: storage_pb2.Criterion, depth: int) -> tuple[int, Test]:
        """A criterion's cost and its test."""
        self._tests += 1
        if self._tests > MAX_TESTS or depth > MAX_DEPTH:
            raise Failure("INVALID", "the search has more than %d tests or nests deeper than %d" % (MAX_TESTS, MAX_DEPTH))
        kind = c.WhichOneof("test")
        if kind is None:
            raise Failure("INVALID", "a search criterion without a test")
        value = getattr(c, kind)
        if kind in ("all_of", "any_of"):
            return self._list(value.criteria, kind == "any_of", depth)
        if kind == "not":
            cost, test = self.one(value, depth + 1)
            return cost, lambda look: not test(look)
        if kind == "header":
            name, needle = fold(value.name), fold(value.value)
            return _HEADER, lambda look: any(f == name and needle in v for f, v in look.fields())
        if kind in ("body", "text"):
            return _BODY, _text_test(fold(value), kind == "text")
        if kind == "sent":
            return _SUMMARY, lambda look: _sent(value, look.candidate.summary().sent_ms)
        test = _column_test(kind, value)
        return _COLUMNS, lambda look: test(look.candidate)

    def _list(self, criteria: Any, which: bool, depth: int) -> tuple[int, Test]:
        """The cheap tests come first; the first one that is as which decides."""
        tests = sorted((self.one(c, depth + 1) for c in criteria), key=lambda t: t[0])

        def test(look: _Look) -> bool:
            for _, one in tests:
                if one(look) == which:
                    return which
            return not which
        return max((cost for cost, _ in tests), default=_COLUMNS), test


def _column_test(kind: str, value: Any) -> Callable[[Candidate], bool]:
    if kind == "everything":
        return lambda m: value
    if kind == "larger":
        return lambda m: m.size > value
    if kind == "smaller":
        return lambda m: m.size < value
    if kind == "received":
        return lambda m: _within(value, m.received_ms)
    if kind == "saved":
        return lambda m: _within(value, m.saved_ms)
    if kind == "flag":
        bits, keywords = parse_flags([value])
        return (lambda m: m.flags.bits & bits != 0) if bits else lambda m: m.flags.has(keywords[0])
    if kind == "modseq_at_least":
        return lambda m: m.modseq >= value
    if kind == "uids":
        uids = UIDSet.of(value.ranges) if value.ranges else UIDSet()
        return lambda m: m.uid in uids
    if kind == "message_id":
        return lambda m: m.message_id == value
    if kind == "thread_id":
        return lambda m: m.thread_id == value
    raise Failure("UNSUPPORTED", "a search criterion that is not known here: " + kind)


def _within(r: storage_pb2.TimeRange, ms: int) -> bool:
    return (not r.from_ms or ms >= r.from_ms) and (not r.to_ms or ms < r.to_ms)


def _sent(r: storage_pb2.TimeRange, ms: int) -> bool:
    return ms != 0 and _within(r, ms)


def _contains(fields: list[tuple[str, str]], needle: str) -> bool:
    return any(needle in "%s: %s" % field for field in fields)


def _text_test(needle: str, header: bool) -> Test:
    def test(look: _Look) -> bool:
        if not needle or header and _contains(look.fields(), needle):
            return True
        with look.candidate.open() as message:
            return _in_part(look.candidate.structure(), message, needle)
    return test


def _in_part(part: storage_pb2.Part, message: BinaryIO, needle: str) -> bool:
    """Looks in the texts of an entity and in the headers of the messages within it."""
    if part.type == "text":
        return _in_text(part, message, needle)
    if part.HasField("message") and part.children:
        inner = part.children[0]
        message.seek(inner.header_offset)
        if _contains(_folded(message.read(min(inner.body_offset - inner.header_offset, MAX_HEADER))), needle):
            return True
    return any(_in_part(child, message, needle) for child in part.children)


def _in_text(part: storage_pb2.Part, message: BinaryIO, needle: str) -> bool:
    """Decodes and looks a piece at a time."""
    decoder, left, text = Decoder(part), part.size, ""
    message.seek(part.body_offset)
    while left > 0:
        octets = message.read(min(PIECE, left))
        if not octets:
            break
        left -= len(octets)
        text += fold(decoder.write(octets))
        if needle in text:
            return True
        text = text[len(text) - len(needle) + 1:] if len(needle) <= len(text) else text
    return needle in text + fold(decoder.end())


def _folded(header: bytes) -> list[tuple[str, str]]:
    """Unfolds, decodes and folds the case of every field."""
    out: list[tuple[str, str]] = []
    name, pieces = "", []

    def flush() -> None:
        if name:
            out.append((fold(name), fold(decode_words("".join(pieces).strip()))))

    for line in header.decode("utf-8", "replace").split("\n"):
        line = line[:-1] if line.endswith("\r") else line
        if line[:1] in (" ", "\t"):
            pieces.append(line)
            continue
        flush()
        name, _, value = line.partition(":")
        name, pieces = name.strip(), [value]
    flush()
    return out
