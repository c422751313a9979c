"""Sets of UIDs, as UIDRange has them in the contract."""
from __future__ import annotations

from bisect import bisect_right
from typing import Iterable, Iterator

from stagecoach.v1.storage_pb2 import UIDRange

LAST = 2**32 - 1


class UIDSet:
    """A set of UIDs: disjoint ranges (first, last) by growing UID, both included."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()):
        self.ranges: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if self.ranges and first <= self.ranges[-1][1] + 1:
                self.ranges[-1] = self.ranges[-1][0], max(self.ranges[-1][1], last)
            else:
                self.ranges.append((first, last))

    @classmethod
    def of(cls, ranges: Iterable[UIDRange]) -> UIDSet:
        """The set of the contract's ranges; none at all mean every UID."""
        ranges = list(ranges)
        if not ranges:
            return cls([(1, LAST)])
        pairs = ((max(r.first, 1), r.last or LAST) for r in ranges)
        return cls((first, last) for first, last in pairs if first <= last)

    @classmethod
    def all(cls, uids: Iterable[int]) -> UIDSet:
        """The set of those UIDs, in any order."""
        return cls((uid, uid) for uid in uids)

    def __contains__(self, uid: int) -> bool:
        at = bisect_right(self.ranges, (uid, LAST))
        return at > 0 and uid <= self.ranges[at - 1][1]

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __iter__(self) -> Iterator[int]:
        """The UIDs, growing: look at len first, every UID is four billion."""
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def __and__(self, other: UIDSet) -> UIDSet:
        """What both have."""
        out, a, b, i, j = [], self.ranges, other.ranges, 0, 0
        while i < len(a) and j < len(b):
            first, last = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
            if first <= last:
                out.append((first, last))
            if a[i][1] < b[j][1]:
                i += 1
            else:
                j += 1
        return UIDSet(out)

    def to_ranges(self) -> list[UIDRange]:
        """The contract's form."""
        return [UIDRange(first=first, last=last) for first, last in self.ranges]
