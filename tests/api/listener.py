"""A client that listens, on the application's own loop: httpx waits for the whole of an answer."""

import asyncio
import json
from typing import Any
from urllib.parse import urlencode

from tests.api.client import Api, Headers, until

Event = dict[str, Any]


class Listener:
    """Somebody who has asked for an answer that takes long, and keeps what comes; or takes nothing but its head."""

    def __init__(self, api: Api, path: str, headers: Headers, query: dict[str, str], *, takes: bool = True) -> None:
        self._api = api
        self.body = b""
        self.status: int | None = None
        self._takes = takes
        self._gone = api.ask(_event)
        fields = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
            "scheme": "https", "path": path, "raw_path": path.encode(), "headers": fields,
            "query_string": urlencode(query).encode(), "server": ("ledger.example", 443), "client": ("192.0.2.7", 1),
        }  # fmt: skip
        self._asked = False
        self.answering = api._portal.start_task_soon(api.app, scope, self._receive, self._send)
        until(lambda: self.status is not None)

    async def _receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        if message["type"] == "http.response.body" and not self._takes:
            await asyncio.Event().wait()
        self.body += message.get("body", b"")

    @property
    def events(self) -> list[Event]:
        blocks = self.body.decode().split("\n\n")
        found = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks if "data: " in block]
        events = [json.loads(fields["data"]) for fields in found]
        assert [fields["id"] for fields in found] == [event["id"] for event in events]
        return events

    @property
    def is_over(self) -> bool:
        return self.answering.done()

    def hang_up(self) -> None:
        async def go() -> None:
            self._gone.set()

        self._api.ask(go)


async def _event() -> asyncio.Event:
    return asyncio.Event()
