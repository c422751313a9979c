from stagecoach.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
FLAG_ANSWERED: Flag
FLAG_DELETED: Flag
FLAG_DRAFT: Flag
FLAG_FLAGGED: Flag
FLAG_NONE: Flag
FLAG_SEEN: Flag

class AccountsRequest(_message.Message):
    __slots__ = ["after", "limit"]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after: str
    limit: int
    def __init__(self, after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class AccountsResponse(_message.Message):
    __slots__ = ["accounts"]
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    accounts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, accounts: _Optional[_Iterable[str]] = ...) -> None: ...

class Annotation(_message.Message):
    __slots__ = ["mailbox_id", "name", "removed", "size", "value"]
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    mailbox_id: str
    name: str
    removed: bool
    size: int
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ..., removed: bool = ..., size: _Optional[int] = ..., mailbox_id: _Optional[str] = ...) -> None: ...

class AnnotationsRequest(_message.Message):
    __slots__ = ["below", "mailbox_id", "max_bytes", "names", "since_modseq"]
    BELOW_FIELD_NUMBER: _ClassVar[int]
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    SINCE_MODSEQ_FIELD_NUMBER: _ClassVar[int]
    below: bool
    mailbox_id: str
    max_bytes: int
    names: _containers.RepeatedScalarFieldContainer[str]
    since_modseq: int
    def __init__(self, mailbox_id: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., below: bool = ..., max_bytes: _Optional[int] = ..., since_modseq: _Optional[int] = ...) -> None: ...

class AnnotationsResponse(_message.Message):
    __slots__ = ["annotations", "modseq"]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    MODSEQ_FIELD_NUMBER: _ClassVar[int]
    annotations: _containers.RepeatedCompositeFieldContainer[Annotation]
    modseq: int
    def __init__(self, annotations: _Optional[_Iterable[_Union[Annotation, _Mapping]]] = ..., modseq: _Optional[int] = ...) -> None: ...

class AppendRequest(_message.Message):
    __slots__ = ["mailbox_id", "messages", "quota_bytes", "replaces"]
    class Message(_message.Message):
        __slots__ = ["flags", "message", "received_ms"]
        FLAGS_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        RECEIVED_MS_FIELD_NUMBER: _ClassVar[int]
        flags: _containers.RepeatedScalarFieldContainer[str]
        message: _common_pb2.MessageRef
        received_ms: int
        def __init__(self, message: _Optional[_Union[_common_pb2.MessageRef, _Mapping]] = ..., flags: _Optional[_Iterable[str]] = ..., received_ms: _Optional[int] = ...) -> None: ...
    class Replaced(_message.Message):
        __slots__ = ["mailbox_id", "uid"]
        MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
        UID_FIELD_NUMBER: _ClassVar[int]
        mailbox_id: str
        uid: int
        def __init__(self, mailbox_id: _Optional[str] = ..., uid: _Optional[int] = ...) -> None: ...
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    mailbox_id: str
    messages: _containers.RepeatedCompositeFieldContainer[AppendRequest.Message]
    quota_bytes: int
    replaces: AppendRequest.Replaced
    def __init__(self, mailbox_id: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[AppendRequest.Message, _Mapping]]] = ..., quota_bytes: _Optional[int] = ..., replaces: _Optional[_Union[AppendRequest.Replaced, _Mapping]] = ...) -> None: ...

class AppendResponse(_message.Message):
    __slots__ = ["modseq", "replaced", "uid_validity", "uids"]
    MODSEQ_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    UIDS_FIELD_NUMBER: _ClassVar[int]
    UID_VALIDITY_FIELD_NUMBER: _ClassVar[int]
    modseq: int
    replaced: bool
    uid_validity: int
    uids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, uid_validity: _Optional[int] = ..., uids: _Optional[_Iterable[int]] = ..., modseq: _Optional[int] = ..., replaced: bool = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ["remove"]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    remove: bool
    def __init__(self, remove: bool = ...) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ["path"]
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class ChangeEvent(_message.Message):
    __slots__ = ["mailbox_ids", "mailboxes", "modseq"]
    MAILBOXES_FIELD_NUMBER: _ClassVar[int]
    MAILBOX_IDS_FIELD_NUMBER: _ClassVar[int]
    MODSEQ_FIELD_NUMBER: _ClassVar[int]
    mailbox_ids: _containers.RepeatedScalarFieldContainer[str]
    mailboxes: bool
    modseq: int
    def __init__(self, modseq: _Optional[int] = ..., mailbox_ids: _Optional[_Iterable[str]] = ..., mailboxes: bool = ...) -> None: ...

class CheckRequest(_message.Message):
    __slots__ = ["account", "repair"]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    REPAIR_FIELD_NUMBER: _ClassVar[int]
    account: str
    repair: bool
    def __init__(self, repair: bool = ..., account: _Optional[str] = ...) -> None: ...

class CheckResponse(_message.Message):
    __slots__ = ["checked", "findings"]
    class Checked(_message.Message):
        __slots__ = ["count", "what", "wrong"]
        COUNT_FIELD_NUMBER: _ClassVar[int]
        WHAT_FIELD_NUMBER: _ClassVar[int]
        WRONG_FIELD_NUMBER: _ClassVar[int]
        count: int
        what: str
        wrong: int
        def __init__(self, what: _Optional[str] = ..., count: _Optional[int] = ..., wrong: _Optional[int] = ...) -> None: ...
    class Finding(_message.Message):
        __slots__ = ["repair", "repaired", "text", "what", "where"]
        REPAIRED_FIELD_NUMBER: _ClassVar[int]
        REPAIR_FIELD_NUMBER: _ClassVar[int]
        TEXT_FIELD_NUMBER: _ClassVar[int]
        WHAT_FIELD_NUMBER: _ClassVar[int]
        WHERE_FIELD_NUMBER: _ClassVar[int]
        repair: str
        repaired: bool
        text: str
        what: str
        where: str
        def __init__(self, what: _Optional[str] = ..., where: _Optional[str] = ..., text: _Optional[str] = ..., repair: _Optional[str] = ..., repaired: bool = ...) -> None: ...
    CHECKED_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    checked: _containers.RepeatedCompositeFieldContainer[CheckResponse.Checked]
    findings: _containers.RepeatedCompositeFieldContainer[CheckResponse.Finding]
    def __init__(self, checked: _Optional[_Iterable[_Union[CheckResponse.Checked, _Mapping]]] = ..., findings: _Optional[_Iterable[_Union[CheckResponse.Finding, _Mapping]]] = ...) -> None: ...

class CopyRequest(_message.Message):
    __slots__ = ["mailbox_id", "move", "quota_bytes", "target_mailbox_id", "uids"]
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    TARGET_MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    UIDS_FIELD_NUMBER: _ClassVar[int]
    mailbox_id: str
    move: bool
    quota_bytes: int
    target_mailbox_id: str
    uids: _containers.RepeatedCompositeFieldContainer[UIDRange]
    def __init__(self, mailbox_id: _Optional[str] = ..., uids: _Optional[_Iterable[_Union[UIDRange, _Mapping]]] = ..., target_mailbox_id: _Optional[str] = ..., move: bool = ..., quota_bytes: _Optional[int] = ...) -> None: ...

class CopyResponse(_message.Message):
    __slots__ = ["modseq", "source_uids", "target_uids", "uid_validity"]
    MODSEQ_FIELD_NUMBER: _ClassVar[int]
    SOURCE_UIDS_FIELD_NUMBER: _ClassVar[int]
    TARGET_UIDS_FIELD_NUMBER: _ClassVar[int]
    UID_VALIDITY_FIELD_NUMBER: _ClassVar[int]
    modseq: int
    source_uids: _containers.RepeatedScalarFieldContainer[int]
    target_uids: _containers.RepeatedScalarFieldContainer[int]
    uid_validity: int
    def __init__(self, uid_validity: _Optional[int] = ..., source_uids: _Optional[_Iterable[int]] = ..., target_uids: _Optional[_Iterable[int]] = ..., modseq: _Optional[int] = ...) -> None: ...

class CreateMailboxRequest(_message.Message):
    __slots__ = ["name", "role", "unsubscribed"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    UNSUBSCRIBED_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    unsubscribed: bool
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., unsubscribed: bool = ...) -> None: ...

class Criterion(_message.Message):
    __slots__ = ["all_of", "any_of", "body", "everything", "flag", "header", "larger", "message_id", "modseq_at_least", "received", "saved", "sent", "sent_day", "smaller", "text", "thread_id", "uids"]
    ALL_OF_FIELD_NUMBER: _ClassVar[int]
    ANY_OF_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    LARGER_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    MODSEQ_AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    NOT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    SENT_DAY_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    SMALLER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    UIDS_FIELD_NUMBER: _ClassVar[int]
    all_of: CriterionList
    any_of: CriterionList
    body: str
    everything: bool
    flag: str
    header: HeaderTest
    larger: int
    message_id: str
    modseq_at_least: int
    received: TimeRange
    saved: TimeRange
    sent: TimeRange
    sent_day: TimeRange
    smaller: int
    text: str
    thread_id: str
    uids: UIDRanges
    def __init__(self, all_of: _Optional[_Union[CriterionList, _Mapping]] = ..., any_of: _Optional[_Union[CriterionList, _Mapping]] = ..., header: _Optional[_Union[HeaderTest, _Mapping]] = ..., body: _Optional[str] = ..., text: _Optional[str] = ..., larger: _Optional[int] = ..., smaller: _Optional[int] = ..., received: _Optional[_Union[TimeRange, _Mapping]] = ..., sent: _Optional[_Union[TimeRange, _Mapping]] = ..., flag: _Optional[str] = ..., modseq_at_least: _Optional[int] = ..., uids: _Optional[_Union[UIDRanges, _Mapping]] = ..., everything: bool = ..., saved: _Optional[_Union[TimeRange, _Mapping]] = ..., message_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., sent_day: _Optional[_Union[TimeRange, _Mapping]] = ..., **kwargs) -> None: ...

class CriterionList(_message.Message):
    __slots__ = ["criteria"]
    CRITERIA_FIELD_NUMBER: _ClassVar[int]
    criteria: _containers.RepeatedCompositeFieldContainer[Criterion]
    def __init__(self, criteria: _Optional[_Iterable[_Union[Criterion, _Mapping]]] = ...) -> None: ...

class DeleteMailboxRequest(_message.Message):
    __slots__ = ["id", "keep_subscription"]
    ID_FIELD_NUMBER: _ClassVar[int]
    KEEP_SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    id: str
    keep_subscription: bool
    def __init__(self, id: _Optional[str] = ..., keep_subscription: bool = ...) -> None: ...

class DeleteMailboxResponse(_message.Message):
    __slots__ = ["modseq"]
    MODSEQ_FIELD_NUMBER: _ClassVar[int]
    modseq: int
    def __init__(self, modseq: _Optional[int] = ...) -> None: ...

class DepositRequest(_message.Message):
    __slots__ = ["message", "queue_id", "received_ms", "return_path", "targets"]
    class Target(_message.Message):
        __slots__ = ["account", "flags", "key", "mailbox", "quota_bytes", "recipient"]
        ACCOUNT_FIELD_NUMBER: _ClassVar[int]
        FLAGS_FIELD_NUMBER: _ClassVar[int]
        KEY_FIELD_NUMBER: _ClassVar[int]
        MAILBOX_FIELD_NUMBER: _ClassVar[int]
        QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
        RECIPIENT_FIELD_NUMBER: _ClassVar[int]
        account: str
        flags: _containers.RepeatedScalarFieldContainer[str]
        key: int
        mailbox: str
        quota_bytes: int
        recipient: str
        def __init__(self, key: _Optional[int] = ..., account: _Optional[str] = ..., mailbox: _Optional[str] = ..., recipient: _Optional[str] = ..., flags: _Optional[_Iterable[str]] = ..., quota_bytes: _Optional[int] = ...) -> None: ...
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_MS_FIELD_NUMBER: _ClassVar[int]
    RETURN_PATH_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    message: _common_pb2.MessageRef
    queue_id: str
    received_ms: int
    return_path: str
    targets: _containers.RepeatedCompositeFieldContainer[DepositRequest.Target]
    def __init__(self, queue_id: _Optional[str] = ..., message: _Optional[_Union[_common_pb2.MessageRef, _Mapping]] = ..., return_path: _Optional[str] = ..., received_ms: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[DepositRequest.Target, _Mapping]]] = ...) -> None: ...

class DepositResponse(_message.Message):
    __slots__ = ["results"]
    class Result(_message.Message):
        __slots__ = ["key", "mailbox_id", "message_id", "problem", "uid"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
        PROBLEM_FIELD_NUMBER: _ClassVar[int]
        UID_FIELD_NUMBER: _ClassVar[int]
        key: int
        mailbox_id: str
        message_id: str
        problem: _common_pb2.Problem
        uid: int
        def __init__(self, key: _Optional[int] = ..., problem: _Optional[_Union[_common_pb2.Problem, _Mapping]] = ..., mailbox_id: _Optional[str] = ..., uid: _Optional[int] = ..., message_id: _Optional[str] = ...) -> None: ...
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[DepositResponse.Result]
    def __init__(self, results: _Optional[_Iterable[_Union[DepositResponse.Result, _Mapping]]] = ...) -> None: ...

class ExpungeRequest(_message.Message):
    __slots__ = ["force", "mailbox_id", "uids"]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    UIDS_FIELD_NUMBER: _ClassVar[int]
    force: bool
    mailbox_id: str
    uids: _containers.RepeatedCompositeFieldContainer[UIDRange]
    def __init__(self, mailbox_id: _Optional[str] = ..., uids: _Optional[_Iterable[_Union[UIDRange, _Mapping]]] = ..., force: bool = ...) -> None: ...

class ExpungeResponse(_message.Message):
    __slots__ = ["expunged", "modseq"]
    EXPUNGED_FIELD_NUMBER: _ClassVar[int]
    MODSEQ_FIELD_NUMBER: _ClassVar[int]
    expunged: _containers.RepeatedCompositeFieldContainer[UIDRange]
    modseq: int
    def __init__(self, expunged: _Optional[_Iterable[_Union[UIDRange, _Mapping]]] = ..., modseq: _Optional[int] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ["header", "ids", "mailbox_id", "message", "preview", "structure", "summary", "uids"]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    STRUCTURE_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    UIDS_FIELD_NUMBER: _ClassVar[int]
    header: bool
    ids: bool
    mailbox_id: str
    message: bool
    preview: bool
    structure: bool
    summary: bool
    uids: _containers.RepeatedCompositeFieldContainer[UIDRange]
    def __init__(self, mailbox_id: _Optional[str] = ..., uids: _Optional[_Iterable[_Union[UIDRange, _Mapping]]] = ..., summary: bool = ..., structure: bool = ..., header: bool = ..., message: bool = ..., preview: bool = ..., ids: bool = ...) -> None: ...

class FetchResponse(_message.Message):
    __slots__ = ["items"]
    class Item(_message.Message):
        __slots__ = ["header", "message", "message_id", "preview", "saved_ms", "structure", "summary", "thread_id", "uid"]
        HEADER_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
        PREVIEW_FIELD_NUMBER: _ClassVar[int]
        SAVED_MS_FIELD_NUMBER: _ClassVar[int]
        STRUCTURE_FIELD_NUMBER: _ClassVar[int]
        SUMMARY_FIELD_NUMBER: _ClassVar[int]
        THREAD_ID_FIELD_NUMBER: _ClassVar[int]
        UID_FIELD_NUMBER: _ClassVar[int]
        header: bytes
        message: _common_pb2.MessageRef
        message_id: str
        preview: str
        saved_ms: int
        structure: Part
        summary: Summary
        thread_id: str
        uid: int
        def __init__(self, uid: _Optional[int] = ..., summary: _Optional[_Union[Summary, _Mapping]] = ..., structure: _Optional[_Union[Part, _Mapping]] = ..., header: _Optional[bytes] = ..., message: _Optional[_Union[_common_pb2.MessageRef, _Mapping]] = ..., preview: _Optional[str] = ..., message_id: _Optional[str] = ..., thread_id: _Optional[str] = ..., saved_ms: _Optional[int] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[FetchResponse.Item]
    def __init__(self, items: _Optional[_Iterable[_Union[FetchResponse.Item, _Mapping]]] = ...) -> None: ...

class HeaderTest(_message.Message):
    __slots__ = ["name", "value"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class ListMailboxesRequest(_message.Message):
    __slots__ = ["id", "name"]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ListMailboxesResponse(_message.Message):
    __slots__ = ["kept_subscriptions", "mailboxes", "modseq"]
    KEPT_SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    MAILBOXES_FIELD_NUMBER: _ClassVar[int]
    MODSEQ_FIELD_NUMBER: _ClassVar[int]
    kept_subscriptions: _containers.RepeatedScalarFieldContainer[str]
    mailboxes: _containers.RepeatedCompositeFieldContainer[Mailbox]
    modseq: int
    def __init__(self, mailboxes: _Optional[_Iterable[_Union[Mailbox, _Mapping]]] = ..., modseq: _Optional[int] = ..., kept_subscriptions: _Optional[_Iterable[str]] = ...) -> None: ...

class MailAddress(_message.Message):
    __slots__ = ["domain", "group", "local_part", "name", "route"]
    class Group(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    END: MailAddress.Group
    GROUP_FIELD_NUMBER: _ClassVar[int]
    LOCAL_PART_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NONE: MailAddress.Group
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    START: MailAddress.Group
    domain: bytes
    group: MailAddress.Group
    local_part: bytes
    name: bytes
    route: bytes
    def __init__(self, name: _Optional[bytes] = ..., local_part: _Optional[bytes] = ..., domain: _Optional[bytes] = ..., group: _Optional[_Union[MailAddress.Group, str]] = ..., route: _Optional[bytes] = ...) -> None: ...

class Mailbox(_message.Message):
    __slots__ = ["container", "created_ms", "deleted", "highest_modseq", "id", "messages", "name", "role", "size", "subscribed", "uid_next", "uid_validity", "unseen"]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_MODSEQ_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBED_FIELD_NUMBER: _ClassVar[int]
    UID_NEXT_FIELD_NUMBER: _ClassVar[int]
    UID_VALIDITY_FIELD_NUMBER: _ClassVar[int]
    UNSEEN_FIELD_NUMBER: _ClassVar[int]
    container: bool
    created_ms: int
    deleted: int
    highest_modseq: int
    id: str
    messages: int
    name: str
    role: str
    size: int
    subscribed: bool
    uid_next: int
    uid_validity: int
    unseen: int
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., role: _Optional[str] = ..., subscribed: bool = ..., uid_validity: _Optional[int] = ..., uid_next: _Optional[int] = ..., highest_modseq: _Optional[int] = ..., messages: _Optional[int] = ..., unseen: _Optional[int] = ..., deleted: _Optional[int] = ..., size: _Optional[int] = ..., container: bool = ..., created_ms: _Optional[int] = ...) -> None: ...

class Param(_message.Message):
    __slots__ = ["name", "value"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ["body_offset", "children", "description", "disposition", "disposition_params", "encoding", "header_offset", "id", "language", "lines", "location", "md5", "message", "params", "size", "subtype", "type"]
    BODY_OFFSET_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    DISPOSITION_FIELD_NUMBER: _ClassVar[int]
    DISPOSITION_PARAMS_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    HEADER_OFFSET_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    MD5_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SUBTYPE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    body_offset: int
    children: _containers.RepeatedCompositeFieldContainer[Part]
    description: bytes
    disposition: str
    disposition_params: _containers.RepeatedCompositeFieldContainer[Param]
    encoding: str
    header_offset: int
    id: bytes
    language: _containers.RepeatedScalarFieldContainer[str]
    lines: int
    location: bytes
    md5: bytes
    message: Summary
    params: _containers.RepeatedCompositeFieldContainer[Param]
    size: int
    subtype: str
    type: str
    def __init__(self, type: _Optional[str] = ..., subtype: _Optional[str] = ..., params: _Optional[_Iterable[_Union[Param, _Mapping]]] = ..., id: _Optional[bytes] = ..., description: _Optional[bytes] = ..., encoding: _Optional[str] = ..., md5: _Optional[bytes] = ..., disposition: _Optional[str] = ..., disposition_params: _Optional[_Iterable[_Union[Param, _Mapping]]] = ..., language: _Optional[_Iterable[str]] = ..., location: _Optional[bytes] = ..., lines: _Optional[int] = ..., header_offset: _Optional[int] = ..., body_offset: _Optional[int] = ..., size: _Optional[int] = ..., children: _Optional[_Iterable[_Union[Part, _Mapping]]] = ..., message: _Optional[_Union[Summary, _Mapping]] = ...) -> None: ...

class QuotaRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class QuotaResponse(_message.Message):
    __slots__ = ["used_bytes", "used_messages"]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    used_bytes: int
    used_messages: int
    def __init__(self, used_bytes: _Optional[int] = ..., used_messages: _Optional[int] = ...) -> None: ...

class RenameMailboxRequest(_message.Message):
    __slots__ = ["id", "name"]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ["criterion", "mailbox_id", "uids"]
    CRITERION_FIELD_NUMBER: _ClassVar[int]
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    UIDS_FIELD_NUMBER: _ClassVar[int]
    criterion: Criterion
    mailbox_id: str
    uids: _containers.RepeatedCompositeFieldContainer[UIDRange]
    def __init__(self, mailbox_id: _Optional[str] = ..., criterion: _Optional[_Union[Criterion, _Mapping]] = ..., uids: _Optional[_Iterable[_Union[UIDRange, _Mapping]]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ["modseq", "uids"]
    MODSEQ_FIELD_NUMBER: _ClassVar[int]
    UIDS_FIELD_NUMBER: _ClassVar[int]
    modseq: int
    uids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, uids: _Optional[_Iterable[int]] = ..., modseq: _Optional[int] = ...) -> None: ...

class SetAnnotationsRequest(_message.Message):
    __slots__ = ["annotations", "mailbox_id", "max_annotations"]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    annotations: _containers.RepeatedCompositeFieldContainer[Annotation]
    mailbox_id: str
    max_annotations: int
    def __init__(self, mailbox_id: _Optional[str] = ..., annotations: _Optional[_Iterable[_Union[Annotation, _Mapping]]] = ..., max_annotations: _Optional[int] = ...) -> None: ...

class SetAnnotationsResponse(_message.Message):
    __slots__ = ["modseq"]
    MODSEQ_FIELD_NUMBER: _ClassVar[int]
    modseq: int
    def __init__(self, modseq: _Optional[int] = ...) -> None: ...

class SetFlagsRequest(_message.Message):
    __slots__ = ["flags", "mailbox_id", "op", "uids", "unchanged_since"]
    class Op(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    ADD: SetFlagsRequest.Op
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    OP_FIELD_NUMBER: _ClassVar[int]
    REMOVE: SetFlagsRequest.Op
    REPLACE: SetFlagsRequest.Op
    UIDS_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_SINCE_FIELD_NUMBER: _ClassVar[int]
    flags: _containers.RepeatedScalarFieldContainer[str]
    mailbox_id: str
    op: SetFlagsRequest.Op
    uids: _containers.RepeatedCompositeFieldContainer[UIDRange]
    unchanged_since: int
    def __init__(self, mailbox_id: _Optional[str] = ..., uids: _Optional[_Iterable[_Union[UIDRange, _Mapping]]] = ..., op: _Optional[_Union[SetFlagsRequest.Op, str]] = ..., flags: _Optional[_Iterable[str]] = ..., unchanged_since: _Optional[int] = ...) -> None: ...

class SetFlagsResponse(_message.Message):
    __slots__ = ["changed", "conflicts"]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    CONFLICTS_FIELD_NUMBER: _ClassVar[int]
    changed: SnapshotResponse
    conflicts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, changed: _Optional[_Union[SnapshotResponse, _Mapping]] = ..., conflicts: _Optional[_Iterable[int]] = ...) -> None: ...

class SnapshotRequest(_message.Message):
    __slots__ = ["mailbox_id", "since_modseq", "uids"]
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    SINCE_MODSEQ_FIELD_NUMBER: _ClassVar[int]
    UIDS_FIELD_NUMBER: _ClassVar[int]
    mailbox_id: str
    since_modseq: int
    uids: _containers.RepeatedCompositeFieldContainer[UIDRange]
    def __init__(self, mailbox_id: _Optional[str] = ..., since_modseq: _Optional[int] = ..., uids: _Optional[_Iterable[_Union[UIDRange, _Mapping]]] = ...) -> None: ...

class SnapshotResponse(_message.Message):
    __slots__ = ["flags", "keywords", "mailbox", "modseq", "modseqs", "received_ms", "sizes", "uids", "vanished"]
    class Keywords(_message.Message):
        __slots__ = ["keywords", "uid"]
        KEYWORDS_FIELD_NUMBER: _ClassVar[int]
        UID_FIELD_NUMBER: _ClassVar[int]
        keywords: _containers.RepeatedScalarFieldContainer[str]
        uid: int
        def __init__(self, uid: _Optional[int] = ..., keywords: _Optional[_Iterable[str]] = ...) -> None: ...
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    KEYWORDS_FIELD_NUMBER: _ClassVar[int]
    MAILBOX_FIELD_NUMBER: _ClassVar[int]
    MODSEQS_FIELD_NUMBER: _ClassVar[int]
    MODSEQ_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_MS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    UIDS_FIELD_NUMBER: _ClassVar[int]
    VANISHED_FIELD_NUMBER: _ClassVar[int]
    flags: _containers.RepeatedScalarFieldContainer[int]
    keywords: _containers.RepeatedCompositeFieldContainer[SnapshotResponse.Keywords]
    mailbox: Mailbox
    modseq: int
    modseqs: _containers.RepeatedScalarFieldContainer[int]
    received_ms: _containers.RepeatedScalarFieldContainer[int]
    sizes: _containers.RepeatedScalarFieldContainer[int]
    uids: _containers.RepeatedScalarFieldContainer[int]
    vanished: _containers.RepeatedCompositeFieldContainer[UIDRange]
    def __init__(self, mailbox: _Optional[_Union[Mailbox, _Mapping]] = ..., uids: _Optional[_Iterable[int]] = ..., flags: _Optional[_Iterable[int]] = ..., modseqs: _Optional[_Iterable[int]] = ..., sizes: _Optional[_Iterable[int]] = ..., received_ms: _Optional[_Iterable[int]] = ..., keywords: _Optional[_Iterable[_Union[SnapshotResponse.Keywords, _Mapping]]] = ..., vanished: _Optional[_Iterable[_Union[UIDRange, _Mapping]]] = ..., modseq: _Optional[int] = ...) -> None: ...

class StorageCall(_message.Message):
    __slots__ = ["account", "accounts", "annotations", "append", "backup", "check", "copy", "create_mailbox", "delete_mailbox", "deposit", "expunge", "fetch", "list_mailboxes", "quota", "rename_mailbox", "request_key", "search", "set_annotations", "set_flags", "snapshot", "update_mailbox", "watch"]
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    BACKUP_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    COPY_FIELD_NUMBER: _ClassVar[int]
    CREATE_MAILBOX_FIELD_NUMBER: _ClassVar[int]
    DELETE_MAILBOX_FIELD_NUMBER: _ClassVar[int]
    DEPOSIT_FIELD_NUMBER: _ClassVar[int]
    EXPUNGE_FIELD_NUMBER: _ClassVar[int]
    FETCH_FIELD_NUMBER: _ClassVar[int]
    LIST_MAILBOXES_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    RENAME_MAILBOX_FIELD_NUMBER: _ClassVar[int]
    REQUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    SET_ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    SET_FLAGS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MAILBOX_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    account: str
    accounts: AccountsRequest
    annotations: AnnotationsRequest
    append: AppendRequest
    backup: BackupRequest
    check: CheckRequest
    copy: CopyRequest
    create_mailbox: CreateMailboxRequest
    delete_mailbox: DeleteMailboxRequest
    deposit: DepositRequest
    expunge: ExpungeRequest
    fetch: FetchRequest
    list_mailboxes: ListMailboxesRequest
    quota: QuotaRequest
    rename_mailbox: RenameMailboxRequest
    request_key: str
    search: SearchRequest
    set_annotations: SetAnnotationsRequest
    set_flags: SetFlagsRequest
    snapshot: SnapshotRequest
    update_mailbox: UpdateMailboxRequest
    watch: WatchRequest
    def __init__(self, account: _Optional[str] = ..., request_key: _Optional[str] = ..., deposit: _Optional[_Union[DepositRequest, _Mapping]] = ..., list_mailboxes: _Optional[_Union[ListMailboxesRequest, _Mapping]] = ..., create_mailbox: _Optional[_Union[CreateMailboxRequest, _Mapping]] = ..., rename_mailbox: _Optional[_Union[RenameMailboxRequest, _Mapping]] = ..., delete_mailbox: _Optional[_Union[DeleteMailboxRequest, _Mapping]] = ..., update_mailbox: _Optional[_Union[UpdateMailboxRequest, _Mapping]] = ..., snapshot: _Optional[_Union[SnapshotRequest, _Mapping]] = ..., fetch: _Optional[_Union[FetchRequest, _Mapping]] = ..., append: _Optional[_Union[AppendRequest, _Mapping]] = ..., set_flags: _Optional[_Union[SetFlagsRequest, _Mapping]] = ..., copy: _Optional[_Union[CopyRequest, _Mapping]] = ..., expunge: _Optional[_Union[ExpungeRequest, _Mapping]] = ..., search: _Optional[_Union[SearchRequest, _Mapping]] = ..., quota: _Optional[_Union[QuotaRequest, _Mapping]] = ..., watch: _Optional[_Union[WatchRequest, _Mapping]] = ..., annotations: _Optional[_Union[AnnotationsRequest, _Mapping]] = ..., set_annotations: _Optional[_Union[SetAnnotationsRequest, _Mapping]] = ..., accounts: _Optional[_Union[AccountsRequest, _Mapping]] = ..., check: _Optional[_Union[CheckRequest, _Mapping]] = ..., backup: _Optional[_Union[BackupRequest, _Mapping]] = ...) -> None: ...

class StorageReply(_message.Message):
    __slots__ = ["accounts", "annotations", "append", "backup", "check", "copy", "create_mailbox", "delete_mailbox", "deposit", "expunge", "fetch", "list_mailboxes", "quota", "rename_mailbox", "search", "set_annotations", "set_flags", "snapshot", "update_mailbox", "watch"]
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    BACKUP_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    COPY_FIELD_NUMBER: _ClassVar[int]
    CREATE_MAILBOX_FIELD_NUMBER: _ClassVar[int]
    DELETE_MAILBOX_FIELD_NUMBER: _ClassVar[int]
    DEPOSIT_FIELD_NUMBER: _ClassVar[int]
    EXPUNGE_FIELD_NUMBER: _ClassVar[int]
    FETCH_FIELD_NUMBER: _ClassVar[int]
    LIST_MAILBOXES_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    RENAME_MAILBOX_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    SET_ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    SET_FLAGS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MAILBOX_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    accounts: AccountsResponse
    annotations: AnnotationsResponse
    append: AppendResponse
    backup: BackupResponse
    check: CheckResponse
    copy: CopyResponse
    create_mailbox: Mailbox
    delete_mailbox: DeleteMailboxResponse
    deposit: DepositResponse
    expunge: ExpungeResponse
    fetch: FetchResponse
    list_mailboxes: ListMailboxesResponse
    quota: QuotaResponse
    rename_mailbox: Mailbox
    search: SearchResponse
    set_annotations: SetAnnotationsResponse
    set_flags: SetFlagsResponse
    snapshot: SnapshotResponse
    update_mailbox: Mailbox
    watch: ChangeEvent
    def __init__(self, deposit: _Optional[_Union[DepositResponse, _Mapping]] = ..., list_mailboxes: _Optional[_Union[ListMailboxesResponse, _Mapping]] = ..., create_mailbox: _Optional[_Union[Mailbox, _Mapping]] = ..., rename_mailbox: _Optional[_Union[Mailbox, _Mapping]] = ..., delete_mailbox: _Optional[_Union[DeleteMailboxResponse, _Mapping]] = ..., update_mailbox: _Optional[_Union[Mailbox, _Mapping]] = ..., snapshot: _Optional[_Union[SnapshotResponse, _Mapping]] = ..., fetch: _Optional[_Union[FetchResponse, _Mapping]] = ..., append: _Optional[_Union[AppendResponse, _Mapping]] = ..., set_flags: _Optional[_Union[SetFlagsResponse, _Mapping]] = ..., copy: _Optional[_Union[CopyResponse, _Mapping]] = ..., expunge: _Optional[_Union[ExpungeResponse, _Mapping]] = ..., search: _Optional[_Union[SearchResponse, _Mapping]] = ..., quota: _Optional[_Union[QuotaResponse, _Mapping]] = ..., watch: _Optional[_Union[ChangeEvent, _Mapping]] = ..., annotations: _Optional[_Union[AnnotationsResponse, _Mapping]] = ..., set_annotations: _Optional[_Union[SetAnnotationsResponse, _Mapping]] = ..., accounts: _Optional[_Union[AccountsResponse, _Mapping]] = ..., check: _Optional[_Union[CheckResponse, _Mapping]] = ..., backup: _Optional[_Union[BackupResponse, _Mapping]] = ...) -> None: ...

class Summary(_message.Message):
    __slots__ = ["bcc", "cc", "date", "in_reply_to", "message_id", "references", "reply_to", "sender", "sent_ms", "subject", "to"]
    BCC_FIELD_NUMBER: _ClassVar[int]
    CC_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    IN_REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    SENT_MS_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    bcc: _containers.RepeatedCompositeFieldContainer[MailAddress]
    cc: _containers.RepeatedCompositeFieldContainer[MailAddress]
    date: bytes
    in_reply_to: bytes
    message_id: bytes
    references: bytes
    reply_to: _containers.RepeatedCompositeFieldContainer[MailAddress]
    sender: _containers.RepeatedCompositeFieldContainer[MailAddress]
    sent_ms: int
    subject: bytes
    to: _containers.RepeatedCompositeFieldContainer[MailAddress]
    def __init__(self, date: _Optional[bytes] = ..., subject: _Optional[bytes] = ..., sender: _Optional[_Iterable[_Union[MailAddress, _Mapping]]] = ..., reply_to: _Optional[_Iterable[_Union[MailAddress, _Mapping]]] = ..., to: _Optional[_Iterable[_Union[MailAddress, _Mapping]]] = ..., cc: _Optional[_Iterable[_Union[MailAddress, _Mapping]]] = ..., bcc: _Optional[_Iterable[_Union[MailAddress, _Mapping]]] = ..., in_reply_to: _Optional[bytes] = ..., message_id: _Optional[bytes] = ..., references: _Optional[bytes] = ..., sent_ms: _Optional[int] = ..., **kwargs) -> None: ...

class TimeRange(_message.Message):
    __slots__ = ["from_ms", "to_ms"]
    FROM_MS_FIELD_NUMBER: _ClassVar[int]
    TO_MS_FIELD_NUMBER: _ClassVar[int]
    from_ms: int
    to_ms: int
    def __init__(self, from_ms: _Optional[int] = ..., to_ms: _Optional[int] = ...) -> None: ...

class UIDRange(_message.Message):
    __slots__ = ["first", "last"]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class UIDRanges(_message.Message):
    __slots__ = ["ranges"]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[UIDRange]
    def __init__(self, ranges: _Optional[_Iterable[_Union[UIDRange, _Mapping]]] = ...) -> None: ...

class UpdateMailboxRequest(_message.Message):
    __slots__ = ["id", "name", "role", "subscribed"]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBED_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    role: str
    subscribed: bool
    def __init__(self, id: _Optional[str] = ..., subscribed: bool = ..., role: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ["since_modseq"]
    SINCE_MODSEQ_FIELD_NUMBER: _ClassVar[int]
    since_modseq: int
    def __init__(self, since_modseq: _Optional[int] = ...) -> None: ...

class Flag(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
