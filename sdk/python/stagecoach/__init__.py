"""Write a Stagecoach plugin in Python: derive from Filter, Deliverer, Directory,
Storage or Access and call serve. README.md beside this package is the way in;
stagecoach.v1 is the contract's generated code, its .proto files are the reference
for every field."""
from stagecoach.fail import Failure, smtp_reply
from stagecoach.mail import INLINE_LIMIT, Header, Message, unfold
from stagecoach.plugin import (Access, Deliverer, Delivery, Directory, Event, Filter, Grant, Interest, Listener, Needs,
                               Outcome, Plugin, alias, delivered, disabled, failed, later, mailbox,
                               no_such_user, not_mine)
from stagecoach.process import serve
from stagecoach.schema import Mistake, Mistakes, Size, attribute, block, label
from stagecoach.session import Call, Caller
from stagecoach.storage import Storage
from stagecoach.verdict import Copy, Verdict, accept, defer, discard, disconnect, hold, reject

__all__ = [
    "Access", "Call", "Caller", "Copy", "Deliverer", "Delivery", "Directory", "Event", "Failure", "Filter", "Grant", "Header",
    "INLINE_LIMIT", "Interest", "Listener", "Message", "Mistake", "Mistakes", "Needs", "Outcome", "Plugin", "Size",
    "Storage", "Verdict", "accept", "alias", "attribute", "block", "defer", "delivered", "disabled", "discard",
    "disconnect", "failed", "hold", "label", "later", "mailbox", "no_such_user", "not_mine", "reject", "serve",
    "smtp_reply", "unfold",
]
