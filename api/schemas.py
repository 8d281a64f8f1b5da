"""What goes over the wire. Names are Aero2's; unknown members of a request are refused (API-12)."""

import ipaddress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, to_json
from starlette.responses import Response

from api.names import Documented, NewName, UserId
from domain.events import EndReason
from projections.moments import RFC_3339, exact_moment


class Json(Response):
    """An answer of plain members as pydantic writes them; its route names the model that describes them."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content)


TOKEN_PATTERN = r"^[A-Za-z0-9_-]{43}$"
TOKEN_EXAMPLE = "AHk3p0mLr4dV5b8yqWz1nXcTfGhJ2sKe6uQiOaPvRtM"
NO_NUL_PATTERN = r"^[^\u0000]*$"

_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799  # of the years 1 to 9999


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("not an IPv4 or IPv6 address") from None
    if "%" in text:
        raise ValueError("an address with a zone, which may be any text, means nothing here")
    return str(address)


def _moment(value: object) -> object:
    """RFC 3339 or seconds since 1970. Left alone, pydantic takes digits in a string, and milliseconds for seconds."""
    match value:
        case bool():
            raise ValueError("not a moment")
        case str():
            return exact_moment(value)
        case int() | float():
            return _since_1970(value)
    return value


def _since_1970(seconds: float) -> datetime:
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise ValueError("not a moment of the years 1 to 9999 in UTC")
    return datetime.fromtimestamp(seconds, UTC)


Token = Annotated[str, StringConstraints(pattern=TOKEN_PATTERN)]
Method = Annotated[NewName, StringConstraints(max_length=64)]
Address = Annotated[str, AfterValidator(_address), Documented(anyOf=[{"format": "ipv4"}, {"format": "ipv6"}])]
UserAgent = Annotated[str, StringConstraints(max_length=8192), Documented(pattern=NO_NUL_PATTERN)]
Moment = Annotated[
    AwareDatetime,
    Field(strict=False),
    BeforeValidator(_moment),
    Documented(
        type=["string", "number"], format="date-time", minimum=_FIRST_SECOND, maximum=_LAST_SECOND
    ),  # each keyword speaks of one of the types
]
MomentInUrl = Annotated[
    AwareDatetime,
    BeforeValidator(_moment),
    Documented(pattern=RFC_3339.pattern),
]


class NewSession(_Request):
    """A sign-in, as the sign-in service tells it."""

    user_id: NewName = Field(description="The person who signed in; at most 255 bytes.", examples=["alice@example.com"])
    ip_address: Address | None = Field(
        None, description="The person's address, not the service's.", examples=["203.0.113.7"]
    )
    user_agent: UserAgent | None = Field(
        None, description="The person's browser; kept up to 512 bytes.", examples=["Mozilla/5.0 (Macintosh; …"]
    )
    remember_me: bool = Field(False, description="Use the longer timeouts and a persistent cookie.")
    idp_name: NewName | None = Field(None, description="Who authenticated the person.", examples=["google"])
    auth_time: Moment | None = Field(
        None, description="When the person last authenticated (RFC 3339, or seconds since 1970).",
        examples=["2026-11-23T10:00:00Z"],
    )  # fmt: skip
    amr: Annotated[list[Method], Field(max_length=16)] = Field(
        default_factory=list, description="Authentication methods, RFC 8176.", examples=[["pwd", "otp"]]
    )
    replaces: Token | None = Field(
        None, description="A session token of the same user, ended in the same append: re-authentication.",
        examples=[TOKEN_EXAMPLE],
    )  # fmt: skip


class RevokeAll(_Request):
    """Which sessions to end."""

    except_current: bool = Field(False, description="Keep the session that asks.")


class _WithoutNull:
    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        [given, _] = handler(core)["anyOf"]
        return dict(given)


def _not_null(value: object) -> object:
    """What is left out has a wide meaning; a null is what somebody failed to find."""
    if value is None:
        raise ValueError("must not be null: leave it out to mean all")
    return value


_NotNull = BeforeValidator(_not_null)
_Some = Annotated[list[UserId], Field(min_length=1, max_length=100)]


class BulkRevocation(_Request):
    """Whose sessions to end, and why. Without `user_ids`: everybody's."""

    created_before: Annotated[Moment | None, _NotNull, _WithoutNull()] = Field(
        None, description="End the sessions that were created before this moment; by default all up to now.",
        examples=["2026-11-26T10:00:00Z"],
    )  # fmt: skip
    user_ids: Annotated[_Some | None, _NotNull, _WithoutNull()] = Field(
        None, description="Whose sessions; at most 100 users. One whom nobody knows has none.",
        examples=[["alice@example.com"]],
    )  # fmt: skip
    reason: Literal["revoked_by_admin", "revoke_all"] = Field(
        description="What the history will say of the ended sessions.", examples=["revoked_by_admin"]
    )
    dry_run: bool = Field(description="Only count what would be ended.", examples=[True])


class SessionOut(_Answer):
    """An active session of the user."""

    id: UUID = Field(
        description="Public: names the session and opens nothing.", examples=["6f1c7a52-93f4-4f0e-9d7b-0c6a7e1f2b3d"]
    )
    user_agent: str | None = Field(examples=["Mozilla/5.0 (Macintosh; …"])
    device: str = Field(examples=["Chrome on macOS"])
    ip_address: str | None = Field(examples=["203.0.113.7"])
    created_at: datetime = Field(examples=["2026-11-23T10:00:00.123456Z"])
    last_active_at: datetime = Field(
        description="Exact to `touch_precision_seconds` of the session check.", examples=["2026-11-23T10:05:00.123456Z"]
    )
    expires_at: datetime = Field(
        description="When it ends unless it is used before.", examples=["2026-11-23T10:35:00.123456Z"]
    )
    idp_name: str | None = Field(examples=["google"])
    remember_me: bool = Field(examples=[False])
    is_current: bool = Field(description="Whether this session made the request.", examples=[True])


class EndedSessionOut(SessionOut):
    """A session of the user's history; the three last members are null while it is active."""

    ended_at: datetime | None = Field(examples=["2026-11-23T10:20:00.123456Z"])
    end_reason: EndReason | None = Field(examples=["signed_out"])
    ended_by: str | None = Field(
        description="`self`, `user:<pseudonym>`, `key:<key id>` or `policy:<name>`.", examples=["self"]
    )


class SessionList(_Answer):
    """All active sessions, newest activity first; or, with `status`, a page of the history, newest sign-in first; or
    those that were active at a moment, and how each has ended since."""

    sessions: list[EndedSessionOut | SessionOut]
    as_of: datetime | None = Field(
        None, description="The moment that was asked about, if one was.", examples=["2026-11-23T10:00:00Z"]
    )
    position: str | None = Field(
        None, description="The last event that had been recorded by then.", examples=["4711"], pattern="^[0-9]+$"
    )


class CurrentSession(_Answer):
    """The session behind the request."""

    session: SessionOut
    user_id: str = Field(examples=["alice@example.com"])
    touch_precision_seconds: int = Field(
        description="Uses closer together than this are recorded as one.", examples=[60]
    )


class SessionStarted(_Answer):
    """A new session. The token is shown this once."""

    session: SessionOut
    token: str = Field(pattern=TOKEN_PATTERN, examples=[TOKEN_EXAMPLE])
    cookie: str = Field(
        description="The value of a `Set-Cookie` header for the person's browser.",
        examples=[f"__Host-sid={TOKEN_EXAMPLE}; Path=/; Secure; HttpOnly; SameSite=Lax"],
    )


class Introspection(_Answer):
    """RFC 7662 §2.2: of a token that is not active nothing is told but that. Moments are seconds since 1970."""

    active: bool = Field(examples=[True])
    iss: str | None = Field(None, description="Who issued the JWT.", examples=["https://id.example"])
    sub: str | None = Field(None, description="The user's id, or the client's.", examples=["alice@example.com"])
    client_id: str | None = Field(None, description="The client of the JWT.", examples=["web"])
    sid: UUID | None = Field(
        None, description="The public id of the session.", examples=["6f1c7a52-93f4-4f0e-9d7b-0c6a7e1f2b3d"]
    )
    token_type: str | None = Field(None, examples=["Bearer"])
    scope: str | None = Field(None, description="The scopes of the JWT.", examples=["sessions:create"])
    iat: int | None = Field(None, description="When the token was issued.", examples=[1795687200])
    exp: int | None = Field(None, description="When it ends, at the latest.", examples=[1795689000])
    auth_time: int | None = Field(None, description="When the user last authenticated.", examples=[1795687200])
    amr: list[str] | None = Field(None, description="How the user authenticated (RFC 8176).", examples=[["pwd", "otp"]])
    acr: str | None = Field(None, description="How well, as the JWT says.", examples=["aal2"])


class Message(_Answer):
    """What happened."""

    message: str = Field(examples=["Session revoked"])


class RevokedCount(_Answer):
    """How many sessions this ended."""

    revoked_count: int = Field(examples=[3])


class RevokedSessions(Message):
    """What happened, and how many sessions this ended."""

    message: str = Field(examples=["Sessions revoked"])
    revoked_count: int = Field(examples=[3])


class BulkRevoked(Message):
    """How many sessions were ended, or would be."""

    message: str = Field(examples=["Sessions revoked"])
    dry_run: bool = Field(examples=[False])
    revoked_count: int | None = Field(
        description="Sessions; null when everybody was signed out and to count them took too long.", examples=[120]
    )
    user_count: int | None = Field(description="Users whose sessions these are.", examples=[80])
    created_before: datetime = Field(
        description="Sessions created before this moment were meant.", examples=["2026-11-26T10:00:00Z"]
    )
    correlation_id: UUID | None = Field(
        description="What every fact of the run has; null for a dry run.",
        examples=["01936f0e-8f5a-7c11-9d3e-5a1f0c2b7a10"],
    )


class UserState(Message):
    """Whether the user may have sessions."""

    message: str = Field(examples=["User disabled"])
    user_id: str = Field(examples=["alice@example.com"])
    disabled: bool = Field(examples=[True])


class AuditEvent(_Answer):
    """An event of the log. Names and client details are null without the scope `audit:personal`, and once a user was
    erased."""

    id: UUID = Field(examples=["01936f0e-8f5a-7c11-9d3e-5a1f0c2b7a10"])
    position: int = Field(description="Its place in the log.", examples=[4711])
    event_type: str = Field(examples=["SessionCreated"])
    timestamp: datetime = Field(description="When it happened.", examples=["2026-11-26T10:00:00.123456Z"])
    recorded_at: datetime = Field(
        description="When it was recorded; never decreases along the log.", examples=["2026-11-26T10:00:00.124001Z"]
    )
    stream: UUID = Field(
        description="The pseudonym of the user whom it is about.", examples=["5f0c2b7a-1093-8f0e-8f5a-7c119d3e5a1f"]
    )
    user_id: str | None = Field(examples=["alice@example.com"])
    session_id: UUID | None = Field(examples=["6f1c7a52-93f4-4f0e-9d7b-0c6a7e1f2b3d"])
    actor: str = Field(
        description="`self`, `operator`, `user:<pseudonym>`, `key:<key id>` or `policy:<name>`.",
        examples=["key:078088134469"],
    )
    actor_name: str | None = Field(description="The user's id, or the name of the key.", examples=["sign-in service"])
    reason: str | None = Field(description="Of an end.", examples=["signed_out"])
    ip_address: str | None = Field(description="Of a sign-in.", examples=["203.0.113.7"])
    user_agent: str | None = Field(description="Of a sign-in.", examples=["Mozilla/5.0 (Macintosh; …"])
    correlation_id: UUID = Field(
        description="The request that it came of.", examples=["01936f0e-8f5a-7c11-9d3e-5a1f0c2b7a11"]
    )
    causation_id: UUID | None = Field(
        description="The event that a policy answered with it.", examples=["01936f0e-8f5a-7c11-9d3e-5a1f0c2b7a12"]
    )


class _AuditAnswer(_Answer):
    position: int = Field(description="The answer has every event of the log up to here.", examples=[4711])
    head: int = Field(description="Where the log ended when it was made.", examples=[4711])


class AuditPage(_AuditAnswer):
    """A page of events, newest first."""

    events: list[AuditEvent]


class AuditEventAnswer(_AuditAnswer):
    """One event."""

    event: AuditEvent


class EventTypeCount(_Answer):
    """How many events of a type there are."""

    event_type: str = Field(examples=["SessionCreated"])
    count: int = Field(examples=[123])


class AuditEventTypes(_AuditAnswer):
    """Every type of event that the log has."""

    event_types: list[EventTypeCount]


class ErasedUser(Message):
    """The user is forgotten, and refused for ever."""

    message: str = Field(examples=["User erased"])
    user_id: str = Field(examples=["alice@example.com"])
    erased: bool = Field(examples=[True])


HASH = "LP73YnWX4AtWSXV3Stco7yEHBnWfym1kE4xt/By/LNo="


class InclusionProof(_Answer):
    """With the event's leaf, this leads to the root of the checkpoint. Hashes are SHA-256 in base64."""

    position: int = Field(examples=[4711], description="Counts from 1; the leaf's index counts from 0.")
    leaf_hash: str = Field(examples=[HASH])
    size: int = Field(examples=[5000], description="How many events the checkpoint covers.")
    proof: list[str] = Field(examples=[[HASH]], description="From the leaf's neighbour to below the root.")
    checkpoint: str = Field(examples=[f"session-ledger\n5000\n{HASH}\n\n— session-ledger AAAA\n"])


class ConsistencyProof(_Answer):
    """With both roots, this shows that nothing before `from` was altered. Hashes are SHA-256 in base64."""

    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)

    first: int = Field(alias="from", examples=[4711])
    to: int = Field(examples=[5000])
    from_root: str = Field(examples=[HASH])
    to_root: str = Field(examples=[HASH])
    proof: list[str] = Field(examples=[[HASH]])


class Health(_Answer):
    status: str = Field(examples=["ok"])


class FollowerProgress(_Answer):
    """How far a policy or a projection has come along the log."""

    name: str = Field(examples=["revoke-sessions-on-user-disabled"])
    position: int = Field(examples=[4711])
    lag_events: int = Field(examples=[0])
    lag_seconds: float = Field(examples=[0.0])
    events_per_second: float = Field(description="Of its last batch in this process.", examples=[12000.0])
    parked: str | None = Field(description="Why it goes no further until it is resumed.", examples=[None])


class SealingProgress(_Answer):
    """How far the log is sealed by a signed checkpoint."""

    size: int = Field(examples=[4711])
    unsealed_events: int = Field(examples=[0])
    refused: str | None = Field(description="Why this process signs nothing more.", examples=[None])


class Readiness(_Answer):
    """`ready`, or `degraded` when one of these is parked or no checkpoint is signed: access depends on none of them."""

    status: str = Field(examples=["ready"])
    is_leader: bool = Field(description="Whether this process follows the log.", examples=[True])
    clock_drift_seconds: float = Field(examples=[0.0])
    policies: list[FollowerProgress]
    projections: list[FollowerProgress] = Field(description="The read models that follow the log.")
    sealing: SealingProgress
