"""Verdicts, messages, headers, the log."""
import io
import json
import logging
import unittest

from stagecoach import Copy, Header, Message, accept, defer, disconnect, discard, hold, log, reject, testing
from stagecoach.metrics import Metrics
from stagecoach.v1 import common_pb2, filter_pb2

V = filter_pb2.Verdict


class Verdicts(unittest.TestCase):
    def test_say_all_of_it(self):
        r = (reject(550, "5.7.1", "No").reason("list").delay(2).skip_rest().for_recipient(1, defer(451, "", "Later"))
             .tag("a", "x").tag("b", 1.5).tag("c", True).tag("d", ["p", "q"]).tag("e", [])
             .add_header("X-A", "one").insert_header(-1, "X-B", b" two").replace_header("Subject", 1, "new").delete_header("X-C")
             .add_recipient("meg@ryan.example", notify=["NEVER"]).delete_recipient(0).set_sender("").replace_body(b"body\r\n")
             .hints(next_hop="192.0.2.1:25").note("seen").score(-1.5)
             .inject("", ["tom@hanks.example"], Message.from_bytes(b"Subject: away\r\n\r\n"))).reply
        v = r.verdict
        self.assertEqual((v.action, v.reply.code, v.reply.enhanced, v.reply.text), (V.REJECT, 550, "5.7.1", "No"))
        self.assertEqual((v.reason, v.delay_ms, v.skip_rest), ("list", 2000, True))
        self.assertEqual((r.per_recipient[1].action, r.per_recipient[1].reply.text), (V.DEFER, "Later"))
        self.assertEqual((r.tags["a"].text, r.tags["b"].number, r.tags["c"].flag, list(r.tags["d"].list.values)), ("x", 1.5, True, ["p", "q"]))
        self.assertEqual(r.tags["e"].WhichOneof("value"), "list")
        self.assertEqual([e.WhichOneof("edit") for e in r.edits], [
            "insert_header", "insert_header", "replace_header", "delete_header", "add_recipient", "delete_recipient", "set_sender", "replace_body"])
        self.assertEqual((r.edits[0].insert_header.field.value, r.edits[1].insert_header.field.value), (b" one", b" two"))
        self.assertEqual((r.edits[1].insert_header.position, list(r.edits[4].add_recipient.recipient.notify)), (-1, ["NEVER"]))
        self.assertEqual((r.hints.next_hop, r.note, r.score, r.inject[0].recipients[0].address), ("192.0.2.1:25", "seen", -1.5, "tom@hanks.example"))

    def test_a_mail_is_placed_by_recipient(self):
        r = accept().place(0, "Archive").place(2, Copy("Lists/a", ["\\Seen", "$Work"]), Copy(message=Message.from_bytes(b"Subject: x\r\n\r\n"))).reply
        self.assertEqual([(c.mailbox, list(c.flags), c.HasField("message")) for c in r.placements[0].copies], [("Archive", [], False)])
        self.assertEqual([(c.mailbox, list(c.flags)) for c in r.placements[2].copies], [("Lists/a", ["\\Seen", "$Work"]), ("", [])])
        self.assertEqual(r.placements[2].copies[1].message.inline, b"Subject: x\r\n\r\n")
        self.assertEqual(sorted(r.placements), [0, 2])
        with self.assertRaises(TypeError):
            accept().place(0, Copy(flags="\\Seen"))

    def test_a_tag_may_be_values_by_name(self):
        r = accept().tag("dkim", {"hanks.example": "pass", "n": 2.5, "b": True, "l": ["p"]}).tag("none", {}).reply
        m = r.tags["dkim"].map.entries
        self.assertEqual((m["hanks.example"].text, m["n"].number, m["b"].flag, list(m["l"].list.values), len(m)), ("pass", 2.5, True, ["p"], 4))
        self.assertEqual(r.tags["none"].WhichOneof("value"), "map")
        self.assertEqual(accept().tag("t", ["a"]).tag("t", {"k": "v"}).reply.tags["t"].WhichOneof("value"), "map")
        for value, where in (({"in": {"k": "v"}}, "tag t\\['in'\\]: "), (None, "tag t: "), (b"octets", "tag t: "), ({"k": None}, "tag t\\['k'\\]: ")):
            v = accept()
            with self.assertRaisesRegex(TypeError, where + "a string, a number"):
                v.tag("t", value)
            self.assertEqual(len(v.reply.tags), 0)

    def test_actions(self):
        for verdict, want in ((accept(), V.ACCEPT), (discard(), V.DISCARD), (hold("why"), V.HOLD), (disconnect(421, "4.3.2", "Bye"), V.DISCONNECT)):
            self.assertEqual(verdict.reply.verdict.action, want)
        self.assertEqual(hold("why").reply.verdict.reason, "why")

    def test_a_large_body_must_be_a_file(self):
        with self.assertRaisesRegex(ValueError, "replace_body_file"):
            accept().replace_body(b"x" * 20000)
        self.assertEqual(accept().replace_body_file("/x", 9).reply.edits[0].replace_body.body.path, "/x")


class Messages(unittest.TestCase):
    def tearDown(self):
        testing.remove_files()

    def test_are_the_same_inline_and_as_a_file(self):
        for octets in (b"Subject: hi\r\n\r\nHello\r\n", b"Subject: hi\r\n\r\n" + b"A long story.\r\n" * 5000):
            m = Message(testing.reference(octets))
            self.assertEqual(m.path != "", len(octets) > 16 << 10)
            self.assertEqual((m.size, m.read(), m.parse()["subject"]), (len(octets), octets, "hi"))
            with m.open() as f:
                self.assertEqual(f.readline(), b"Subject: hi\r\n")
            with self.assertRaises(ValueError):
                m.read(limit=10)

    def test_header(self):
        h = Header([common_pb2.HeaderField(name="Subject", value=b" one\r\n two "), common_pb2.HeaderField(name="X", value=b" 1"),
                    common_pb2.HeaderField(name="x", value=b" \xff2")])
        self.assertEqual((h.get("SUBJECT"), h.values("x"), h.get("no", "none"), "X" in h, "Y" in h, len(h)),
                         ("one two", ["1", "\udcff2"], "none", True, False, 3))
        self.assertEqual(list(h)[0], ("Subject", "one two"))


class Counting(unittest.TestCase):
    def test_counter_gauge_histogram(self):
        m = Metrics()
        m.counter("sent_total", "Sent.", to="meg").add()
        m.counter("sent_total", "Sent.", to="meg").add(2)
        m.gauge("open", "Open.").set(5)
        m.gauge("open", "Open.").add(-1)
        for seconds in (0.1, 0.5, 1, 7, float("nan")):
            m.histogram("wait_seconds", "Waited.", [1, 0.1]).observe(seconds)
        self.assertEqual([(x.name, dict(x.labels), x.counter, x.value) for x in m.snapshot()], [
            ("open", {}, False, 4), ("sent_total", {"to": "meg"}, True, 3),
            ("wait_seconds_bucket", {"le": "0.1"}, True, 1), ("wait_seconds_bucket", {"le": "1"}, True, 3),
            ("wait_seconds_bucket", {"le": "+Inf"}, True, 4), ("wait_seconds_sum", {}, True, 8.6), ("wait_seconds_count", {}, True, 4)])
        for wrong in (lambda: m.counter("sent_total", "", to="meg").add(-1), lambda: m.counter("sent_total", "", to="meg").set(0)):
            self.assertRaises(ValueError, wrong)
        self.assertRaises(TypeError, m.histogram, "open", "")


class Log(unittest.TestCase):
    def test_a_line_is_an_object(self):
        out = io.StringIO()
        root = logging.getLogger()
        before, level = root.handlers[:], root.level
        root.handlers.clear()
        try:
            log.to(out)
            logging.getLogger("filter.x.y").warning("seen %s", "Meg", extra={"count": 3})
            try:
                raise KeyError("gone")
            except KeyError:
                logging.exception("failed")
            logging.debug("not this")
        finally:
            root.handlers[:], root.level = before, level
        lines = [json.loads(l) for l in out.getvalue().splitlines()]
        self.assertEqual([(l["@level"], l["@message"]) for l in lines], [("warn", "seen Meg"), ("error", "failed")])
        self.assertEqual(lines[0]["count"], 3)
        self.assertRegex(lines[0]["@timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertIn("KeyError", lines[1]["exception"])
