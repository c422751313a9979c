"""The standard library's logging, into the server's log: one JSON object per line
on stderr, in hclog's words. Everything that logs in the process arrives there
under the instance's name, also what libraries say."""
from __future__ import annotations

import json
import logging
import time
from typing import TextIO

_KNOWN = set(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}


class Lines(logging.Formatter):
    """Makes a line of a record; what `extra` brought becomes fields of its own."""

    def format(self, record: logging.LogRecord) -> str:
        level = "error" if record.levelno >= logging.ERROR else "warn" if record.levelno >= logging.WARNING else \
            "info" if record.levelno >= logging.INFO else "debug"
        line = {
            "@timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + ".%03dZ" % record.msecs,
            "@level": level,
            "@message": record.getMessage(),
        }
        for name, value in record.__dict__.items():
            if name not in _KNOWN and not name.startswith("@"):
                line[name] = value if isinstance(value, (str, int, float, bool, list, dict, type(None))) else str(value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def to(stream: TextIO, level: int = logging.INFO) -> None:
    """Sends the process's log to a stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines())
    logging.basicConfig(handlers=[handler], level=level, force=True)
