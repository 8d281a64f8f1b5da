"""Bodies that one parser would read one way and another differently never get in (API-12, T-14, WEB-06)."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from api.body import MalformedJson, StrictRoute, accepts_form, parse_json
from api.errors import install

JSON = {"content-type": "application/json"}

MALFORMED = {
    "not UTF-8": b'{"a":"\xff"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"a":1}',
    "cut off": b'{"a":',
    "two values": b"{}{}",
    "single quotes": b"{'a':1}",
    "trailing comma": b'{"a":1,}',
    "comment": b'{"a":1}//',
    "control character": b'{"a":"\n"}',
    "blank": b"  ",
    "duplicate member": b'{"a":1,"a":2}',
    "duplicate member, escaped": b'{"a":1,"\\u0061":2}',
    "duplicate member, inner": b'{"b":[{"a":1,"a":2}]}',
    "duplicate member, half a surrogate": b'{"\\ud800":1,"\\ud800":2}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "infinite by exponent": b'{"a":1e999}',
    "lone high surrogate": b'{"a":"\\ud83d"}',
    "lone low surrogate": b'{"a":"\\ude00x"}',
    "surrogates in the wrong order": b'{"a":"\\ude00\\ud83d"}',
    "lone surrogate in a key": b'{"\\ud800":1}',
    "lone surrogate in a list": b'{"a":["x",["\\udfff"]]}',
    "encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "NUL by escape": b'{"a":"\\u0000"}',
    "NUL in a key": b'{"a\\u0000":1}',
    "raw NUL": b'{"a":"\x00"}',
    "17 objects": b'{"a":' * 17 + b"1" + b"}" * 17,
    "17 levels": b'{"a":' + b"[" * 16 + b"]" * 16 + b"}",
    "8 000 brackets": b"[" * 8_000,
    "8 000 braces": b'{"a":' * 3_000,
    "20 digits": b'{"a":12345678901234567890}',
    "5 000 digits": b'{"a":-' + b"9" * 5_000 + b"}",
}

WELL_FORMED: dict[bytes, Any] = {
    b'{"a":"\\ud83d\\ude00"}': {"a": "😀"},
    '{"a":"😀 \u2028"}'.encode(): {"a": "😀 \u2028"},
    b' {"a" : -9223372036854775808 }\r\n': {"a": -(2**63)},
    b'{"a":1.5e3,"b":[true,false,null]}': {"a": 1500.0, "b": [True, False, None]},
    b'{"a":"' + b"[{" * 100 + b'"}': {"a": "[{" * 100},
    b'{"a":"\\"[[[[[[[[[[[[[[[[[["}': {"a": '"[[[[[[[[[[[[[[[[[['},
    b'{"a":' + b"[" * 15 + b"]" * 15 + b"}": {"a": json.loads("[" * 15 + "]" * 15)},
    b"[" + b"[]," * 50 + b"[]]": [[]] * 51,
    b"{}": {},
    b"3": 3,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_json_that_could_be_misread_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedJson, match=r"\.$"):
        parse_json(body)


@pytest.mark.parametrize(("body", "value"), WELL_FORMED.items())
def test_plain_json_is_read(body: bytes, value: Any) -> None:
    assert parse_json(body) == value


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"a":\n  x}', "Expecting value at line 2, column 3."),
        (b'{"id":1,"id":2}', 'The member "id" occurs twice.'),
        (b'{"a":{"b":["\\ud800"]}}', 'Half of a surrogate pair in the text at "/a/b/0".'),
        (b'{"a\\u0000":1}', 'A NUL character in the text at "/".'),
        (b'{"a":"\xff"}', "The body is not UTF-8 at byte 6."),
        (b"[" * 17, "Nested deeper than 16 levels at character 16."),
    ],
)
def test_the_message_says_what_is_wrong_and_where(body: bytes, told: str) -> None:
    with pytest.raises(MalformedJson) as refusal:
        parse_json(body)

    assert str(refusal.value) == told


class Wish(BaseModel):
    a: Any = None


@pytest.fixture
def app() -> FastAPI:
    router = APIRouter(route_class=StrictRoute)

    @router.post("/wish")
    async def wish(wish: Wish) -> Wish:
        return wish

    @router.post("/maybe")
    async def maybe(wish: Wish | None = None) -> Wish | None:
        return wish

    @router.post("/without")
    async def without() -> str:
        return "done"

    @router.post("/form")
    @accepts_form
    async def form() -> str:
        return "done"

    app = FastAPI()
    app.include_router(router)
    install(app)
    return app


def post(app: FastAPI, path: str, content: bytes | AsyncIterator[bytes], **headers: str) -> httpx.Response:
    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ledger") as client:
            told = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.post(path, content=content, headers=told)

    return asyncio.run(run())


def kind(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition("/")[2]


def test_well_formed_json_reaches_the_model(app: FastAPI) -> None:
    answer = post(app, "/wish", b'{"a":["\\ud83d\\ude00"]}', content_type="Application/JSON; charset=UTF-8")

    assert (answer.status_code, answer.json()) == (200, {"a": ["😀"]})


@pytest.mark.parametrize("path", ["/wish", "/maybe", "/without"])
@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/merge-patch+json",
        "application/json; charset=utf-16",
        "application/json, text/plain",
        "json",
        "",
    ],
)
def test_any_other_media_type_is_a_415(app: FastAPI, path: str, media_type: str) -> None:
    answer = post(app, path, b'{"a":1}', **({"content_type": media_type} if media_type else {}))

    assert (answer.status_code, kind(answer)) == (415, "unsupported-media-type")


def test_a_body_that_is_not_announced_by_length_is_looked_at_too(app: FastAPI) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"a"'
        yield b":NaN}"

    assert kind(post(app, "/without", chunks(), content_type="application/json")) == "malformed-json"


@pytest.mark.parametrize("headers", [{}, {"content_type": "text/plain"}, {"content_type": "application/json"}])
@pytest.mark.parametrize("path", ["/maybe", "/without", "/form"])
def test_no_body_is_fine_where_none_is_needed(app: FastAPI, path: str, headers: dict[str, str]) -> None:
    assert post(app, path, b"", **headers).status_code == 200


@pytest.mark.parametrize("path", ["/maybe", "/without", "/form"])
@pytest.mark.parametrize("body", [b"{}", b"null"])
def test_a_wish_for_nothing_is_as_good_as_none(app: FastAPI, path: str, body: bytes) -> None:
    assert post(app, path, body, content_type="application/json").status_code == 200


def test_a_wish_that_a_route_without_a_body_would_overlook_is_refused(app: FastAPI) -> None:
    answer = post(app, "/without", b'{"a":1}', content_type="application/json")

    assert (answer.status_code, kind(answer), answer.json()["errors"][0]["pointer"]) == (422, "invalid-request", "/a")


def test_no_body_is_a_422_where_one_is_needed(app: FastAPI) -> None:
    assert kind(post(app, "/wish", b"")) == "invalid-request"


@pytest.mark.parametrize("body", [b"[]", b"3", b'"text"', b"null"])
def test_a_body_that_is_no_object_is_a_422_where_a_model_is_expected(app: FastAPI, body: bytes) -> None:
    assert kind(post(app, "/wish", body, content_type="application/json")) == "invalid-request"


def test_a_form_is_accepted_where_the_endpoint_says_so(app: FastAPI) -> None:
    form = {"content_type": "application/x-www-form-urlencoded; charset=UTF-8"}

    assert post(app, "/form", b"a=1", **form).status_code == 200
    assert post(app, "/form", b"a=1", content_type="text/plain").status_code == 415
