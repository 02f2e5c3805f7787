"""What is said of a word that is not known: the one that it is most like, and where all of them are."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

from protocols.errors import Misfit
from protocols.language import tr

_LONGEST: Final = 120
_FIRST: Final = 8
_SAME: Final = 0.85
_LIKE: Final = 0.6
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_JOINT: Final = re.compile(r"[-_/ ]")


def no_such(word: object, known: Iterable[str], listed: str = "") -> Misfit:
    """Return the fault of a word in a file; see `instead_of`."""
    return Misfit(tr(f"there is no '{word}'", f"没有 '{word}'"), instead_of(word, known, listed))


def instead_of(
    word: object, known: Iterable[str], listed: str = "", rather: Iterable[str] = ()
) -> str:
    """Return the remedy for a word that is not known.

    Args:
        word: what was written.
        known: what may be written.
        listed: where all of that is listed, for lists too long to be shown.
        rather: those of them that go with what stands beside the word.
    """
    words = [one for one in known if one]
    like = nearest(str(word), words, rather)
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


def nearest(word: str, known: Iterable[str], rather: Iterable[str] = ()) -> str:
    """Return the known word that is most like one; empty where none is.

    Full-width letters, capitals, and what joins the parts of a word make no difference. Its parts may
    come in another order (`active.power` is like `power.active`), and some may be left out
    (`active_import` is like `energy.active_import`) or be too many. Of what is less like it, those of
    `rather` come first.
    """
    plain, better = ({_plain(one): one for one in words} for words in (known, rather))
    wanted = _plain(word)
    near = (
        [wanted] * (wanted in plain)
        or _like(wanted, plain, _SAME)
        or _of_its_parts(wanted, better)
        or _of_its_parts(wanted, plain)
        or _like(wanted, better, _LIKE)
        or _like(wanted, plain, _LIKE)
    )
    return plain[near[0]] if near else ""


def _like(wanted: str, known: Iterable[str], least: float) -> list[str]:
    return difflib.get_close_matches(wanted, known, n=1, cutoff=least)


def _of_its_parts(wanted: str, known: Mapping[str, str]) -> list[str]:
    """Return the words that have all parts of one, or else all of theirs in it; the nearest first."""
    mine = set(wanted.split("."))
    parts = {one: set(one.split(".")) for one in known if wanted}
    more = [one for one, its in parts.items() if mine <= its]
    fewer = [one for one, its in parts.items() if its < mine]
    whole = {one: known[one].split(".") for one in more}
    return sorted(more, key=lambda one: (wanted not in whole[one], len(whole[one]))) or sorted(
        fewer, key=lambda one: -len(parts[one])
    )


def _plain(word: str) -> str:
    split = _HUMP.sub(".", unicodedata.normalize("NFKC", word).strip())
    return _JOINT.sub(".", split.casefold())
