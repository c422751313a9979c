from stagecoach.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeliverCall(_message.Message):
    __slots__ = ["envelope", "idempotency_key", "message"]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    envelope: _common_pb2.Envelope
    idempotency_key: str
    message: _common_pb2.MessageRef
    def __init__(self, envelope: _Optional[_Union[_common_pb2.Envelope, _Mapping]] = ..., message: _Optional[_Union[_common_pb2.MessageRef, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class DeliverOutcome(_message.Message):
    __slots__ = ["recipient", "remote_mta", "reply", "retry_after_ms"]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    REMOTE_MTA_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    recipient: int
    remote_mta: str
    reply: _common_pb2.SMTPReply
    retry_after_ms: int
    def __init__(self, recipient: _Optional[int] = ..., reply: _Optional[_Union[_common_pb2.SMTPReply, _Mapping]] = ..., remote_mta: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class DeliverReply(_message.Message):
    __slots__ = ["outcomes"]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[DeliverOutcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[DeliverOutcome, _Mapping]]] = ...) -> None: ...
