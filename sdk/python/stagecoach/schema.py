"""The configuration of a plugin: a dataclass that is the schema, the defaults and
the documentation of its HCL block. It does not read HCL: the core does, and
checks it against the schema before the plugin is started.

    @dataclass
    class Config:
        forbid: list[str] = attribute(doc="Words that no subject may have.")
        code: int = attribute(550, doc="Code of the refusal.")
        wait: timedelta = attribute(timedelta(minutes=2), doc="How long to wait.")

Types: str, bool, int, float, timedelta ("2m", "5d"), Size ("25MB"), list[T] and
dict[str, T] of them, Optional[T] for what has no default. A dataclass is a nested
block that must be there once, Optional[DATACLASS] at most once, list[DATACLASS]
any number of times; label() makes a field a label of its block.
"""
from __future__ import annotations

import dataclasses
import json
import re
import typing
from datetime import timedelta
from typing import Any, Iterable, Optional, Union

from stagecoach.v1 import plugin_pb2 as v1

_SEMANTICS = ("", "duration", "size", "path", "address", "cidr", "hostport", "regexp", "condition")
_NONE = object()


class Size(int):
    """A number of octets; in HCL a string such as "25MB" or "64KiB"."""

    def __str__(self) -> str:
        n = int(self)
        for unit, octets in (("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
            if n and n % octets == 0:
                return "%d%s" % (n // octets, unit)
        return "%dB" % n


class Mistake(Exception):
    """A complaint about the operator's block, shown at the line of the attribute
    that path leads to: Mistake("an empty word", "forbid", 1). Steps are names of
    attributes and blocks, and indexes of list elements and repeated blocks; none
    at all is the block itself. detail says what to write instead. A warning does
    not keep the plugin from starting."""

    def __init__(self, summary: str, *path: Union[str, int], detail: str = "", warning: bool = False):
        super().__init__(summary)
        self.summary, self.path, self.detail, self.warning = summary, path, detail, warning

    def __str__(self) -> str:
        where = ""
        for step in self.path:
            where += "[%d]" % step if isinstance(step, int) else ("." if where else "") + step
        return "%s: %s" % (where, self.summary) if where else self.summary

    def diagnostic(self) -> v1.Diagnostic:
        """The contract's form."""
        d = v1.Diagnostic(summary=self.summary, detail=self.detail)
        if self.warning:
            d.severity = v1.Diagnostic.WARNING
        for step in self.path:
            d.path.append(v1.PathStep(index=step) if isinstance(step, int) else v1.PathStep(name=step))
        return d


class Mistakes(Exception):
    """Several of them."""

    def __init__(self, mistakes: Iterable[Mistake]):
        self.mistakes = list(mistakes)
        super().__init__("; ".join(str(m) for m in self.mistakes))


def attribute(default: Any = _NONE, *, doc: str = "", example: str = "", semantic: str = "",
              one_of: Iterable[str] = (), sensitive: bool = False, live: bool = False) -> Any:
    """A field of a config. Without a default the operator must write it. example
    is HCL; semantic refines a string (path, address, cidr, hostport, regexp, condition)
    and is checked offline; sensitive values are never printed; live ones may change
    without a new process."""
    if semantic not in _SEMANTICS:
        raise TypeError("unknown semantic %r: one of %s" % (semantic, ", ".join(_SEMANTICS[1:])))
    meta = dict(doc=doc, example=example, semantic=semantic, one_of=tuple(one_of), sensitive=sensitive, live=live)
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=meta)
    if default is _NONE:
        return dataclasses.field(metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


def block(*, doc: str = "") -> Any:
    """A field of a config that is a nested block, with its doc; how often it may
    stand there says the type. One that is missing is None, or an empty list."""
    return dataclasses.field(default=None, metadata=dict(doc=doc))


def label() -> Any:
    """A field of a nested block that is a label of it."""
    return dataclasses.field(metadata=dict(label=True))


# --- types ------------------------------------------------------------------

def _optional(t: Any) -> tuple[Any, bool]:
    """Takes Optional off a type."""
    args = typing.get_args(t)
    if type(None) in args and len(args) == 2:
        return next(a for a in args if a is not type(None)), True
    return t, False


def _cty(t: Any) -> tuple[Any, str]:
    """The HCL type of a Python type, as cty JSON, and the semantic it brings."""
    t, _ = _optional(t)
    if t is timedelta:
        return "string", "duration"
    if t is Size:
        return "string", "size"
    if t is str:
        return "string", ""
    if t is bool:
        return "bool", ""
    if t in (int, float):
        return "number", ""
    origin, args = typing.get_origin(t), typing.get_args(t)
    if origin is list and args:
        inner, semantic = _cty(args[0])
        return ["list", inner], semantic
    if origin is dict and args and args[0] is str:
        inner, semantic = _cty(args[1])
        return ["map", inner], semantic
    raise TypeError("a config cannot have a %s: see the types in stagecoach.schema" % (t,))


def _nested(t: Any) -> Optional[tuple[type, int, int]]:
    """The dataclass of a nested block, with min and max; None for an attribute."""
    t, optional = _optional(t)
    if dataclasses.is_dataclass(t):
        return t, 0 if optional else 1, 1
    args = typing.get_args(t)
    if typing.get_origin(t) is list and args and dataclasses.is_dataclass(args[0]):
        return args[0], 0, 0
    return None


def _plain(value: Any) -> Any:
    """A value as JSON has it: durations and sizes are strings."""
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, Size):
        return str(value)
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _default(f: dataclasses.Field) -> Any:
    if f.default is not dataclasses.MISSING:
        return f.default
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return _NONE


def schema_of(config: Optional[type]) -> v1.Schema:
    """The schema of a dataclass; None makes the empty one."""
    s = v1.Schema()
    s.block.SetInParent()
    if config is not None:
        if not dataclasses.is_dataclass(config):
            raise TypeError("a config is a dataclass, not %r" % (config,))
        _block_of(config, s.block)
    return s


def _block_of(config: type, into: v1.Schema.Block) -> list[str]:
    """Fills a block and returns its labels."""
    labels = []
    hints = typing.get_type_hints(config)
    for f in dataclasses.fields(config):
        meta, t = f.metadata, hints[f.name]
        nested = _nested(t)
        if meta.get("label"):
            if t is not str:
                raise TypeError("%s.%s: a label is a str" % (config.__name__, f.name))
            labels.append(f.name)
        elif nested:
            nb = into.blocks.add(name=f.name, min=nested[1], max=nested[2])
            nb.block.doc = meta.get("doc", "")
            nb.labels.extend(_block_of(nested[0], nb.block))
        else:
            try:
                typ, semantic = _cty(t)
            except TypeError as e:
                raise TypeError("%s.%s: %s" % (config.__name__, f.name, e)) from None
            default = _default(f)
            a = into.attributes.add(
                name=f.name, type=json.dumps(typ).encode(), required=default is _NONE, doc=meta.get("doc", ""),
                example=meta.get("example", ""), sensitive=meta.get("sensitive", False),
                semantic=meta.get("semantic") or semantic, one_of=meta.get("one_of", ()), live_reload=meta.get("live", False))
            if default is not _NONE and default is not None:
                a.default_json = json.dumps(_plain(default)).encode()
    return labels


# --- decoding ---------------------------------------------------------------

def decode(config: Optional[type], text: bytes) -> Any:
    """Makes a config of Configure's JSON and lets its validate method look at it.
    Raises Mistakes. What is null or absent keeps its default."""
    if config is None:
        return None
    mistakes: list[Mistake] = []
    value = _decode_block(config, json.loads(text or b"{}"), (), mistakes)
    if not mistakes and hasattr(value, "validate"):
        try:
            mistakes.extend(value.validate() or ())
        except Mistake as m:
            mistakes.append(m)
        except Mistakes as all_of_them:
            mistakes.extend(all_of_them.mistakes)
    if any(not m.warning for m in mistakes):
        raise Mistakes(mistakes)
    if value is not None and mistakes:
        value.__dict__["_warnings"] = mistakes
    return value


def _decode_block(config: type, raw: dict, path: tuple, mistakes: list) -> Any:
    hints = typing.get_type_hints(config)
    values = {}
    before = len(mistakes)
    for f in dataclasses.fields(config):
        got, here = raw.get(f.name), path + (f.name,)
        nested = _nested(hints[f.name])
        if got is None and nested:
            if nested[2] == 0:
                values[f.name] = []
            elif nested[1]:
                mistakes.append(Mistake("the block must be there", *here))
            else:
                values[f.name] = None
            continue
        if got is None:
            if _default(f) is _NONE:
                mistakes.append(Mistake("must be there", *here))
            continue
        if nested and nested[2] == 1:
            values[f.name] = _decode_block(nested[0], got, here, mistakes)
        elif nested:
            values[f.name] = [_decode_block(nested[0], one, here + (i,), mistakes) for i, one in enumerate(got)]
        else:
            try:
                values[f.name] = _value(hints[f.name], got)
            except (ValueError, TypeError) as e:
                mistakes.append(Mistake(str(e), *here))
    return config(**values) if len(mistakes) == before else None


def _value(t: Any, raw: Any) -> Any:
    t, _ = _optional(t)
    if t is timedelta:
        return parse_duration(raw)
    if t is Size:
        return parse_size(raw)
    origin, args = typing.get_origin(t), typing.get_args(t)
    if origin is list:
        return [_value(args[0], one) for one in raw]
    if origin is dict:
        return {k: _value(args[1], one) for k, one in raw.items()}
    if t is int:
        if isinstance(raw, bool) or int(raw) != raw:
            raise ValueError("%r is not a whole number" % (raw,))
        return int(raw)
    if t is float:
        return float(raw)
    if not isinstance(raw, t):
        raise ValueError("%r is not a %s" % (raw, {str: "string", bool: "bool"}.get(t, t)))
    return raw


# --- units ------------------------------------------------------------------

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(w|d|h|ms|m|us|µs|ns|s)")
_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?)(I?B)?", re.IGNORECASE)


def parse_duration(text: str) -> timedelta:
    """Reads "90s", "2m", "1h30m", "5d", "1w"; a day has 24 hours."""
    text = str(text).strip()
    parts = _DURATION.findall(text)
    if text != "0" and (not parts or "".join(n + u for n, u in parts) != text):
        raise ValueError('%r is not a duration: write a number with s, m, h or d, such as "2m"' % text)
    return timedelta(seconds=sum(float(n) * _SECONDS[u] for n, u in parts))


def format_duration(d: timedelta) -> str:
    """Writes a duration as parse_duration reads it: "2m", "1h30m", "5d"."""
    us = d // timedelta(microseconds=1)
    if us and us % 86_400_000_000 == 0:
        return "%dd" % (us // 86_400_000_000)
    out = ""
    for unit, size in (("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000), ("us", 1)):
        n, us = divmod(us, size)
        if n:
            out += "%d%s" % (n, unit)
    return out or "0s"


def parse_size(text: Union[str, int]) -> Size:
    """Reads "25MB", "64KiB", "1000"; units are powers of 1024."""
    m = _SIZE.fullmatch(str(text).strip())
    if not m:
        raise ValueError('%r is not a size: write a number with KB, MB or GB, such as "25MB"' % text)
    return Size(int(float(m[1]) * 1024 ** " KMGT".index((m[2] or " ").upper())))
