"""The page of the brain: static files that carry no data and ask the read API for it."""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from protocols.vocabulary.measurands import MEASURANDS, MEDIA

_TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
_NAMES: Final = "vocabulary.json"


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page.

    Attributes:
        name: its file name, which is also its path on the server.
        content_type: its media type.
        body: its bytes.
        etag: changes when the bytes do.
    """

    name: str
    content_type: str
    body: bytes
    etag: str


def load() -> list[PageFile]:
    """Read all files of the page, in order of name; last the names of what series speak of."""
    found = [
        _file(item.name, _TYPES[suffix], item.read_bytes())
        for item in sorted(resources.files(__name__).iterdir(), key=lambda item: item.name)
        if (suffix := item.name[item.name.rfind(".") :]) in _TYPES
    ]
    names = json.dumps(_names(), ensure_ascii=False, separators=(",", ":"))
    return [*found, _file(_NAMES, "application/json", names.encode())]


def _file(name: str, content_type: str, body: bytes) -> PageFile:
    return PageFile(name, content_type, body, hashlib.sha256(body).hexdigest()[:32])


def _names() -> dict[str, Any]:
    """Return measurands and media with their names for people, as the vocabulary has them."""
    return {
        "measurands": [
            {"name": one.name, "unit": one.unit, "en": one.en, "zh": one.zh}
            for one in MEASURANDS.values()
        ],
        "media": [{"name": one.name, "en": one.en, "zh": one.zh} for one in MEDIA.values()],
    }
