#!/usr/bin/python3
"""Looks at subjects: marks mail from outside, tags what matches a rule, and refuses
it for recipients who do not want such mail."""
from __future__ import annotations

import re
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import Header as EncodedWords, decode_header

import stagecoach
from stagecoach import Mistake, attribute, block, label

# An expression that backtracks holds up the whole process: it gets to see no more
# characters of a stranger's subject than this.
LOOKED_AT = 1000
# A line of a header has at most 78 octets, if it can (RFC 5322 section 2.1.1).
LINE = 78


@dataclass
class Rule:
    name: str = label()
    pattern: str = attribute(doc="A regular expression as Python has them, looked for in the decoded subject, in any case.", example='"lottery|you have won"')
    prefix: str = attribute("", doc="Put in front of a subject that matches.", example='"[advert]"')
    score: float = attribute(0, doc="Added to the mail's score.")
    not_for: list[str] = attribute([], doc="Addresses and domains that do not take such mail.", example='["meg@ryan.example"]')

    def refuses(self, address: str) -> bool:
        address = address.lower()
        return any(address == word or address.endswith("@" + word) for word in map(str.lower, self.not_for))


@dataclass
class Config:
    inside: list[str] = attribute([], doc="Our own domains: mail of their senders, and of who has logged in, is not from outside.", example='["ryan.example"]')
    external: str = attribute("", doc="Put in front of the subject of mail from outside.", example='"[external]"')
    rule: list[Rule] = block(doc="A kind of subject; its name becomes a value of `tags.subject`.")

    def validate(self):
        if self.external and not self.inside:
            yield Mistake("without inside all mail is from outside", "inside", detail='Name your domains: inside = ["ryan.example"].')
        seen = set()
        for i, rule in enumerate(self.rule):
            try:
                re.compile(rule.pattern)
            except re.error as e:
                yield Mistake("not a regular expression as Python has them: %s" % e, "rule", i, "pattern")
            if rule.name in seen:
                yield Mistake("there is another rule of the name " + rule.name, "rule", i, detail="Give each its own name.")
            seen.add(rule.name)
            if any("\r" in p or "\n" in p for p in (rule.prefix, self.external)):
                yield Mistake("a subject has one line", "rule", i, "prefix")

    @property
    def edits(self) -> bool:
        return bool(self.external or any(rule.prefix for rule in self.rule))


class SubjectTagger(stagecoach.Filter):
    name, version, summary = "subject-tagger", "1.0.0", "Marks, tags and refuses mail by its subject"
    config = Config
    events, body, header_names = ["MESSAGE"], "HEADER", ["subject"]

    @classmethod
    def interest(cls, config):
        # Without a prefix it changes nothing and can judge beside the others.
        effect = "EDIT" if config is None or config.edits else "JUDGE"
        return stagecoach.Interest(tuple(cls.events), effect, cls.body, tuple(cls.header_names))

    def start(self):
        self.patterns = [(rule, re.compile(rule.pattern, re.IGNORECASE)) for rule in self.config.rule]
        self.inside = tuple("@" + domain.lower() for domain in self.config.inside)
        self.refused = self.metrics.counter("refused_recipients_total", "Recipients who did not take a mail.")

    def filter(self, event):
        raw = next((f.value for f in event.header.fields), None)
        subject = decoded(raw or b"")
        rules = [rule for rule, pattern in self.patterns if pattern.search(subject[:LOOKED_AT])]
        verdict = self.judge(event.envelope, rules)
        for rule in rules:
            self.metrics.counter("matched_total", "Mails that match a rule.", rule=rule.name).add()
        prefixes = [rule.prefix for rule in rules]
        if self.from_outside(event.envelope):
            verdict.tag("external", True)
            prefixes.insert(0, self.config.external)
        # What an answer quotes is not marked once more.
        mark = " ".join(p for p in prefixes if p and p not in subject)
        if mark and raw is None:
            verdict.insert_header(-1, "Subject", encoded(mark))
        elif mark:
            verdict.replace_header("Subject", 1, marked(mark, raw))
        return verdict.tag("subject", [rule.name for rule in rules]).score(sum(rule.score for rule in rules))

    def judge(self, envelope, rules):
        refusals = {}
        for recipient in envelope.recipients:
            why = next((rule.name for rule in rules if rule.refuses(recipient.address)), None)
            if why:
                refusals[recipient.index] = stagecoach.reject(550, "5.7.1", "<%s> takes no mail of this kind: %s" % (recipient.address, why))
        self.refused.add(len(refusals))
        if refusals and len(refusals) == len(envelope.recipients):
            # Nobody is left: the client shall hear it now.
            return next(iter(refusals.values()))
        verdict = stagecoach.accept()
        for index, refusal in refusals.items():
            verdict.for_recipient(index, refusal)
        return verdict

    def from_outside(self, envelope):
        return bool(self.inside) and not envelope.client.user and not envelope.sender.lower().endswith(self.inside)


def decoded(raw: bytes) -> str:
    """A subject as a person reads it (RFC 2047); what is malformed stays as it is."""
    text = stagecoach.unfold(raw)
    try:
        return "".join(part.decode(charset or "utf-8", "replace") if isinstance(part, bytes) else part
                       for part, charset in decode_header(text))
    except (HeaderParseError, LookupError, ValueError):
        return text


def encoded(text: str) -> str:
    """A text as it may stand in a header: in encoded words if it must be."""
    return text if text.isascii() else EncodedWords(text, "utf-8", maxlinelen=LINE - len("Subject: ")).encode(linesep="\r\n")


def marked(mark: str, raw: bytes) -> bytes:
    """Puts a mark in front of a subject, which stays octet by octet as it was."""
    # White space between encoded words does not count: it must be within.
    front = encoded(mark if mark.isascii() else mark + " ").encode()
    if len(b"Subject: " + front + raw.split(b"\r\n")[0]) > LINE and raw[:1] in (b" ", b"\t"):
        return b" " + front + b"\r\n" + raw
    return b" " + front + b" " + raw.lstrip(b" \t")


if __name__ == "__main__":
    stagecoach.serve(SubjectTagger)
