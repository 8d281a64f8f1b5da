"""What a person reads in the list of his devices: "Safari on iPhone". A label is made of our own words only (T-08)."""

import re
import threading
from functools import lru_cache

from ua_parser import Domain, load_lazy_builtins
from ua_parser.regex import Resolver  # the compiled backend; fail here rather than be slow later

UNKNOWN = "Unknown device"
MAX_BYTES = 512
_CUT_MARK = "…"

_BROWSERS = {
    "Chrome": "Chrome",
    "Chrome Mobile": "Chrome",
    "Chrome Mobile iOS": "Chrome",
    "Chrome Mobile WebView": "An app",
    "Chromium": "Chromium",
    "Safari": "Safari",
    "Mobile Safari": "Safari",
    "Mobile Safari UI/WKWebView": "An app",
    "Firefox": "Firefox",
    "Firefox Mobile": "Firefox",
    "Firefox iOS": "Firefox",
    "Edge": "Edge",
    "Edge Mobile": "Edge",
    "Samsung Internet": "Samsung Internet",
    "Opera": "Opera",
    "Opera Mobile": "Opera",
    "Opera Mini": "Opera Mini",
    "Vivaldi": "Vivaldi",
    "Brave": "Brave",
    "DuckDuckGo": "DuckDuckGo",
    "DuckDuckGo Mobile": "DuckDuckGo",
    "UC Browser": "UC Browser",
    "Yandex Browser": "Yandex Browser",
    "Huawei Browser": "Huawei Browser",
    "Epiphany": "GNOME Web",
    "IE": "Internet Explorer",
    "Electron": "A desktop app",
    "HeadlessChrome": "Headless Chrome",
    "Facebook": "Facebook",
    "Instagram": "Instagram",
}

_SYSTEMS = {
    "Windows": "Windows",
    "Mac OS X": "macOS",
    "iOS": "iOS",
    "Android": "Android",
    "Chrome OS": "ChromeOS",
    "Linux": "Linux",
    "Ubuntu": "Linux",
    "Fedora": "Linux",
    "Debian": "Linux",
    "FreeBSD": "FreeBSD",
    "OpenBSD": "OpenBSD",
    "Tizen": "Tizen",
    "KaiOS": "KaiOS",
}

_CLIENTS = {
    "curl": "curl",
    "Wget": "Wget",
    "HTTPie": "HTTPie",
    "PostmanRuntime": "Postman",
    "insomnia": "Insomnia",
    "Python Requests": "Python Requests",
    "Python aiohttp": "Python aiohttp",
    "Python-urllib": "Python urllib",
    "okhttp": "OkHttp",
    "Go-http-client": "Go HTTP client",
    "axios": "axios",
    "Java": "Java HTTP client",
    "Apache-HttpClient": "Apache HttpClient",
    "Googlebot": "Googlebot",
    "bingbot": "Bingbot",
}

# What the parser's rules do not know, by the product that the string begins with.
_CLIENTS_BY_PRODUCT = {
    "python-httpx": "Python HTTPX",
    "node-fetch": "Node.js",
    "node": "Node.js",
    "undici": "Node.js",
    "dart": "Dart",
    "guzzlehttp": "Guzzle",
    "java-http-client": "Java HTTP client",
}

# C0, DEL, C1, line and paragraph separators, bidirectional controls (UAX #9), lone surrogates.
_UNWANTED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_lock = threading.Lock()


def clean_user_agent(raw: str) -> str:
    """The user agent as it may be kept: no control characters, at most 512 bytes of UTF-8, "…" where it was cut."""
    text = _UNWANTED.sub("", raw)
    encoded = text.encode()
    if len(encoded) <= MAX_BYTES:
        return text
    return encoded[: MAX_BYTES - len(_CUT_MARK.encode())].decode(errors="ignore") + _CUT_MARK


def device_label(user_agent: str | None) -> str:
    """A readable label, such as "Chrome on macOS" or "curl"; "Unknown device" when nothing is recognised."""
    return _label(clean_user_agent(user_agent)) if user_agent else UNKNOWN


@lru_cache(maxsize=1024)
def _label(user_agent: str) -> str:
    found = _resolver()(user_agent, Domain.USER_AGENT | Domain.OS)
    family = found.user_agent.family if found.user_agent else ""
    if client := _CLIENTS.get(family) or _CLIENTS_BY_PRODUCT.get(user_agent.partition("/")[0].lower()):
        return client
    return _join(_BROWSERS.get(family), _system(found.os.family if found.os else "", user_agent))


def _join(browser: str | None, system: str | None) -> str:
    if browser and system:
        return f"{browser} on {system}"
    return browser or (f"Unknown browser on {system}" if system else UNKNOWN)


def _system(family: str, user_agent: str) -> str | None:
    """iOS by the device that people hold; an iPad that asks for desktop pages says macOS and cannot be told apart."""
    if family == "iOS":
        return next((device for device in ("iPad", "iPhone") if device in user_agent), "iOS")
    return _SYSTEMS.get(family)


def _resolver() -> Resolver:
    """Built once, at the first label of the process (some 60 ms); two threads never build two."""
    with _lock:
        return _build_resolver()


@lru_cache(maxsize=1)
def _build_resolver() -> Resolver:
    browsers, systems, _ = load_lazy_builtins()
    return Resolver((browsers, systems, []))
