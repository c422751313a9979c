from stagecoach.v1 import common_pb2 as _common_pb2
from stagecoach.v1 import filter_pb2 as _filter_pb2
from stagecoach.v1 import storage_pb2 as _storage_pb2
from stagecoach.v1 import directory_pb2 as _directory_pb2
from stagecoach.v1 import deliver_pb2 as _deliver_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
KIND_ACCESS: Kind
KIND_DELIVER: Kind
KIND_DIRECTORY: Kind
KIND_FILTER: Kind
KIND_STORAGE: Kind
KIND_UNSPECIFIED: Kind

class Call(_message.Message):
    __slots__ = ["deadline_ms", "deliver", "directory", "filter", "storage"]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    DELIVER_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    deadline_ms: int
    deliver: _deliver_pb2.DeliverCall
    directory: _directory_pb2.DirectoryCall
    filter: _filter_pb2.FilterCall
    storage: _storage_pb2.StorageCall
    def __init__(self, deadline_ms: _Optional[int] = ..., filter: _Optional[_Union[_filter_pb2.FilterCall, _Mapping]] = ..., deliver: _Optional[_Union[_deliver_pb2.DeliverCall, _Mapping]] = ..., directory: _Optional[_Union[_directory_pb2.DirectoryCall, _Mapping]] = ..., storage: _Optional[_Union[_storage_pb2.StorageCall, _Mapping]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class ConfigureRequest(_message.Message):
    __slots__ = ["config_json", "config_msgpack", "data_dir", "data_socket_fd", "data_tokens", "grants", "hostname", "insecure_auth", "instance", "listeners", "spool_dirs", "tls"]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    CONFIG_MSGPACK_FIELD_NUMBER: _ClassVar[int]
    DATA_DIR_FIELD_NUMBER: _ClassVar[int]
    DATA_SOCKET_FD_FIELD_NUMBER: _ClassVar[int]
    DATA_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    INSECURE_AUTH_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    LISTENERS_FIELD_NUMBER: _ClassVar[int]
    SPOOL_DIRS_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    config_json: bytes
    config_msgpack: bytes
    data_dir: str
    data_socket_fd: int
    data_tokens: _containers.RepeatedScalarFieldContainer[str]
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    hostname: str
    insecure_auth: bool
    instance: str
    listeners: _containers.RepeatedCompositeFieldContainer[Listener]
    spool_dirs: _containers.RepeatedScalarFieldContainer[str]
    tls: TLS
    def __init__(self, instance: _Optional[str] = ..., config_msgpack: _Optional[bytes] = ..., config_json: _Optional[bytes] = ..., data_dir: _Optional[str] = ..., hostname: _Optional[str] = ..., grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., listeners: _Optional[_Iterable[_Union[Listener, _Mapping]]] = ..., data_socket_fd: _Optional[int] = ..., data_tokens: _Optional[_Iterable[str]] = ..., tls: _Optional[_Union[TLS, _Mapping]] = ..., insecure_auth: bool = ..., spool_dirs: _Optional[_Iterable[str]] = ...) -> None: ...

class ConfigureResponse(_message.Message):
    __slots__ = ["diagnostics", "filter"]
    DIAGNOSTICS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    diagnostics: _containers.RepeatedCompositeFieldContainer[Diagnostic]
    filter: _filter_pb2.FilterInterest
    def __init__(self, diagnostics: _Optional[_Iterable[_Union[Diagnostic, _Mapping]]] = ..., filter: _Optional[_Union[_filter_pb2.FilterInterest, _Mapping]] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ["delta", "features"]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    delta: int
    features: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, delta: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ["core_version"]
    CORE_VERSION_FIELD_NUMBER: _ClassVar[int]
    core_version: str
    def __init__(self, core_version: _Optional[str] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ["features", "filter", "kind", "max_concurrent", "name", "needs", "schema", "summary", "version"]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEEDS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    features: _containers.RepeatedScalarFieldContainer[str]
    filter: _filter_pb2.FilterInterest
    kind: Kind
    max_concurrent: int
    name: str
    needs: Needs
    schema: Schema
    summary: str
    version: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[Kind, str]] = ..., version: _Optional[str] = ..., summary: _Optional[str] = ..., features: _Optional[_Iterable[str]] = ..., schema: _Optional[_Union[Schema, _Mapping]] = ..., max_concurrent: _Optional[int] = ..., filter: _Optional[_Union[_filter_pb2.FilterInterest, _Mapping]] = ..., needs: _Optional[_Union[Needs, _Mapping]] = ...) -> None: ...

class Diagnostic(_message.Message):
    __slots__ = ["detail", "path", "severity", "summary"]
    class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ERROR: Diagnostic.Severity
    PATH_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    WARNING: Diagnostic.Severity
    detail: str
    path: _containers.RepeatedCompositeFieldContainer[PathStep]
    severity: Diagnostic.Severity
    summary: str
    def __init__(self, severity: _Optional[_Union[Diagnostic.Severity, str]] = ..., summary: _Optional[str] = ..., detail: _Optional[str] = ..., path: _Optional[_Iterable[_Union[PathStep, _Mapping]]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ["deadline_ms"]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    deadline_ms: int
    def __init__(self, deadline_ms: _Optional[int] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class Frame(_message.Message):
    __slots__ = ["call", "cancel", "credit", "id", "reply"]
    CALL_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    call: Call
    cancel: Cancel
    credit: Credit
    id: int
    reply: Reply
    def __init__(self, id: _Optional[int] = ..., call: _Optional[_Union[Call, _Mapping]] = ..., reply: _Optional[_Union[Reply, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ["address", "instance", "role", "token", "upload_dir"]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_DIR_FIELD_NUMBER: _ClassVar[int]
    address: str
    instance: str
    role: str
    token: str
    upload_dir: str
    def __init__(self, role: _Optional[str] = ..., instance: _Optional[str] = ..., address: _Optional[str] = ..., token: _Optional[str] = ..., upload_dir: _Optional[str] = ...) -> None: ...

class HealthRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class HealthResponse(_message.Message):
    __slots__ = ["detail", "ok"]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    detail: str
    ok: bool
    def __init__(self, ok: bool = ..., detail: _Optional[str] = ...) -> None: ...

class Listener(_message.Message):
    __slots__ = ["address", "fd", "implicit_tls"]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    IMPLICIT_TLS_FIELD_NUMBER: _ClassVar[int]
    address: str
    fd: int
    implicit_tls: bool
    def __init__(self, fd: _Optional[int] = ..., address: _Optional[str] = ..., implicit_tls: bool = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ["counter", "help", "labels", "name", "value"]
    class LabelsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    HELP_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    counter: bool
    help: str
    labels: _containers.ScalarMap[str, str]
    name: str
    value: float
    def __init__(self, name: _Optional[str] = ..., help: _Optional[str] = ..., counter: bool = ..., value: _Optional[float] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class MetricsRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class MetricsResponse(_message.Message):
    __slots__ = ["metrics"]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    def __init__(self, metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ...) -> None: ...

class Needs(_message.Message):
    __slots__ = ["data_dir", "exclusive", "network", "programs", "read_paths", "write_paths"]
    DATA_DIR_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    PROGRAMS_FIELD_NUMBER: _ClassVar[int]
    READ_PATHS_FIELD_NUMBER: _ClassVar[int]
    WRITE_PATHS_FIELD_NUMBER: _ClassVar[int]
    data_dir: bool
    exclusive: bool
    network: bool
    programs: bool
    read_paths: _containers.RepeatedScalarFieldContainer[str]
    write_paths: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, network: bool = ..., data_dir: bool = ..., read_paths: _Optional[_Iterable[str]] = ..., write_paths: _Optional[_Iterable[str]] = ..., exclusive: bool = ..., programs: bool = ...) -> None: ...

class PathStep(_message.Message):
    __slots__ = ["index", "name"]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    def __init__(self, name: _Optional[str] = ..., index: _Optional[int] = ...) -> None: ...

class ReadyRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class ReadyResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class RebindRequest(_message.Message):
    __slots__ = ["data_tokens", "grants"]
    DATA_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    data_tokens: _containers.RepeatedScalarFieldContainer[str]
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    def __init__(self, grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., data_tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class RebindResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class Reply(_message.Message):
    __slots__ = ["deliver", "directory", "filter", "more", "problem", "storage"]
    DELIVER_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    deliver: _deliver_pb2.DeliverReply
    directory: _directory_pb2.DirectoryReply
    filter: _filter_pb2.FilterReply
    more: bool
    problem: _common_pb2.Problem
    storage: _storage_pb2.StorageReply
    def __init__(self, more: bool = ..., problem: _Optional[_Union[_common_pb2.Problem, _Mapping]] = ..., filter: _Optional[_Union[_filter_pb2.FilterReply, _Mapping]] = ..., deliver: _Optional[_Union[_deliver_pb2.DeliverReply, _Mapping]] = ..., directory: _Optional[_Union[_directory_pb2.DirectoryReply, _Mapping]] = ..., storage: _Optional[_Union[_storage_pb2.StorageReply, _Mapping]] = ...) -> None: ...

class Schema(_message.Message):
    __slots__ = ["block"]
    class Attribute(_message.Message):
        __slots__ = ["default_json", "doc", "example", "live_reload", "name", "one_of", "required", "semantic", "sensitive", "type"]
        DEFAULT_JSON_FIELD_NUMBER: _ClassVar[int]
        DOC_FIELD_NUMBER: _ClassVar[int]
        EXAMPLE_FIELD_NUMBER: _ClassVar[int]
        LIVE_RELOAD_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        ONE_OF_FIELD_NUMBER: _ClassVar[int]
        REQUIRED_FIELD_NUMBER: _ClassVar[int]
        SEMANTIC_FIELD_NUMBER: _ClassVar[int]
        SENSITIVE_FIELD_NUMBER: _ClassVar[int]
        TYPE_FIELD_NUMBER: _ClassVar[int]
        default_json: bytes
        doc: str
        example: str
        live_reload: bool
        name: str
        one_of: _containers.RepeatedScalarFieldContainer[str]
        required: bool
        semantic: str
        sensitive: bool
        type: bytes
        def __init__(self, name: _Optional[str] = ..., type: _Optional[bytes] = ..., required: bool = ..., default_json: _Optional[bytes] = ..., doc: _Optional[str] = ..., sensitive: bool = ..., semantic: _Optional[str] = ..., one_of: _Optional[_Iterable[str]] = ..., example: _Optional[str] = ..., live_reload: bool = ...) -> None: ...
    class Block(_message.Message):
        __slots__ = ["attributes", "blocks", "doc"]
        ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
        BLOCKS_FIELD_NUMBER: _ClassVar[int]
        DOC_FIELD_NUMBER: _ClassVar[int]
        attributes: _containers.RepeatedCompositeFieldContainer[Schema.Attribute]
        blocks: _containers.RepeatedCompositeFieldContainer[Schema.NestedBlock]
        doc: str
        def __init__(self, attributes: _Optional[_Iterable[_Union[Schema.Attribute, _Mapping]]] = ..., blocks: _Optional[_Iterable[_Union[Schema.NestedBlock, _Mapping]]] = ..., doc: _Optional[str] = ...) -> None: ...
    class NestedBlock(_message.Message):
        __slots__ = ["block", "labels", "max", "min", "name"]
        BLOCK_FIELD_NUMBER: _ClassVar[int]
        LABELS_FIELD_NUMBER: _ClassVar[int]
        MAX_FIELD_NUMBER: _ClassVar[int]
        MIN_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        block: Schema.Block
        labels: _containers.RepeatedScalarFieldContainer[str]
        max: int
        min: int
        name: str
        def __init__(self, name: _Optional[str] = ..., block: _Optional[_Union[Schema.Block, _Mapping]] = ..., labels: _Optional[_Iterable[str]] = ..., min: _Optional[int] = ..., max: _Optional[int] = ...) -> None: ...
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    block: Schema.Block
    def __init__(self, block: _Optional[_Union[Schema.Block, _Mapping]] = ...) -> None: ...

class TLS(_message.Message):
    __slots__ = ["cert_pem", "key_pem"]
    CERT_PEM_FIELD_NUMBER: _ClassVar[int]
    KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    cert_pem: bytes
    key_pem: bytes
    def __init__(self, cert_pem: _Optional[bytes] = ..., key_pem: _Optional[bytes] = ...) -> None: ...

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
