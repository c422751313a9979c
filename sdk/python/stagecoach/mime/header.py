"""What a header says: fields, parameters, lists of addresses, dates. Octets in,
octets out: nothing here decodes. The standard library's email package is not asked
for it, because it hides groups and raw octets; it reads the dates."""
from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_tz
from typing import Optional

from stagecoach.v1 import storage_pb2

# Octets kept of one field, and of all fields of a message.
MAX_FIELD, MAX_KEPT = 64 << 10, 256 << 10
MAX_PARAMS = 100

# Fields that are read; True: a list of addresses.
WANTED = {
    "date": False, "subject": False, "in-reply-to": False, "message-id": False, "references": False,
    "from": True, "sender": True, "reply-to": True, "to": True, "cc": True, "bcc": True,
    "content-type": False, "content-transfer-encoding": False, "content-id": False, "content-description": False,
    "content-disposition": False, "content-md5": False, "content-language": False, "content-location": False,
}

_NAME = re.compile(rb"[\x21-\x39\x3b-\x7e]+\Z")
_TOKEN = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]{1,256}\Z")
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.|\\\Z)*)"?', re.S)
_COMMENT = re.compile(rb"[^\\()]+|\\.|[\\()]", re.S)
_OUTSIDE = re.compile(rb'[^("]+')
_ATOM = re.compile(rb'[^ \t\r\n("<>@,;:\[]+')

# References that are looked up for a thread, the newest ones.
MAX_REFERENCES = 20


def field_name(text: bytes) -> tuple[str, bytes]:
    """Splits a field's line; "" if it is none. White space before the colon is
    obsolete syntax (RFC 5322 section 4.5)."""
    i = text.find(b":", 0, 129)
    key = text[:max(i, 0)].rstrip(b" \t")
    if not _NAME.match(key):
        return "", b""
    return key.decode("ascii").lower(), text[i + 1:]


def token(text: str) -> bool:
    """Whether it is a token (RFC 2045 section 5.1)."""
    return bool(_TOKEN.match(text))


def quoted(s: bytes, i: int) -> tuple[bytes, int]:
    """The content of the quoted-string at i, and where it ends. A missing quote at
    the end is forgiven."""
    m = _QUOTED.match(s, i)
    return re.sub(rb"\\(.)", rb"\1", m[1], flags=re.S), m.end()


def comment(s: bytes, i: int) -> tuple[bytes, int]:
    """The content of the comment at i (RFC 5322 section 3.2.2), and where it ends."""
    out, depth = [], 0
    for m in _COMMENT.finditer(s, i):
        piece = m[0]
        if piece == b"(":
            depth += 1
            if depth == 1:
                continue
        elif piece == b")":
            depth -= 1
            if depth == 0:
                return b"".join(out), m.end()
        out.append(piece[1:] if piece[:1] == b"\\" and len(piece) > 1 else piece)
    return b"".join(out), len(s)


def strip_comments(s: bytes) -> bytes:
    """Puts a space in the place of each comment outside of quotes."""
    if b"(" not in s:
        return s
    out, i = [], 0
    while i < len(s):
        if s[i] == ord("("):
            _, i = comment(s, i)
            out.append(b" ")
            continue
        end = quoted(s, i)[1] if s[i] == ord('"') else _OUTSIDE.match(s, i).end()
        out.append(s[i:end])
        i = end
    return b"".join(out)


def parse_params(field: Optional[bytes]) -> tuple[str, list[storage_pb2.Param]]:
    """Reads `value; name=value; …` (RFC 2045 section 5.1, RFC 2183). The value and
    the names come in lower case. RFC 2231 forms are left as they stand."""
    s = strip_comments(field or b"")
    value, rest, s = s.partition(b";")
    params: list[storage_pb2.Param] = []
    while rest and len(params) < MAX_PARAMS:
        name, rest, s = s.partition(b"=")
        if not rest:
            break
        key = name[name.rfind(b";") + 1:].strip().lower().decode("latin-1")
        s = s.lstrip(b" \t")
        if s[:1] == b'"':
            content, end = quoted(s, 0)
            _, rest, s = s[end:].partition(b";")
        else:
            content, rest, s = s.partition(b";")
            content = content.strip()
        if token(key):
            params.append(storage_pb2.Param(name=key, value=content))
    return value.strip().lower().decode("latin-1"), params


def param(params: list[storage_pb2.Param], name: str) -> bytes:
    """The value of a parameter; b"" if there is none."""
    return next((p.value for p in params if p.name == name), b"")


def message_ids(value: bytes) -> list[str]:
    """The ids of a Message-ID, In-Reply-To or References value, without brackets;
    what stands outside of brackets is passed over."""
    out, at = [], 0
    while (first := value.find(b"<", at)) >= 0 and (end := value.find(b">", first)) >= 0:
        id = b"".join(value[first + 1:end].split()).decode("utf-8", "replace")
        if id:
            out.append(id)
        at = end + 1
    return out


def thread_ids(summary: storage_pb2.Summary) -> list[str]:
    """The Message-IDs by which a message finds its thread: its own, what it answers,
    what it refers to, the newest first. It belongs to the thread of the first one
    that is known, and begins a thread if none is (RFC 8474 section 5.2 leaves the
    rule to the server)."""
    references = message_ids(summary.references)[:-MAX_REFERENCES - 1:-1]
    return list(dict.fromkeys([*message_ids(summary.message_id), *message_ids(summary.in_reply_to), *references]))


def parse_date(value: bytes) -> int:
    """A date (RFC 5322 section 3.3, and the commonest deviations) in milliseconds
    since 1970; 0 if it cannot be read. Without a zone that is known it is UTC."""
    try:
        year, month, day, hour, minute, second, *_, zone = parsedate_tz(value.decode("ascii", "replace"))
        at = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=timezone.utc) - timedelta(seconds=zone or 0)
    except (TypeError, ValueError, OverflowError, IndexError):
        return 0
    return int((at - datetime(1970, 1, 1, tzinfo=timezone.utc)) / timedelta(milliseconds=1))


class Addresses:
    """Reads an address list (RFC 5322 section 3.4, with the obsolete syntax of
    section 4.4). Whatever is wrong, it goes on at the next comma."""

    def __init__(self, field: bytes, limit: int):
        self._s, self._i, self._group, self._comment = field, 0, False, b""
        self.out: list[storage_pb2.MailAddress] = []
        while self._address() and len(self.out) < limit:
            pass
        if self._group and len(self.out) < limit:
            self._emit(group="END")

    def _emit(self, **fields) -> None:
        self.out.append(storage_pb2.MailAddress(**fields))

    def _next(self) -> bytes:
        return self._s[self._i:self._i + 1]

    def _address(self) -> bool:
        """One mailbox, or a group's beginning or end; False at the end."""
        self._comment = b""
        words, c = self._words(), self._next()
        if not c or c in b",;":
            if words:
                self._emit(name=self._comment, local_part=b" ".join(words))
        self._i += len(c)
        if c == b":":
            if self._group:
                self._emit(group="END")
            self._group = True
            self._emit(local_part=b" ".join(words), group="START")
        elif c == b"<":
            self._angle(b" ".join(words))
        elif c == b"@":
            domain = b"".join(self._words())
            self._emit(name=self._comment, local_part=b"".join(words), domain=domain)
            self._separator()
        elif c == b";" and self._group:
            self._group = False
            self._emit(group="END")
        return bool(c)

    def _angle(self, name: bytes) -> None:
        """An angle-addr after its "<"; a route is passed over."""
        words, domain = self._words(), None
        while self._i < len(self._s):
            c = self._next()
            if c == b"," and words:
                break  # the ">" is missing
            self._i += 1
            if c == b">":
                break
            if c == b"@":
                domain = b"".join(self._words())
            elif c == b":":  # what came before was a route
                domain, words = None, self._words()
            else:
                self._words()
        if words or domain is not None or name:
            if not name:
                self._words()
                name = self._comment
            self._emit(name=name, local_part=b"".join(words), domain=domain or b"")
        self._separator()

    def _separator(self) -> None:
        """Passes everything up to the comma or semicolon after a mailbox."""
        while self._i < len(self._s) and self._next() != b";":  # _address ends the group
            self._i += 1
            if self._s[self._i - 1:self._i] == b",":
                return
            self._words()

    def _words(self) -> list[bytes]:
        """Atoms, quoted strings and domain literals up to a special."""
        out, s = [], self._s
        while self._i < len(s):
            c = self._next()
            if c in b" \t\r\n":
                self._i += 1
            elif c == b"(":
                self._comment, self._i = comment(s, self._i)
            elif c == b'"':
                text, self._i = quoted(s, self._i)
                out.append(text)
            elif c in b"<>@,;:":
                break
            else:
                if c == b"[":
                    end = s.find(b"]", self._i) + 1 or len(s)
                else:
                    end = _ATOM.match(s, self._i).end()
                out.append(s[self._i:end])
                self._i = end
        return out


def parse_addresses(field: Optional[bytes], limit: int = 10_000) -> list[storage_pb2.MailAddress]:
    """The addresses of a From, To … value, as Summary has them."""
    return Addresses(field or b"", limit).out
