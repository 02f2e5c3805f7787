"""The page's files by themselves: colours that can be read, texts in both languages, no small print."""

import json
import re
from importlib import resources

from aggregator import cockpit

_LEAST_CONTRAST = 4.5  # WCAG 2.2 AA for text


def test_text_stands_out_from_its_ground_in_light_and_dark() -> None:
    style = (resources.files("aggregator.cockpit") / "style.css").read_text(encoding="utf-8")
    schemes = re.findall(r":root\[data-theme=\"\w+\"\] \{(.*?)\}", style, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", scheme))
        for text in ("ink", "soft", "good", "warn", "bad", "accent", "carbon"):
            for ground in ("ground", "sheet", "sunk"):
                ratio = _contrast(colours[text], colours[ground])
                assert ratio >= _LEAST_CONTRAST, (text, ground, ratio)
        assert _contrast(colours["accent-ink"], colours["accent"]) >= _LEAST_CONTRAST
        assert _contrast(colours["ink"], colours["bad-ground"]) >= _LEAST_CONTRAST


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_text_the_page_asks_for_is_there_and_every_text_is_asked_for() -> None:
    files = {
        file.name: file.read_text(encoding="utf-8")
        for file in resources.files("aggregator.cockpit").iterdir()
        if file.name.endswith((".js", ".html"))
    }
    words = "".join(text for name, text in files.items() if name.startswith("words_"))
    sources = "".join(text for name, text in files.items() if not name.startswith("words_"))
    known = re.findall(r'^  "?([\w.-]+)"?: \[$|^  "?([\w.-]+)"?: \["', words, re.MULTILINE)
    keys = [one or other for one, other in known]
    assert len(keys) == len(set(keys))
    marked = set(re.findall(r'data-text="([\w.]+)"', sources))
    direct = marked | set(re.findall(r'\bt\("([\w.-]+)"', sources))
    assert direct <= set(keys)
    plain = {key for key in keys if "." not in key}
    assert plain - {"title"} <= marked | set(re.findall(r'"(\w+)"', sources))
    built = set(re.findall(r"`(\w+)\.\$\{", sources)) | set(re.findall(r'term\("(\w+)"', sources))
    built |= {"measurand", "field", *(key.partition(".")[0] for key in direct)}
    assert {key.partition(".")[0] for key in keys if "." in key} <= built


def test_measurands_and_media_have_names_in_both_languages_and_units() -> None:
    [names] = [file for file in cockpit.load() if file.name == "vocabulary.json"]
    told = json.loads(names.body)
    assert all(one["en"] and one["zh"] for one in (*told["measurands"], *told["media"]))
    units = {one["name"]: one["unit"] for one in told["measurands"]}
    assert units["energy.active_import"] == "kWh"


def test_nothing_is_loaded_from_elsewhere_and_no_markup_is_written_from_text() -> None:
    for file in cockpit.load():
        text = file.body.decode()
        links = set(re.findall(r"https?://[\w./-]+", text)) - {"http://www.w3.org/2000/svg"}
        assert links == set(), file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        if file.name.endswith(".html"):
            assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*\ssrc=)", text)
