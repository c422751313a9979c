"""What the tagger decides, without a process: python3 -m unittest."""
import unittest

from stagecoach import testing
from subject_tagger import SubjectTagger, decoded, marked

RULES = {
    "inside": ["ryan.example"], "external": "[external]",
    "rule": [
        {"name": "lottery", "pattern": "lotter(y|ie)", "prefix": "[advert]", "score": 3, "not_for": ["meg@ryan.example", "quiet.example"]},
        {"name": "urgent", "pattern": r"^urgent\b", "score": 1.5},
    ],
}


class Tagger(unittest.TestCase):
    def ask(self, tagger, subject, sender="tom@hanks.example", recipients=("kate@ryan.example",), user=""):
        call = testing.message("From: Tom <tom@hanks.example>\n%s\nhello\n" % (subject and "Subject: %s\n" % subject), sender=sender, recipients=recipients)
        call.envelope.client.user = user
        return tagger.ask(call)

    def edited(self, reply):
        return [bytes(e.replace_header.value).decode() for e in reply.edits]

    def test_mail_from_outside_is_marked(self):
        with testing.run(SubjectTagger, RULES) as tagger:
            reply = self.ask(tagger, "Hello Meg")
            self.assertEqual(self.edited(reply), [" [external] Hello Meg"])
            self.assertEqual((reply.edits[0].replace_header.name, reply.edits[0].replace_header.index), ("Subject", 1))
            self.assertTrue(reply.tags["external"].flag)
            for inside in (self.ask(tagger, "Hello", sender="meg@Ryan.example"), self.ask(tagger, "Hello", user="meg")):
                self.assertEqual((self.edited(inside), "external" in inside.tags), ([], False))
            self.assertEqual(self.edited(self.ask(tagger, "Re: [external] Hello Meg")), [])
            missing = self.ask(tagger, "").edits[0].insert_header
            self.assertEqual((missing.position, missing.field.name, missing.field.value), (-1, "Subject", b" [external]"))

    def test_rules_tag_mark_and_score(self):
        with testing.run(SubjectTagger, RULES) as tagger:
            reply = self.ask(tagger, "URGENT: =?utf-8?q?your_l=6Fttery?=", user="kate")
            self.assertEqual(list(reply.tags["subject"].list.values), ["lottery", "urgent"])
            self.assertEqual(reply.score, 4.5)
            self.assertEqual(self.edited(reply), [" [advert] URGENT: =?utf-8?q?your_l=6Fttery?="])
            self.assertEqual(tagger.metrics()['matched_total{rule="urgent"}'], 1)
            self.assertEqual(list(self.ask(tagger, "not urgent").tags["subject"].list.values), [])

    def test_who_does_not_want_it_is_left_out(self):
        with testing.run(SubjectTagger, RULES) as tagger:
            reply = self.ask(tagger, "Lottery", recipients=["kate@ryan.example", "Meg@ryan.example", "all@quiet.example"])
            self.assertEqual([testing.action(reply, i) for i in range(3)], ["ACCEPT", "REJECT", "REJECT"])
            self.assertEqual(reply.per_recipient[1].reply.text, "<Meg@ryan.example> takes no mail of this kind: lottery")
            self.assertEqual(tagger.metrics()["refused_recipients_total"], 2)
            # Nobody is left: the mail itself is refused.
            reply = self.ask(tagger, "Lottery", recipients=["meg@ryan.example"])
            self.assertEqual((testing.action(reply), reply.verdict.reply.code), ("REJECT", 550))

    def test_it_asks_for_no_more_than_it_needs(self):
        with testing.run(SubjectTagger, {"rule": [{"name": "x", "pattern": "x"}]}) as judge:
            self.assertEqual(judge.interest.effect, judge.interest.JUDGE)
        with testing.run(SubjectTagger, RULES) as editor:
            self.assertEqual(editor.interest.effect, editor.interest.EDIT)

    def test_diagnostics(self):
        for config, want in (
                ({"external": "[x]"}, ["inside: without inside all mail is from outside"]),
                ({"rule": [{"name": "a", "pattern": "("}]}, ["rule[0].pattern: not a regular expression as Python has them: missing ), unterminated subpattern at position 0"]),
                ({"rule": [{"name": "a", "pattern": "x"}, {"name": "a", "pattern": "y"}]}, ["rule[1]: there is another rule of the name a"]),
                ({"rule": [{"name": "a", "pattern": "x", "prefix": "a\nb"}]}, ["rule[0].prefix: a subject has one line"]),
        ):
            self.assertEqual(testing.diagnostics(SubjectTagger, config), want)

    def test_subjects_stay_as_they_are_behind_the_mark(self):
        self.assertEqual(marked("[x]", b" Hello"), b" [x] Hello")
        self.assertEqual(marked("[x]", b"Hello"), b" [x] Hello")
        long = b" " + b"very " * 20 + b"\r\n long"
        self.assertEqual(marked("[x]", long), b" [x]\r\n" + long)
        umlaut = marked("[außen]", b" =?utf-8?q?Gr=C3=BC=C3=9Fe?=")
        self.assertEqual(decoded(umlaut), "[außen] Grüße")
        self.assertTrue(umlaut.isascii())
        for broken in (b" =?nonsense?q?x?=", b" =?utf-8?b?x?=", b" \xff\xfe"):
            decoded(broken)  # does not raise
