"""Many calls over one bidirectional stream: frames with an id, deadlines, cancels
and credits. Serving is the plugin's end, Caller the other one."""
from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterable, Iterator, Optional, Union

import grpc
from google.protobuf.message import DecodeError

from stagecoach.fail import Failure
from stagecoach.v1 import plugin_pb2 as v1

# DEFAULT_CREDITS is how many calls a caller may have under way when the serving
# side said nothing.
DEFAULT_CREDITS = 64
# Octets of replies before the last ones that wait for the peer to take them.
WAITING = 1 << 20

log = logging.getLogger("stagecoach")


class Unreadable:
    """A frame that is none of this contract, with the id that it has."""

    def __init__(self, id: int, why: str):
        self.id, self.why = id, why


def read_frame(octets: bytes) -> Union[v1.Frame, Unreadable]:
    """Reads a frame. Python's protobuf takes no message that nests deeper than 100,
    and no text that is not UTF-8: that is one call's mistake, of which the others
    must not hear, as they would if gRPC ended the stream for it."""
    try:
        return v1.Frame.FromString(octets)
    except DecodeError as e:
        id = _frame_id(octets)
        if not id:
            raise
        return Unreadable(id, str(e))


def _frame_id(octets: bytes) -> int:
    """The id of a frame of which the rest cannot be read; 0 if that cannot be read
    either. The last one counts, as protobuf has it."""
    id = at = 0
    while at < len(octets):
        tag, at = _varint(octets, at)
        if at and tag == 1 << 3:
            id, at = _varint(octets, at)
        elif at and tag & 7 == 2:
            length, at = _varint(octets, at)
            at = at and at + length
        else:  # there is nothing else in a frame
            return 0
        if not at:
            return 0
    return id if at == len(octets) else 0


def _varint(octets: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and where it ends; 0 if it does not."""
    value = shift = 0
    for i in range(at, min(at + 10, len(octets))):
        value |= (octets[i] & 0x7f) << shift
        if octets[i] < 0x80:
            return value & 0xffff_ffff_ffff_ffff, i + 1
        shift += 7
    return 0, 0


class Call:
    """What a handler may know of the call that it answers."""

    def __init__(self, session: Serving, id: int, deadline_ms: int):
        self._session, self.id = session, id
        self._deadline = time.monotonic() + deadline_ms / 1000 if deadline_ms > 0 else None
        self._over = threading.Event()
        self._why: Optional[Failure] = None
        self._then: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        """Nobody waits for the answer any more: the caller went away, or the time
        is over. Whoever works in steps looks at it between them."""
        return self._over.is_set()

    def remaining(self) -> Optional[float]:
        """Seconds until the caller stops waiting; None: for ever. Give it to what
        you call as its time-out."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def wait(self, seconds: float) -> bool:
        """Sleeps, but not longer than somebody waits; true if nobody does."""
        return self._over.wait(seconds)

    def when_over(self, then: Callable[[], None]) -> None:
        """Calls then, once, when nobody waits any more or the call is answered; now
        if that is so already. It comes in any thread, and must not take long."""
        with self._session._lock:
            if not self._over.is_set():
                self._then.append(then)
                return
        then()

    def failure(self) -> Failure:
        """Why nobody waits any more."""
        return self._why or Failure("CANCELLED", "the call is answered")

    def send(self, reply: v1.Reply) -> None:
        """Sends a reply before the last one; waits while the peer is slow to take
        what was sent before. Raises Failure if nobody wants it."""
        reply.more = True
        self._session.send(self, v1.Frame(id=self.id, reply=reply))


Handler = Callable[[v1.Call, Call], v1.Reply]


class Deadlines:
    """One thread that ends calls when their time is over."""

    def __init__(self) -> None:
        self._wake, self._heap, self._count = threading.Condition(), [], itertools.count()
        self._closed, self._sweep = False, 64
        threading.Thread(target=self._run, name="deadlines", daemon=True).start()

    def add(self, call: Call) -> None:
        with self._wake:
            if len(self._heap) >= self._sweep:
                # Most calls are answered long before their time: let them go.
                self._heap = [entry for entry in self._heap if not entry[2].cancelled]
                heapq.heapify(self._heap)
                self._sweep = 2 * len(self._heap) + 64
            heapq.heappush(self._heap, (call._deadline, next(self._count), call))
            if self._heap[0][2] is call:
                self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._closed and (not self._heap or self._heap[0][0] > time.monotonic()):
                    self._wake.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                if self._closed:
                    return
                call = heapq.heappop(self._heap)[2]
            call._session.end(call, Failure("DEADLINE", "the time for this call is over"))


class Serving:
    """The serving end of one session. Every call gets exactly one last reply: the
    handler's, or at once DEADLINE or CANCELLED when nobody waits any more. Python
    cannot stop the handler then: it keeps its thread until it returns, and the
    calls behind it wait for a thread within their own deadlines."""

    def __init__(self, handler: Handler, max_concurrent: int, pool: ThreadPoolExecutor, deadlines: Deadlines):
        self._handler, self._max, self._pool, self._deadlines = handler, max_concurrent, pool, deadlines
        self._out: queue.SimpleQueue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._waiting = 0  # octets of replies that were sent and not yet taken
        self._calls: dict[int, Call] = {}
        self._busy = 0  # handlers under way and waiting, also of calls that are over
        self._closed = False

    def frame(self, frame: v1.Frame) -> None:
        self._out.put((frame, 0))

    def send(self, call: Call, frame: v1.Frame) -> None:
        """Sends a reply before a call's last one, when there is room."""
        size = frame.ByteSize()
        with self._room:
            while self._calls.get(call.id) is call and self._waiting > WAITING:
                self._room.wait()
            if self._calls.get(call.id) is not call:
                raise call.failure()
            self._waiting += size
            self._out.put((frame, size))

    def credit(self, delta: int) -> None:
        """Changes what the caller may have under way."""
        self.frame(v1.Frame(credit=v1.Credit(delta=delta)))

    def run(self, requests: Iterable[Union[v1.Frame, Unreadable]]) -> Iterator[v1.Frame]:
        """Yields the frames to send until the caller ends the session."""
        threading.Thread(target=self._receive, args=(requests,), name="session", daemon=True).start()
        while True:
            frame, size = self._out.get()
            if frame is None:
                return
            yield frame  # gRPC comes back when the stream has taken it
            if size:
                with self._room:
                    self._waiting -= size
                    self._room.notify_all()

    def _receive(self, requests: Iterable[Union[v1.Frame, Unreadable]]) -> None:
        try:
            for frame in requests:
                if isinstance(frame, Unreadable):
                    why = Failure("INVALID", "the call cannot be read: " + frame.why)
                    self.frame(v1.Frame(id=frame.id, reply=v1.Reply(problem=why.problem())))
                    continue
                body = frame.WhichOneof("body")
                if body == "call":
                    self._start(frame.id, frame.call)
                elif body == "cancel":
                    call = self._calls.get(frame.id)
                    if call:
                        self.end(call, Failure("CANCELLED", "the caller went away"))
        except grpc.RpcError:
            pass  # the stream broke: its calls end below
        except Exception:
            if not self._closed:
                log.exception("a session broke")
        finally:
            self.close()

    def close(self) -> None:
        """Ends the session and all its calls."""
        with self._lock:
            self._closed, calls = True, list(self._calls.values())
        for call in calls:
            self.end(call, Failure("CANCELLED", "the session ended"))
        self._out.put((None, 0))

    def idle(self) -> bool:
        """No call is under way."""
        return not self._calls

    def end_endless(self) -> None:
        """Ends calls without a deadline, so that their callers ask the next process."""
        for call in list(self._calls.values()):
            if call._deadline is None:
                self.end(call, Failure("UNAVAILABLE", "draining"))

    def _start(self, id: int, request: v1.Call) -> None:
        call = Call(self, id, request.deadline_ms)
        with self._lock:
            refused = None
            if self._closed:
                return
            if id == 0 or id in self._calls:
                refused = Failure("INVALID", "call id %d is 0 or in use" % id)
            elif self._busy > 4 * self._max + DEFAULT_CREDITS:
                refused = Failure("UNAVAILABLE", "more calls than credits")
            else:
                self._calls[id] = call
                self._busy += 1
        if refused:
            self.frame(v1.Frame(id=id, reply=v1.Reply(problem=refused.problem())))
            return
        if call._deadline is not None:
            self._deadlines.add(call)
        try:
            self._pool.submit(self._answer, call, request)
        except RuntimeError:  # the pool is shut down: the process ends
            self.end(call, Failure("UNAVAILABLE", "the plugin ends"))

    def _answer(self, call: Call, request: v1.Call) -> None:
        try:
            if not call.cancelled:
                self._finish(call, self._handler(request, call))
        except Failure as f:
            self.end(call, f)
        except Exception as e:
            log.exception("a call failed: %s", e)
            self.end(call, Failure("INTERNAL", "%s: %s" % (type(e).__name__, e)))
        finally:
            with self._lock:
                self._busy -= 1

    def end(self, call: Call, why: Failure) -> None:
        """Answers a call with a failure, if nothing has answered it yet."""
        call._why = call._why or why
        self._finish(call, v1.Reply(problem=why.problem()))

    def _finish(self, call: Call, reply: Optional[v1.Reply]) -> None:
        reply = reply or v1.Reply()
        reply.more = False
        with self._room:
            if self._calls.get(call.id) is not call:
                return
            del self._calls[call.id]
            call._over.set()
            self.frame(v1.Frame(id=call.id, reply=reply))
            self._room.notify_all()
            then, call._then = call._then, []
        for one in then:
            try:
                one()
            except Exception:
                log.exception("at the end of a call")


class Caller:
    """The calling end of a session; safe for concurrent use. An access plugin has
    one to its storage (Access.peer), a test to the plugin."""

    def __init__(self, open_stream: Callable[[Iterator[v1.Frame]], Any], credits: int = DEFAULT_CREDITS,
                 closed: Callable[[], None] = lambda: None):
        self._out: queue.SimpleQueue = queue.SimpleQueue()
        self._lock, self._ids = threading.Condition(), itertools.count(1)
        self._replies: dict[int, queue.SimpleQueue] = {}
        self._credits, self._broken, self._closed = credits, None, closed
        self._stream = open_stream(iter(self._out.get, None))
        threading.Thread(target=self._read, name="caller", daemon=True).start()

    def _read(self) -> None:
        why = "session closed"
        try:
            for frame in self._stream:
                body = frame.WhichOneof("body")
                with self._lock:
                    if body == "credit":
                        self._credits += frame.credit.delta
                        self._lock.notify_all()
                    elif body == "reply" and frame.id in self._replies:
                        self._replies[frame.id].put(frame.reply)
                        if not frame.reply.more:
                            del self._replies[frame.id]
                            self._credits += 1
                            self._lock.notify()
        except grpc.RpcError as e:
            why = "session broken: %s" % (e.details() if hasattr(e, "details") else e)
        with self._lock:
            self._broken = Failure("UNAVAILABLE", why)
            for replies in self._replies.values():
                replies.put(v1.Reply(problem=self._broken.problem()))
            self._replies.clear()
            self._lock.notify_all()
        self._out.put(None)
        self._closed()

    @property
    def broken(self) -> bool:
        """The session has ended."""
        return self._broken is not None

    def call(self, request: v1.Call, timeout: Optional[float] = None) -> v1.Reply:
        """Makes a call and returns its last reply; raises Failure. timeout in
        seconds; None: for ever."""
        last = v1.Reply()
        for last in self.stream(request, timeout):
            pass
        return last

    def stream(self, request: v1.Call, timeout: Optional[float] = None) -> Iterator[v1.Reply]:
        """The replies of a call that answers more than once (fetch, watch). Leaving
        the loop early cancels the call."""
        end = None if timeout is None else time.monotonic() + timeout
        replies: queue.SimpleQueue = queue.SimpleQueue()
        with self._lock:
            while not self._broken and self._credits <= 0:
                if not self._lock.wait(None if end is None else max(0, end - time.monotonic())) and self._credits <= 0:
                    raise Failure("DEADLINE", "no credit in time")
            if self._broken:
                raise self._broken
            self._credits -= 1
            id = next(self._ids)
            self._replies[id] = replies
        sent = v1.Call()
        sent.CopyFrom(request)
        if end is not None:
            sent.deadline_ms = max(1, int((end - time.monotonic()) * 1000))
        self._out.put(v1.Frame(id=id, call=sent))
        ended = False
        try:
            while True:
                try:
                    reply = replies.get(timeout=None if end is None else max(0, end - time.monotonic()))
                except queue.Empty:
                    raise Failure("DEADLINE", "no answer in time") from None
                ended = not reply.more
                if reply.HasField("problem"):
                    raise Failure.of(reply.problem)
                if not ended or reply.WhichOneof("response"):
                    yield reply
                if ended:
                    return
        finally:
            if not ended:
                self._out.put(v1.Frame(id=id, cancel=v1.Cancel()))

    def close(self) -> None:
        """Ends the session; calls under way fail as UNAVAILABLE."""
        self._stream.cancel()
