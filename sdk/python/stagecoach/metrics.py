"""Counters, gauges and histograms that appear on the server's /metrics page as
stagecoach_plugin_PLUGIN_NAME, with the label plugin="filter.greylist.calm".

Names and label names are letters, digits and _; a counter's name ends in _total, a
unit stands in the plural: wait_seconds. A label's values should be few and known
beforehand: each is a series that lives as long as the process."""
from __future__ import annotations

import bisect
import threading
from typing import Iterable, Union

from stagecoach.v1 import plugin_pb2 as v1

# SECONDS are upper bounds for a histogram of times, from a millisecond to half a
# minute.
SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


class Value:
    """One counter or gauge; safe for concurrent use."""

    def __init__(self, name: str, help: str, counter: bool, labels: dict[str, str]):
        self._lock, self._value = threading.Lock(), 0.0
        self._meta = dict(name=name, help=help, counter=counter, labels=labels)

    def add(self, n: float = 1) -> None:
        """Adds n; a counter takes no negative one."""
        if n < 0 and self._meta["counter"]:
            raise ValueError("a counter only grows: use a gauge")
        with self._lock:
            self._value += n

    def set(self, n: float) -> None:
        """Sets a gauge."""
        if self._meta["counter"]:
            raise ValueError("a counter is added to: use a gauge")
        with self._lock:
            self._value = n

    def get(self) -> float:
        """The present value."""
        with self._lock:
            return self._value

    def metrics(self) -> list[v1.Metric]:
        """The contract's form."""
        return [v1.Metric(value=self.get(), **self._meta)]


class Histogram:
    """A distribution of numbers; safe for concurrent use."""

    def __init__(self, name: str, help: str, bounds: Iterable[float], labels: dict[str, str]):
        self._lock, self._name, self._help, self._labels = threading.Lock(), name, help, labels
        self._bounds = sorted(set(bounds))
        self._counts, self._sum = [0] * (len(self._bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Counts a value; NaN is not counted."""
        if value != value:
            return
        with self._lock:
            self._counts[bisect.bisect_left(self._bounds, value)] += 1
            self._sum += value

    def metrics(self) -> list[v1.Metric]:
        """The contract's form: Prometheus's counters of what is at most le, for each
        bound, their sum and their number."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        out, n = [], 0
        for bound, count in zip(self._bounds + ["+Inf"], counts):
            n += count
            le = bound if isinstance(bound, str) else "%g" % bound
            out.append(v1.Metric(name=self._name + "_bucket", help=self._help, counter=True, value=n, labels=dict(self._labels, le=le)))
        for suffix, value in (("_sum", total), ("_count", n)):
            out.append(v1.Metric(name=self._name + suffix, help=self._help, counter=True, value=value, labels=self._labels))
        return out


class Metrics:
    """What one instance counts; each is new at first use."""

    def __init__(self) -> None:
        self._lock, self._all = threading.Lock(), {}

    def counter(self, name: str, help: str, **labels: str) -> Value:
        """A value that only grows; its name ends in _total."""
        return self._series(Value, name, labels, lambda: Value(name, help, True, labels))

    def gauge(self, name: str, help: str, **labels: str) -> Value:
        """A value that also falls."""
        return self._series(Value, name, labels, lambda: Value(name, help, False, labels))

    def histogram(self, name: str, help: str, bounds: Iterable[float] = SECONDS, **labels: str) -> Histogram:
        """Counts by size, for shares and percentiles: how many answers took longer
        than a second. bounds are the upper ones, each included."""
        return self._series(Histogram, name, labels, lambda: Histogram(name, help, bounds, labels))

    def _series(self, kind, name: str, labels: dict[str, str], new):
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            if key not in self._all:
                self._all[key] = new()
            if not isinstance(self._all[key], kind):
                raise TypeError("%s is already a %s" % (name, type(self._all[key]).__name__.lower()))
            return self._all[key]

    def snapshot(self) -> list[v1.Metric]:
        """All of them, by name."""
        with self._lock:
            series: list[Union[Value, Histogram]] = [s for _, s in sorted(self._all.items(), key=lambda kv: kv[0])]
        return [m for s in series for m in s.metrics()]
