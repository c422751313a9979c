"""What a storage has to know of mail: messages rendered once, searches, flags, UIDs,
threads. It keeps no message and makes none."""
from stagecoach.mime.flags import MAX_KEYWORDS, Flags, apply_flags, parse_flags
from stagecoach.mime.header import message_ids, thread_ids
from stagecoach.mime.search import Candidate, Matcher, compile, compile_request
from stagecoach.mime.structure import Rendered, render, render_file, shift
from stagecoach.mime.text import Decoder, decode_words, fold
from stagecoach.mime.uids import UIDSet

__all__ = [
    "Candidate", "Decoder", "Flags", "MAX_KEYWORDS", "Matcher", "Rendered", "UIDSet", "apply_flags", "compile",
    "compile_request", "decode_words", "fold", "message_ids", "parse_flags", "render", "render_file", "shift", "thread_ids",
]
