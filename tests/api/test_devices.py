"""Labels that people recognise, made of no word that a client chose (T-08)."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.devices import _BROWSERS, _CLIENTS, _CLIENTS_BY_PRODUCT, _SYSTEMS, MAX_BYTES, clean_user_agent, device_label

MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/"
LINUX = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
IPAD = "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
ANDROID = "Mozilla/5.0 (Linux; Android 14; Pixel 8{}) AppleWebKit/537.36 (KHTML, like Gecko) "
ON_ANDROID = ANDROID.format("")

LABELS = [
    (MAC + "537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36", "Chrome on macOS"),
    (MAC + "605.1.15 (KHTML, like Gecko) Version/17.6 Safari/605.1.15", "Safari on macOS"),
    (MAC + "537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36 Edg/129.0.0.0", "Edge on macOS"),
    (
        MAC + "537.36 (KHTML, like Gecko) MyApp/1.0.0 Chrome/126.0.6478.61 Electron/31.0.2 Safari/537.36",
        "A desktop app on macOS",
    ),
    ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:130.0) Gecko/20100101 Firefox/130.0", "Firefox on macOS"),
    (IPHONE + "Version/17.6 Mobile/15E148 Safari/604.1", "Safari on iPhone"),
    (IPHONE + "CriOS/129.0.6668.46 Mobile/15E148 Safari/604.1", "Chrome on iPhone"),
    (IPHONE + "FxiOS/130.0 Mobile/15E148 Safari/605.1.15", "Firefox on iPhone"),
    (IPHONE + "Version/17.0 EdgiOS/128.0.2739.54 Mobile/15E148 Safari/604.1", "Edge on iPhone"),
    (IPHONE + "Mobile/15E148", "An app on iPhone"),
    (IPHONE + "Mobile/15E148 Instagram 345.0.0.0 (iPhone14,5; iOS 17_5)", "Instagram on iPhone"),
    (IPAD + "Version/16.6 Mobile/15E148 Safari/604.1", "Safari on iPad"),
    (IPAD + "CriOS/129.0.6668.46 Mobile/15E148 Safari/604.1", "Chrome on iPad"),
    (WINDOWS + "129.0.0.0 Safari/537.36", "Chrome on Windows"),
    (WINDOWS + "129.0.0.0 Safari/537.36 Edg/129.0.0.0", "Edge on Windows"),
    (WINDOWS + "128.0.0.0 Safari/537.36 OPR/114.0.0.0", "Opera on Windows"),
    (WINDOWS + "128.0.0.0 Safari/537.36 Vivaldi/6.9", "Vivaldi on Windows"),
    (WINDOWS + "126.0.0.0 YaBrowser/24.7.0.0 Safari/537.36", "Yandex Browser on Windows"),
    ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:130.0) Gecko/20100101 Firefox/130.0", "Firefox on Windows"),
    ("Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko", "Internet Explorer on Windows"),
    (LINUX + "537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36", "Chrome on Linux"),
    (LINUX + "537.36 (KHTML, like Gecko) HeadlessChrome/129.0.0.0 Safari/537.36", "Headless Chrome on Linux"),
    (LINUX + "605.1.15 (KHTML, like Gecko) Version/17.0 Safari/605.1.15 Epiphany/605.1.15", "GNOME Web on Linux"),
    ("Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0", "Firefox on Linux"),
    ("Mozilla/5.0 (X11; FreeBSD amd64; rv:130.0) Gecko/20100101 Firefox/130.0", "Firefox on FreeBSD"),
    (
        "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0 Safari/537.36",
        "Chrome on ChromeOS",
    ),
    (ON_ANDROID + "Chrome/129.0.0.0 Mobile Safari/537.36", "Chrome on Android"),
    (ON_ANDROID + "SamsungBrowser/26.0 Chrome/122.0.0.0 Mobile Safari/537.36", "Samsung Internet on Android"),
    (ON_ANDROID + "Chrome/128.0 Mobile Safari/537.36 EdgA/128.0.2739.65", "Edge on Android"),
    (ON_ANDROID + "Chrome/128.0 Mobile Safari/537.36 OPR/76.2.4027.73374", "Opera on Android"),
    (ON_ANDROID + "Chrome/128.0.0.0 Mobile DuckDuckGo/5 Safari/537.36", "DuckDuckGo on Android"),
    (ON_ANDROID + "Chrome/114.0 HuaweiBrowser/15.0.4.312 Mobile Safari/537.36", "Huawei Browser on Android"),
    (ANDROID.format("; wv") + "Version/4.0 Chrome/128.0.6613.127 Mobile Safari/537.36", "An app on Android"),
    ("Mozilla/5.0 (Android 14; Mobile; rv:130.0) Gecko/130.0 Firefox/130.0", "Firefox on Android"),
    ("Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/AP2A)", "Unknown browser on Android"),
    ("SomeApp/1.0 CFNetwork/1494.0.7 Darwin/23.4.0", "Unknown browser on iOS"),
    ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "Googlebot"),
    ("curl/8.5.0", "curl"),
    ("Wget/1.21.4", "Wget"),
    ("python-requests/2.32.3", "Python Requests"),
    ("python-httpx/0.27.0", "Python HTTPX"),
    ("Python/3.11 aiohttp/3.9.5", "Python aiohttp"),
    ("okhttp/4.12.0", "OkHttp"),
    ("PostmanRuntime/7.41.2", "Postman"),
    ("Go-http-client/2.0", "Go HTTP client"),
    ("axios/1.7.7", "axios"),
    ("node", "Node.js"),
    ("Apache-HttpClient/4.5.13 (Java/11.0.20)", "Apache HttpClient"),
    ("Mozilla/5.0 (PlayStation; PlayStation 5/6.50) AppleWebKit/605.1.15", "Unknown device"),
    ("Mozilla/5.0", "Unknown device"),
    ("", "Unknown device"),
    (None, "Unknown device"),
]

OUR_WORDS = {"Unknown device", *_BROWSERS.values(), *_CLIENTS.values(), *_CLIENTS_BY_PRODUCT.values()} | {
    f"{browser} on {system}"
    for browser in (*_BROWSERS.values(), "Unknown browser")
    for system in (*_SYSTEMS.values(), "iPhone", "iPad")
}


@pytest.mark.parametrize(("user_agent", "label"), LABELS)
def test_a_device_is_named_as_people_know_it(user_agent: str | None, label: str) -> None:
    assert device_label(user_agent) == label


HOSTILE = [
    "Mozilla/5.0\r\nSet-Cookie: a=b",
    "\x1b[31mChrome/129",
    "${jndi:ldap://example.test/a}",
    "<script>alert(1)</script>",
    '=cmd|"/c calc"!A1',
    "\u202egnp.exe Chrome/129 (Windows NT 10.0)",
    "Evil on Windows/1.0 (Windows NT 10.0)",
    "curl/8 on macOS\u2028",
    "Chrome/" + "9" * 100_000,
    "(" * 100_000,
    "\ud800\udc00\x00",
]


@pytest.mark.parametrize("user_agent", HOSTILE)
def test_nothing_of_a_hostile_string_passes_into_the_label(user_agent: str) -> None:
    assert device_label(user_agent) in OUR_WORDS


@given(st.text() | st.lists(st.sampled_from([agent or "" for agent, _ in LABELS] + HOSTILE)).map(" ".join))
@example(" ".join(agent or "" for agent, _ in LABELS))
def test_every_label_is_made_of_our_words(user_agent: str) -> None:
    assert device_label(user_agent) in OUR_WORDS


@given(st.text(st.characters()))
def test_a_clean_user_agent_is_short_printable_and_stays_as_it_is(raw: str) -> None:
    clean = clean_user_agent(raw * 50)

    assert len(clean.encode()) <= MAX_BYTES
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in clean)
    assert clean_user_agent(clean) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("curl/8.5.0", "curl/8.5.0"),
        ("a\r\nb\tc\x00\x7f\x85\x9f", "abc"),
        ("a\u2028b\u2029c\u202ed\u2066e\u200ff\u061cg", "abcdefg"),
        ("\ud83d", ""),
        ("Ünïcode 😀", "Ünïcode 😀"),
        ("x" * 512, "x" * 512),
        ("x" * 513, "x" * 509 + "…"),
        ("é" * 257, "é" * 254 + "…"),
        ("😀" * 129, "😀" * 127 + "…"),
    ],
)
def test_what_is_kept_of_a_user_agent(raw: str, clean: str) -> None:
    assert clean_user_agent(raw) == clean


def test_many_threads_may_ask_at_once() -> None:
    agents = [f"Mozilla/5.0 (Windows NT 10.0; rv:{n}.0) Gecko/20100101 Firefox/{n}.0" for n in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(device_label, agents)) == {"Firefox on Windows"}
