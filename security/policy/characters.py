"""Which characters a policy may be written with: none that look like others, or like nothing.

A reviewer must see what is signed. So the text is in normal form NFC; it has no control, bidirectional
or zero-width characters, no letters or digits that are only another form of plainer ones (full
width, long s), and no letters but Latin, Chinese, Japanese and Korean ones: a Cyrillic one cannot be
told from a Latin one (Unicode TR39, restriction level "highly restrictive").
"""

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final

from protocols.errors import ConfigError, MillgateError, Misfit, Misfits
from protocols.language import tr
from protocols.settings import KeyPath

_SCRIPTS: Final = (
    "LATIN ",
    "CJK ",
    "HIRAGANA ",
    "KATAKANA ",
    "KATAKANA-HIRAGANA ",
    "BOPOMOFO ",
    "HANGUL ",
    "IDEOGRAPHIC ",
)
_MOST_FAULTS: Final = 10
_PLAIN: Final = frozenset("\t\n\r")
_OF_UNITS: Final = frozenset("\u00b2\u00b3\u00b5\u03a9")
# Letters or symbols by their category that show nothing.
_FILLERS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")


@lru_cache(maxsize=4096)
def _wrong(character: str) -> bool:
    if character.isascii():
        return not (character.isprintable() or character in _PLAIN)
    if character in _OF_UNITS:
        return False
    category = unicodedata.category(character)
    if category[0] == "C" or category in {"Zl", "Zp", "Zs"} or character in _FILLERS:
        return True
    if category[0] == "M" or 0xFE00 <= ord(character) <= 0xFE0F:
        # Composed letters have their own code points; loose marks change what is seen.
        return True
    if category[0] not in "LN":
        return False
    foreign = not unicodedata.name(character, "").startswith(_SCRIPTS)
    return foreign or unicodedata.normalize("NFKC", character) != character


def fault_in(text: str) -> str | None:
    """Return what is wrong with the first character that may not be in a policy; None if none is."""
    if text.isascii() and text.isprintable():
        return None
    for character in text:
        if _wrong(character):
            code = f"U+{ord(character):04X}"
            return tr(
                f"the character {code} is not allowed: it is invisible, or looks like another",
                f"不允许使用字符 {code}：不可见，或与其他字符相似",
            )
    if not unicodedata.is_normalized("NFC", text):
        return tr("the text is not in normal form NFC", "文本不是 NFC 规范形式")
    return None


def check_file(path: Path) -> None:
    """Check every line of a policy's text, comments too.

    Raises:
        ConfigError: with one line per faulty line. A file that cannot be read is left to the
            reader of TOML, which says so.
    """
    try:
        # Exactly as it stands: every kind of line end is a character here.
        text = path.read_bytes().decode("utf-8")
    except (OSError, ValueError):
        return
    found = [(number, fault_in(line)) for number, line in enumerate(text.split("\n"), 1)]
    faults = [
        MillgateError(what, where=f"{path}:{number}", remedy=_anew())
        for number, what in found
        if what is not None
    ]
    if faults:
        raise ConfigError(faults)


def _anew() -> str:
    return tr("write it anew by hand", "请手工重新输入")


def check_values(data: object) -> None:
    """Check everything that was parsed: texts, keys and numbers.

    Raises:
        Misfits: names the places of the first faults.
    """
    faults = list(islice(_faults(data, ()), _MOST_FAULTS))
    if faults:
        raise Misfits(faults)


def _faults(data: object, place: KeyPath) -> Iterator[Misfit]:
    if isinstance(data, Mapping):
        for key, value in data.items():
            what = fault_in(str(key))
            # The key itself is not shown: it may not look like what it is.
            if what is not None:
                yield Misfit(what, _anew(), place)
            else:
                yield from _faults(value, (*place, str(key)))
    elif isinstance(data, str):
        what = fault_in(data)
        if what is not None:
            yield Misfit(what, _anew(), place)
    elif isinstance(data, Sequence) and not isinstance(data, bytes):
        for at, value in enumerate(data):
            yield from _faults(value, (*place, at))
    elif isinstance(data, float | Decimal) and not _plain_number(data):
        yield Misfit(
            tr("must be finite, and 0 has no sign", "须为有限数，0 不带负号"),
            tr("write a plain number", "请写普通数字"),
            place,
        )


def _plain_number(value: float | Decimal) -> bool:
    if not math.isfinite(value):
        return False
    return value != 0 or math.copysign(1.0, value) > 0
