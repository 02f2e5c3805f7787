"""`millgate agent cert`, against a real server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from asyncua.server.server import Server
from typer.testing import CliRunner, Result

from agent.cli import app
from protocols.drivers.opcua.certificates import parse_certificate
from protocols.errors import MillgateError
from tests.servers.opcua import (
    POLICIES,
    URI,
    Node,
    driver_for,
    end_of,
    face,
    first_values,
    pair,
    plant,
    running,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
NODES = [Node(URI, "v", "Int32", 4711)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with running() as shared, plant(shared, NODES):
        yield shared


def write_config(folder: Path, port: int) -> Path:
    path = folder / "agent.toml"
    path.write_text(
        f"""
[[device]]
id = "press"
kind = "opcua"
url = "opc.tcp://127.0.0.1:{port}/mill"

[[device.points]]
id = "v"
address = "{NODES[0].address}"
type = "Int32"

[[device]]
id = "meter"
kind = "modbus"
host = "127.0.0.1"

[[device.points]]
id = "e"
address = "holding:0"
type = "uint16"
""",
        encoding="utf-8",
    )
    return path


async def call(*arguments: str | Path, answer: str | None = None) -> Result:
    """Run the command as another process would, while the server goes on."""
    words = ["cert", *(str(argument) for argument in arguments)]
    return await asyncio.to_thread(CliRunner().invoke, app, words, input=answer)


def told(result: Result) -> str:
    assert isinstance(result.exception, MillgateError), result.output
    return str(result.exception)


async def test_from_nothing_to_a_secured_connection_by_three_commands(
    server: Server, tmp_path: Path
) -> None:
    own = pair(0)
    print_of_server = parse_certificate(own.der).sha256
    async with face(server, own, unsecured=True) as port:
        path = write_config(tmp_path, port)
        made = await call("init", path, "--days", "30")
        assert made.exit_code == 0
        ours = parse_certificate((tmp_path / "pki" / "own.der").read_bytes())
        assert ours.sha256 in made.output
        assert f"trust {tmp_path / 'pki' / 'own.der'}" in made.output
        driver = driver_for(port, NODES, security="best", pki=str(tmp_path / "pki"))
        assert "agent cert trust" in (await end_of(driver.frames())).remedy

        refused = await call("trust", path, "press", answer="n\n")
        assert refused.exit_code == 1
        assert print_of_server in refused.output
        assert "not trusted yet" in (await end_of(driver.frames())).what

        agreed = await call("trust", path, "press", answer="y\n")
        assert agreed.exit_code == 0
        assert "Aes256_Sha256_RsaPss, SignAndEncrypt" in agreed.output
        assert await first_values(driver, ["v"]) == {"v": 4711}

        listed = await call("list", path)
        assert print_of_server in listed.output
        assert "press" in listed.output
        assert ours.sha256 in (await call("show", path)).output

        spaced = ":".join(print_of_server[at : at + 2].upper() for at in range(0, 64, 2))
        assert (await call("distrust", path, spaced)).exit_code == 0
        assert (await call("list", path)).output == ""
        assert "no such certificate" in told(await call("distrust", path, spaced))
        assert "not trusted yet" in (await end_of(driver.frames())).what


async def test_without_a_terminal_the_fingerprint_decides(server: Server, tmp_path: Path) -> None:
    own = pair(0, days=1)
    async with face(server, own, [(POLICIES[0], "Sign")]) as port:
        path = write_config(tmp_path, port)
        wrong = parse_certificate(pair(1).der).sha256
        assert "another certificate" in told(
            await call("trust", path, "press", "--fingerprint", wrong)
        )
        assert "64 hex digits" in told(await call("trust", path, "press", "--fingerprint", "12"))
        assert not (tmp_path / "pki").exists()
        right = parse_certificate(own.der).sha256
        done = await call("trust", path, "press", "--fingerprint", right)
        assert done.exit_code == 0
        assert "note: the server's certificate has expired" in done.output or (
            "note: the server's certificate expires" in done.output
        )
        assert "Basic256Sha256, Sign" in (await call("list", path)).output


async def test_what_cannot_be_done_is_one_line_with_a_remedy(
    server: Server, tmp_path: Path
) -> None:
    async with face(server, pair(0), [], unsecured=True) as port:
        path = write_config(tmp_path, port)
        assert "there are: press" in told(await call("trust", path, "meter"))
        assert "agent cert init" in told(await call("show", path))
        assert "does not offer" in told(await call("trust", path, "press"))
    assert "nothing listens" in told(await call("trust", path, "press"))


async def test_our_certificate_is_renewed_under_its_own_name(
    server: Server, tmp_path: Path
) -> None:
    del server
    path = write_config(tmp_path, 4840)
    der = tmp_path / "pki" / "own.der"
    assert (await call("init", path)).exit_code == 0
    before = parse_certificate(der.read_bytes())
    assert "--renew" in told(await call("init", path))
    assert (await call("init", path, "--renew", "--host", "gate-2")).exit_code == 0
    after = parse_certificate(der.read_bytes())
    assert (after.uris, after.hosts) == (before.uris, ("gate-2",))
    assert after.sha256 != before.sha256
