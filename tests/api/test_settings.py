import os
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from api.settings import Settings, SettingsError, load_settings, masked, settings_table, unknown_settings

ROOT = Path(__file__).parents[2]
DATABASE = "sqlite:///path/to/file or postgresql://user:password@host:port/database"
SWITCH = "1, true, yes or on; 0, false, no or off"
THIRTY_DAYS = 2592000
API_KEY = "k" * 32

LOWEST_AND_HIGHEST = {
    "PORT": (0, 65535),
    "IDLE_TIMEOUT": (1, THIRTY_DAYS),
    "ABSOLUTE_TIMEOUT": (1, THIRTY_DAYS),
    "REMEMBER_IDLE_TIMEOUT": (1, THIRTY_DAYS),
    "REMEMBER_ABSOLUTE_TIMEOUT": (1, THIRTY_DAYS),
    "TOUCH_INTERVAL": (0, 3600),
    "MAX_SESSIONS_PER_USER": (1, 1000),
    "GUESS_LIMIT": (0, 100_000),
}

BAD_INTEGERS = [
    (name, value, f"an integer from {lowest} to {highest}")
    for name, (lowest, highest) in LOWEST_AND_HIGHEST.items()
    for value in (
        str(lowest - 1),
        str(highest + 1),
        "",
        "many",
        "1.5",
        "60.0",
        "1e3",
        "1_0",
        " 5",
        "+5",
        "٣",
        "9" * 20,
    )
]

BAD_TEXTS = [
    ("DATABASE_URL", "", DATABASE),
    ("DATABASE_URL", "var/ledger.db", DATABASE),
    ("DATABASE_URL", "mysql://host/ledger", DATABASE),
    ("DATABASE_URL", "postgresql+asyncpg://host/ledger", DATABASE),
    ("DATABASE_URL", "postgresql://host", DATABASE),
    ("DATABASE_URL", "postgresql://host:port/ledger", DATABASE),
    ("DATABASE_URL", "sqlite://", DATABASE),
    ("DATABASE_URL", "sqlite:///", DATABASE),
    ("DATABASE_URL", "sqlite:///var/", DATABASE),
    ("DATABASE_URL", "sqlite:///:memory:", DATABASE),
    ("DATABASE_URL", "sqlite:///file:ledger?mode=memory&uri=true", DATABASE),
    ("DATABASE_URL", "sqlite:///ledger.db?timeout=5", DATABASE),
    ("DATABASE_URL", "sqlite://host/ledger.db", DATABASE),
    ("DATABASE_OWNER_URL", "", "a postgresql:// URL"),
    ("DATABASE_OWNER_URL", "sqlite:///var/owner.db", "a postgresql:// URL"),
    ("KEYS_DATABASE_URL", "", DATABASE),
    ("KEYS_DATABASE_URL", "sqlite://", DATABASE),
    ("HOST", "", "an IP address or a host name"),
    ("HOST", "not a host", "an IP address or a host name"),
    ("HOST", "256.0.0.1", "an IP address or a host name"),
    ("HOST", "http://localhost", "an IP address or a host name"),
    ("MASTER_KEY_FILE", "", "a file path"),
    ("SIGNING_KEY_FILE", "", "a file path"),
    ("ORIGIN", "", "a name without white space and plus signs"),
    ("ORIGIN", "a+b", "a name without white space and plus signs"),
    ("ORIGIN", "a b", "a name without white space and plus signs"),
    ("ORIGIN", "a" * 201, "a name without white space and plus signs"),
    ("JWT_ISSUER", "", "text without white space around it"),
    ("JWT_AUDIENCE", " ledger", "text without white space around it"),
    ("JWT_JWKS", "", "a file path or an http(s):// URL"),
    ("JWT_JWKS", "ftp://host/keys.json", "a file path or an http(s):// URL"),
    ("JWT_JWKS", "https://", "a file path or an http(s):// URL"),
    ("TRUSTED_PROXIES", "proxy.example", "IP addresses and CIDR networks"),
    ("TRUSTED_PROXIES", "10.0.0.1/8", "IP addresses and CIDR networks"),
    ("TRUSTED_PROXIES", "10.0.0.0/8,", "IP addresses and CIDR networks"),
    ("COOKIE_SAMESITE", "", "lax, strict or none"),
    ("COOKIE_SAMESITE", "loose", "lax, strict or none"),
    ("COOKIE_INSECURE", "", SWITCH),
    ("COOKIE_INSECURE", "2", SWITCH),
    ("STORE_CLIENT_DETAILS", "", SWITCH),
    ("STORE_CLIENT_DETAILS", "maybe", SWITCH),
]


def refusal(**variables: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        load_settings(environ(**variables))
    return str(refused.value).splitlines()


def environ(**variables: str) -> dict[str, str]:
    return {f"LEDGER_{name}": value for name, value in variables.items()}


class TestOneBadValue:
    @pytest.mark.parametrize(("name", "value", "allowed"), BAD_INTEGERS + BAD_TEXTS)
    def test_is_refused_by_variable_value_and_what_is_allowed(self, name: str, value: str, allowed: str):
        [line] = refusal(**{name: value})
        assert line.startswith(f"LEDGER_{name} is {value!r}; allowed: {allowed}")

    @pytest.mark.parametrize("key", ["", "too-short", "k" * 31])
    def test_of_a_key_too_short_to_be_one_is_shown(self, key: str):
        assert refusal(BOOTSTRAP_API_KEY=key) == [
            f"LEDGER_BOOTSTRAP_API_KEY is {key!r}; allowed: at least 32 printable ASCII characters without spaces"
        ]

    @pytest.mark.parametrize("key", ["k" * 31 + " ", "k" * 31 + "é"])
    def test_of_a_secret_that_may_be_in_use_elsewhere_is_not_shown(self, key: str):
        assert refusal(BOOTSTRAP_API_KEY=key) == [
            f"LEDGER_BOOTSTRAP_API_KEY is a text of {len(key)} characters; "
            "allowed: at least 32 printable ASCII characters without spaces"
        ]

    def test_of_a_url_is_shown_without_its_password(self):
        [line] = refusal(DATABASE_URL="mysql://ledger:pass@word@host/ledger")
        assert "'mysql://ledger:***@host/ledger'" in line

    def test_is_tried_for_every_setting(self):
        tried = {f"LEDGER_{name}" for name, _, _ in BAD_INTEGERS + BAD_TEXTS}
        assert tried | {"LEDGER_BOOTSTRAP_API_KEY"} == {row.variable for row in settings_table()}


def test_several_bad_values_are_told_at_once_each_on_its_line():
    lines = refusal(PORT="x", IDLE_TIMEOUT="y", COOKIE_SAMESITE="z")
    assert [line.split()[0] for line in lines] == ["LEDGER_PORT", "LEDGER_IDLE_TIMEOUT", "LEDGER_COOKIE_SAMESITE"]


class TestSettingsThatContradictEachOther:
    def test_idle_beyond_absolute(self):
        assert refusal(IDLE_TIMEOUT="101", ABSOLUTE_TIMEOUT="100") == [
            "LEDGER_IDLE_TIMEOUT is '101'; allowed: an integer from 1 to 100, in seconds, up to LEDGER_ABSOLUTE_TIMEOUT"
        ]

    def test_the_default_idle_beyond_absolute(self):
        [line] = refusal(ABSOLUTE_TIMEOUT="100")
        assert line.startswith("LEDGER_IDLE_TIMEOUT is not set, so 1800; allowed: an integer from 1 to 100")

    def test_idle_beyond_absolute_for_the_remembered(self):
        [line] = refusal(REMEMBER_IDLE_TIMEOUT="401", REMEMBER_ABSOLUTE_TIMEOUT="400")
        assert line.startswith("LEDGER_REMEMBER_IDLE_TIMEOUT is '401'; allowed: an integer from 1 to 400")

    @pytest.mark.parametrize("idle", ["IDLE_TIMEOUT", "REMEMBER_IDLE_TIMEOUT"])
    def test_touches_rarer_than_a_quarter_of_an_idle_timeout(self, idle: str):
        [line] = refusal(TOUCH_INTERVAL="26", **{idle: "100"})
        assert line.startswith("LEDGER_TOUCH_INTERVAL is '26'; allowed: an integer from 0 to 25")

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "ledger.example"])
    def test_an_insecure_cookie_beyond_loopback(self, host: str):
        [line] = refusal(COOKIE_INSECURE="1", HOST=host)
        assert line.startswith(f"LEDGER_COOKIE_INSECURE is '1'; allowed: off, as LEDGER_HOST is {host!r}")

    def test_a_part_of_the_jwt_settings(self):
        lines = refusal(JWT_ISSUER="https://issuer.example")
        assert [line.partition(";")[0] for line in lines] == [
            "LEDGER_JWT_AUDIENCE is not set",
            "LEDGER_JWT_JWKS is not set",
        ]

    def test_an_owner_for_a_sqlite_log(self):
        [line] = refusal(DATABASE_OWNER_URL="postgresql://owner:secret@host/ledger")
        assert line.startswith(
            "LEDGER_DATABASE_OWNER_URL is 'postgresql://owner:***@host/ledger'; allowed: only together"
        )

    def test_keys_in_the_log_that_they_seal(self):
        [line] = refusal(KEYS_DATABASE_URL="sqlite:///var/ledger.db")
        assert line.startswith("LEDGER_KEYS_DATABASE_URL is 'sqlite:///var/ledger.db'; allowed: a database other than")


class TestGoodValues:
    def test_defaults(self):
        assert load_settings({}).model_dump(mode="json") == {
            "database_url": "sqlite:///var/ledger.db",
            "database_owner_url": None,
            "keys_database_url": "sqlite:///var/keys.db",
            "host": "127.0.0.1",
            "port": 8000,
            "idle_timeout": 1800,
            "absolute_timeout": 43200,
            "remember_idle_timeout": 1209600,
            "remember_absolute_timeout": 2592000,
            "touch_interval": 60,
            "max_sessions_per_user": 50,
            "master_key_file": "var/master.key",
            "signing_key_file": None,
            "origin": "session-ledger",
            "bootstrap_api_key": None,
            "jwt_issuer": None,
            "jwt_audience": None,
            "jwt_jwks": None,
            "guess_limit": 100,
            "trusted_proxies": [],
            "cookie_samesite": "lax",
            "cookie_insecure": False,
            "store_client_details": True,
        }

    @pytest.mark.parametrize(("name", "bounds"), LOWEST_AND_HIGHEST.items())
    def test_bounds_belong_to_the_range(self, name: str, bounds: tuple[int, int]):
        roomy = environ(
            IDLE_TIMEOUT="14400",
            ABSOLUTE_TIMEOUT=str(THIRTY_DAYS),
            TOUCH_INTERVAL="0",
            REMEMBER_IDLE_TIMEOUT="14400",
            REMEMBER_ABSOLUTE_TIMEOUT=str(THIRTY_DAYS),
        )
        short = environ(IDLE_TIMEOUT="1", REMEMBER_IDLE_TIMEOUT="1")
        for bound, others in zip(bounds, (roomy | short, roomy), strict=True):
            settings = load_settings(others | environ(**{name: str(bound)}))
            assert getattr(settings, name.lower()) == bound

    @pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
    def test_postgresql_urls_come_out_in_one_form(self, scheme: str):
        address = "ledger:p%40ss@host:5432/ledger?options=-csearch_path%3Dpart_0"
        settings = load_settings(
            environ(DATABASE_URL=f"{scheme}://{address}", DATABASE_OWNER_URL=f"{scheme}://{address}")
        )
        assert settings.database_url == settings.database_owner_url == f"postgresql+psycopg://{address}"
        assert settings.database_url.is_postgresql

    def test_a_sqlite_url_stays_as_it_is(self):
        assert (
            load_settings(environ(DATABASE_URL="sqlite:////srv/ledger.db")).database_url == "sqlite:////srv/ledger.db"
        )

    def test_proxies_are_networks(self):
        settings = load_settings(environ(TRUSTED_PROXIES="10.0.0.0/8, 192.0.2.1,::1"))
        assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("192.0.2.1"), ip_network("::1"))

    def test_no_proxies_may_be_said_with_an_empty_value(self):
        assert load_settings(environ(TRUSTED_PROXIES="")).trusted_proxies == ()

    @pytest.mark.parametrize(
        ("value", "meant"), [("1", True), ("Yes", True), ("ON", True), ("0", False), ("off", False)]
    )
    def test_switches(self, value: str, meant: bool):
        assert load_settings(environ(STORE_CLIENT_DETAILS=value)).store_client_details is meant

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
    def test_an_insecure_cookie_on_loopback(self, host: str):
        assert load_settings(environ(COOKIE_INSECURE="1", HOST=host)).cookie_insecure

    def test_same_site_in_any_case(self):
        assert load_settings(environ(COOKIE_SAMESITE="Strict")).cookie_samesite == "strict"

    @pytest.mark.parametrize("key_set", ["keys.json", "/etc/keys.json", "http://host/keys", "https://host:8443/keys"])
    def test_all_three_jwt_settings(self, key_set: str):
        settings = load_settings(environ(JWT_ISSUER="https://issuer.example", JWT_AUDIENCE="ledger", JWT_JWKS=key_set))
        assert settings.jwt_jwks == key_set

    def test_the_default_touch_interval_follows_a_short_idle_timeout(self):
        assert load_settings(environ(IDLE_TIMEOUT="100")).touch_interval == 25
        assert load_settings(environ(REMEMBER_IDLE_TIMEOUT="8")).touch_interval == 2
        assert load_settings(environ(IDLE_TIMEOUT="1")).touch_interval == 0


def test_settings_made_by_hand_do_not_read_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LEDGER_PORT", "1")
    assert Settings().port == 8000


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_settings_show_no_secret():
    settings = load_settings(
        environ(
            DATABASE_URL="postgresql://ledger:secret@host/ledger?password=secret",
            KEYS_DATABASE_URL="postgresql://keys:secret@host/keys",
            BOOTSTRAP_API_KEY="secret" * 6,
        )
    )
    assert "secret" not in repr(settings) + str(settings)
    assert "postgresql+psycopg://ledger:***@host/ledger?password=***" in repr(settings)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://user@host/db", "postgresql://user@host/db"),
        ("postgresql://user:a:b@c@host:1/db", "postgresql://user:***@host:1/db"),
        ("postgresql:///db?host=/run&password=secret&x=1", "postgresql:///db?host=/run&password=***&x=1"),
        ("user:secret@host", "user:***@host"),
        ("postgresql:/user:secret@host", "postgresql:***@host"),
        ("https://host/path", "https://host/path"),
    ],
)
def test_masked_hides_passwords(text: str, shown: str):
    assert masked(text) == shown


def test_unknown_variables_are_named_with_the_nearest_known_one():
    unknown = environ(PROT="1", IDLE_TIMEOUTS="1", PORT="1") | {"PATH": "/bin", "LEDGER_XYZZY": "1"}
    assert unknown_settings(unknown) == [
        "LEDGER_IDLE_TIMEOUTS is not a setting; did you mean LEDGER_IDLE_TIMEOUT?",
        "LEDGER_PROT is not a setting; did you mean LEDGER_PORT?",
        "LEDGER_XYZZY is not a setting",
    ]


def test_the_table_has_a_row_for_each_setting_in_words():
    rows = settings_table()
    assert [row.variable for row in rows] == [f"LEDGER_{field.upper()}" for field in Settings.model_fields]
    assert all(row.default and row.allowed and row.meaning and "\n" not in "".join(row) for row in rows)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"PORT": "65536"}, "LEDGER_PORT is '65536'; allowed: an integer from 0 to 65535"),
        ({"DATABASE_URL": "sqlite://"}, f"LEDGER_DATABASE_URL is 'sqlite://'; allowed: {DATABASE}"),
        ({"IDLE_TIMEOUT": ""}, "LEDGER_IDLE_TIMEOUT is ''; allowed: an integer from 1 to 2592000"),
        ({"COOKIE_INSECURE": "1", "HOST": "0.0.0.0"}, "LEDGER_COOKIE_INSECURE is '1'; allowed: off"),
        ({"DATABASE_URL": "mysql://u:secret@host/db"}, "LEDGER_DATABASE_URL is 'mysql://u:***@host/db'"),
    ],
    ids=["range", "in-memory", "empty", "contradiction", "password"],
)
def test_the_server_refuses_bad_settings_and_creates_nothing(tmp_path: Path, variables: dict[str, str], told: str):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}
    server = subprocess.run(
        [sys.executable, "-m", "scripts.server"],
        cwd=tmp_path,
        env=kept | {"PYTHONPATH": str(ROOT)} | environ(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert server.returncode != 0
    assert told in server.stderr
    assert "secret" not in server.stderr
    assert list(tmp_path.iterdir()) == []
