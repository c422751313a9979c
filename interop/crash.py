"""What dies in the middle of a load: the core, a filter, the storage, an access
plugin, the directory. And a reload, which nobody may notice."""

import re
import signal
import smtplib

from harness import HOST, PRIVATE, Mailbox, case, check, ident_of, private, until
from load import Load

KILLS = 8


@case(seconds=300, shared=False)
def core_killed():
    """kill -9 of the core, three times during 2,000 mails: nothing that was
    acknowledged is missing. Twice there may be only a mail whose 250 was lost."""
    with private("core_killed") as server:
        with Load(mails=2000) as load:
            for part in (400, 1000, 1600):
                load.reaches(part)
                server.kill()
                server.start()  # at once, as a supervisor does it: the plugins' ports are free
        check(load.cut, "no session was cut: the kills did not meet the load")
        load.all_acknowledged()
        server.drained(120)
        got = load.arrived(maybe_twice=load.cut)
    return f"{load}, {len(got)} in the INBOX"


def killing(server, *instances, between=lambda: None, kills=KILLS, **load):
    """A load in which each instance is killed again and again, no session is cut,
    and every mail is acknowledged in the end."""
    with Load(**load) as load:
        for n in range(kills):
            load.reaches(len(load.acknowledged) + 60)
            until(60, f"{instances[n % len(instances)]} is there again", lambda: server.kill_plugin(instances[n % len(instances)]))
            between()
        load.reaches(len(load.acknowledged) + 60)
    check(not load.cut, f"{len(load.cut)} sessions were cut")
    load.all_acknowledged()
    return load


FILTER = """
filter "headers" "seen" {
  add        = { "X-Seen-By" = "mx" }
  on_failure = "%s"
  timeout    = "2s"
}
"""


def filter_server(mode):
    return private(f"filter_killed_{mode}", mx="filters = [filter.headers.seen]", extra=FILTER % mode)


def unseen(mails):
    """Those that did not go past the filter; the others did so once."""
    counts = [mail[:mail.index(b"\r\n\r\n")].count(b"X-Seen-By: mx\r\n") for mail in mails]
    check(max(counts) == 1, "a mail was filtered twice")
    return counts.count(0)


@case(seconds=240, shared=False)
def filter_killed_defer():
    """Mail in the moment of the filter's death gets 451; no mail goes past it."""
    with filter_server("defer") as server:
        load = killing(server, "filter.headers.seen")
        check(load.deferred, "no mail was put off: the kills did not meet the load")
        others = [reply for reply in load.deferred if reply[0] != 451]
        check(not others, f"other replies than 451: {others[:3]}")
        server.drained(120)
        check(unseen(load.arrived()) == 0, "a mail went past the filter")
    return f"{KILLS} kills: {load}"


@case(seconds=240, shared=False)
def filter_killed_accept():
    """Mail in the moment of the filter's death passes; nobody sees an error."""
    with filter_server("accept") as server:
        load = killing(server, "filter.headers.seen")
        check(not load.deferred, f"{len(load.deferred)} mails were put off: {load.deferred[:1]}")
        server.drained(120)
        passed = unseen(load.arrived())
        check(0 < passed < len(load.acknowledged), f"{passed} mails were passed over: the kills did not meet the load")
    return f"{KILLS} kills: {load}, {passed} passed over"


def only_held(server):
    """Waits until nothing else is in the queue, and returns the names of a load's
    mails in it."""

    def waiting():
        return [m for m in server.queue() if any(r["state"] != "held" for r in m["recipients"])]

    until(120, lambda: f"only held mail in the queue, not {waiting()[:1]}", lambda: not waiting())
    return [m["sender"].partition("@")[0] for m in server.queue()]


@case(seconds=240, shared=False)
def filter_killed_hold():
    """Mail in the moment of the filter's death is held; nobody sees an error."""
    with filter_server("hold") as server:
        load = killing(server, "filter.headers.seen")
        check(not load.deferred, f"{len(load.deferred)} mails were put off: {load.deferred[:1]}")
        held = only_held(server)
        check(held, "no mail is held: the kills did not meet the load")
        check(unseen(load.arrived(elsewhere=held)) == 0, "a mail went past the filter")
    return f"{KILLS} kills: {load}, {len(held)} held"


@case(seconds=240, shared=False)
def storage_killed():
    """The storage dies: mail waits in the queue and is stored once; a reader never
    sees less than before."""
    seen = [0]
    with private("storage_killed") as server:

        def look():
            with Mailbox(port=PRIVATE.imap) as box:
                now = box.count()
                check(now >= seen[0], f"{now} mails in the INBOX, and before the kill {seen[0]}")
                seen[0] = now

        load = killing(server, "storage.local.mail", between=lambda: until(60, "IMAP works again", lambda: answered(look)))
        check(not load.deferred, f"{len(load.deferred)} mails were put off: {load.deferred[:1]}")
        server.drained(120)
        load.arrived()
    return f"{KILLS} kills: {load}"


@case(seconds=240, shared=False)
def access_killed():
    """IMAP and POP3 die: their ports stay open, and the next session works."""
    with private("access_killed") as server:

        def look():
            with Mailbox(port=PRIVATE.imap) as box:
                box.count()

        load = killing(server, "access.imap.imap", "access.pop3.pop3", between=lambda: until(60, "IMAP works", lambda: answered(look)))
        check(not load.deferred, f"{len(load.deferred)} mails were put off: {load.deferred[:1]}")
        server.drained(120)
        load.arrived()
    return f"{KILLS} kills: {load}"


@case(seconds=240, shared=False)
def directory_killed():
    """Nobody knows for a moment who exists: 451, never 550, and no session ends."""
    with private("directory_killed") as server:
        load = killing(server, "directory.file.people")
        others = [reply for reply in load.deferred if reply[0] != 451]
        check(not others, f"other replies than 451: {others[:3]}")
        server.drained(120)
        load.arrived()
    return f"{KILLS} kills: {load}"


def answered(look):
    """Whether a session went through; one that meets the crash may end."""
    try:
        look()
        return True
    except (OSError, Mailbox.Error):
        return False


def filtered(version):
    return dict(mx="filters = [filter.headers.seen]", extra=FILTER.replace('"mx"', f'"mx-{version}"') % "defer")


@case(seconds=240, shared=False)
def reload_under_load():
    """Reloads that put a filter in and change it: no session ends and no mail is
    put off. A file with a mistake changes nothing, and the answer says where it is."""
    server = private("reload_under_load")
    with server, Mailbox(port=PRIVATE.imap) as reader:
        old = smtplib.SMTP(HOST, PRIVATE.mx, timeout=240)
        old.ehlo("hanks.example")
        with Load() as load:
            load.reaches(100)
            for version in range(1, 6):
                server.write_config(**filtered(version))
                if version == 5:  # the other way to say it
                    server.process.send_signal(signal.SIGHUP)
                else:
                    server.command("reload")
                until(60, f"mail filtered by version {version}", lambda: f"mx-{version}" in reader.fields("X-Seen-By"))
            server.config.write_text(server.config.read_text().replace("on_failure", "on_failyure"))
            said = server.command("reload", ok=False)
            check(said.returncode == 3 and re.search(r"server\.hcl:\d+", said.stderr) and '"on_failure"' in said.stderr,
                  f"a reload with a mistake: exit {said.returncode}\n{said.stdout}{said.stderr}")
            load.reaches(len(load.acknowledged) + 100)
        load.all_acknowledged()
        check(not load.cut and not load.deferred, f"{load}: {load.deferred[:1]}")
        check(old.noop()[0] == 250, "the SMTP session from before the reloads does not go on")
        server.drained(120)
        versions = [m.count(b"X-Seen-By: mx-") for m in load.arrived()]
        check(set(versions) == {0, 1}, f"a mail was filtered {max(versions)} times")
        old.close()
    return f"5 reloads: {load}"


@case(seconds=240, shared=False)
def reload_of_the_listener():
    """Limits of the listener change, the filter comes and goes: a session may get
    its 421 between two mails, never after the data of one: each arrives once."""
    server = private("reload_of_the_listener")

    def offered():
        """The SIZE that a new session is told, in MB; 0 if it met the old listener's
        end."""
        try:
            with smtplib.SMTP(HOST, PRIVATE.mx, timeout=60) as s:
                s.ehlo("hanks.example")
                return int(s.esmtp_features.get("size", 0)) // 1_000_000
        except (smtplib.SMTPException, OSError):
            return 0

    with server:
        with Load() as load:
            for version in range(1, 7):
                load.reaches(len(load.acknowledged) + 100)
                changes = filtered(version) if version % 2 else dict(mx="")
                changes["mx"] += f'\n  max_size = "{version}MB"'
                server.write_config(**changes)
                server.command("reload")
                until(60, "the new SIZE", lambda: offered() == version)
        load.all_acknowledged()
        # A mail that began under the filter that is going may be put off.
        others = [reply for reply in load.deferred if reply[0] != 451]
        check(not others, f"other replies than 451: {others[:3]}")
        server.drained(120)
        load.arrived()
    return f"6 reloads: {load}"
