"""Reads the golden corpus as a process that imports nothing of ours but `store.sealing`, and prints what it found."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from eventsourcing.persistence import StoredEvent

from store.sealing import ClientDetails, EndReason, Fact, Sealed, SealingMapper, unseal_client, unseal_user_id

KEY = bytes(range(32))
"""The key that sealed the corpus."""


class NoKeys:
    """Reading history, and writing what was read, needs no key."""

    def ensure(self, streams: Iterable[UUID]) -> Mapping[UUID, bytes]:
        raise AssertionError("a key was asked for")


def main(directory: Path) -> None:
    mapper, examples, stream = SealingMapper(NoKeys()), [], []
    for path in sorted(directory.glob("*.json")):
        for example in json.loads(path.read_text()):
            state = example["state"].encode()
            fact: Any = mapper.to_domain_event(
                StoredEvent(UUID(example["stream"]), example["version"], path.stem, state)
            )
            stream.append(fact)
            examples.append([path.stem, example["title"], read(mapper, fact)])
    print(json.dumps({"examples": examples, "replayed": replayed(stream), "topics": sorted({*topics(Fact)})}))


def read(mapper: SealingMapper, fact: Any) -> dict[str, Any]:
    again = mapper.to_stored_event(fact)
    return {
        "stream": str(fact.originator_id),
        "version": fact.originator_version,
        "facts": {
            field.name: described(getattr(fact, field.name))
            for field in fields(fact)
            if field.name not in ("originator_id", "originator_version")
        },
        "again": [str(again.originator_id), again.originator_version, again.topic, again.state.decode()],
        "opens_to": opened(fact),
    }


def described(value: Any) -> Any:
    """The value with its type: 'the same text' must not pass for the same fact."""
    match value:
        case EndReason():
            return {"reason": value.value}
        case None | bool() | int() | str():
            return value
        case UUID():
            return {"uuid": str(value)}
        case datetime():
            return {"moment": value.isoformat()}
        case bytes():
            return {"bytes": value.hex()}
        case Sealed():
            return {"sealed": value.ciphertext.hex()}
        case tuple():
            return {"tuple": [described(member) for member in value]}
    unexpected(value)


def unexpected(value: Any) -> NoReturn:
    raise TypeError(f"{value!r} has a type that no fact had before")


def opened(fact: Any) -> Any:
    if isinstance(getattr(fact, "user_id", None), Sealed):
        return unseal_user_id(KEY, fact)
    if isinstance(sealed := getattr(fact, "client", None), Sealed):
        client = unseal_client(KEY, sealed.ciphertext, fact.originator_id, fact.originator_version, fact.event_id)
        assert isinstance(client, ClientDetails)
        return {"ip_address": client.ip_address, "user_agent": client.user_agent}
    return None


def replayed(facts: list[Any]) -> dict[str, Any]:
    """The state of the user whose history most of the corpus is."""
    user: Any = None
    (stream,) = {fact.originator_id for fact in facts if fact.TOPIC == "UserEnrolled"}
    history = [fact for fact in facts if fact.originator_id == stream]
    for fact in sorted(history, key=lambda fact: fact.originator_version):
        user = fact.mutate(user)
    return user.state()


def topics(cls: type) -> Iterator[str]:
    for subclass in cls.__subclasses__():
        yield getattr(subclass, "TOPIC", f"{subclass.__qualname__} has no topic")
        yield from topics(subclass)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
