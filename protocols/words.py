"""What is said of a word that is not known: the one that it is most like, and where all of them are."""

import difflib
import unicodedata
from collections.abc import Iterable
from typing import Final

from protocols.language import tr

_LONGEST: Final = 120
_FIRST: Final = 8
_LIKE: Final = 0.6


class NoSuchWord(ValueError):
    """A word that is none of those that may stand here.

    Args:
        what: what is wrong with it.
        remedy: what to write instead.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


def no_such(word: object, known: Iterable[str], listed: str = "") -> NoSuchWord:
    """Return the fault of a word in a file; see `instead_of`."""
    return NoSuchWord(
        tr(f"there is no '{word}'", f"没有 '{word}'"), instead_of(word, known, listed)
    )


def instead_of(word: object, known: Iterable[str], listed: str = "") -> str:
    """Return the remedy for a word that is not known.

    Args:
        word: what was written.
        known: what may be written.
        listed: where all of that is listed, for lists too long to be shown.
    """
    words = [one for one in known if one]
    like = nearest(str(word), words)
    if not words:
        return tr("there is none yet", "目前一个也没有")
    parts = [tr(f"did you mean '{like}'?", f"是否应为 '{like}'？")] if like else []
    shown = ", ".join(words)
    if len(shown) <= _LONGEST:
        parts.append(tr(f"there are: {shown}", f"可用：{shown}"))
    elif listed:
        parts.append(tr(f"all {len(words)}: {listed}", f"全部 {len(words)} 个见 {listed}"))
    elif not like:
        shown = ", ".join(words[:_FIRST])
        more = len(words) - _FIRST
        parts.append(tr(f"there are: {shown} and {more} more", f"可用：{shown} 等 {len(words)} 个"))
    return tr(" ", "").join(parts)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is most like one; empty where none is.

    Full-width letters, capitals, and what joins the parts of a word make no difference; a part may be
    left out (`active_import` is like `energy.active_import`).
    """
    plain = {_plain(one): one for one in known}
    wanted = _plain(word)
    if wanted in plain:
        return plain[wanted]
    ends = [one for one in plain if wanted and one.endswith(f".{wanted}")]
    near = ends[:1] or difflib.get_close_matches(wanted, plain, n=1, cutoff=_LIKE)
    return plain[near[0]] if near else ""


def _plain(word: str) -> str:
    folded = unicodedata.normalize("NFKC", word).casefold().strip()
    return folded.replace("-", ".").replace("_", ".").replace("/", ".").replace(" ", ".")
