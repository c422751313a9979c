"""A message is rendered once, when it is stored: the header's essence, the MIME
structure with its offsets (RFC 2045, RFC 2046), the first words. It never fails on
malformed mail. The octets lie in memory or are a mapped file; only the header's
fields are copied out of them."""
from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import NamedTuple, Optional, Union

from stagecoach.mime import header as fields
from stagecoach.mime.header import MAX_FIELD, MAX_KEPT, WANTED
from stagecoach.mime.text import preview
from stagecoach.v1 import storage_pb2

# What lies beyond these is not rendered, but the sizes and offsets of what is
# rendered stay right.
MAX_DEPTH, MAX_PARTS, MAX_ADDRESSES = 64, 1000, 10_000
MAX_BOUNDARY = 256  # RFC 2046 section 5.1.1 allows 70
# A delimiter's line with more octets, white space at its end, is none.
MAX_DELIMITER = 1024
# How much of a text is decoded for the preview, in octets.
PLAIN_SAMPLE, HTML_SAMPLE = 4 << 10, 32 << 10

Octets = Union[bytes, mmap.mmap]


@dataclass
class Rendered:
    """What render found. Offsets count from the first octet."""
    summary: storage_pb2.Summary
    structure: storage_pb2.Part
    preview: str
    header_length: int  # with the final empty line
    size: int


def render(octets: Octets) -> Rendered:
    """Renders a message."""
    reading = _Reading(octets)
    structure, found, _ = reading.entity(0, False)
    return Rendered(reading.summary(found), structure, reading.preview(), structure.body_offset, len(octets))


def render_file(path: str) -> Rendered:
    """Renders a message in a file, which must not be cut short meanwhile."""
    with open(path, "rb") as f:
        if f.seek(0, 2) == 0:
            return render(b"")
        with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as octets:
            return render(octets)


def shift(structure: storage_pb2.Part, by: int) -> storage_pb2.Part:
    """The structure of the same message with so many octets of fields before it."""
    out = storage_pb2.Part()
    out.CopyFrom(structure)
    parts = [out]
    while parts:
        part = parts.pop()
        part.header_offset += by
        part.body_offset += by
        parts.extend(part.children)
    out.header_offset = structure.header_offset
    return out


class _Stop(NamedTuple):
    """Where an entity ends: at a delimiter of a multipart around it, or at the end."""
    level: int  # of the multipart; -1: the end of the message
    final: bool
    start: int
    eol: int  # octets of the line end before it, which belongs to it (RFC 2046 section 5.1.1)


class _Reading:
    def __init__(self, octets: Octets):
        self._octets, self._size, self._at = octets, len(octets), 0
        self._counted, self._lf = 0, 0
        self._bounds: list[bytes] = []
        self._levels: dict[bytes, int] = {}
        self._parts = self._kept = self._addresses = 0
        self._plain: Optional[tuple[storage_pb2.Part, bytes]] = None
        self._html: Optional[tuple[storage_pb2.Part, bytes]] = None

    def _lines(self, to: int) -> int:
        """Line feeds before a place; each is asked for behind the last one."""
        while self._counted < to:
            piece = self._octets[self._counted:min(to, self._counted + (1 << 20))]
            self._lf += piece.count(b"\n")
            self._counted += len(piece)
        return self._lf

    def entity(self, depth: int, in_digest: bool) -> tuple[storage_pb2.Part, dict[str, bytes], _Stop]:
        """Reads one entity to what ends it: the part, its fields, where it ended."""
        self._parts += 1
        start = self._at
        found, stop = self._header()
        part = _described(found, in_digest, start)
        if stop:  # where the header should have gone on: there is no body
            part.body_offset = stop.start
            if part.type == "multipart":
                _text(part)
            _opaque(part)
            return part, found, stop
        part.body_offset = self._at
        before = self._lines(self._at)
        boundary, room = fields.param(part.params, "boundary"), depth < MAX_DEPTH and self._parts < MAX_PARTS
        if part.type == "multipart" and 0 < len(boundary) <= MAX_BOUNDARY and room:
            stop = self._multipart(part, boundary, depth)
        elif part.type == "multipart":
            _text(part)
            stop = self._leaf(part)
        elif _is_message(part) and room:
            child, inner, stop = self.entity(depth + 1, False)
            part.children.append(child)
            part.message.CopyFrom(self.summary(inner))
        else:
            _opaque(part)
            stop = self._leaf(part)
        part.lines = self._lines(stop.start) - before
        if stop.start > part.body_offset:
            part.size = stop.start - stop.eol - part.body_offset
            if stop.eol:
                part.lines -= 1
        return part, found, stop

    def _multipart(self, part: storage_pb2.Part, boundary: bytes, depth: int) -> _Stop:
        level = len(self._bounds)
        self._bounding(self._bounds + [boundary])
        stop = self._skip()
        while stop.level == level and not stop.final:
            if self._parts >= MAX_PARTS:
                stop = self._skip()
                continue
            child, _, stop = self.entity(depth + 1, part.subtype == "digest")
            part.children.append(child)
        self._bounding(self._bounds[:level])
        if stop.level == level:
            stop = self._skip()  # the epilogue
        if not part.children:
            # A multipart has one part at least (RFC 2046 section 5.1); this is text.
            _text(part)
        return stop

    def _bounding(self, bounds: list[bytes]) -> None:
        """Says what the multiparts around the place are; of two with the same
        boundary a delimiter is the inner one's."""
        self._bounds, self._levels = bounds, {b: level for level, b in enumerate(bounds)}

    def _leaf(self, part: storage_pb2.Part) -> _Stop:
        stop = self._skip()
        if part.type == "text" and part.disposition != "attachment":
            end = stop.start - stop.eol
            if part.subtype == "plain" and not self._plain:
                self._plain = part, self._octets[part.body_offset:min(end, part.body_offset + PLAIN_SAMPLE)]
            if part.subtype == "html" and not self._html:
                self._html = part, self._octets[part.body_offset:min(end, part.body_offset + HTML_SAMPLE)]
        return stop

    def preview(self) -> str:
        """The first words of the text that was passed."""
        return preview(self._plain, self._html)

    def _skip(self) -> _Stop:
        """Reads to the next delimiter."""
        at = self._at
        while self._bounds:
            if self._octets[at:at + 2] == b"--":
                stop = self._delimiter(at)
                if stop:
                    return stop
            at = self._octets.find(b"\n--", at) + 1
            if at == 0:
                break
        return self._end()

    def _end(self) -> _Stop:
        self._at = self._size
        return _Stop(-1, False, self._size, 0)

    def _delimiter(self, start: int) -> Optional[_Stop]:
        """What the line that begins with "--" delimits; the place is then behind it."""
        line = self._octets[start + 2:start + MAX_DELIMITER]
        feed = line.find(b"\n")
        if feed < 0:
            if start + 2 + len(line) < self._size:
                return None
            feed = len(line)
        text = line[:feed].rstrip(b" \t\r")
        level = self._levels.get(text, -1)
        final = self._levels.get(text[:-2], -1) if text[-2:] == b"--" else -1
        if level < 0 and final < 0:
            return None
        self._at = min(self._size, start + 2 + feed + 1)
        before = self._octets[max(0, start - 2):start]
        eol = 2 if before == b"\r\n" else 1 if before[-1:] == b"\n" else 0
        return _Stop(max(level, final), final > level, start, eol)

    def _header(self) -> tuple[dict[str, bytes], Optional[_Stop]]:
        """Reads fields to the empty line, or to a delimiter or the end if that comes
        first. Of a field that stands more than once the first one counts, but lists
        of addresses are joined. A line that is no field is passed over."""
        found: dict[str, bytes] = {}
        name, pieces, length = "", [], 0

        def flush() -> None:
            value = b"".join(pieces).strip(b" \t\r\n\v\f")
            if name and name not in found:
                found[name] = value
            elif name and WANTED[name] and value:
                found[name] += b", " + value

        while self._at < self._size:
            start = self._at
            if self._bounds and self._octets[start:start + 2] == b"--":
                stop = self._delimiter(start)
                if stop:
                    flush()
                    return found, stop
            feed = self._octets.find(b"\n", start)
            end = self._size if feed < 0 else feed
            self._at = min(self._size, end + 1)
            text = self._octets[start:min(end, start + MAX_FIELD + 200)]
            if feed >= 0 and text[-1:] == b"\r" and start + len(text) == end:
                text = text[:-1]
            if not text and feed >= 0:
                flush()
                return found, None
            if text[:1] not in (b" ", b"\t"):
                flush()
                name, text = fields.field_name(text)
                pieces, length = [], 0
                if name not in WANTED:
                    name = ""
            if name:
                # Unfolding removes the line end and keeps the white space (RFC 5322 section 2.2.3).
                piece = text[:max(0, min(MAX_FIELD - length, MAX_KEPT - self._kept))]
                length += len(piece)
                self._kept += len(piece)
                pieces.append(piece)
        flush()
        return found, self._end()

    def summary(self, found: dict[str, bytes]) -> storage_pb2.Summary:
        """The header's essence."""
        def addresses(name: str) -> list[storage_pb2.MailAddress]:
            out = fields.parse_addresses(found.get(name), MAX_ADDRESSES - self._addresses)
            self._addresses += len(out)
            return out

        def value(name: str) -> bytes:
            return found.get(name, b"")
        authors = addresses("from")
        out = storage_pb2.Summary(
            date=value("date"), subject=value("subject"), sender=addresses("sender"), reply_to=addresses("reply-to"),
            to=addresses("to"), cc=addresses("cc"), bcc=addresses("bcc"), in_reply_to=value("in-reply-to"),
            message_id=value("message-id"), references=value("references"), sent_ms=fields.parse_date(value("date")))
        getattr(out, "from").extend(authors)  # a word of Python's own
        return out


def _described(found: dict[str, bytes], in_digest: bool, start: int) -> storage_pb2.Part:
    """What the header says of the entity."""
    def value(name: str) -> bytes:
        return found.get(name, b"")
    part = storage_pb2.Part(
        id=value("content-id"), description=value("content-description"), md5=value("content-md5"),
        location=value("content-location"), header_offset=start)
    kind, params = fields.parse_params(found.get("content-type"))
    main, slash, sub = (word.strip() for word in kind.partition("/"))
    if slash and fields.token(main) and fields.token(sub):
        part.type, part.subtype = main, sub
        part.params.extend(params)
    elif "content-type" not in found and in_digest:
        part.type, part.subtype = "message", "rfc822"  # RFC 2046 section 5.1.5
    else:
        _text(part)  # RFC 2045 section 5.2
    encoding, _ = fields.parse_params(found.get("content-transfer-encoding"))
    part.encoding = encoding if fields.token(encoding) else "7bit"  # RFC 2045 section 6.1
    disposition, params = fields.parse_params(found.get("content-disposition"))
    if fields.token(disposition):
        part.disposition = disposition
        part.disposition_params.extend(params)
    languages = fields.strip_comments(value("content-language")).decode("latin-1").split(",")
    part.language.extend(word for word in map(str.strip, languages) if fields.token(word))
    return part


def _is_mail(part: storage_pb2.Part) -> bool:
    return part.type == "message" and part.subtype in ("rfc822", "global")


def _is_message(part: storage_pb2.Part) -> bool:
    """An encoded message/rfc822 is forbidden (RFC 2046 section 5.2.1) and cannot be
    looked into; message/global may be encoded (RFC 6532 section 3.5)."""
    return _is_mail(part) and part.encoding in ("7bit", "8bit", "binary")


def _opaque(part: storage_pb2.Part) -> None:
    """A message that was not looked into is shown as what it is then."""
    if _is_mail(part):
        part.type, part.subtype = "application", "octet-stream"
        del part.params[:]


def _text(part: storage_pb2.Part) -> None:
    part.type, part.subtype = "text", "plain"
    del part.params[:]
    part.params.add(name="charset", value=b"us-ascii")
