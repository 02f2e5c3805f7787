"""A page in a real browser, and everything its browser complained about or asked for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from playwright.async_api import Browser, Page, Request, async_playwright, expect

from tests.servers.debian import require
from tests.system.brain import TOKEN, Brain

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 30_000


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """Run Debian's chromium."""
    chromium = require("chromium", "chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield browser
        await browser.close()


@dataclass
class Visit:
    """A page, and everything its browser complained about or asked for."""

    page: Page
    complaints: list[str]
    asked: list[Request]

    def assert_quiet(self, brain: Brain) -> None:
        assert self.complaints == []
        self.assert_at_home(brain)

    def assert_at_home(self, brain: Brain) -> None:
        assert self.asked
        assert all(request.url.startswith(brain.url + "/") for request in self.asked)
        assert all(TOKEN not in request.url for request in self.asked)


@asynccontextmanager
async def visiting(
    browser: Browser,
    url: str,
    *,
    locale: str = "en-GB",
    zone: str = "Asia/Shanghai",
    width: int = 1280,
    height: int = 900,
) -> AsyncIterator[Visit]:
    context = await browser.new_context(
        locale=locale, timezone_id=zone, viewport={"width": width, "height": height}
    )
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    page = await context.new_page()
    visit = Visit(page, [], [])
    page.on("console", lambda told: visit.complaints.append(f"{told.type}: {told.text}"))
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on("request", lambda request: visit.asked.append(request))  # noqa: PLW0108 - playwright marks it
    await page.goto(url)
    yield visit
    await context.close()


async def see_cards(visit: Visit) -> None:
    """Scroll to the equipment: charts are drawn where somebody looks."""
    await expect(visit.page.locator("#board")).to_have_attribute("aria-busy", "false")
    await visit.page.locator(".card").last.scroll_into_view_if_needed()
    await expect(visit.page.locator(".card .slots svg")).to_have_count(2)


async def ask_again(visit: Visit) -> None:
    """Do what a browser tells a page that is looked at again."""
    await visit.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def with_token(brain: Brain) -> str:
    return f"{brain.url}/#token={TOKEN}"
