"""What a storage has to know of mail: rendering, searching, flags, UIDs."""
import io
import tempfile
import time
import unittest

from stagecoach import Failure
from stagecoach.mime import (Candidate, Decoder, Flags, UIDSet, apply_flags, compile, compile_request, decode_words, fold,
                             message_ids, parse_flags, render, render_file, shift, thread_ids)
from stagecoach.v1 import storage_pb2
from stagecoach.v1.storage_pb2 import Criterion, CriterionList, HeaderTest, SetFlagsRequest, TimeRange, UIDRange


def crlf(text):
    return text.replace("\n", "\r\n").encode("latin-1")


def draw(p, depth=0):
    """A structure as a line per part: type, place, size, lines."""
    own = "%s%s/%s @%d+%d size %d lines %d %s\n" % (
        "  " * depth, p.type, p.subtype, p.header_offset, p.body_offset - p.header_offset, p.size, p.lines, p.encoding)
    return own + "".join(draw(c, depth + 1) for c in p.children)


NESTED = """From: user@domain.org
Content-Type: multipart/mixed; boundary="foo
 bar"

Root prologue

--foo bar
Content-Type: text/x-myown; charset=us-ascii

hello

--foo bar
Content-Type: message/rfc822

Subject: submsg
Content-Type: multipart/alternative; boundary="sub1"

--sub1
Content-Type: text/html

<p>Hello world</p>

--sub1

Hello another world

--sub1--
Sub epilogue

--foo bar--
Root epilogue
"""

# The same cases as in the Go SDK's mime_test.go.
STRUCTURES = {
    "nested": (NESTED, """multipart/mixed @0+78 size 345 lines 27 7bit
  text/x-myown @106+48 size 7 lines 1 7bit
  message/rfc822 @174+32 size 187 lines 14 7bit
    multipart/alternative @206+73 size 114 lines 11 7bit
      text/html @287+27 size 20 lines 1 7bit
      text/plain @344+2 size 21 lines 1 7bit
"""),
    "empty": ("", "text/plain @0+0 size 0 lines 0 7bit\n"),
    "header only": ("Subject: x\n", "text/plain @0+12 size 0 lines 0 7bit\n"),
    "no header": ("\nbody\n", "text/plain @0+2 size 6 lines 1 7bit\n"),
    "no terminator": ("Content-Type: multipart/mixed; boundary=a\n\n--a\n\nx\n",
                      "multipart/mixed @0+45 size 10 lines 3 7bit\n  text/plain @50+2 size 3 lines 1 7bit\n"),
    "no boundary": ("Content-Type: multipart/mixed\n\nx\n", "text/plain @0+33 size 3 lines 1 7bit\n"),
    "no part": ("Content-Type: multipart/mixed; boundary=a\n\nx\n", "text/plain @0+45 size 3 lines 1 7bit\n"),
    "garbage type": ("Content-Type: ;;;\n\nx", "text/plain @0+21 size 1 lines 0 7bit\n"),
    "digest": ("Content-Type: multipart/digest; boundary=a\n\n--a\n\nSubject: in\n\nx\n--a--\n",
               "multipart/digest @0+46 size 32 lines 6 7bit\n  message/rfc822 @51+2 size 16 lines 2 7bit\n"
               "    text/plain @53+15 size 1 lines 0 7bit\n"),
    "delimiter in header": ("Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: text/html\n--a--\n",
                            "multipart/mixed @0+45 size 37 lines 3 7bit\n  text/html @50+25 size 0 lines 0 7bit\n"),
    "similar boundaries": ("Content-Type: multipart/mixed; boundary=ab\n\n--ab\nContent-Type: multipart/mixed; boundary=a\n\n--a\n\nx\n--ab--\n",
                           "multipart/mixed @0+46 size 69 lines 7 7bit\n  multipart/mixed @52+45 size 8 lines 2 7bit\n"
                           "    text/plain @102+2 size 1 lines 0 7bit\n"),
    "white space behind a delimiter": ("Content-Type: multipart/mixed; boundary=a\n\n--a \t\n\nx\n--a-- \n",
                                       "multipart/mixed @0+45 size 20 lines 4 7bit\n  text/plain @52+2 size 1 lines 0 7bit\n"),
}


class Structures(unittest.TestCase):
    def test_structures(self):
        for name, (text, want) in STRUCTURES.items():
            with self.subTest(name), tempfile.NamedTemporaryFile() as file:
                octets = crlf(text)
                got = render(octets)
                self.assertEqual(draw(got.structure), want)
                self.assertEqual((got.size, got.header_length), (len(octets), got.structure.body_offset))
                file.write(octets)
                file.flush()
                self.assertEqual(render_file(file.name), got)

    def test_fields_before_a_message_shift_it(self):
        prefix = b"Return-Path: <tom@hanks.example>\r\nDelivered-To: meg@ryan.example\r\n"
        for name, (text, _) in STRUCTURES.items():
            with self.subTest(name):
                octets = crlf(text)
                plain, whole = render(octets), render(prefix + octets)
                self.assertEqual(shift(plain.structure, len(prefix)), whole.structure)
                self.assertEqual((plain.summary, plain.preview, plain.header_length + len(prefix)),
                                 (whole.summary, whole.preview, whole.header_length))
                self.assertEqual(shift(plain.structure, 0), plain.structure)

    def test_what_is_large_stays_within_bounds(self):
        long = render(b"Subject: " + b"x" * 100_000 + b"\r\n\r\n" + b"y" * 100_000 + b"\r\n--")
        self.assertEqual(len(long.summary.subject), (64 << 10) - 1)  # the space behind the colon was kept first
        self.assertEqual(draw(long.structure), "text/plain @0+100013 size 100004 lines 1 7bit\n")
        depth, part = 1, render(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n" * 300).structure
        while part.children:
            depth, part = depth + 1, part.children[0]
        self.assertEqual(depth, 65)
        many = render(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\n\r\n" * 5000 + b"--x--\r\n")
        self.assertEqual(len(many.structure.children), 999)
        kept = render(b"".join(b"To: " + b"x" * 65_000 + b"\r\n" for _ in range(20)) + b"\r\n")
        self.assertLess(kept.summary.ByteSize(), 300_000)
        addressed = render(b"".join(b"To: " + b"a," * 30_000 + b"\r\n" for _ in range(4)) + b"\r\n")
        self.assertEqual(len(addressed.summary.to), 10_000)

    def test_malice_takes_no_time(self):
        """Each of these took a quadratic reader minutes."""
        begin = time.monotonic()
        for field in ("From: " + "(" * 60_000, "To: " + '"' * 60_001, "To: " + "<" * 60_000, "Message-ID: " + "<" * 60_000,
                      "References: " + "<a" * 30_000, "Content-Type: a/b; " + ";x=" * 20_000, "Subject: " + "=?" * 30_000,
                      "Date: " + "1 " * 30_000, "From: " + "[" * 60_000):
            got = render(crlf(field + "\n\nx\n"))
            thread_ids(got.summary)
            decode_words(got.summary.subject.decode())
        render(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"\n--" * 300_000)
        self.assertLess(time.monotonic() - begin, 20)

    def test_summary(self):
        s = render(crlf("""From: "Tom \\"T\\" Hanks" <tom@hanks.example>, nora@ryan.example (Nora)
To: friends: meg@ryan.example, <@relay.example:joe@reed.example>;, odd
To: another@reed.example
Subject: =?utf-8?q?caf=C3=A9?=
 folded
Subject: a second one
Date: Thu, 15 Feb 2007 01:02:03 +0200 (EET)
Message-ID: <1@hanks.example>

x""")).summary

        def lines(addresses):
            return ["%s|%s|%s%s" % (a.name.decode(), a.local_part.decode(), a.domain.decode(), ("", " START", " END")[a.group]) for a in addresses]
        self.assertEqual(lines(getattr(s, "from")), ['Tom "T" Hanks|tom|hanks.example', "Nora|nora|ryan.example"])
        self.assertEqual(lines(s.to), ["|friends| START", "|meg|ryan.example", "|joe|reed.example", "|| END", "|odd|", "|another|reed.example"])
        self.assertEqual(s.subject, b"=?utf-8?q?caf=C3=A9?= folded")
        self.assertEqual((s.sent_ms, s.message_id), (1171494123000, b"<1@hanks.example>"))
        for date, want in (("15 Feb 07 01:02 EST", 1171519320000), ("Wed, 31 Feb 2007 00:00:00 +0000", 0), ("yesterday", 0),
                           ("Thu, 15 Feb 2007 01:02:03 -0000", 1171501323000), ("", 0), ("1 Jan 99999999999999999999 00:00:00 +0000", 0)):
            self.assertEqual(render(crlf("Date: %s\n\n" % date)).summary.sent_ms, want, date)

    def test_preview(self):
        def preview(text):
            return render(crlf(text)).preview
        self.assertEqual(preview("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n hello =C3=A4\n  wor=\nld"), "hello ä world")
        self.assertEqual(preview("Content-Type: text/html\n\n<head><title>x</title></head><STYLE>b {}</Style><p>Tom &amp; <b>Meg</b></p>"), "Tom & Meg")
        self.assertEqual(preview("Content-Type: text/html\n\nTom <script>for(;;)"), "Tom")
        self.assertEqual(len(preview("\n" + "abcdef " * 100)), 200)
        self.assertEqual(preview("\n" + "abc " * 100), ("abc " * 50).rstrip())
        self.assertEqual(preview("Content-Disposition: attachment\n\nsecret"), "")
        self.assertEqual(preview(NESTED), "Hello another world")


MAILS = [crlf(text) for text in (
    "Subject: =?iso-8859-1?q?Gr=FC=DFe?= =?utf-8?b?IMOEw7Y=?=\nX-Empty:\n\nneedle",
    "From: nora@ryan.example\nSubject: qp\nDate: Fri, 16 Feb 2007 12:00:00 +0000\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nsoft=\nbreak and =FCber\n",
    "Subject: b64\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nw4RwZmVsIHVuZCBCaXJu\nZW4=\n",
    "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nfirst part\n--b\nContent-Type: application/x-zip\n\nbinarypart\n--b\nContent-Type: message/rfc822\n\nSubject: =?utf-8?q?innersubj=65ct?=\n\ninner body\n--b--\n",
    "Subject: koi\nContent-Type: text/plain; charset=koi8-r\n\n\xf0\xd2\xc9\xd7\xc5\xd4\n",
    "Subject: unknown\nContent-Type: text/plain; charset=x-unknown\n\nstill found\n",
)]


class Mail(Candidate):
    def __init__(self, octets, i=0):
        self.octets, self.rendered = octets, render(octets)
        self.uid, self.flags, self.modseq, self.size = i + 1, Flags(i, ("$Work",) if i == 2 else ()), 10 + i, len(octets)
        self.received_ms, self.saved_ms, self.message_id, self.thread_id = 1000 * i, 1, "M%d" % i, "T1"

    def summary(self):
        return self.rendered.summary

    def structure(self):
        return self.rendered.structure

    def header(self):
        return self.octets[:self.rendered.header_length]

    def open(self):
        return io.BytesIO(self.octets)


def negated(c):
    out = Criterion()
    getattr(out, "not").CopyFrom(c)
    return out


def every(*criteria):
    return Criterion(all_of=CriterionList(criteria=criteria))


def some(*criteria):
    return Criterion(any_of=CriterionList(criteria=criteria))


def header(name, value):
    return Criterion(header=HeaderTest(name=name, value=value))


SEARCHES = [
    ("encoded words", header("subject", "GRÜßE äö"), [1]), ("not the raw form", header("Subject", "iso-8859"), []),
    ("a field that exists", header("x-empty", ""), [1]), ("soft break", Criterion(body="SOFTbreak"), [2]),
    ("iso-8859-1", Criterion(body="ÜBER"), [2]), ("base64 over a line end", Criterion(body="äpfel und birnen"), [3]),
    ("in a part", Criterion(body="first part"), [4]), ("delimiters are no text", Criterion(body="--b"), []),
    ("binary parts are no text", Criterion(body="binarypart"), []), ("header of a message within", Criterion(body="innersubject"), [4]),
    ("its body", Criterion(text="inner body"), [4]), ("koi8-r", Criterion(body="Привет"), [5]),
    ("an unknown charset", Criterion(body="still"), [6]), ("header as text", Criterion(text="from: nora@"), [2]),
    ("header is no body", Criterion(body="nora@"), []), ("flags", Criterion(flag="\\seen"), [2, 4, 6]),
    ("keyword", Criterion(flag="$work"), [3]),
    ("sizes", every(Criterion(larger=60), Criterion(smaller=100)), [i + 1 for i, m in enumerate(MAILS) if 60 < len(m) < 100]),
    ("received", Criterion(received=TimeRange(from_ms=1000, to_ms=3000)), [2, 3]), ("sent", Criterion(sent=TimeRange()), [2]),
    ("saved", Criterion(saved=TimeRange(from_ms=1, to_ms=2)), [1, 2, 3, 4, 5, 6]), ("modseq", Criterion(modseq_at_least=14), [5, 6]),
    ("uids", Criterion(uids=storage_pb2.UIDRanges(ranges=[UIDRange(first=5), UIDRange(first=2, last=2)])), [2, 5, 6]),
    ("no uids", Criterion(uids=storage_pb2.UIDRanges()), []), ("ids", every(Criterion(message_id="M3"), Criterion(thread_id="T1")), [4]),
    ("any of nothing", some(), []), ("all of nothing", every(), [1, 2, 3, 4, 5, 6]), ("nothing", Criterion(everything=False), []),
    ("nested", every(negated(some(Criterion(flag="\\Seen"), header("subject", "b64"))), Criterion(everything=True)), [1, 5]),
]


class Searches(unittest.TestCase):
    def test_searches(self):
        mails = [Mail(octets, i) for i, octets in enumerate(MAILS)]
        for name, criterion, want in SEARCHES:
            with self.subTest(name):
                matcher = compile(criterion)
                self.assertEqual([m.uid for m in mails if matcher.matches(m)], want)
        everything = compile_request(storage_pb2.SearchRequest(mailbox_id="F1"))
        self.assertTrue(all(map(everything.matches, mails)))

    def test_a_search_opens_only_what_it_must_and_reads_a_piece_at_a_time(self):
        closed = Mail(MAILS[0])
        closed.open = lambda: self.fail("it was opened")
        self.assertFalse(compile(every(Criterion(body="needle"), Criterion(flag="\\Seen"))).matches(closed))
        long = Mail(crlf("Content-Type: text/plain; charset=utf-8\n\n" + "x" * ((64 << 10) - 2) + "h\xc3\xa4ystack\n"))
        self.assertTrue(compile(Criterion(body="hÄystack")).matches(long))
        self.assertFalse(compile(Criterion(body="häystacks")).matches(long))

    def test_a_search_that_is_too_large_or_lacks_a_test_is_invalid(self):
        deep = Criterion(everything=True)
        for _ in range(101):
            deep = negated(deep)
        for c in (deep, Criterion(), negated(Criterion()), some(Criterion()), every(*[Criterion(everything=True)] * 10_000), Criterion(flag="two words")):
            with self.assertRaises(Failure) as refused:
                compile(c)
            self.assertEqual(refused.exception.kind, "INVALID")


class Words(unittest.TestCase):
    def invalid(self, what, *args):
        with self.assertRaises(Failure) as refused:
            what(*args)
        self.assertEqual(refused.exception.kind, "INVALID")

    def test_flags(self):
        self.assertEqual(parse_flags(["\\SEEN", "$Work", "\\draft", "$work"]), Flags(17, ("$Work",)))
        for wrong in ("", "\\Recent", "two words", "paren)", "ctl\x01", "ünï", "line\n", "x" * 256):
            self.invalid(parse_flags, [wrong])
        old, op = Flags(1, ("Work",)), SetFlagsRequest
        self.assertEqual(apply_flags(op.ADD, old, parse_flags(["WORK", "more", "\\Flagged"])), Flags(5, ("Work", "more")))
        self.assertEqual(apply_flags(op.REMOVE, old, parse_flags(["wORK", "other"])), Flags(1))
        self.assertEqual(apply_flags(op.REPLACE, old, parse_flags(["\\Answered"])), Flags(2))
        self.assertEqual(apply_flags(op.REPLACE, old, parse_flags(["new", "wORK"])), Flags(0, ("Work", "new")))
        self.assertIsNone(apply_flags(op.REPLACE, old, parse_flags(["work", "\\Seen"])))
        self.assertIsNone(apply_flags(op.ADD, old, parse_flags(["\\Seen"])))
        many = ["k%d" % i for i in range(128)]
        self.invalid(apply_flags, op.ADD, old, parse_flags(many))
        self.invalid(parse_flags, many + ["one"])

    def test_sets_of_uids(self):
        uids = UIDSet.of([UIDRange(first=7, last=9), UIDRange(first=0, last=2), UIDRange(first=3, last=3), UIDRange(first=9, last=8), UIDRange(first=100)])
        self.assertEqual(uids.ranges, [(1, 3), (7, 9), (100, 2**32 - 1)])
        self.assertEqual([n for n in (0, 1, 3, 4, 6, 7, 9, 10, 99, 100, 2**32 - 1) if n in uids], [1, 3, 7, 9, 100, 2**32 - 1])
        self.assertIn(1, UIDSet.of([]))
        few = UIDSet.all([5, 3, 4, 9])
        self.assertEqual((list(few), len(few), bool(UIDSet())), ([3, 4, 5, 9], 4, False))
        self.assertEqual(list(few & UIDSet([(3, 4), (9, 20)])), [3, 4, 9])
        self.assertEqual(few.to_ranges(), [UIDRange(first=3, last=5), UIDRange(first=9, last=9)])

    def test_ids_and_threads(self):
        self.assertEqual(message_ids(b"<1@x> (said) <2\r\n @x> 3 <> <4"), ["1@x", "2@x"])
        summary = render(crlf("Message-ID: <4@x>\nReferences: <1@x> <2@x>\nIn-Reply-To: <3@x>\n\n")).summary
        self.assertEqual(thread_ids(summary), ["4@x", "3@x", "2@x", "1@x"])
        summary.references = b"".join(b"<r%d>" % i for i in range(50))
        self.assertEqual(thread_ids(summary)[2:], ["r%d" % i for i in range(49, 29, -1)])

    def test_encoded_words(self):
        self.assertEqual(decode_words("a =?UTF-8?Q?=C3=A4_b?=\t =?iso-8859-1*de?B?/A==?= c"), "a ä bü c")
        self.assertEqual(decode_words("=?utf-8?x?bad?= =?"), "=?utf-8?x?bad?= =?")
        self.assertEqual(decode_words("=?antigravity?q?x?= =?zip?b?eA?="), "xx")

    def test_text_comes_whole_from_pieces_of_any_size(self):
        for encoding, octets, want in (
                ("base64", b"w4RwZm\r\nVs!==w6Q=", "Äpfelä"), ("base64", b"YQ==YmM=ZGVmZ", "abcdef"),
                ("quoted-printable", b"=C3=\r\n=A4 =zz == =\nx=3d=", "ä =zz == x=="), ("8bit", "häß€".encode(), "häß€")):
            part = storage_pb2.Part(encoding=encoding)
            part.params.add(name="charset", value=b"UTF-8")
            for size in (1, 2, 3, 5, 1000):
                decoder = Decoder(part)
                got = "".join(decoder.write(octets[i:i + size]) for i in range(0, len(octets), size)) + decoder.end()
                self.assertEqual(got, want, (encoding, size))

    def test_case(self):
        self.assertEqual(fold("ΣΑΣ ς"), fold("σας Σ"))
        self.assertEqual(fold("K"), "k")


if __name__ == "__main__":
    unittest.main()
