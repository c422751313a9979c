"""What a session does for its calls, over a socket: slow peers, frames that cannot be
read, the end of a call."""
import threading
import time
import unittest

import grpc

import stagecoach
from stagecoach import Failure, testing
from stagecoach.session import Unreadable, read_frame
from stagecoach.v1 import plugin_pb2, storage_pb2


def until(what, ask, seconds=20):
    end = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > end:
            raise AssertionError("waited in vain for " + what)
        time.sleep(0.005)


class Lines(stagecoach.Storage):
    """Sends as many large replies as a watch's since_modseq says."""
    name = "lines"

    def start(self):
        self.sent, self.over, self.failed = 0, threading.Event(), []

    def storage(self, request, call):
        if request.WhichOneof("op") == "search":
            return storage_pb2.StorageReply(search=storage_pb2.SearchResponse(modseq=7))
        call.when_over(self.over.set)
        try:
            for _ in range(request.watch.since_modseq):
                self.send(call, storage_pb2.StorageReply(watch=storage_pb2.ChangeEvent(mailbox_ids=["x" * 100_000])))
                self.sent += 1
        except Failure as f:
            self.failed.append(f.kind)
            raise
        return storage_pb2.StorageReply(watch=storage_pb2.ChangeEvent(modseq=1))


def watch(count, **fields):
    call = plugin_pb2.Call(**fields)
    call.storage.watch.since_modseq = count
    return call


def search(depth):
    """A search that nests so deep: what Python's protobuf cannot even write."""
    def field(number, content):
        size, n = b"", len(content)
        while n > 0x7f:
            size, n = size + bytes([n & 0x7f | 0x80]), n >> 7
        tag = number << 3 | 2
        return (bytes([tag]) if tag < 0x80 else bytes([tag & 0x7f | 0x80, tag >> 7])) + size + bytes([n]) + content
    criterion = b"\x70\x01"  # everything
    for _ in range(depth):
        criterion = field(3, criterion)
    return field(2, field(13, field(1, b"meg@ryan.example") + field(22, field(2, criterion))))


class Sessions(unittest.TestCase):
    def raw(self, lines, frames):
        """Replies to frames, which may be octets; whoever reads decides how fast."""
        def octets(frame):
            return frame if isinstance(frame, bytes) else frame.SerializeToString()
        method = lines._channel.stream_stream("/stagecoach.plugin.v1.Plugin/Session", octets, plugin_pb2.Frame.FromString)
        stream = method(frames)
        self.addCleanup(stream.cancel)
        return stream

    def test_a_slow_peer_is_waited_for(self):
        with testing.run(Lines) as lines:
            hold = threading.Event()
            self.addCleanup(hold.set)

            def frames():
                yield plugin_pb2.Frame(id=1, call=watch(500))
                hold.wait(60)
            replies, value = self.raw(lines, frames()), lines.service.value
            until("replies", lambda: value.sent > 5)
            # Nobody reads: what the sockets and the waiting room hold is all.
            before = -1
            while before < value.sent:
                before = value.sent
                time.sleep(0.3)
            self.assertLess(value.sent, 250)
            got = [next(replies).reply for _ in range(501)]
            self.assertEqual([r.more for r in got], [True] * 500 + [False])
            self.assertEqual(value.sent, 500)
            self.assertTrue(value.over.is_set())

    def test_who_waits_for_a_slow_peer_hears_that_it_went(self):
        for end, kind in (("deadline", "DEADLINE"), ("cancel", "CANCELLED"), ("break", "CANCELLED")):
            with self.subTest(end), testing.run(Lines) as lines:
                hold, cancel = threading.Event(), threading.Event()
                self.addCleanup(hold.set)

                def frames():
                    yield plugin_pb2.Frame(id=1, call=watch(100_000, deadline_ms=500 if end == "deadline" else 0))
                    cancel.wait(60)
                    if end == "cancel":
                        yield plugin_pb2.Frame(id=1, cancel=plugin_pb2.Cancel())
                    hold.wait(60)
                replies, value = self.raw(lines, frames()), lines.service.value
                until("replies", lambda: value.sent > 5)
                cancel.set()
                if end == "break":
                    replies.cancel()
                until("the handler's end", lambda: value.failed == [kind])
                self.assertTrue(value.over.is_set())
                hold.set()

    def test_when_over_comes_at_once_if_it_is(self):
        class Late(Lines):
            def storage(self, request, call):
                call.wait(60)
                call.when_over(self.over.set)
                raise call.failure()
        with testing.run(Late) as late:
            with self.assertRaises(Failure) as gone:
                late.caller.call(watch(1), 0.1)
            self.assertEqual(gone.exception.kind, "DEADLINE")
            self.assertTrue(late.service.value.over.wait(20))

    def test_a_call_that_cannot_be_read_is_refused_and_the_others_go_on(self):
        with testing.run(Lines) as lines:
            hold = threading.Event()
            self.addCleanup(hold.set)

            def frames():
                yield b"\x08\x05" + search(5000)
                yield b"\x08\xac\x02" + search(50)
                yield b"\x08\x09" + search(10).replace(b"meg@ryan", b"meg\xffryan")
                yield search(10) + b"\x08\x0a"
                hold.wait(60)
            replies = self.raw(lines, frames())
            got = {f.id: f.reply for f in (next(replies) for _ in range(4))}
            self.assertEqual({id: r.problem.kind for id, r in got.items()}, {5: 1, 300: 0, 9: 1, 10: 0})
            self.assertIn("cannot be read", got[5].problem.text)
            self.assertEqual(got[300].storage.search.modseq, 7)

    def test_what_has_no_id_breaks_the_session(self):
        for octets in (b"garbage", b"\x08\x00" + search(5000), b"\x08", search(5000), b"\x08\x05" + search(5000)[:-1]):
            with self.assertRaises(Exception):
                read_frame(octets)
        unreadable = read_frame(b"\x08\x05" + search(5000) + b"\x08\x06")
        self.assertIsInstance(unreadable, Unreadable)
        self.assertEqual(unreadable.id, 6)
        with testing.run(Lines) as lines:
            with self.assertLogs("grpc", "ERROR"), self.assertRaises(grpc.RpcError):
                next(self.raw(lines, iter([b"garbage"])))
