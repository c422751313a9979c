from stagecoach.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

AUTH: FilterEvent
CONNECT: FilterEvent
DESCRIPTOR: _descriptor.FileDescriptor
ENVELOPE: FilterEvent
FILTER_EVENT_UNSPECIFIED: FilterEvent
HELLO: FilterEvent
MAIL: FilterEvent
MESSAGE: FilterEvent
OBSERVE: FilterEvent
PRE_DELIVERY: FilterEvent
RCPT: FilterEvent
RCPT_REJECTED: FilterEvent
RESULT: FilterEvent
ROUTE: FilterEvent

class Edit(_message.Message):
    __slots__ = ["add_recipient", "delete_header", "delete_recipient", "insert_header", "replace_body", "replace_header", "set_sender"]
    class AddRecipient(_message.Message):
        __slots__ = ["recipient"]
        RECIPIENT_FIELD_NUMBER: _ClassVar[int]
        recipient: _common_pb2.Recipient
        def __init__(self, recipient: _Optional[_Union[_common_pb2.Recipient, _Mapping]] = ...) -> None: ...
    class DeleteHeader(_message.Message):
        __slots__ = ["index", "name"]
        INDEX_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        index: int
        name: str
        def __init__(self, name: _Optional[str] = ..., index: _Optional[int] = ...) -> None: ...
    class DeleteRecipient(_message.Message):
        __slots__ = ["index"]
        INDEX_FIELD_NUMBER: _ClassVar[int]
        index: int
        def __init__(self, index: _Optional[int] = ...) -> None: ...
    class InsertHeader(_message.Message):
        __slots__ = ["field", "position"]
        FIELD_FIELD_NUMBER: _ClassVar[int]
        POSITION_FIELD_NUMBER: _ClassVar[int]
        field: _common_pb2.HeaderField
        position: int
        def __init__(self, position: _Optional[int] = ..., field: _Optional[_Union[_common_pb2.HeaderField, _Mapping]] = ...) -> None: ...
    class ReplaceBody(_message.Message):
        __slots__ = ["body"]
        BODY_FIELD_NUMBER: _ClassVar[int]
        body: _common_pb2.MessageRef
        def __init__(self, body: _Optional[_Union[_common_pb2.MessageRef, _Mapping]] = ...) -> None: ...
    class ReplaceHeader(_message.Message):
        __slots__ = ["index", "name", "value"]
        INDEX_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        index: int
        name: str
        value: bytes
        def __init__(self, name: _Optional[str] = ..., index: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    class SetSender(_message.Message):
        __slots__ = ["address", "parameters"]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        PARAMETERS_FIELD_NUMBER: _ClassVar[int]
        address: str
        parameters: _common_pb2.MailParameters
        def __init__(self, address: _Optional[str] = ..., parameters: _Optional[_Union[_common_pb2.MailParameters, _Mapping]] = ...) -> None: ...
    ADD_RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    DELETE_HEADER_FIELD_NUMBER: _ClassVar[int]
    DELETE_RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    INSERT_HEADER_FIELD_NUMBER: _ClassVar[int]
    REPLACE_BODY_FIELD_NUMBER: _ClassVar[int]
    REPLACE_HEADER_FIELD_NUMBER: _ClassVar[int]
    SET_SENDER_FIELD_NUMBER: _ClassVar[int]
    add_recipient: Edit.AddRecipient
    delete_header: Edit.DeleteHeader
    delete_recipient: Edit.DeleteRecipient
    insert_header: Edit.InsertHeader
    replace_body: Edit.ReplaceBody
    replace_header: Edit.ReplaceHeader
    set_sender: Edit.SetSender
    def __init__(self, set_sender: _Optional[_Union[Edit.SetSender, _Mapping]] = ..., add_recipient: _Optional[_Union[Edit.AddRecipient, _Mapping]] = ..., delete_recipient: _Optional[_Union[Edit.DeleteRecipient, _Mapping]] = ..., insert_header: _Optional[_Union[Edit.InsertHeader, _Mapping]] = ..., replace_header: _Optional[_Union[Edit.ReplaceHeader, _Mapping]] = ..., delete_header: _Optional[_Union[Edit.DeleteHeader, _Mapping]] = ..., replace_body: _Optional[_Union[Edit.ReplaceBody, _Mapping]] = ...) -> None: ...

class FilterCall(_message.Message):
    __slots__ = ["authenticated", "envelope", "event", "header", "idempotency_key", "message", "observations", "recipient", "results"]
    AUTHENTICATED_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    authenticated: bool
    envelope: _common_pb2.Envelope
    event: FilterEvent
    header: _containers.RepeatedCompositeFieldContainer[_common_pb2.HeaderField]
    idempotency_key: str
    message: _common_pb2.MessageRef
    observations: _containers.RepeatedCompositeFieldContainer[Observation]
    recipient: int
    results: _containers.RepeatedCompositeFieldContainer[RecipientResult]
    def __init__(self, event: _Optional[_Union[FilterEvent, str]] = ..., envelope: _Optional[_Union[_common_pb2.Envelope, _Mapping]] = ..., recipient: _Optional[int] = ..., message: _Optional[_Union[_common_pb2.MessageRef, _Mapping]] = ..., header: _Optional[_Iterable[_Union[_common_pb2.HeaderField, _Mapping]]] = ..., results: _Optional[_Iterable[_Union[RecipientResult, _Mapping]]] = ..., idempotency_key: _Optional[str] = ..., authenticated: bool = ..., observations: _Optional[_Iterable[_Union[Observation, _Mapping]]] = ...) -> None: ...

class FilterInterest(_message.Message):
    __slots__ = ["body", "effect", "events", "header_names", "max_size"]
    class Body(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    class Effect(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    BODY_FIELD_NUMBER: _ClassVar[int]
    EDIT: FilterInterest.Effect
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    FULL: FilterInterest.Body
    HEADER: FilterInterest.Body
    HEADER_NAMES_FIELD_NUMBER: _ClassVar[int]
    JUDGE: FilterInterest.Effect
    MAX_SIZE_FIELD_NUMBER: _ClassVar[int]
    NONE: FilterInterest.Body
    OBSERVE_ONLY: FilterInterest.Effect
    body: FilterInterest.Body
    effect: FilterInterest.Effect
    events: _containers.RepeatedScalarFieldContainer[FilterEvent]
    header_names: _containers.RepeatedScalarFieldContainer[str]
    max_size: int
    def __init__(self, events: _Optional[_Iterable[_Union[FilterEvent, str]]] = ..., body: _Optional[_Union[FilterInterest.Body, str]] = ..., header_names: _Optional[_Iterable[str]] = ..., max_size: _Optional[int] = ..., effect: _Optional[_Union[FilterInterest.Effect, str]] = ...) -> None: ...

class FilterReply(_message.Message):
    __slots__ = ["edits", "hints", "inject", "note", "per_recipient", "placements", "score", "tags", "verdict"]
    class PerRecipientEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: Verdict
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[Verdict, _Mapping]] = ...) -> None: ...
    class PlacementsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: Placement
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[Placement, _Mapping]] = ...) -> None: ...
    class TagsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _common_pb2.Tag
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_common_pb2.Tag, _Mapping]] = ...) -> None: ...
    EDITS_FIELD_NUMBER: _ClassVar[int]
    HINTS_FIELD_NUMBER: _ClassVar[int]
    INJECT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    PER_RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    PLACEMENTS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    edits: _containers.RepeatedCompositeFieldContainer[Edit]
    hints: RouteHints
    inject: _containers.RepeatedCompositeFieldContainer[Injection]
    note: str
    per_recipient: _containers.MessageMap[int, Verdict]
    placements: _containers.MessageMap[int, Placement]
    score: float
    tags: _containers.MessageMap[str, _common_pb2.Tag]
    verdict: Verdict
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., per_recipient: _Optional[_Mapping[int, Verdict]] = ..., edits: _Optional[_Iterable[_Union[Edit, _Mapping]]] = ..., tags: _Optional[_Mapping[str, _common_pb2.Tag]] = ..., hints: _Optional[_Union[RouteHints, _Mapping]] = ..., inject: _Optional[_Iterable[_Union[Injection, _Mapping]]] = ..., note: _Optional[str] = ..., score: _Optional[float] = ..., placements: _Optional[_Mapping[int, Placement]] = ...) -> None: ...

class Injection(_message.Message):
    __slots__ = ["message", "recipients", "sender"]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    message: _common_pb2.MessageRef
    recipients: _containers.RepeatedCompositeFieldContainer[_common_pb2.Recipient]
    sender: str
    def __init__(self, sender: _Optional[str] = ..., recipients: _Optional[_Iterable[_Union[_common_pb2.Recipient, _Mapping]]] = ..., message: _Optional[_Union[_common_pb2.MessageRef, _Mapping]] = ...) -> None: ...

class Observation(_message.Message):
    __slots__ = ["at_ms", "by", "envelope", "reason", "recipient", "result", "sequence", "what"]
    class What(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    DEFERRED: Observation.What
    DELIVERED: Observation.What
    DISCARDED: Observation.What
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    EXPANDED: Observation.What
    FAILED: Observation.What
    HELD: Observation.What
    QUEUED: Observation.What
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    REFUSED: Observation.What
    RELEASED: Observation.What
    RESULT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    WHAT_UNSPECIFIED: Observation.What
    at_ms: int
    by: str
    envelope: _common_pb2.Envelope
    reason: str
    recipient: int
    result: RecipientResult
    sequence: int
    what: Observation.What
    def __init__(self, sequence: _Optional[int] = ..., at_ms: _Optional[int] = ..., what: _Optional[_Union[Observation.What, str]] = ..., envelope: _Optional[_Union[_common_pb2.Envelope, _Mapping]] = ..., recipient: _Optional[int] = ..., result: _Optional[_Union[RecipientResult, _Mapping]] = ..., by: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ["copies"]
    class Copy(_message.Message):
        __slots__ = ["flags", "mailbox", "message"]
        FLAGS_FIELD_NUMBER: _ClassVar[int]
        MAILBOX_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        flags: _containers.RepeatedScalarFieldContainer[str]
        mailbox: str
        message: _common_pb2.MessageRef
        def __init__(self, mailbox: _Optional[str] = ..., flags: _Optional[_Iterable[str]] = ..., message: _Optional[_Union[_common_pb2.MessageRef, _Mapping]] = ...) -> None: ...
    COPIES_FIELD_NUMBER: _ClassVar[int]
    copies: _containers.RepeatedCompositeFieldContainer[Placement.Copy]
    def __init__(self, copies: _Optional[_Iterable[_Union[Placement.Copy, _Mapping]]] = ...) -> None: ...

class RecipientResult(_message.Message):
    __slots__ = ["recipient", "remote_mta", "reply", "state"]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    REMOTE_MTA_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    recipient: int
    remote_mta: str
    reply: _common_pb2.SMTPReply
    state: str
    def __init__(self, recipient: _Optional[int] = ..., reply: _Optional[_Union[_common_pb2.SMTPReply, _Mapping]] = ..., state: _Optional[str] = ..., remote_mta: _Optional[str] = ...) -> None: ...

class RouteHints(_message.Message):
    __slots__ = ["expires_ms", "next_hop", "not_before_ms", "priority", "queue", "tls_level"]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    NEXT_HOP_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_MS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    TLS_LEVEL_FIELD_NUMBER: _ClassVar[int]
    expires_ms: int
    next_hop: str
    not_before_ms: int
    priority: int
    queue: str
    tls_level: str
    def __init__(self, queue: _Optional[str] = ..., priority: _Optional[int] = ..., not_before_ms: _Optional[int] = ..., expires_ms: _Optional[int] = ..., next_hop: _Optional[str] = ..., tls_level: _Optional[str] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ["action", "delay_ms", "reason", "reply", "skip_rest"]
    class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    ACCEPT: Verdict.Action
    ACTION_FIELD_NUMBER: _ClassVar[int]
    DEFER: Verdict.Action
    DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    DISCARD: Verdict.Action
    DISCONNECT: Verdict.Action
    HOLD: Verdict.Action
    REASON_FIELD_NUMBER: _ClassVar[int]
    REJECT: Verdict.Action
    REPLY_FIELD_NUMBER: _ClassVar[int]
    SKIP_REST_FIELD_NUMBER: _ClassVar[int]
    action: Verdict.Action
    delay_ms: int
    reason: str
    reply: _common_pb2.SMTPReply
    skip_rest: bool
    def __init__(self, action: _Optional[_Union[Verdict.Action, str]] = ..., reply: _Optional[_Union[_common_pb2.SMTPReply, _Mapping]] = ..., delay_ms: _Optional[int] = ..., reason: _Optional[str] = ..., skip_rest: bool = ...) -> None: ...

class FilterEvent(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
