"""The page in a real browser, over a real server and real stores."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from aggregator.api.server import make_app, serving
from aggregator.stores import SeriesBlock, SeriesKey
from aggregator.stores.embedded import Config, Store
from aggregator.trust import Trust
from protocols.frame import SECOND
from tests.system.brain import NAME, SHANGHAI, TOKEN, Brain, energy_of, running, series
from tests.system.visits import ask_again, launched, see_cards, visiting, with_token

_SLOTS = 70
_SHOWN = 60
_MISSING = frozenset({30, 31, 32})

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with launched() as chromium:
        yield chromium


@pytest_asyncio.fixture(loop_scope="module")
async def brain(tmp_path: Path) -> AsyncIterator[Brain]:
    async with running(tmp_path, terms=SHANGHAI) as running_brain:
        yield running_brain


async def test_the_token_leaves_the_address_bar_and_never_travels_in_an_address(
    brain: Brain, browser: Browser
) -> None:
    brain.receive(_SLOTS)
    async with visiting(browser, with_token(brain)) as visit:
        await expect(visit.page.locator(".card")).to_have_count(2)
        assert visit.page.url == f"{brain.url}/"
        await visit.page.reload()
        await expect(visit.page.locator(".card")).to_have_count(2)
        visit.assert_quiet(brain)


async def test_it_shows_what_the_brain_received_in_both_languages(
    brain: Brain, browser: Browser
) -> None:
    brain.receive(_SLOTS)
    english = (
        "What the brain received",
        "factor cn-electricity-2022/CN-ZJ · 0.5153 kgCO2/kWh · data of 2022 · grade S2",
        "energy statistics",
        "state at the slot's end",
        "What they withheld never came here: it is known only inside the factory.",
        "active energy drawn",
        "0.01 kWh",
        "1,095 days",
        "Times in Asia/Shanghai (UTC+8)",
    )
    chinese = (
        "大脑收到了什么",
        "因子 cn-electricity-2022/CN-ZJ · 0.5153 kgCO2/kWh · 2022 年数据 · 等级 S2",
        "能源统计",
        "时段末状态",
        "未放行的数据从未到达此处，只有工厂内部知道。",
        "正向有功电量",
        "1,095 天",
        "时间按 Asia/Shanghai（UTC+8）显示",
    )
    for locale, texts, others in (("en-GB", english, chinese), ("zh-CN", chinese, english)):
        async with visiting(browser, with_token(brain), locale=locale) as visit:
            body = visit.page.locator("body")
            await see_cards(visit)
            for text in (*texts, NAME, "DR-2026-0017", "press-3"):
                await expect(body).to_contain_text(text)
            await visit.page.locator("#language").click()
            for text in others:
                await expect(body).to_contain_text(text)
            await visit.page.reload()
            await expect(body).to_contain_text(others[0])
            shown = await body.inner_text()
            assert "undefined" not in shown
            assert "NaN" not in shown
            visit.assert_quiet(brain)


async def test_values_follow_what_arrives(brain: Brain, browser: Browser) -> None:
    brain.receive(_SLOTS)
    async with visiting(browser, with_token(brain)) as visit:
        await see_cards(visit)
        figure = visit.page.locator(".figure.energy strong")
        for slots in (_SLOTS, _SLOTS + 3):
            brain.receive(slots)
            newest = energy_of(np.array([slots - 1], np.int64))[0]
            await expect(figure).to_have_text(f"{newest:g}")
            await expect(visit.page.locator(".card rect.bar")).to_have_count(_SHOWN)
        await expect(visit.page.locator("#live")).to_have_text("Live")
        assert any(each.url.endswith("/api/v1/stream") for each in visit.asked)
        visit.assert_quiet(brain)


async def test_a_slot_that_never_came_is_no_data_and_no_bar(brain: Brain, browser: Browser) -> None:
    brain.receive(_SLOTS, missing=_MISSING)
    async with visiting(browser, with_token(brain)) as visit:
        await see_cards(visit)
        card = visit.page.locator(".card", has_text="meter-1")
        await expect(card.locator("rect.bar")).to_have_count(_SHOWN - len(_MISSING))
        await expect(card.locator("rect.gap")).to_have_count(1)
        await expect(card.locator("polyline.line")).to_have_count(2)
        total = card.locator(".total")
        await expect(total).to_contain_text("57 of 60 slots")
        await card.locator(".plot").focus()
        for _ in range(_SLOTS - min(_MISSING)):
            await visit.page.keyboard.press("ArrowLeft")
        await expect(total).to_have_text("16:02:30 · no data")
        await visit.page.keyboard.press("ArrowLeft")
        newest_before = energy_of(np.array([min(_MISSING) - 1], np.int64))[0]
        await expect(total).to_contain_text(f"16:02:25 · {newest_before:g} kWh")
        visit.assert_quiet(brain)


async def test_a_slot_that_comes_late_fills_its_gap_without_reloading(
    brain: Brain, browser: Browser
) -> None:
    brain.receive(_SLOTS, missing=_MISSING)
    async with visiting(browser, with_token(brain)) as visit:
        await expect(visit.page.locator("#live")).to_have_text("Live")
        bars = visit.page.locator(".graph").first.locator("rect.bar")
        await expect(bars).to_have_count(_SHOWN - len(_MISSING))
        await expect(visit.page.locator(".tile.coverage")).to_contain_text("57 of 60 slots")
        brain.receive(_SLOTS)
        await expect(bars).to_have_count(_SHOWN)
        await expect(visit.page.locator(".tile.coverage")).to_contain_text("60 of 60 slots")
        visit.assert_quiet(brain)


async def test_before_anything_arrived_it_says_what_to_do_and_shows_no_number(
    brain: Brain, browser: Browser
) -> None:
    for locale, text in (("en", "No factory has sent anything yet"), ("zh-CN", "尚无工厂发来数据")):
        async with visiting(browser, with_token(brain), locale=locale) as visit:
            await expect(visit.page.locator("#first-title")).to_contain_text(text)
            main = await visit.page.locator("main").inner_text()
            assert "./run aggregator invite brain/aggregator.toml NAME" in main
            assert "./run agent enroll CODE mill" in main
            assert not re.search(r"\d", main)
            visit.assert_quiet(brain)
    async with visiting(browser, with_token(brain)) as visit:
        await expect(visit.page.locator("#first-steps")).to_be_visible()
        brain.receive(_SLOTS)
        await expect(visit.page.locator("#first-steps")).to_be_hidden()
        await expect(visit.page.locator(".factory .presence")).to_have_text("online")


async def test_longer_periods_add_up_and_show_where_slots_are_missing(
    brain: Brain, browser: Browser
) -> None:
    kept = np.array([at for at in range(_SLOTS) if at not in _MISSING], np.int64)
    brain.receive(_SLOTS, missing=_MISSING)
    async with visiting(browser, with_token(brain)) as visit:
        await see_cards(visit)
        card = visit.page.locator(".card", has_text="meter-1")
        total = card.locator(".total")
        for button in ("1 h", "24 h", "30 d"):
            await visit.page.get_by_role("button", name=button, exact=True).click()
            await see_cards(visit)
            await expect(card.locator(".legend")).not_to_contain_text("per 5 s")
            await expect(total).to_contain_text(f"{energy_of(kept).sum():.2f} kWh")
            await expect(total).to_contain_text(f"{len(kept)} of ")
            await expect(card.locator("rect.bar.part")).to_have_count(1)
        visit.assert_quiet(brain)


async def test_values_that_are_not_of_now_say_how_old_they_are(
    brain: Brain, browser: Browser
) -> None:
    brain.receive(_SLOTS)
    async with visiting(browser, with_token(brain)) as visit:
        late = visit.page.locator(".late")
        await expect(visit.page.locator(".card")).to_have_count(2)
        await expect(late.first).to_be_hidden()
        brain.now_ns += 3 * 3600 * SECOND
        await ask_again(visit)
        await expect(late.first).to_have_text("ended 3 h ago")
        await expect(visit.page.locator(".factory .age")).to_have_text("data up to 3 h ago")
        await expect(visit.page.locator(".presence")).to_have_text("silent")
        brain.told.agents[:] = [replace(one, trust=Trust.REVOKED) for one in brain.told.agents]
        await ask_again(visit)
        await expect(visit.page.locator(".presence")).to_have_text("revoked")
        visit.assert_quiet(brain)


async def test_without_or_with_a_wrong_token_it_asks_for_one_and_shows_nothing(
    brain: Brain, browser: Browser
) -> None:
    brain.receive(_SLOTS)
    async with visiting(browser, brain.url) as visit:
        page = visit.page
        await expect(page.get_by_label("Token", exact=True)).to_be_focused()
        await expect(page.locator("main")).to_be_hidden()
        visit.assert_quiet(brain)
        await page.keyboard.type("wrong-token-wrong-token")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("This token was not accepted.")).to_be_visible()
        await expect(page.locator("main")).to_be_hidden()
        assert NAME not in await page.content()
        await page.get_by_label("Token", exact=True).fill(TOKEN)
        await page.get_by_role("button", name="Open").click()
        await expect(page.locator(".card")).to_have_count(2)
        await page.get_by_role("button", name="Forget the token").click()
        await expect(page.locator("#door")).to_be_visible()
        assert NAME not in await page.content()
        visit.assert_at_home(brain)


async def test_an_api_that_is_down_is_said_plainly_and_back_is_back(
    browser: Browser, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        async with running(tmp_path, terms=SHANGHAI) as brain:
            brain.receive(_SLOTS)
            visit = await stack.enter_async_context(visiting(browser, with_token(brain)))
            await see_cards(visit)
        await ask_again(visit)
        notice, live = visit.page.locator("#notice"), visit.page.locator("#live")
        await expect(notice).to_contain_text("No answer since 16:0")
        await expect(live).to_have_text("Not live")
        await expect(visit.page.locator(".card")).to_have_count(2)
        async with running(tmp_path, brain.port, terms=SHANGHAI) as again:
            again.receive(_SLOTS)
            await visit.page.get_by_role("button", name="Try now").click()
            await expect(notice).to_be_hidden()
            await expect(live).to_contain_text("Live")
            visit.assert_at_home(again)


async def test_a_store_out_of_reach_is_said_in_the_aggregators_words(
    brain: Brain, browser: Browser, tmp_path: Path
) -> None:
    blocked = tmp_path / "not-a-folder"
    blocked.write_text("in the way", encoding="utf-8")
    away = Store(Config(path=blocked), "future_factory")
    app = make_app({"future_factory": away}, brain.told, TOKEN, lambda: brain.now_ns)
    async with serving(app, "127.0.0.1", 0) as brain.port:
        for locale, said in (("en", "the store does not answer now"), ("zh", "存储暂时没有应答")):
            async with visiting(browser, with_token(brain), locale=locale) as visit:
                await expect(visit.page.locator("#notice")).to_contain_text(said)
    away.close()


async def test_what_a_factory_sends_is_text_never_markup(brain: Brain, browser: Browser) -> None:
    evil = "<img src=x onerror=alert(1)>"
    brain.receive(_SLOTS)
    agent = brain.told.agents[0]
    sheet = agent.sheets[0]
    points = (replace(sheet.points[0], equipment=evil, measurand=evil, unit=evil, resolution=evil),)
    evil_sheet = replace(sheet, hash="66" * 32, purpose=evil, right=evil, points=points)
    brain.told.agents[0] = replace(agent, name=evil, sheets=(evil_sheet,))
    tags = {"enterprise_id": evil, "equipment_id": evil, "medium": evil, "meter_role": evil}
    block = series(np.arange(3, dtype=np.int64))[0]
    brain.stores["future_factory"].write(
        [SeriesBlock(SeriesKey.of("ff_energy", tags), block.time, block.fields)]
    )
    async with visiting(browser, with_token(brain)) as visit:
        await expect(visit.page.locator(".card h3", has_text=evil)).to_have_count(1)
        await expect(visit.page.locator("td", has_text=evil)).to_have_count(4)
        await expect(visit.page.locator("#firm option", has_text=evil)).to_have_count(1)
        await expect(visit.page.locator(".factory .link")).to_have_text(evil)
        await visit.page.locator(".card .from").first.click()
        await expect(visit.page.locator("#source .part", has_text=evil)).to_have_count(1)
        await expect(visit.page.locator("body img")).to_have_count(1)
        visit.assert_quiet(brain)


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
async def test_it_fits_a_phone_and_a_wall(brain: Brain, browser: Browser, locale: str) -> None:
    brain.receive(_SLOTS)
    for width in (360, 2560):
        async with visiting(browser, with_token(brain), locale=locale, width=width) as visit:
            await see_cards(visit)
            wide = await visit.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width


async def test_the_keyboard_reaches_everything_that_can_be_used(
    brain: Brain, browser: Browser
) -> None:
    brain.receive(_SLOTS)
    async with visiting(browser, with_token(brain)) as visit:
        await see_cards(visit)
        reached = set()
        for _ in range(45):
            await visit.page.keyboard.press("Tab")
            focused = visit.page.locator(":focus")
            if await focused.count():
                reached.add(
                    await focused.evaluate("each => each.id || each.classList[0] || each.localName")
                )
        assert {
            "skip",
            "firm",
            "theme",
            "language",
            "from",
            "link",
            "plot",
            "summary",
            "scroll",
            "leave",
        } <= reached
