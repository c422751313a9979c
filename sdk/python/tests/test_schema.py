import json
import unittest
from dataclasses import dataclass
from datetime import timedelta
from typing import Optional

from stagecoach import Mistake, Mistakes, Size, attribute, block, label
from stagecoach.schema import decode, format_duration, parse_duration, parse_size, schema_of


@dataclass
class Limit:
    domain: str = label()
    max: int = attribute(10, doc="Mails per hour.")


@dataclass
class Config:
    words: list[str] = attribute(doc="Words.", example='["lottery"]')
    code: int = attribute(550, doc="Code.", one_of=())
    wait: timedelta = attribute(timedelta(minutes=2))
    size: Size = attribute(Size(25 << 20))
    extra: dict[str, str] = attribute({})
    note: Optional[str] = attribute(None, semantic="path", sensitive=True)
    factor: float = attribute(1.5, live=True)
    strict: bool = attribute(False)
    limits: list[Limit] = block(doc="Limits per domain.")
    one: Optional[Limit] = block()

    def validate(self):
        for i, word in enumerate(self.words):
            if not word:
                yield Mistake("an empty word", "words", i, detail="Take it out.")
        if self.code == 551:
            yield Mistake("an unusual code", "code", warning=True)


class Schema(unittest.TestCase):
    def test_says_what_the_dataclass_says(self):
        b = schema_of(Config).block
        a = {x.name: x for x in b.attributes}
        self.assertEqual({n: json.loads(x.type) for n, x in a.items()}, {
            "words": ["list", "string"], "code": "number", "wait": "string", "size": "string", "extra": ["map", "string"],
            "note": "string", "factor": "number", "strict": "bool"})
        self.assertEqual([n for n, x in a.items() if x.required], ["words"])
        self.assertEqual({n: json.loads(x.default_json) for n, x in a.items() if x.default_json}, {
            "code": 550, "wait": "2m", "size": "25MB", "extra": {}, "factor": 1.5, "strict": False})
        self.assertEqual((a["wait"].semantic, a["size"].semantic, a["note"].semantic), ("duration", "size", "path"))
        self.assertTrue(a["note"].sensitive and a["factor"].live_reload)
        self.assertEqual((a["words"].doc, a["words"].example), ("Words.", '["lottery"]'))
        self.assertEqual([(x.name, x.min, x.max, list(x.labels)) for x in b.blocks],
                         [("limits", 0, 0, ["domain"]), ("one", 0, 1, ["domain"])])
        self.assertEqual(b.blocks[0].block.attributes[0].name, "max")

    def test_decodes_what_the_core_sends(self):
        c = decode(Config, json.dumps({
            "words": ["a"], "code": 553, "wait": "1h30m", "size": "64KiB", "extra": {"a": "b"}, "note": None, "factor": 2,
            "strict": True, "limits": [{"domain": "hanks.example", "max": 3}, {"domain": "ryan.example", "max": None}], "one": None,
        }).encode())
        self.assertEqual((c.words, c.code, c.wait, c.size, c.extra), (["a"], 553, timedelta(minutes=90), 65536, {"a": "b"}))
        self.assertEqual((c.note, c.factor, c.strict, c.one), (None, 2.0, True, None))
        self.assertEqual([(l.domain, l.max) for l in c.limits], [("hanks.example", 3), ("ryan.example", 10)])

    def test_points_at_the_attribute(self):
        for config, want in (
                ({"words": ["a", ""]}, ["words[1]: an empty word"]),
                ({"words": ["a"], "code": 5.5}, ["code: 5.5 is not a whole number"]),
                ({"words": ["a"], "wait": "soon"}, ["wait: 'soon' is not a duration: write a number with s, m, h or d, such as \"2m\""]),
                ({"words": ["a"], "limits": [{"domain": "x", "max": 1}, {"domain": "y", "max": 1.5}]}, ["limits[1].max: 1.5 is not a whole number"]),
                ({}, ["words: must be there"]),
        ):
            with self.subTest(config=config):
                with self.assertRaises(Mistakes) as caught:
                    decode(Config, json.dumps(config).encode())
                self.assertEqual([str(m) for m in caught.exception.mistakes], want)
        d = Mistake("no", "limits", 1, "max", detail="Write 1.").diagnostic()
        self.assertEqual([(s.name or s.index) for s in d.path], ["limits", 1, "max"])
        self.assertEqual(d.detail, "Write 1.")

    def test_a_warning_lets_it_start(self):
        c = decode(Config, b'{"words": ["a"], "code": 551}')
        self.assertEqual([str(m) for m in c._warnings], ["code: an unusual code"])

    def test_a_list_of_defaults_is_nobody_elses(self):
        @dataclass
        class Lists:
            a: list[str] = attribute(["x"])
        decode(Lists, b"{}").a.append("y")
        self.assertEqual(decode(Lists, b"{}").a, ["x"])

    def test_refuses_what_no_config_can_have(self):
        @dataclass
        class Odd:
            a: set = attribute(None)
        with self.assertRaisesRegex(TypeError, "Odd.a: a config cannot have"):
            schema_of(Odd)
        with self.assertRaisesRegex(TypeError, "unknown semantic"):
            attribute("", semantic="colour")

    def test_units(self):
        for text, want in (("90s", 90), ("2m", 120), ("1h30m", 5400), ("5d", 432000), ("1w", 604800), ("1.5h", 5400), ("0", 0), ("250ms", 0.25)):
            self.assertEqual(parse_duration(text), timedelta(seconds=want), text)
            self.assertEqual(parse_duration(format_duration(timedelta(seconds=want))), timedelta(seconds=want))
        for text in ("", "2", "m", "-2m", "2m soon", "2x"):
            with self.assertRaises(ValueError, msg=text):
                parse_duration(text)
        for text, want in (("25MB", 25 << 20), ("64KiB", 64 << 10), ("1000", 1000), ("1.5G", 3 << 29), ("7b", 7)):
            self.assertEqual(parse_size(text), want, text)
        for text in ("", "MB", "-1", "1XB"):
            with self.assertRaises(ValueError, msg=text):
                parse_size(text)
        self.assertEqual([str(Size(n)) for n in (0, 1000, 64 << 10, 25 << 20)], ["0B", "1000B", "64KB", "25MB"])
