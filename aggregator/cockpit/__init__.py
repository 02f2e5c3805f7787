"""The page of the brain: static files that carry no data and ask the read API for it."""

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

_TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}


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
    """Read all files of the page, in order of name."""
    found: list[PageFile] = []
    for item in sorted(resources.files(__name__).iterdir(), key=lambda item: item.name):
        content_type = _TYPES.get(item.name[item.name.rfind(".") :])
        if content_type is not None:
            body = item.read_bytes()
            etag = hashlib.sha256(body).hexdigest()[:32]
            found.append(PageFile(item.name, content_type, body, etag))
    return found
