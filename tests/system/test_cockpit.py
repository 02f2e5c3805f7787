"""The cockpit over a county's brain, in a real browser: what its numbers are, and where from."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from aggregator.stores import SeriesKey
from protocols.frame import SECOND
from tests.system import county
from tests.system.brain import SHANGHAI, START_NS, Brain, running
from tests.system.visits import launched, visiting, with_token

pytestmark = pytest.mark.asyncio(loop_scope="module")

_END_NS = START_NS + 86_400 * SECOND
_WALL, _PHONE = (1920, 1080), (390, 844)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Brain]:
    folder: Path = tmp_path_factory.mktemp("county")
    async with running(folder, terms=SHANGHAI) as running_brain:
        county.fill(running_brain)
        yield running_brain


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with launched() as chromium:
        yield chromium


def _sum(brain: Brain, measurement: str, field: str, **tags: str) -> float:
    """Add up every series of a measurement that has these tags, straight from the store."""
    bucket = "carbon_emission" if measurement.startswith("ce_") else "future_factory"
    store = brain.stores[bucket]

    def fits(key: SeriesKey) -> bool:
        return tags.items() <= dict(key.tags).items()

    return sum(
        float(np.nansum(np.asarray(store.query(key, [field], START_NS, _END_NS, limit=9_999).fields[field])))
        for key in store.series(measurement)
        if fits(key)
    )  # fmt: skip


async def _loaded(page: Page) -> None:
    await expect(page.locator("#board")).to_have_attribute("aria-busy", "false")


async def _overflowing(page: Page) -> list[str]:
    """Return what is wider than its place, but for what is meant to scroll sideways."""
    found: list[str] = await page.evaluate(
        """() => [...document.querySelectorAll("main *, header *, dialog[open] *")]
            .filter((each) => each.getClientRects().length && !each.closest("svg, .scroll, .unseen, select"))
            .filter((each) => each.getBoundingClientRect().right > innerWidth + 1
              || each.matches(".panel, .tile, .panel *, .tile *") && each.scrollWidth > each.clientWidth + 1
                && getComputedStyle(each).display !== "inline")
            .map((each) => `${each.localName}.${each.className}: ${each.textContent.slice(0, 40)}`)"""
    )
    return found


async def test_numbers_are_the_sums_they_say_and_lead_to_their_batches(
    brain: Brain, browser: Browser
) -> None:
    main = _sum(brain, "ff_energy", "energy", meter_role="main", medium="Electricity")
    place, other = (
        _sum(brain, "ce_emission", "co2e_kg", method=method) for method in ("location", "market")
    )
    direct = _sum(brain, "ce_emission", "co2e_kg", method="direct")
    async with visiting(browser, with_token(brain), width=_WALL[0], height=_WALL[1]) as visit:
        page = visit.page
        await _loaded(page)
        source = page.locator("#source")
        for tile, exact, parts in (
            ("energy", f"{main:,.2f} kWh", 20),
            ("carbon", f"{place + direct:,.2f}", 7),
        ):
            await page.locator(f".tile.{tile} .from").focus()
            await page.keyboard.press("Enter")
            await expect(source).to_be_visible()
            await expect(source.locator(".exact")).to_contain_text(exact[:-1])
            await expect(source.locator(".part")).to_have_count(parts)
            titles = await source.locator(".part summary span").all_inner_texts()
            assert len(set(titles)) == parts
            await source.locator(".part summary").first.click()
            await expect(source.locator(".batches code[title]").first).to_have_attribute(
                "title", re.compile("[0-9a-f]{64}")
            )
            await expect(source).to_contain_text("5 Jan, 16:00 – 6 Jan, 16:00")
            assert await _overflowing(page) == []
            await page.keyboard.press("Escape")
            await expect(source).to_be_hidden()
            await expect(page.locator(f".tile.{tile} .from")).to_be_focused()
        both = f"{(other + direct) / 1000:.2f} t CO₂e"
        await expect(page.locator(".tile.carbon")).to_contain_text(f"or market-based {both}")
        await page.get_by_role("button", name="market-based").click()
        await expect(page.locator(".graph").nth(1)).to_contain_text(both)
        visit.assert_quiet(brain)


async def test_carbon_by_market_is_whole_or_absent_and_export_is_no_emission(
    brain: Brain, browser: Browser
) -> None:
    async with visiting(browser, brain.url) as visit:
        found = await visit.page.evaluate(
            """async () => {
              const { carbonOf } = await import("/sums.js");
              const { addable } = await import("/model.js");
              const column = (method, medium, total, ...seconds) => ({
                series: {
                  tags: { method, medium, scope: "2" }, time: "1970-01-01T01:00:00Z", fields: { window_s: 3600 },
                },
                total, seconds,
              });
              const always = [
                column("direct", "NaturalGas", 1, 3600, 3600), column("location", "Steam_Saturated", 5, 3600, 3600),
                column("location", "Electricity", 20, 3600, 3600),
              ];
              const of = (...more) => carbonOf(
                { carbon: [...always, ...more], period: { start: 0, stepS: 3600, count: 2 } }, "market").total;
              return [
                of(column("market", "Electricity", 8, 3600, 3600)),
                of(column("market", "Electricity", 4, null, 3600)), of(),
                addable([always[2].series, { tags: { method: "export", medium: "Electricity" } }]).length,
              ];
            }"""
        )
    assert found == [14, None, None, 1]


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
async def test_a_wall_shows_all_of_the_board_at_once_and_a_phone_below_each_other(
    brain: Brain, browser: Browser, locale: str
) -> None:
    for width, height in (_WALL, _PHONE):
        where = visiting(browser, with_token(brain), locale=locale, width=width, height=height)
        async with where as visit:
            await _loaded(visit.page)
            await expect(visit.page.locator(".machine .slots svg")).to_have_count(6)
            assert await _overflowing(visit.page) == []
            board = await visit.page.locator("#board-area").bounding_box()
            assert board is not None
            assert (board["y"] + board["height"] <= height) == (width == _WALL[0])
            text = await visit.page.locator("main").inner_text()
            assert not re.search(r"undefined|NaN|null|\{\w+\}|\[object", text)
            visit.assert_quiet(brain)


async def test_what_is_withheld_or_absent_says_why_in_both_languages(
    brain: Brain, browser: Browser
) -> None:
    said = {
        "en-GB": (
            "not ranked: below 90 %", "not ranked: no value", "fewer than 5 firms",
            "nothing has come since", "differ by more than −2 % to 15 %",
            "source: government side, not here", "sheet ends in", "2 refused",
        ),
        "zh-CN": (
            "不参与排名：低于 90 %", "不参与排名：无数据", "不足 5 家",
            "起没有任何消息", "之差超出 −2 % 至 15 %",
            "来源：政府侧，此处没有", "天后到期", "拒收 2 批",
        ),
    }  # fmt: skip
    for locale, texts in said.items():
        async with visiting(browser, with_token(brain), locale=locale) as visit:
            await _loaded(visit.page)
            for text in texts:
                await expect(visit.page.locator("#board")).to_contain_text(text)
            visit.assert_quiet(brain)


async def test_a_portrait_shows_absent_axes_as_absent_and_not_as_zero(
    brain: Brain, browser: Browser
) -> None:
    async with visiting(browser, with_token(brain)) as visit:
        page, portrait = visit.page, visit.page.locator(".panel.portrait")
        await _loaded(page)
        await portrait.locator("select").select_option(label="锦绣印染")
        await expect(portrait.locator("polygon.shape")).to_have_count(1)
        await expect(portrait).to_contain_text("企业年报 2025")
        await portrait.locator("select").select_option(label="运河精机")
        await expect(portrait.locator("polygon.shape")).to_have_count(0)
        absent = portrait.locator("tr.absent")
        await expect(absent.filter(has_text="Green power")).to_contain_text(
            "no green power entered"
        )
        await expect(absent.filter(has_text="Profit")).to_contain_text("not entered")
        await expect(absent.filter(has_text="Market share")).to_contain_text("government side")
        assert not re.search(r"\b0\b", " ".join(await absent.all_inner_texts()))
        visit.assert_quiet(brain)


async def test_a_wall_in_another_zone_shows_the_hours_of_the_factories(
    brain: Brain, browser: Browser
) -> None:
    for zone in ("America/New_York", "Asia/Shanghai"):
        where = visiting(browser, with_token(brain), zone=zone, width=_WALL[0], height=_WALL[1])
        async with where as visit:
            page, trend = visit.page, visit.page.locator(".panel.trend")
            await _loaded(page)
            await expect(page.locator(".top")).to_contain_text("Times in Asia/Shanghai (UTC+8)")
            await expect(trend).to_contain_text("5 Jan, 16:00 – 6 Jan, 16:00")
            # A warning's own words have their moment in UTC: 05:56:40Z.
            silence = page.locator(".alarm .words", has_text="nothing has come since")
            await expect(silence).to_have_text(re.compile(r"since (.* )?13:56:40$"))
            ticks = trend.locator(".graph").first.locator("text.tick", has_text=":")
            assert "00:00" in await ticks.all_text_contents()
            pointed = trend.locator(".pointed").first
            await trend.locator(".plot").first.focus()
            await page.keyboard.press("Home")
            await expect(pointed).to_have_text(re.compile("5 Jan 2026, 16:00:00 .* peak "))
            await page.keyboard.press("End")
            await expect(pointed).to_have_text(re.compile("^15:45:00 .* sharp "))
            visit.assert_quiet(brain)


async def test_one_factory_can_be_looked_at_alone(brain: Brain, browser: Browser) -> None:
    main = {"meter_role": "main", "medium": "Electricity"}
    alone = _sum(brain, "ff_energy", "energy", enterprise_id="洪合汽配", **main)
    async with visiting(browser, with_token(brain)) as visit:
        await _loaded(visit.page)
        await visit.page.locator("#firm").select_option(label="洪合汽配")
        await expect(visit.page.locator(".factory")).to_have_count(1)
        await expect(visit.page.locator(".tile.energy strong")).to_have_text(f"{alone:,.0f}")
        await expect(visit.page.locator(".alarm")).to_have_count(1)
        await expect(visit.page.locator(".balances li")).to_have_count(1)
        machines = await visit.page.locator(".machine .name").all_inner_texts()
        assert sorted(machines) == ["press-3", "press-4"]
        await visit.page.locator(".factory .link").click()
        await expect(visit.page.locator(".factory")).to_have_count(5)
        visit.assert_quiet(brain)
