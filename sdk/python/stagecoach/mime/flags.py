"""What SetFlagsRequest says of flags: a bit set of system flags, and keywords."""
from __future__ import annotations

import re
from typing import Iterable, NamedTuple, Optional

from stagecoach.fail import Failure
from stagecoach.v1.storage_pb2 import FLAG_ANSWERED, FLAG_DELETED, FLAG_DRAFT, FLAG_FLAGGED, FLAG_SEEN, SetFlagsRequest

SYSTEM = {"\\seen": FLAG_SEEN, "\\answered": FLAG_ANSWERED, "\\flagged": FLAG_FLAGGED, "\\deleted": FLAG_DELETED, "\\draft": FLAG_DRAFT}
MAX_KEYWORD = 255  # octets
# Keywords on a message.
MAX_KEYWORDS = 128
# An atom of RFC 9051 section 9.
_ATOM = re.compile(r"[!#$&'+-\[^-z|}~]+\Z")


class Flags(NamedTuple):
    """A message's flags: bits as Flag in the contract, and keywords."""
    bits: int = 0
    keywords: tuple[str, ...] = ()

    def has(self, keyword: str) -> bool:
        """Whether the keyword is among them, compared without case."""
        return keyword.lower() in map(str.lower, self.keywords)


def parse_flags(flags: Iterable[str]) -> Flags:
    """Splits flags into bits and keywords, each keyword once, spelled as it came
    first. INVALID for an unknown system flag, for a keyword that is no atom, and for
    more than MAX_KEYWORDS."""
    bits, keywords = 0, {}
    for flag in flags:
        low = flag.lower()
        if low in SYSTEM:
            bits |= SYSTEM[low]
        elif len(flag) > MAX_KEYWORD or not _ATOM.match(flag):
            raise Failure("INVALID", "%r is neither a system flag nor a keyword" % flag[:40])
        else:
            keywords.setdefault(low, flag)
    return _few(bits, keywords.values())


def apply_flags(op: int, old: Flags, change: Flags) -> Optional[Flags]:
    """Does a SetFlagsRequest.Op on one message's flags. It returns the new ones, or
    None if they are the same: the message then gets no MODSEQ. INVALID for more than
    MAX_KEYWORDS."""
    had = {k.lower(): k for k in old.keywords}
    named = {k.lower(): k for k in change.keywords}
    if op == SetFlagsRequest.ADD:
        bits, keywords = old.bits | change.bits, {**named, **had}
    elif op == SetFlagsRequest.REMOVE:
        bits, keywords = old.bits & ~change.bits, {k: v for k, v in had.items() if k not in named}
    else:
        bits, keywords = change.bits, {k: had.get(k, v) for k, v in named.items()}
    if bits == old.bits and keywords.keys() == had.keys():
        return None
    return _few(bits, [k for low, k in had.items() if low in keywords] + [k for low, k in keywords.items() if low not in had])


def _few(bits: int, keywords: Iterable[str]) -> Flags:
    flags = Flags(bits, tuple(keywords))
    if len(flags.keywords) > MAX_KEYWORDS:
        raise Failure("INVALID", "more than %d keywords on one message" % MAX_KEYWORDS)
    return flags
