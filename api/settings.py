"""The settings: `LEDGER_…` variables, checked as a whole before the program touches anything.

`load_settings` is how the program gets them. A `Settings(...)` made by hand, as tests do, never reads the environment.
"""

import difflib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, cast
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

PREFIX = "LEDGER_"
DAY = 24 * 60 * 60
SHORTEST_KEY = 32
NOTHING = "none"
SWITCHES = {"1", "true", "yes", "on", "0", "false", "no", "off"}


class DatabaseUrl(str):
    """A database's address, ready for SQLAlchemy. Its `repr` hides the password, so that no log line shows it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(masked(self))

    @property
    def is_postgresql(self) -> bool:
        return self.startswith("postgresql")

    @classmethod
    def parse(cls, value: str) -> Self:
        """Raises ValueError for anything but a SQLite file or a PostgreSQL database."""
        try:
            url = make_url(value)
        except ArgumentError as error:
            raise ValueError("not a database URL") from error
        match url.drivername:
            case "sqlite" if url.database and _names_a_file(url.database) and value == f"sqlite:///{url.database}":
                return cls(value)
            case "postgresql" | "postgres" | "postgresql+psycopg" if url.database:
                return cls(url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False))
        raise ValueError("neither a SQLite file nor a PostgreSQL database")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema())


def _names_a_file(path: str) -> bool:
    return path != ":memory:" and not path.startswith("file:") and not path.endswith("/")


def _postgresql(url: DatabaseUrl) -> DatabaseUrl:
    if not url.is_postgresql:
        raise ValueError("not PostgreSQL")
    return url


def _whole_number(value: Any) -> Any:
    # Pydantic alone reads `1_000`, ` 60 ` and `60.0` as integers too.
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise ValueError("not a whole number")
    return value


def _switch(value: Any) -> Any:
    if isinstance(value, str) and value.lower() not in SWITCHES:
        raise ValueError("neither on nor off")
    return value


def _lower_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _text(value: Any) -> Any:
    if isinstance(value, str) and (not value or value != value.strip()):
        raise ValueError("empty, or white space around it")
    return value


def _host(value: str) -> str:
    name = r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?"
    if _address(value) is None and not re.fullmatch(name, value):
        raise ValueError("neither an address nor a name")
    return value


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _networks(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(ipaddress.ip_network(part.strip()) for part in value.split(",")) if value else ()


def _api_key(key: SecretStr) -> SecretStr:
    if not re.fullmatch("[!-~]{" + str(SHORTEST_KEY) + ",}", key.get_secret_value()):
        raise ValueError("too short, or not printable ASCII")
    return key


def _origin(value: str) -> str:
    if not re.fullmatch(r"[^\s+]{1,200}", value) or not value.isprintable():
        raise ValueError("empty, too long, or with white space or a plus sign")
    return value


def _file_or_web_address(value: str) -> str:
    scheme, separator, _ = value.partition("://")
    if separator and (scheme.lower() not in {"http", "https"} or not urlsplit(value).hostname):
        raise ValueError("neither a file nor a web address")
    return value


PostgresqlUrl = Annotated[DatabaseUrl, AfterValidator(_postgresql)]
Integer = Annotated[int, BeforeValidator(_whole_number)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Text = Annotated[str, BeforeValidator(_text)]
Host = Annotated[str, AfterValidator(_host)]
FilePath = Annotated[Path, BeforeValidator(_text)]
Origin = Annotated[str, AfterValidator(_origin)]
KeySet = Annotated[Text, AfterValidator(_file_or_web_address)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks)]
SameSite = Annotated[Literal["lax", "strict", "none"], BeforeValidator(_lower_case)]


def _setting(meaning: str, allowed: str, default: Any = None, **more: Any) -> Any:
    if "default_factory" not in more:
        more["default"] = default
    return Field(
        description=f"{meaning}; {allowed}", json_schema_extra={"meaning": meaning, "allowed": allowed}, **more
    )


def _integer(meaning: str, default: int, lowest: int, highest: int) -> Any:
    return _setting(meaning, f"an integer from {lowest} to {highest}", default, ge=lowest, le=highest)


def _seconds(meaning: str, default: int | None, lowest: int, highest: int, **more: Any) -> Any:
    return _setting(meaning, _seconds_range(lowest, highest), default, ge=lowest, le=highest, **more)


def _seconds_range(lowest: int, highest: int) -> str:
    return f"an integer from {lowest} to {highest}, in seconds"


def _database(meaning: str, default: Any = None) -> Any:
    return _setting(meaning, "sqlite:///path/to/file or postgresql://user:password@host:port/database", default)


def _switchable(meaning: str, default: bool) -> Any:
    return _setting(meaning, "1, true, yes or on; 0, false, no or off", default)


def _default_touch_interval(validated: dict[str, Any]) -> int:
    return min(60, _quarter_of_idle(validated["idle_timeout"], validated["remember_idle_timeout"]))


def _quarter_of_idle(idle_timeout: int, remember_idle_timeout: int) -> int:
    return min(idle_timeout, remember_idle_timeout) // 4


class Settings(BaseSettings):
    """All settings, checked one by one and against each other. Durations are whole seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: DatabaseUrl = _database("The log and its read models", "sqlite:///var/ledger.db")
    database_owner_url: PostgresqlUrl | None = _setting(
        "Who creates the log's tables at start, where the role of `LEDGER_DATABASE_URL` must not own them",
        "a postgresql:// URL, when LEDGER_DATABASE_URL is one too",
    )
    keys_database_url: DatabaseUrl = _database(
        "The keys that seal personal data, in a database other than the log's", "sqlite:///var/keys.db"
    )
    host: Host = _setting("Address to listen on", "an IP address or a host name", "127.0.0.1")
    port: Integer = _integer("Port to listen on; 0 takes any free one", 8000, 0, 65535)

    idle_timeout: Integer = _seconds("Longest silence of a session", 1800, 1, 30 * DAY)
    absolute_timeout: Integer = _seconds("Longest life of a session, at least its longest silence", 43200, 1, 30 * DAY)
    remember_idle_timeout: Integer = _seconds("Longest silence of a remembered session", 14 * DAY, 1, 30 * DAY)
    remember_absolute_timeout: Integer = _seconds(
        "Longest life of a remembered session, at least its longest silence", 30 * DAY, 1, 30 * DAY
    )
    touch_interval: Integer = _seconds(
        "Uses closer together than this count as one, at most a quarter of both idle timeouts; "
        "when not set, 60 or that quarter, whichever is less",
        None,
        0,
        3600,
        default_factory=_default_touch_interval,
    )
    max_sessions_per_user: Integer = _integer(
        "Active sessions of one user; one more ends the least recently active", 50, 1, 1000
    )

    master_key_file: FilePath = _setting(
        "The master key, which wraps the keys of all users; made at the first start", "a file path", "var/master.key"
    )
    signing_key_file: FilePath | None = _setting(
        "The key that signs checkpoints of the log, made at the first start, and beside it the memory of what was "
        "signed last, best on a disk of its own; none: signing.key beside the master key",
        "a file path",
    )
    origin: Origin = _setting(
        "The name of this log, under which its checkpoints are signed for ever",
        "a name without white space and plus signs, as ledger.example/sessions",
        "session-ledger",
    )
    bootstrap_api_key: ApiKey | None = _setting(
        "A first API key, with every scope", "at least 32 printable ASCII characters without spaces"
    )
    jwt_issuer: Text | None = _setting(
        "The `iss` of accepted JWTs; set all three LEDGER_JWT_ settings or none", "text without white space around it"
    )
    jwt_audience: Text | None = _setting("The `aud` of accepted JWTs", "text without white space around it")
    jwt_jwks: KeySet | None = _setting(
        "The JSON Web Key Set that accepted JWTs are verified with", "a file path or an http(s):// URL"
    )
    guess_limit: Integer = _integer(
        "Wrong session ids of one caller, or unknown credentials from one address, in a minute until 429 is answered; "
        "0 for no limit",
        100,
        0,
        100_000,
    )
    trusted_proxies: Networks = _setting(
        "Proxies whose forwarding headers are believed",
        "IP addresses and CIDR networks, separated by commas, or empty for none",
        (),
    )
    cookie_samesite: SameSite = _setting("`SameSite` of the session cookie", "lax, strict or none", "lax")
    cookie_insecure: Switch = _switchable("Cookie without `Secure`, for development; only on a loopback host", False)
    store_client_details: Switch = _switchable("Keep IP address and user agent, sealed, with each session", True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @model_validator(mode="after")
    def _agree_with_each_other(self) -> Self:
        if problems := dict(_contradictions(self)):
            raise _ContradictionError(problems)
        return self


class _ContradictionError(ValueError):
    """Settings that are fine one by one but not together: each field at fault, with what it may be instead."""

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {allowed}" for field, allowed in problems.items()))
        self.problems = problems


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    yield from _timeout_contradictions(settings)
    yield from _jwt_contradictions(settings)
    if settings.database_owner_url and not settings.database_url.is_postgresql:
        yield "database_owner_url", "only together with a postgresql:// URL in LEDGER_DATABASE_URL"
    if settings.keys_database_url == settings.database_url:
        yield "keys_database_url", "a database other than that of LEDGER_DATABASE_URL"
    yield from _cookie_contradictions(settings)


def _cookie_contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.cookie_insecure and not is_loopback(settings.host):
        yield "cookie_insecure", f"off, as LEDGER_HOST is {settings.host!r} and not one of 127.0.0.0/8, ::1, localhost"
    elif settings.cookie_insecure and settings.cookie_samesite == "none":
        yield "cookie_samesite", "lax or strict, since browsers drop such a cookie without `Secure`"


def _timeout_contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.idle_timeout > settings.absolute_timeout:
        yield "idle_timeout", f"{_seconds_range(1, settings.absolute_timeout)}, up to LEDGER_ABSOLUTE_TIMEOUT"
    if settings.remember_idle_timeout > (longest := settings.remember_absolute_timeout):
        yield "remember_idle_timeout", f"{_seconds_range(1, longest)}, up to LEDGER_REMEMBER_ABSOLUTE_TIMEOUT"
    if settings.touch_interval > (quarter := _quarter_of_idle(settings.idle_timeout, settings.remember_idle_timeout)):
        yield "touch_interval", f"{_seconds_range(0, quarter)}, up to a quarter of the shorter idle timeout"


def _jwt_contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    fields = ("jwt_issuer", "jwt_audience", "jwt_jwks")
    missing = [field for field in fields if getattr(settings, field) is None]
    if len(missing) < len(fields):
        for field in missing:
            yield field, f"{_allowed(field)}, since another LEDGER_JWT_… is set: all three or none"


def is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host.lower() == "localhost"


class SettingsError(ValueError):
    """Settings that cannot be used. Its text has one line a problem: the variable, its value, what is allowed."""


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Reads the settings from environment variables and touches nothing else. Raises SettingsError."""
    given: dict[str, Any] = {
        field: environ[variable(field)] for field in Settings.model_fields if variable(field) in environ
    }
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = _problems(error)
    raise SettingsError("\n".join(_line(field, allowed, given) for field, allowed in problems.items()))


def _problems(error: ValidationError) -> dict[str, str]:
    """What each field at fault may be instead."""
    for detail in error.errors():
        if isinstance(contradiction := detail.get("ctx", {}).get("error"), _ContradictionError):
            return contradiction.problems
    fields = [str(detail["loc"][0]) for detail in error.errors() if detail["type"] != "default_factory_not_called"]
    return {field: _allowed(field) for field in fields}


def _line(field: str, allowed: str, given: Mapping[str, str]) -> str:
    if field not in given:
        value = "not set"
        if (default := _default(field)) != NOTHING:
            value += f", so {default}"
    elif field == "bootstrap_api_key" and len(given[field]) >= SHORTEST_KEY:
        value = f"a text of {len(given[field])} characters"  # it may be a key in use elsewhere
    else:
        value = repr(masked(given[field]))
    return f"{variable(field)} is {value}; allowed: {allowed}"


def unknown_settings(environ: Mapping[str, str]) -> list[str]:
    """One warning for each `LEDGER_…` variable that is no setting, with the nearest name that is one."""
    known = [variable(field) for field in Settings.model_fields]
    return [_warning(name) for name in sorted(environ) if name.startswith(PREFIX) and name not in known]


def _warning(name: str) -> str:
    nearest = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), Settings.model_fields, n=1)
    return f"{name} is not a setting" + (f"; did you mean {variable(nearest[0])}?" if nearest else "")


class SettingRow(NamedTuple):
    """A setting as the README's table shows it."""

    variable: str
    default: str
    allowed: str
    meaning: str


def settings_table() -> list[SettingRow]:
    return [SettingRow(variable(f), _default(f), _allowed(f), _extra(f)["meaning"]) for f in Settings.model_fields]


def variable(field: str) -> str:
    return PREFIX + field.upper()


def _default(field: str) -> str:
    match getattr(Settings(), field):
        case None | ():
            return NOTHING
        case bool(switch):
            return "on" if switch else "off"
        case value:
            return str(value)


def _allowed(field: str) -> str:
    return str(_extra(field)["allowed"])


def _extra(field: str) -> dict[str, Any]:
    return cast(dict[str, Any], Settings.model_fields[field].json_schema_extra)


def masked(text: str) -> str:
    """The text with what looks like a password in a URL replaced by `***`, rather too much of it than too little."""
    text = re.sub(r"^((?:[^/?]*//)?[^:@/]*:(?!//)).*@", r"\1***@", text, flags=re.DOTALL)
    return re.sub(r"(password=)[^&\s]*", r"\1***", text, flags=re.IGNORECASE)
