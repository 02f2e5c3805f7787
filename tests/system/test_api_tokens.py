"""Tokens of the API: each is good for what it says, until it ends or is taken out."""

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from pydantic import ValidationError

from aggregator.api.scopes import RateLimit, new_token, read_tokens
from aggregator.api.server import make_app, serving
from aggregator.config import ApiConfig
from aggregator.feed import Feed, Followed
from aggregator.stores import ENTERPRISE, EQUIPMENT, SeriesBlock, SeriesKey
from aggregator.stores.embedded import Config, Store
from protocols.errors import ConfigError
from protocols.frame import SECOND
from protocols.tls import client_context, server_context
from simulators.demo import command
from tests.certificates import Authority
from tests.system.brain import TOKEN, Told

BUCKET = "future_factory"
NOW_NS = 1_800_000_000 * SECOND
FIRMS = ("east-mill", "west-mill")
KEYS = {
    (firm, name): SeriesKey.of(name, {ENTERPRISE: firm, EQUIPMENT: "meter-1"})
    for firm in FIRMS
    for name in ("ff_energy", "ff_reading")
}

Ask = Callable[..., Any]


@asynccontextmanager
async def api(folder: Path) -> AsyncIterator[Ask]:
    """Serve two firms' series; gives what asks with a token and returns status and document."""
    config = Config(path=folder / "store")
    feed = Feed(folder / "feed.db", lambda: NOW_NS)
    writer = Followed(Store(config, BUCKET), BUCKET, feed)
    reader = Store(config, BUCKET)
    for key in KEYS.values():
        writer.write([SeriesBlock(key, np.array([NOW_NS]), {"value": np.array([1.0])})])
    app = make_app(
        {BUCKET: reader},
        Told(),
        TOKEN,
        lambda: NOW_NS,
        tokens=folder / "tokens.toml",
        feed=feed,
    )
    try:
        async with (
            serving(app, "127.0.0.1", 0) as port,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
        ):

            async def ask(token: str, path: str) -> tuple[int, Any]:
                url = f"http://127.0.0.1:{port}/api/v1{path}"
                headers = {"Authorization": f"Bearer {token}"}
                async with session.get(url, headers=headers) as answer:
                    return answer.status, await answer.json(content_type=None)

            yield ask
    finally:
        for each in (writer, reader, feed):
            each.close()


def seen(document: Any) -> set[tuple[str, str]]:
    return {(each["tags"][ENTERPRISE], each["measurement"]) for each in document["series"]}


@pytest.mark.parametrize(
    ("firms", "measurements", "expected"),
    [
        ([], [], set(KEYS)),
        (["east-mill"], [], {("east-mill", "ff_energy"), ("east-mill", "ff_reading")}),
        ([], ["ff_energy"], {("east-mill", "ff_energy"), ("west-mill", "ff_energy")}),
        (["west-mill"], ["ff_reading"], {("west-mill", "ff_reading")}),
        (["nobody"], [], set()),
    ],
)
async def test_a_token_shows_its_firms_and_series_and_nothing_else(
    tmp_path: Path,
    firms: list[str],
    measurements: list[str],
    expected: set[tuple[str, str]],
) -> None:
    token = new_token(tmp_path / "tokens.toml", "platform", firms, measurements, 30)
    async with api(tmp_path) as ask:
        _, listed = await ask(token, "/series")
        assert seen(listed) == expected
        assert seen((await ask(token, "/newest"))[1]) == expected
        _, page = await ask(token, "/changes")
        assert seen({"series": [one["series"] for one in page["changes"]]}) == expected
        assert page["next"] == page["head"]
        _, everything = await ask(TOKEN, "/series")
        assert seen(everything) == set(KEYS)
        for each in everything["series"]:
            mine = (each["tags"][ENTERPRISE], each["measurement"]) in expected
            for part in ("rows", "newest", "steps?field=value"):
                status, _ = await ask(token, f"/series/{each['id']}/{part}")
                assert status == (200 if mine else 404)


async def test_a_token_that_is_over_or_taken_out_is_no_token(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    token = new_token(path, "platform", [], [], 30)
    over = new_token(path, "over", [], [], 30)
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    lines = path.read_text("utf-8").splitlines()
    lines[-1] = f"expires = {past}"
    path.write_text("\n".join(lines), "utf-8")
    async with api(tmp_path) as ask:
        assert (await ask(over, "/series"))[0] == 401
        assert (await ask(token, "/series"))[0] == 200
        path.write_text("", "utf-8")
        async with asyncio.timeout(30):
            status = 200
            while status == 200:
                await asyncio.sleep(0.2)
                status, _ = await ask(token, "/series")
        assert status == 401
        assert (await ask(TOKEN, "/series"))[0] == 200


async def test_a_faulty_file_of_tokens_changes_nothing_while_the_brain_runs(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    token = new_token(path, "platform", [], [], 30)
    async with api(tmp_path) as ask:
        path.write_text("[[token]]\nname = ", "utf-8")
        await asyncio.sleep(4)
        assert (await ask(token, "/series"))[0] == 200


async def test_whoever_tries_tokens_is_slowed_down(tmp_path: Path) -> None:
    async with api(tmp_path) as ask:
        statuses = [(await ask("guess" * 8, "/series"))[0] for _ in range(30)]
        assert statuses[0] == 401
        assert statuses[-1] == 429
        # Somebody with a right token is not.
        assert (await ask(TOKEN, "/series"))[0] == 200


def test_a_rate_limit_lets_a_burst_pass_and_then_only_its_rate() -> None:
    limit = RateLimit(burst=5, per_second=0.001)
    assert [limit.take("one") == 0 for _ in range(7)] == [True] * 5 + [False] * 2
    assert limit.take("other") == 0


def test_only_hashes_of_tokens_are_kept_and_only_for_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    token = new_token(path, "platform", ['a "firm"'], [], 30)
    assert token not in path.read_text("utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_tokens(path)[0].enterprises == ['a "firm"']
    with pytest.raises(ConfigError, match="already") as taken:
        new_token(path, "platform", [], [], 30)
    assert str(path) in str(taken.value)
    assert ".part" not in str(taken.value)
    assert len(read_tokens(path)) == 1


async def test_the_command_makes_a_token_and_shows_it_once(tmp_path: Path) -> None:
    await command("aggregator", "init", str(tmp_path / "brain"))
    config = str(tmp_path / "brain" / "aggregator.toml")
    shown = await command(
        *("aggregator", "token", config, "platform"),
        *("--firm", "east-mill", "--measurement", "ff_energy", "--measurement", "ff_enregy"),
    )
    assert shown.splitlines()[0].isascii()
    assert "'east-mill'" in shown
    assert "'ff_enregy'" in shown
    assert "'ff_energy'" not in shown
    (entry,) = read_tokens(tmp_path / "brain" / "keys" / "api-tokens.toml")
    assert entry.scope().sees_firm("east-mill")
    assert not entry.scope().sees_firm("west-mill")
    twice = await command("aggregator", "token", config, "platform", may_fail=True)
    assert "platform" in twice
    assert "Traceback" not in twice


async def test_the_api_speaks_tls_with_its_own_certificate(tmp_path: Path) -> None:
    ours, strange = Authority(tmp_path, "ours"), Authority(tmp_path, "strange")
    own = ours.vouch("brain", "127.0.0.1")
    app = make_app({}, Told(), TOKEN, lambda: NOW_NS)
    async with (
        serving(app, "127.0.0.1", 0, server_context(own, own)) as port,
        aiohttp.ClientSession() as session,
    ):
        url = f"https://127.0.0.1:{port}/healthz"
        async with session.get(url, ssl=client_context(ours.file, None, None)) as answer:
            assert await answer.text() == "ok\n"
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(url, ssl=client_context(strange.file, None, None))


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"host": "127.0.0.1"}, True),
        ({"host": "0.0.0.0"}, False),  # noqa: S104 - the test is that it is refused
        ({"host": "brain.example", "plain_http": True}, True),
        ({"host": "brain.example", "certificate": "a", "private_key": "b"}, True),
        ({"host": "127.0.0.1", "certificate": "a"}, False),
    ],
)
def test_other_machines_are_served_only_with_tls_or_an_explicit_word(
    settings: dict[str, Any], allowed: bool
) -> None:
    if allowed:
        ApiConfig(**settings)
    else:
        with pytest.raises(ValidationError):
            ApiConfig(**settings)
