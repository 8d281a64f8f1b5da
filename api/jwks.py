"""The issuer's keys: a JSON Web Key Set (RFC 7517) in a file or behind a URL, and when to look for new ones."""

import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from joserfc import jwk
from joserfc.util import base64_to_int

from api.body import parse_json
from api.errors import Problem

FETCH_TIMEOUT = 5.0
MAX_JWKS = 1024 * 1024

_never = datetime.min.replace(tzinfo=UTC)


class KeysUnavailable(Problem):
    """The issuer's keys could not be fetched yet, so nothing can be verified: refused, never assumed valid (T-26)."""

    def __init__(self) -> None:
        super().__init__("keys-unavailable", "The keys that access tokens are verified with cannot be fetched.")


def key_set(place: str) -> "KeySet":
    """The keys at a file's path or an http(s) URL. Raises ValueError for an unusable file."""
    return _UrlKeys(place) if place.startswith(("http://", "https://")) else _FileKeys(place)


class KeySet:
    """The issuer's usable keys by key id and type, and when to look for new ones."""

    max_age: timedelta
    patience: timedelta  # at least so long between two looks

    def __init__(self, place: str) -> None:
        self._place = place
        self._keys: dict[tuple[str | None, str], jwk.Key] = {}
        self.looked_at = self.loaded_at = _never

    def load(self) -> None:
        raise NotImplementedError

    def due(self, now: datetime, unknown: bool) -> bool:
        return now - self.looked_at >= self.patience and (unknown or now - self.loaded_at >= self.max_age)

    def knows(self, kid: str | None) -> bool:
        return kid is None or any(kid == known for known, _ in self._keys)

    def find(self, kid: str | None, key_type: str) -> jwk.Key | None:
        """The key of this id; without an id, the only one of the type; None when that is not one key."""
        if not self._keys:
            raise KeysUnavailable
        of_type = [key for (known, kind), key in self._keys.items() if kind == key_type and kid in (known, None)]
        return of_type[0] if len(of_type) == 1 else None


class _FileKeys(KeySet):
    """Keys in a file, read again within a second after it changed."""

    max_age = patience = timedelta(seconds=1)

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._version: tuple[int, int, int] | None = None
        try:
            self.load()
        except (OSError, ValueError) as error:
            raise ValueError(f"JWKS file {place}: {error}") from error

    def load(self) -> None:
        file = Path(self._place)
        stat = file.stat()
        version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if version != self._version:
            self._keys = _usable_keys(file.read_bytes())
            self._version = version


class _UrlKeys(KeySet):
    """Keys behind a URL: fetched at the start, for an unknown key id, and every ten minutes so that removed ones go."""

    max_age, patience = timedelta(minutes=10), timedelta(seconds=30)

    def load(self) -> None:
        opener = urllib.request.build_opener(_NoRedirects)
        with opener.open(self._place, timeout=FETCH_TIMEOUT) as response:
            self._keys = _usable_keys(response.read(MAX_JWKS + 1))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The operator named the place of the keys; nobody else moves it, least of all from https to http."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _usable_keys(document: bytes) -> dict[tuple[str | None, str], jwk.Key]:
    """Raises ValueError when there is none. Keys that cannot be used are skipped (RFC 7517 §5)."""
    if len(document) > MAX_JWKS:
        raise ValueError(f"more than {MAX_JWKS} bytes")
    jwks = parse_json(document)
    entries = jwks.get("keys") if isinstance(jwks, dict) else None
    keys = [_usable_key(entry) for entry in entries] if isinstance(entries, list) else []
    usable = {(key.kid, key.key_type): key for key in keys if key is not None}
    if not usable:
        raise ValueError("no usable key")
    return usable


def _usable_key(entry: Any) -> jwk.Key | None:
    try:
        return jwk.import_key(entry) if _is_fit(entry) else None
    except Exception:  # whatever is wrong with one entry, the others stay usable
        return None


def _is_fit(entry: Mapping[str, Any]) -> bool:
    """A key that verifies signatures of `ALGORITHMS`: P-256, Ed25519, or RSA of at least 2048 bits (TOK-07)."""
    if entry.get("use", "sig") != "sig":
        return False
    if entry["kty"] == "RSA":
        return base64_to_int(entry["n"]).bit_length() >= 2048
    return (entry["kty"], entry["crv"]) in {("EC", "P-256"), ("OKP", "Ed25519")}
