"""Whether a stored state can be read by its topic: quickly, for who looks at every event there is.

Nearly all states have the form in which they are written today, which a pattern recognises without building the fact.
Whatever has another one, as those of earlier versions, is read by the mapper itself.
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64, a2b_hex
from collections.abc import Callable
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from eventsourcing.persistence import Mapper, StoredEvent
from eventsourcing.utils import resolve_topic

from domain.events import ClientDetails, EndReason, Fact, Sealed
from store.sealing import FieldType, field_types

_TEXT = rb'"[ !#-\[\]-~]*+"'
_NUMBER = rb"(?:0|[1-9]\d{0,16})"
_ID = rb'"([^"]{32})"'
_BYTES = rb'"([^"]*+)"'

_PATTERNS: dict[Any, bytes] = {
    str: _TEXT,
    int: _NUMBER,
    bool: rb"(?:true|false)",
    UUID: _ID,
    datetime: _NUMBER,
    bytes: _BYTES,
    tuple[str, ...]: rb"\[(?:" + _TEXT + rb"(?:," + _TEXT + rb")*)?\]",
    EndReason: b'"(?:' + "|".join(EndReason).encode() + b')"',
    str | Sealed: _BYTES,
    ClientDetails | Sealed: _BYTES,
}


class Form(NamedTuple):
    """How the states of a topic are written: a pattern, and which of its groups are ids and which are base64."""

    match: Callable[[bytes], re.Match[bytes] | None]
    ids: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]
    encoded: tuple[int, ...]


class Legible:
    """Asks for each event whether what is stored can be read."""

    def __init__(self, mapper: Mapper[Any]) -> None:
        self._mapper = mapper
        self._topics = {kind.TOPIC for kind in kinds_of(Fact)}
        self._forms = {topic: form for topic in self._topics if (form := _form(resolve_topic(topic)))}

    def __call__(self, topic: str, state: bytes) -> bool:
        form = self._forms.get(topic)
        if form and (found := form.match(state)) and _is_well_encoded(form, found.groups(b"")):
            return True
        return self._is_read(topic, state)

    def _is_read(self, topic: str, state: bytes) -> bool:
        """Only known topics are resolved: resolving any other would import what it names."""
        if topic not in self._topics:
            return False
        try:
            self._mapper.to_domain_event(StoredEvent(UUID(int=0), 1, topic, state))
        except Exception:
            return False
        return True


def kinds_of(kind: Any) -> list[Any]:
    """Each kind of fact that has a topic of its own, of a class and those below it."""
    below = [each for one in kind.__subclasses__() for each in kinds_of(one)]
    return [*([kind] if "TOPIC" in vars(kind) else []), *below]


def _form(kind: type[Fact]) -> Form | None:
    """None for a kind of fact that the patterns do not know."""
    types = field_types(kind)
    if getattr(kind, "class_version", 1) > 1 or any(each.type not in _PATTERNS for each in types):
        return None
    pattern = b"".join(_field(number, each) for number, each in enumerate(types))
    groups = [each.type for each in types if b"([^" in _PATTERNS[each.type]]
    ids = itemgetter(*(at for at, group in enumerate(groups) if group is UUID))  # each fact has several
    encoded = tuple(at for at, group in enumerate(groups) if group is not UUID)
    return Form(re.compile(rb"\{" + pattern + rb"\}").fullmatch, ids, encoded)


def _field(number: int, field: FieldType) -> bytes:
    written = b'"%s":%s' % (field.name.encode(), _PATTERNS[field.type])
    if number == 0:
        return written
    return b"(?:,%s)?" % written if field.may_be_absent else b"," + written


def _is_well_encoded(form: Form, groups: tuple[bytes, ...]) -> bool:
    try:
        a2b_hex(b"".join(form.ids(groups)))
        for at in form.encoded:
            a2b_base64(groups[at], strict_mode=True)
    except Base64Error:
        return False
    return True
