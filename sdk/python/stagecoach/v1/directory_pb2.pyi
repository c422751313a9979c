from stagecoach.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AuthenticateRequest(_message.Message):
    __slots__ = ["authorization_identity", "client_ip", "password", "service", "username"]
    AUTHORIZATION_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    CLIENT_IP_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    authorization_identity: str
    client_ip: str
    password: str
    service: str
    username: str
    def __init__(self, username: _Optional[str] = ..., password: _Optional[str] = ..., authorization_identity: _Optional[str] = ..., client_ip: _Optional[str] = ..., service: _Optional[str] = ...) -> None: ...

class AuthenticateResponse(_message.Message):
    __slots__ = ["account", "addresses"]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    account: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, account: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class CredentialsRequest(_message.Message):
    __slots__ = ["mechanism", "username"]
    MECHANISM_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    mechanism: str
    username: str
    def __init__(self, username: _Optional[str] = ..., mechanism: _Optional[str] = ...) -> None: ...

class CredentialsResponse(_message.Message):
    __slots__ = ["account", "iterations", "salt", "server_key", "stored_key"]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    SERVER_KEY_FIELD_NUMBER: _ClassVar[int]
    STORED_KEY_FIELD_NUMBER: _ClassVar[int]
    account: str
    iterations: int
    salt: bytes
    server_key: bytes
    stored_key: bytes
    def __init__(self, account: _Optional[str] = ..., salt: _Optional[bytes] = ..., iterations: _Optional[int] = ..., stored_key: _Optional[bytes] = ..., server_key: _Optional[bytes] = ...) -> None: ...

class DirectoryCall(_message.Message):
    __slots__ = ["authenticate", "credentials", "domains", "resolve", "verify_token"]
    AUTHENTICATE_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    DOMAINS_FIELD_NUMBER: _ClassVar[int]
    RESOLVE_FIELD_NUMBER: _ClassVar[int]
    VERIFY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    authenticate: AuthenticateRequest
    credentials: CredentialsRequest
    domains: DomainsRequest
    resolve: ResolveRequest
    verify_token: VerifyTokenRequest
    def __init__(self, resolve: _Optional[_Union[ResolveRequest, _Mapping]] = ..., authenticate: _Optional[_Union[AuthenticateRequest, _Mapping]] = ..., credentials: _Optional[_Union[CredentialsRequest, _Mapping]] = ..., domains: _Optional[_Union[DomainsRequest, _Mapping]] = ..., verify_token: _Optional[_Union[VerifyTokenRequest, _Mapping]] = ...) -> None: ...

class DirectoryReply(_message.Message):
    __slots__ = ["authenticate", "credentials", "domains", "resolve", "verify_token"]
    AUTHENTICATE_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    DOMAINS_FIELD_NUMBER: _ClassVar[int]
    RESOLVE_FIELD_NUMBER: _ClassVar[int]
    VERIFY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    authenticate: AuthenticateResponse
    credentials: CredentialsResponse
    domains: DomainsResponse
    resolve: ResolveResponse
    verify_token: VerifyTokenResponse
    def __init__(self, resolve: _Optional[_Union[ResolveResponse, _Mapping]] = ..., authenticate: _Optional[_Union[AuthenticateResponse, _Mapping]] = ..., credentials: _Optional[_Union[CredentialsResponse, _Mapping]] = ..., domains: _Optional[_Union[DomainsResponse, _Mapping]] = ..., verify_token: _Optional[_Union[VerifyTokenResponse, _Mapping]] = ...) -> None: ...

class DomainsRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class DomainsResponse(_message.Message):
    __slots__ = ["domains"]
    DOMAINS_FIELD_NUMBER: _ClassVar[int]
    domains: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, domains: _Optional[_Iterable[str]] = ...) -> None: ...

class ResolveRequest(_message.Message):
    __slots__ = ["address"]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    address: str
    def __init__(self, address: _Optional[str] = ...) -> None: ...

class ResolveResponse(_message.Message):
    __slots__ = ["account", "catch_all", "detail", "fresh_ms", "quota_bytes", "reply", "result", "targets"]
    class Result(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    ALIAS: ResolveResponse.Result
    CATCH_ALL_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    DISABLED: ResolveResponse.Result
    FRESH_MS_FIELD_NUMBER: _ClassVar[int]
    MAILBOX: ResolveResponse.Result
    NOT_MINE: ResolveResponse.Result
    NO_SUCH_USER: ResolveResponse.Result
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    account: str
    catch_all: bool
    detail: str
    fresh_ms: int
    quota_bytes: int
    reply: _common_pb2.SMTPReply
    result: ResolveResponse.Result
    targets: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, result: _Optional[_Union[ResolveResponse.Result, str]] = ..., account: _Optional[str] = ..., detail: _Optional[str] = ..., targets: _Optional[_Iterable[str]] = ..., reply: _Optional[_Union[_common_pb2.SMTPReply, _Mapping]] = ..., catch_all: bool = ..., quota_bytes: _Optional[int] = ..., fresh_ms: _Optional[int] = ...) -> None: ...

class VerifyTokenRequest(_message.Message):
    __slots__ = ["client_ip", "host", "port", "service", "token", "username"]
    CLIENT_IP_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    client_ip: str
    host: str
    port: int
    service: str
    token: str
    username: str
    def __init__(self, token: _Optional[str] = ..., username: _Optional[str] = ..., client_ip: _Optional[str] = ..., service: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class VerifyTokenResponse(_message.Message):
    __slots__ = ["account", "addresses"]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    account: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, account: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ...) -> None: ...
