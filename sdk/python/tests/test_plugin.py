"""Plugins of each kind through the contract, over a socket, without a process."""
import os
import socket
import ssl
import tempfile
import threading
import time
import unittest
from dataclasses import dataclass

import grpc

import stagecoach
from stagecoach import Failure, Mistake, attribute, certificate, testing
from stagecoach.peer import dial
from stagecoach.v1 import directory_pb2, plugin_pb2, storage_pb2


def until(what, ask, seconds=20):
    end = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > end:
            raise AssertionError("waited in vain for " + what)
        time.sleep(0.005)


@dataclass
class Config:
    forbid: list[str] = attribute(doc="Words that no subject may have.")
    code: int = attribute(550, doc="Code of the refusal.")

    def validate(self):
        if not self.forbid:
            raise Mistake("nothing is forbidden", "forbid", detail='Write forbid = ["lottery"].')


class Subject(stagecoach.Filter):
    name, version, summary = "subject", "1.0.0", "Refuses mail by words in its subject"
    config = Config
    events, body, header_names = ["MESSAGE"], "HEADER", ["Subject"]
    max_concurrent = 2
    needs = stagecoach.Needs(programs=True)

    def start(self):
        self.refused = self.metrics.counter("refused_total", "Mails refused.")
        self.asked, self.ended = [], 0
        self.go = threading.Event()

    def filter(self, event):
        subject = event.header.get("subject")
        self.asked.append(subject)
        if subject == "wait":
            while not event.call.wait(0.005) and not self.go.is_set():
                pass
            self.ended += 1
        if subject == "stuck":
            self.go.wait(60)
        if subject == "break":
            raise KeyError("broken")
        if subject == "unavailable":
            raise Failure("UNAVAILABLE", "no database", reply=(451, "4.3.2", "Come back"))
        for word in self.config.forbid:
            if word in subject.lower():
                self.refused.add()
                return stagecoach.reject(self.config.code, "5.7.1", "We do not take mail about " + word)

    def health(self):
        return "no list" if "ill" in self.asked else None

    def close(self):
        self.go.set()


FORBID = {"forbid": ["lottery"]}


class Filters(unittest.TestCase):
    def test_verdict_metrics_health(self):
        with testing.run(Subject, FORBID) as subject:
            self.assertEqual((subject.description.name, subject.description.kind), ("subject", plugin_pb2.KIND_FILTER))
            self.assertTrue(subject.description.needs.programs)
            reply = subject.ask(testing.message("Subject: Lottery\nFrom: tom@hanks.example\n\nhello\n"))
            self.assertEqual((testing.action(reply), reply.verdict.reply.code), ("REJECT", 550))
            self.assertEqual(testing.action(subject.ask(testing.message("Subject: hi\n\nhello\n"))), "ACCEPT")
            self.assertEqual(subject.metrics(), {"refused_total": 1})
            self.assertTrue(subject.control("Health").ok)
            subject.ask(testing.message("Subject: ill\n\n"))
            health = subject.control("Health")
            self.assertEqual((health.ok, health.detail), (False, "no list"))

    def test_failures_are_no_verdicts(self):
        with testing.run(Subject, FORBID) as subject:
            with self.assertLogs("stagecoach", "ERROR"), self.assertRaises(Failure) as broken:
                subject.ask(testing.message("Subject: break\n\n"))
            self.assertEqual((broken.exception.kind, broken.exception.text), ("INTERNAL", "KeyError: 'broken'"))
            with self.assertRaises(Failure) as away:
                subject.ask(testing.message("Subject: unavailable\n\n"))
            self.assertEqual((away.exception.kind, away.exception.reply), ("UNAVAILABLE", (451, "4.3.2", "Come back")))
            with self.assertRaises(Failure) as other:
                call = plugin_pb2.Call()
                call.deliver.SetInParent()
                subject.caller.call(call, 10)
            self.assertEqual(other.exception.kind, "UNSUPPORTED")

    def test_deadline_is_kept_though_the_handler_is_not_done(self):
        with testing.run(Subject, FORBID) as subject:
            with self.assertRaises(Failure) as late:
                subject.ask(testing.message("Subject: stuck\n\n"), timeout=0.2)
            self.assertEqual(late.exception.kind, "DEADLINE")
            # The other thread still answers.
            self.assertEqual(testing.action(subject.ask(testing.message("Subject: hi\n\n"))), "ACCEPT")

    def test_cancel_reaches_the_handler(self):
        with testing.run(Subject, FORBID) as subject:
            value = subject.service.value
            outcome = []

            def ask():
                try:
                    subject.caller.call(plugin_pb2.Call(filter=testing.message("Subject: wait\n\n")), 60)
                except Failure as f:
                    outcome.append(f.kind)
            threading.Thread(target=ask, daemon=True).start()
            until("the call", lambda: "wait" in value.asked)
            subject.caller._out.put(plugin_pb2.Frame(id=1, cancel=plugin_pb2.Cancel()))
            until("the handler's end", lambda: value.ended == 1)
            until("the last reply", lambda: outcome == ["CANCELLED"])

    def test_calls_above_the_credits_wait_and_far_above_are_refused(self):
        with testing.run(Subject, FORBID) as subject:
            caller, value = subject.caller, subject.service.value
            caller._credits = 1000  # a caller that ignores what it was given
            outcomes = []

            def ask():
                try:
                    outcomes.append(testing.action(subject.ask(testing.message("Subject: wait\n\n"))))
                except Failure as f:
                    outcomes.append(f.kind)
            threads = [threading.Thread(target=ask) for _ in range(100)]
            for t in threads:
                t.start()
            until("refusals", lambda: outcomes.count("UNAVAILABLE") == 27)
            self.assertEqual(len(value.asked), 2)  # max_concurrent
            value.go.set()
            for t in threads:
                t.join(30)
            self.assertEqual(len(outcomes), 100)
            self.assertEqual(outcomes.count("ACCEPT"), 73)  # 4 * 2 + 64, and the one that passed the mark
            self.assertEqual(outcomes.count("UNAVAILABLE"), 27)

    def test_an_id_in_use_is_refused(self):
        with testing.run(Subject, FORBID) as subject:
            method = subject._channel.stream_stream("/stagecoach.plugin.v1.Plugin/Session",
                                                    plugin_pb2.Frame.SerializeToString, plugin_pb2.Frame.FromString)
            call = plugin_pb2.Call(filter=testing.message("Subject: wait\n\n"), deadline_ms=60_000)
            hold = threading.Event()

            def frames():
                yield plugin_pb2.Frame(id=7, call=call)
                yield plugin_pb2.Frame(id=7, call=call)
                yield plugin_pb2.Frame(id=0, call=call)
                hold.wait(60)
            replies = method(frames())
            got = [next(replies), next(replies)]
            self.assertEqual([(f.id, f.reply.problem.kind) for f in got], [(7, 1), (0, 1)])
            subject.service.value.go.set()
            last = next(replies)
            self.assertEqual((last.id, last.reply.WhichOneof("response")), (7, "filter"))
            hold.set()
            self.assertEqual(list(replies), [])

    def test_diagnostics(self):
        self.assertEqual(testing.diagnostics(Subject, {"forbid": []}), ["forbid: nothing is forbidden"])
        with self.assertRaisesRegex(AssertionError, "nothing is forbidden"):
            with testing.run(Subject, {"forbid": []}):
                pass
        with self.assertRaisesRegex(AssertionError, "no attribute word"):
            with testing.run(Subject, {"word": 1}):
                pass

    def test_order_of_the_control_calls(self):
        with testing.run(Subject, FORBID) as subject:
            for name in ("Configure",):
                with self.assertRaises(grpc.RpcError) as again:
                    subject.control(name)
                self.assertEqual(again.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
            subject.control("Ready")  # once more is no harm
            subject.control("Drain")
            with self.assertRaises(grpc.RpcError) as late:
                subject.control("Ready")
            self.assertEqual(late.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
            # Calls on the session that is open go on.
            self.assertEqual(testing.action(subject.ask(testing.message("Subject: hi\n\n"))), "ACCEPT")

    def test_a_start_that_fails_says_why(self):
        class Broken(Subject):
            def start(self):
                raise OSError("no such database")

            def close(self):
                pass
        with self.assertLogs("stagecoach", "ERROR"), self.assertRaises(grpc.RpcError) as caught:
            with testing.run(Broken, FORBID):
                pass
        self.assertIn("no such database", caught.exception.details())

    def test_answered_calls_are_not_kept_until_their_deadline(self):
        with testing.run(Subject, FORBID) as subject:
            for _ in range(300):
                subject.ask(testing.message("Subject: hi\n\n"), timeout=3600)
            self.assertLess(len(subject.service._deadlines._heap), 150)

    def test_mistakes_of_the_author(self):
        class Typo(Subject):
            events = ["MESAGE"]

        class Nameless(stagecoach.Filter):
            events = ["MESSAGE"]

        class Mute(stagecoach.Filter):
            name = "mute"
        for plugin, says in ((Typo, "'MESAGE' is none of"), (Nameless, "has no name"), (Mute, "never be asked"), (stagecoach.Plugin, "must derive")):
            with self.assertRaisesRegex(TypeError, says):
                stagecoach.server.describe(plugin)


class Chat(stagecoach.Deliverer):
    name = "chat"

    def start(self):
        self.sent = []

    def deliver(self, delivery):
        out = {}
        for r in delivery.recipients:
            self.sent.append(r.address)
            if "later" in r.address:
                out[r.index] = stagecoach.later("busy", retry_after=30)
            elif "nobody" in r.address:
                out[r.index] = stagecoach.failed("no such user", code=550, enhanced="5.1.1")
            elif "silent" not in r.address:
                out[r.index] = stagecoach.delivered("posted", remote_mta="chat.ryan.example")
        return out


class Deliverers(unittest.TestCase):
    def test_outcomes_and_the_memory_of_final_ones(self):
        with testing.run(Chat) as chat:
            call = testing.delivery("Subject: hi\n\n", recipients=["meg@ryan.example", "later@ryan.example", "nobody@ryan.example", "silent@ryan.example"])
            first = chat.deliver(call)
            self.assertEqual([(first[i].reply.code, first[i].retry_after_ms) for i in range(4)], [(250, 0), (451, 30000), (550, 0), (451, 0)])
            self.assertEqual(first[0].remote_mta, "chat.ryan.example")
            again = chat.deliver(call)
            self.assertEqual([again[i].reply.code for i in range(4)], [250, 451, 550, 451])
            sent = chat.service.value.sent
            self.assertEqual([sent.count(a) for a in ("meg@ryan.example", "later@ryan.example", "nobody@ryan.example")], [1, 2, 1])
            call.idempotency_key = "another"
            chat.deliver(call)
            self.assertEqual(sent.count("meg@ryan.example"), 2)


    def test_a_repeated_call_waits_for_the_first_one(self):
        go = threading.Event()

        class Slow(Chat):
            def deliver(self, delivery):
                super().deliver(delivery)
                go.wait(60)
                return stagecoach.delivered()
        with testing.run(Slow) as slow:
            call = testing.delivery("Subject: hi\n\n")
            with self.assertRaises(Failure) as late:
                slow.deliver(call, timeout=0.2)
            self.assertEqual(late.exception.kind, "DEADLINE")
            self.assertEqual((slow.deliver(call)[0].reply.code, slow.deliver(call)[0].retry_after_ms), (451, 10_000))
            go.set()
            until("the first answer", lambda: slow.deliver(call)[0].reply.code == 250)
            self.assertEqual(len(slow.service.value.sent), 1)


class People(stagecoach.Directory):
    name = "people"

    def resolve(self, address):
        user, _, domain = address.partition("@")
        if domain != "ryan.example":
            return stagecoach.not_mine()
        return {"meg": stagecoach.mailbox("meg@ryan.example", quota_bytes=1), "info": stagecoach.alias("meg@ryan.example"),
                "away": stagecoach.disabled(450, "4.2.1", "On holiday")}.get(user, stagecoach.no_such_user())

    def authenticate(self, request):
        if request.password != "sleepless":
            raise Failure("DENIED", "wrong password")
        return request.username

    def domains(self):
        return ["ryan.example"]


class Directories(unittest.TestCase):
    def test_resolve(self):
        R = directory_pb2.ResolveResponse
        with testing.run(People) as people:
            self.assertEqual([people.resolve(a).result for a in ("meg@ryan.example", "info@ryan.example", "away@ryan.example", "joe@ryan.example", "tom@hanks.example")],
                             [R.MAILBOX, R.ALIAS, R.DISABLED, R.NO_SUCH_USER, R.NOT_MINE])

    def test_peers_on_the_data_socket(self):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "data.sock")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen(8)
            call = plugin_pb2.Call()
            call.directory.authenticate.username, call.directory.authenticate.password = "meg@ryan.example", "sleepless"
            with testing.run(People, data_socket_fd=os.dup(listener.fileno()), data_tokens=["secret"]) as people:
                stranger = dial(path, "guess")
                with self.assertRaises(Failure) as refused:
                    stranger.call(call, 20)
                self.assertEqual(refused.exception.kind, "UNAVAILABLE")
                self.assertIn("not one that was granted", refused.exception.text)
                friend = dial(path, "secret")
                self.assertEqual(friend.call(call, 20).directory.authenticate.account, "meg@ryan.example")
                call.directory.authenticate.password = "wrong"
                with self.assertRaises(Failure) as denied:
                    friend.call(call, 20)
                self.assertEqual(denied.exception.kind, "DENIED")
                people.control("Drain", deadline_ms=10_000)
                until("the end of the friend's session", lambda: friend.broken)
            self.assertEqual(os.listdir(d), ["data.sock"])
            listener.close()


class Memory(stagecoach.Storage):
    name = "memory"

    def storage(self, request, call):
        if request.WhichOneof("op") != "watch":
            raise Failure("UNSUPPORTED", "only watch")
        for modseq in (1, 2):
            self.send(call, storage_pb2.StorageReply(watch=storage_pb2.ChangeEvent(modseq=modseq)))
        while not call.wait(0.01):
            pass
        raise Failure("CANCELLED", "the watcher went")


class Reader(stagecoach.Access):
    name = "reader"

    def serve(self):
        listener = self.listeners[0].socket
        listener.settimeout(0.05)
        while not self.stopping.is_set():
            try:
                conn, _ = listener.accept()
            except socket.timeout:
                continue
            call = plugin_pb2.Call()
            call.storage.watch.SetInParent()
            for reply in self.peer("storage").stream(call):
                conn.sendall(b"%d\n" % reply.storage.watch.modseq)
                if reply.storage.watch.modseq == 2:
                    break
            conn.close()


class StorageAndAccess(unittest.TestCase):
    def test_an_access_plugin_reads_the_storage_directly(self):
        with testing.peer(Memory, "storage") as grant:
            address, listener = testing.listener()
            with testing.run(Reader, grants=[grant], listeners=[listener]) as reader:
                for _ in range(2):
                    with socket.create_connection(address, 20) as client:
                        self.assertEqual(client.makefile().read(), "1\n2\n")
                self.assertTrue(reader.control("Health").ok)

    def test_a_certificate_becomes_a_context(self):
        reader = Reader()
        self.assertIsNone(reader.tls_context())
        key, cert = certificate.own()
        reader.tls = cert, key
        inside, outside = socket.socketpair()

        def greet():
            with reader.tls_context().wrap_socket(inside, server_side=True) as server:
                server.sendall(b"hello")

        greeting = threading.Thread(target=greet)
        greeting.start()
        with ssl.create_default_context(cadata=cert.decode()).wrap_socket(outside, server_hostname="localhost") as client:
            self.assertEqual(client.recv(5), b"hello")
        greeting.join()
