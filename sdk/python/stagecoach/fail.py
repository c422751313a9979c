"""The one exception whose kind survives the plugin boundary."""
from __future__ import annotations

from typing import Optional

from stagecoach.v1 import common_pb2

KINDS = tuple(common_pb2.Problem.Kind.keys())


class Failure(Exception):
    """Why a call failed. kind is one of INTERNAL, INVALID, NOT_FOUND, EXISTS,
    DENIED, UNAVAILABLE, OVER_QUOTA, TOO_LARGE, UNSUPPORTED, CONFLICT, DEADLINE,
    CANCELLED, NO_SPACE; common.proto says what they mean, and the kind decides what
    an SMTP client is told. code, enhanced and text of reply are said instead, if
    given: Failure("UNAVAILABLE", "no answer", reply=(451, "4.4.1", "Later"))."""

    def __init__(self, kind: str, text: str, reply: Optional[tuple[int, str, str]] = None):
        super().__init__(text)
        if kind not in KINDS:
            raise ValueError("unknown kind of failure %r: one of %s" % (kind, ", ".join(KINDS)))
        self.kind, self.text, self.reply = kind, text, reply

    def problem(self) -> common_pb2.Problem:
        """The contract's form."""
        p = common_pb2.Problem(kind=self.kind, text=self.text)
        if self.reply:
            p.reply.CopyFrom(smtp_reply(*self.reply))
        return p

    @classmethod
    def of(cls, p: common_pb2.Problem) -> Failure:
        """The exception of the contract's form."""
        reply = (p.reply.code, p.reply.enhanced, p.reply.text) if p.HasField("reply") else None
        return cls(common_pb2.Problem.Kind.Name(p.kind), p.text, reply)


def smtp_reply(code: int, enhanced: str, text: str) -> common_pb2.SMTPReply:
    """An answer in SMTP's words; enhanced "" is derived from the code."""
    return common_pb2.SMTPReply(code=code, enhanced=enhanced, text=text)
