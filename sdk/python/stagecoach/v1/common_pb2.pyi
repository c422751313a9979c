from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Client(_message.Message):
    __slots__ = ["auth_mechanism", "early", "hello", "ip", "listener", "port", "protocol", "rdns", "tls", "tls_cipher", "tls_version", "user"]
    AUTH_MECHANISM_FIELD_NUMBER: _ClassVar[int]
    EARLY_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    LISTENER_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RDNS_FIELD_NUMBER: _ClassVar[int]
    TLS_CIPHER_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    TLS_VERSION_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    auth_mechanism: str
    early: bool
    hello: str
    ip: str
    listener: str
    port: int
    protocol: str
    rdns: str
    tls: bool
    tls_cipher: str
    tls_version: str
    user: str
    def __init__(self, ip: _Optional[str] = ..., port: _Optional[int] = ..., hello: _Optional[str] = ..., rdns: _Optional[str] = ..., user: _Optional[str] = ..., tls: bool = ..., tls_version: _Optional[str] = ..., tls_cipher: _Optional[str] = ..., listener: _Optional[str] = ..., protocol: _Optional[str] = ..., early: bool = ..., auth_mechanism: _Optional[str] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ["client", "parameters", "queue_id", "received_ms", "recipients", "sender", "size", "tags", "transaction"]
    class TagsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Tag
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Tag, _Mapping]] = ...) -> None: ...
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_MS_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_FIELD_NUMBER: _ClassVar[int]
    client: Client
    parameters: MailParameters
    queue_id: str
    received_ms: int
    recipients: _containers.RepeatedCompositeFieldContainer[Recipient]
    sender: str
    size: int
    tags: _containers.MessageMap[str, Tag]
    transaction: str
    def __init__(self, queue_id: _Optional[str] = ..., transaction: _Optional[str] = ..., sender: _Optional[str] = ..., parameters: _Optional[_Union[MailParameters, _Mapping]] = ..., recipients: _Optional[_Iterable[_Union[Recipient, _Mapping]]] = ..., client: _Optional[_Union[Client, _Mapping]] = ..., tags: _Optional[_Mapping[str, Tag]] = ..., received_ms: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class HeaderField(_message.Message):
    __slots__ = ["name", "value"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class MailParameters(_message.Message):
    __slots__ = ["auth", "body", "declared_size", "deliver_by_mode", "deliver_by_ms", "deliver_by_trace", "dsn_return", "envelope_id", "hold_until_ms", "priority", "require_tls", "smtputf8"]
    AUTH_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    DECLARED_SIZE_FIELD_NUMBER: _ClassVar[int]
    DELIVER_BY_MODE_FIELD_NUMBER: _ClassVar[int]
    DELIVER_BY_MS_FIELD_NUMBER: _ClassVar[int]
    DELIVER_BY_TRACE_FIELD_NUMBER: _ClassVar[int]
    DSN_RETURN_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    REQUIRE_TLS_FIELD_NUMBER: _ClassVar[int]
    SMTPUTF8_FIELD_NUMBER: _ClassVar[int]
    auth: str
    body: str
    declared_size: int
    deliver_by_mode: str
    deliver_by_ms: int
    deliver_by_trace: bool
    dsn_return: str
    envelope_id: str
    hold_until_ms: int
    priority: int
    require_tls: bool
    smtputf8: bool
    def __init__(self, body: _Optional[str] = ..., smtputf8: bool = ..., require_tls: bool = ..., dsn_return: _Optional[str] = ..., envelope_id: _Optional[str] = ..., auth: _Optional[str] = ..., declared_size: _Optional[int] = ..., priority: _Optional[int] = ..., deliver_by_ms: _Optional[int] = ..., deliver_by_mode: _Optional[str] = ..., deliver_by_trace: bool = ..., hold_until_ms: _Optional[int] = ...) -> None: ...

class MessageRef(_message.Message):
    __slots__ = ["inline", "path", "size"]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    inline: bytes
    path: str
    size: int
    def __init__(self, size: _Optional[int] = ..., inline: _Optional[bytes] = ..., path: _Optional[str] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ["kind", "reply", "text"]
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    CANCELLED: Problem.Kind
    CONFLICT: Problem.Kind
    DEADLINE: Problem.Kind
    DENIED: Problem.Kind
    EXISTS: Problem.Kind
    INTERNAL: Problem.Kind
    INVALID: Problem.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    NOT_FOUND: Problem.Kind
    NO_SPACE: Problem.Kind
    OVER_QUOTA: Problem.Kind
    REPLY_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOO_LARGE: Problem.Kind
    UNAVAILABLE: Problem.Kind
    UNSUPPORTED: Problem.Kind
    kind: Problem.Kind
    reply: SMTPReply
    text: str
    def __init__(self, kind: _Optional[_Union[Problem.Kind, str]] = ..., text: _Optional[str] = ..., reply: _Optional[_Union[SMTPReply, _Mapping]] = ...) -> None: ...

class Recipient(_message.Message):
    __slots__ = ["account", "address", "detail", "index", "notify", "original_recipient"]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    account: str
    address: str
    detail: str
    index: int
    notify: _containers.RepeatedScalarFieldContainer[str]
    original_recipient: str
    def __init__(self, address: _Optional[str] = ..., index: _Optional[int] = ..., notify: _Optional[_Iterable[str]] = ..., original_recipient: _Optional[str] = ..., account: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class SMTPReply(_message.Message):
    __slots__ = ["code", "enhanced", "text"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ENHANCED_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: int
    enhanced: str
    text: str
    def __init__(self, code: _Optional[int] = ..., enhanced: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Tag(_message.Message):
    __slots__ = ["flag", "list", "map", "number", "text"]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    flag: bool
    list: TagList
    map: TagMap
    number: float
    text: str
    def __init__(self, text: _Optional[str] = ..., number: _Optional[float] = ..., flag: bool = ..., list: _Optional[_Union[TagList, _Mapping]] = ..., map: _Optional[_Union[TagMap, _Mapping]] = ...) -> None: ...

class TagList(_message.Message):
    __slots__ = ["values"]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class TagMap(_message.Message):
    __slots__ = ["entries"]
    class EntriesEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Tag
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Tag, _Mapping]] = ...) -> None: ...
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.MessageMap[str, Tag]
    def __init__(self, entries: _Optional[_Mapping[str, Tag]] = ...) -> None: ...
