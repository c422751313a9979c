"""What Storage does for its author, over a socket."""
import threading
import unittest

from stagecoach import Failure, Storage, testing
from stagecoach.mail import Message
from stagecoach.peer import dial
from stagecoach.storage import Changes, account_name, check_readable, check_role, containers, delivery_fields, mailbox_name, parent_of
from stagecoach.v1 import plugin_pb2, storage_pb2 as v1
from tests.test_session import until

MEG, TOM = "meg@ryan.example", "tom@hanks.example"


class Shelf(Storage):
    """A storage in memory: as much of one as shows what the SDK does for it."""
    name = "shelf"

    def start(self):
        self.changes, self.lock, self.modseq = Changes(), threading.Lock(), 4
        self.mails, self.fetched, self.closed, self.watching = [], 0, 0, 0
        self.accounts = {MEG: 1}  # what a storage keeps for itself is no call's method

    def deposit(self, request, call):
        return v1.DepositResponse(results=[v1.DepositResponse.Result(key=t.key, uid=7) for t in request.targets])

    def update_mailbox(self, account, request, call):
        role = '"%s"' % request.role if request.HasField("role") else "stays"
        return v1.Mailbox(id=request.id, name="%s: role %s, subscribed %s" % (
            account, role, request.subscribed if request.HasField("subscribed") else "stays"))

    def quota(self, account, request, call):
        return v1.QuotaResponse(used_bytes=2**40, used_messages=3)

    def fetch(self, account, request, call):
        try:
            for m in self.mails:
                self.fetched += 1
                yield m
        finally:
            self.closed += 1

    def list_mailboxes(self, account, request, call):
        with self.lock:
            self.modseq += 1
            self.changes.publish(account, self.modseq, [request.id], mailboxes=request.name == "list")
        return v1.ListMailboxesResponse(modseq=self.modseq)

    def watch(self, account, request, call):
        def first():
            self.watching += 1
            return v1.ChangeEvent(modseq=self.modseq)
        return self.changes.watch(account, call, first)

    def search(self, account, request, call):
        raise KeyError("no search")


class Storages(unittest.TestCase):
    def refused(self, kind, what, *args):
        with self.assertRaises(Failure) as failed:
            what(*args)
        self.assertEqual(failed.exception.kind, kind)
        return failed.exception.text

    def test_each_call_has_its_method(self):
        with testing.run(Shelf) as shelf:
            request = testing.deposit(b"x", v1.DepositRequest.Target(account=MEG), v1.DepositRequest.Target(account=TOM))
            self.assertEqual([(r.key, r.uid) for r in shelf.store("", "deposit", request).results], [(0, 7), (1, 7)])
            self.assertEqual([t.recipient for t in request.targets], [MEG, TOM])
            update = v1.UpdateMailboxRequest(id="F1", role="")
            self.assertEqual(shelf.store(MEG, "update_mailbox", update).name, MEG + ': role "", subscribed stays')
            update = v1.UpdateMailboxRequest(id="F1", subscribed=False)
            self.assertEqual(shelf.store(MEG, "update_mailbox", update).name, MEG + ": role stays, subscribed False")
            self.assertEqual(shelf.store(MEG, "quota").used_bytes, 2**40)

    def test_other_calls_are_unsupported_also_those_that_the_author_has_not_written(self):
        with testing.run(Shelf) as shelf:
            self.assertEqual(self.refused("UNSUPPORTED", shelf.store, MEG, "copy"), "this storage has no copy")
            # Ops that are a storage's own to offer.
            self.assertEqual(self.refused("UNSUPPORTED", shelf.store, MEG, "set_annotations"), "this storage has no set_annotations")
            self.assertEqual(self.refused("UNSUPPORTED", shelf.store, MEG, "accounts"), "this storage has no accounts")
            self.refused("UNSUPPORTED", shelf.caller.call, plugin_pb2.Call(storage=v1.StorageCall(account=MEG)), 20)
            other = plugin_pb2.Call()
            other.directory.domains.SetInParent()
            self.refused("UNSUPPORTED", shelf.caller.call, other, 20)
            with self.assertLogs("stagecoach", "ERROR"):
                self.refused("INTERNAL", shelf.store, MEG, "search")

    def test_fetched_items_travel_in_batches_and_a_file_at_once(self):
        with testing.run(Shelf) as shelf:
            value = shelf.service.value
            value.mails = [v1.FetchResponse.Item(uid=i + 1, preview="x" * 1000) for i in range(500)]
            value.mails[9].message.path = "/srv/10.eml"
            call = plugin_pb2.Call()
            call.storage.fetch.mailbox_id = "F1"
            batches = [list(reply.storage.fetch.items) for reply in shelf.caller.stream(call, 20)]
            self.assertEqual(len(batches[0]), 10)
            self.assertTrue(5 < len(batches) < 12, len(batches))
            self.assertEqual([item for batch in batches for item in batch], value.mails)
            value.mails = value.mails[:2]
            self.assertEqual([m.uid for m in shelf.store(MEG, "fetch")], [1, 2])
            self.assertEqual(value.closed, 2)

    def test_a_fetch_ends_when_nobody_wants_it(self):
        class Endless(Shelf):
            def fetch(self, account, request, call):
                self.mails = iter(lambda: v1.FetchResponse.Item(preview="x" * 100), None)
                return super().fetch(account, request, call)
        with testing.run(Endless) as endless:
            value = endless.service.value
            call = plugin_pb2.Call()
            call.storage.fetch.mailbox_id = "F1"
            for _ in endless.caller.stream(call):
                break
            until("the generator's end", lambda: value.closed == 1)

    def test_a_watch_hears_of_every_change_until_it_is_cancelled(self):
        with testing.run(Shelf) as shelf:
            value = shelf.service.value
            watch = shelf.watch(MEG)
            self.assertEqual(next(watch), v1.ChangeEvent(modseq=4))
            shelf.store(TOM, "list_mailboxes")
            shelf.store(MEG, "list_mailboxes", v1.ListMailboxesRequest(id="F1"))
            self.assertEqual(next(watch), v1.ChangeEvent(modseq=6, mailbox_ids=["F1"]))
            shelf.store(MEG, "list_mailboxes", v1.ListMailboxesRequest(id="F2", name="list"))
            self.assertEqual(next(watch), v1.ChangeEvent(modseq=7, mailbox_ids=["F2"], mailboxes=True))
            watch.close()
            until("the watch's end", lambda: not value.changes._watchers)

    def test_changes_that_come_faster_than_they_are_taken_are_merged(self):
        with testing.run(Shelf) as shelf:
            call, changes = FakeCall(), shelf.service.value.changes
            watch = changes.watch(MEG, call, lambda: v1.ChangeEvent(modseq=5))
            self.assertEqual(next(watch).modseq, 5)
            changes.publish(MEG, 5, ["F1"])  # told already
            for modseq in range(6, 1000):
                changes.publish(MEG, modseq, ["F%d" % (modseq % 3)], mailboxes=modseq == 9)
            self.assertEqual(next(watch), v1.ChangeEvent(modseq=999, mailbox_ids=["F0", "F1", "F2"], mailboxes=True))
            changes.publish(MEG, 999, ["F0"])
            threading.Timer(0.05, call.end).start()
            self.assertEqual(list(watch), [])

    def test_a_watcher_is_told_that_the_storage_drains(self):
        with testing.peer(Shelf, "storage") as grant:
            caller, told = dial(grant.address, grant.token), []

            def watch():
                call = plugin_pb2.Call()
                call.storage.account = MEG
                call.storage.watch.SetInParent()
                try:
                    for reply in caller.stream(call):
                        told.append(reply.storage.watch.modseq)
                except Failure as f:
                    told.append(f.kind)
            watching = threading.Thread(target=watch)
            watching.start()
            until("the first event", lambda: told == [4])
        watching.join(20)
        self.assertEqual(told, [4, "UNAVAILABLE"])

    def test_many_watchers_leave_room_for_calls(self):
        with testing.run(Shelf) as shelf:
            watches = [shelf.watch(MEG) for _ in range(300)]
            for w in watches:
                self.assertEqual(next(w).modseq, 4)
            self.assertEqual(shelf.store(MEG, "quota").used_messages, 3)
            for w in watches:
                w.close()


class FakeCall:
    """A call without a session."""

    def __init__(self):
        self.cancelled, self.then = False, []

    def when_over(self, then):
        self.then.append(then)

    def end(self):
        self.cancelled = True
        for one in self.then:
            one()


class Names(unittest.TestCase):
    def invalid(self, what, *args):
        with self.assertRaises(Failure) as refused:
            what(*args)
        self.assertEqual(refused.exception.kind, "INVALID")

    def test_names(self):
        self.assertEqual(mailbox_name("inBox/Gro\u0308ße"), "INBOX/Größe")
        self.assertEqual([mailbox_name(n) for n in ("..", "x" * 1024, " ", "a/Inbox")], ["..", "x" * 1024, " ", "a/Inbox"])
        for wrong in ("", "/", "a/", "/a", "a//b", "a\0b", "a\nb", "a\x85b", "x" * 1025, "ü" * 600):
            self.invalid(mailbox_name, wrong)
        self.assertEqual([account_name(n) for n in (MEG, "../..", "ü")], [MEG, "../..", "ü"])
        for wrong in ("", "a\0", "a\r\nb", "x" * 321):
            self.invalid(account_name, wrong)
        self.assertEqual([parent_of(n) for n in ("a/b/c", "a")], ["a/b", ""])
        self.assertEqual(containers(["a/b/c", "a", "INBOX"]), {"a/b"})
        check_role("sent")
        self.invalid(check_role, "king")

    def test_delivery_fields(self):
        self.assertEqual(delivery_fields(TOM, "grüße@ryan.example"),
                         "Return-Path: <tom@hanks.example>\r\nDelivered-To: grüße@ryan.example\r\n".encode())
        self.invalid(delivery_fields, TOM, "a\r\nX: y")
        self.invalid(delivery_fields, "a\nb", MEG)

    def test_a_message_that_cannot_be_read(self):
        self.addCleanup(testing.remove_files)
        for octets in (b"hello", b"x" * 20_000, b""):
            message = Message(testing.reference(octets))
            check_readable(message)
            message.ref.size += 1
            self.invalid(check_readable, message)
        gone = testing.reference(b"x" * 20_000)
        testing.remove_files()
        self.invalid(check_readable, Message(gone))


if __name__ == "__main__":
    unittest.main()
