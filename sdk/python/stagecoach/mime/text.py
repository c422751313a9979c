"""Content-transfer-encodings, charsets, encoded words, case, and a message's first
words. What is malformed is forgiven."""
from __future__ import annotations

import binascii
import codecs
import re
from typing import Optional

from stagecoach.mime.header import param
from stagecoach.v1 import storage_pb2

# Charsets that are decoded, by what mail calls them. Python's own list has codecs
# that are no charsets, and one can be loaded for every name that there is a module
# of: no mail is to choose that.
CHARSETS = {
    "utf-16": "utf-16", "utf-16be": "utf-16-be", "utf-16le": "utf-16-le", "utf-7": "utf-7",
    "iso-8859-1": "cp1252", "iso8859-1": "cp1252", "latin1": "cp1252",  # as the web reads it: mail means it too
    "macintosh": "mac-roman", "koi8-r": "koi8-r", "koi8-u": "koi8-u", "ibm866": "cp866", "cp866": "cp866",
    "big5": "big5hkscs", "big5-hkscs": "big5hkscs", "gb2312": "gb18030", "gbk": "gb18030", "gb18030": "gb18030",
    "hz-gb-2312": "hz", "euc-jp": "euc-jp", "iso-2022-jp": "iso2022-jp-2", "shift_jis": "cp932", "shift-jis": "cp932",
    "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "iso-2022-kr": "iso2022-kr", "tis-620": "cp874",
    **{"iso-8859-%d" % n: "iso8859-%d" % n for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)}, "iso-8859-9": "cp1254",
    "iso-8859-8-i": "iso8859-8", "iso-8859-11": "cp874", **{"windows-%d" % n: "cp%d" % n for n in (874, *range(1250, 1259))},
}
MAX_PREVIEW = 200  # characters: RFC 8970 section 3.1

_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_QUOTED = re.compile(rb"=(?:\r?\n|([0-9A-Fa-f]{2}))")
_WORD = re.compile(r"=\?([^?\s]{1,100})\?([bBqQ])\?([^?\s]*)\?=")


def fold(text: str) -> str:
    """The form in which text is compared without case."""
    return text.casefold()


class Decoder:
    """Undoes the content-transfer-encoding and the charset of a text part's body, a
    piece at a time. Text in a charset that nobody knows is read as UTF-8."""

    def __init__(self, part: storage_pb2.Part):
        self._octets = {"base64": _base64, "quoted-printable": _quoted_printable}.get(part.encoding, _plain)
        self._text = _charset(param(part.params, "charset").decode("latin-1"))
        self._rest = b""

    def write(self, octets: bytes) -> str:
        """The text of the next octets."""
        decoded, self._rest = self._octets(self._rest + octets, False)
        return self._text.decode(decoded)

    def end(self) -> str:
        """The text of what was left over."""
        return self._text.decode(self._octets(self._rest, True)[0], True)


def _charset(name: str) -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder(CHARSETS.get(name.lower(), "utf-8"))("replace")


# Each decodes what it can and returns what it needs more of; the last time, all.

def _plain(octets: bytes, last: bool) -> tuple[bytes, bytes]:
    return octets, b""


def _base64(octets: bytes, last: bool) -> tuple[bytes, bytes]:
    """Passes over what is not of the alphabet (RFC 2045 section 6.8). What stands
    behind a padding begins anew."""
    *whole, rest = octets.translate(None, _BASE64).split(b"=")
    keep = b"" if last else rest[len(rest) // 4 * 4:]
    whole.append(rest[:len(rest) - len(keep)])
    return b"".join(map(_unpadded, whole)), keep


def _unpadded(text: bytes) -> bytes:
    if len(text) % 4 == 1:  # six bits are no octet
        text = text[:-1]
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4))


def _quoted_printable(octets: bytes, last: bool) -> tuple[bytes, bytes]:
    """RFC 2045 section 6.7; a "=" that begins nothing stays as it is."""
    keep = len(octets)
    if not last:
        # A "=" at the end whose meaning is not known yet.
        at = octets.rfind(b"=", max(0, keep - 2))
        if at >= 0 and octets[at + 1:at + 2] != b"\n":
            keep = at
    return _QUOTED.sub(_escape, octets[:keep]), octets[keep:]


def _escape(found: re.Match) -> bytes:
    return bytes((int(found[1], 16),)) if found[1] else b""


def decode_words(value: str) -> str:
    """Turns the encoded words (RFC 2047) of an unfolded value into text. What cannot
    be decoded stays as it stands."""
    out, at, after_word = [], 0, False
    for found in _WORD.finditer(value):
        between = value[at:found.start()]
        # White space between two words is not theirs (RFC 2047 section 6.2).
        if not after_word or between.strip(" \t\r\n"):
            out.append(between)
        text = found[3].encode("utf-8", "replace")
        if found[2] in "bB":
            octets = _base64(text, True)[0]
        else:
            octets = _QUOTED.sub(_escape, text.replace(b"_", b" "))
        # RFC 2231 section 5: a language may follow the charset.
        out.append(_charset(found[1].partition("*")[0]).decode(octets, True))
        at, after_word = found.end(), True
    return "".join(out) + value[at:]


Sample = Optional[tuple]  # a part, and how its body begins

_GAP = re.compile("[\\s\x00-\x1f\x7f-\x9f\ufeff\ufffd]+")
_HIDDEN = re.compile("<(style|script|head|title)", re.I)
_ENTITIES = {"&nbsp;": " ", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&amp;": "&"}


def preview(plain: Sample, html: Sample) -> str:
    """The first words (RFC 8970 section 3.1) of the plain text or, if there is none,
    of the HTML without its tags."""
    text = _sampled(plain)
    if not text and html:
        text = _untagged(_sampled(html))
    # Behind so many gaps nothing is shown.
    return _GAP.sub(" ", text, MAX_PREVIEW + 1).strip(" ")[:MAX_PREVIEW].rstrip(" ")


def _sampled(sample: Sample) -> str:
    if not sample:
        return ""
    decoder = Decoder(sample[0])
    return decoder.write(sample[1]) + decoder.end()


def _untagged(html: str) -> str:
    """Leaves the text of HTML, roughly: a preview is not a rendering."""
    out, at, low = [], 0, html.lower() if html.isascii() else re.sub("[A-Z]+", lambda m: m[0].lower(), html)
    while True:
        start = html.find("<", at)
        if start < 0:
            out.append(html[at:])
            break
        out.append(html[at:start] + " ")
        hidden = _HIDDEN.match(html, start)
        end = low.find("</" + hidden[1].lower(), start) if hidden else start
        end = html.find(">", end) if end >= 0 else -1
        if end < 0:
            break
        at = end + 1
    return re.sub("&(?:nbsp|lt|gt|quot|#39|amp);", lambda m: _ENTITIES[m[0]], "".join(out))
