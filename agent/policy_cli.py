"""`millgate policy`, with the commands that look into the agent's folder: history and statement."""

import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from agent.authority import archived
from agent.config import AgentConfig, read_config
from agent.registry import Registry
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.sheet import show_text
from security.cli import policy_app
from security.policy.compiled import CompiledPolicy
from security.policy.tools.diff import compare
from security.policy.tools.officers import who

app = policy_app

_MOST: Final = 8

_HISTORY: Final = tr(
    "List every policy that was enforced here: since when, who signed it, what it changed.\n\n"
    "Example: millgate policy history mill/agent.toml",
    "列出此处执行过的每一版策略：何时起、由谁签署、有何变化。\n\n"
    "示例：millgate policy history mill/agent.toml",
)


@app.command("history", help=_HISTORY)
def history(
    path: Annotated[Path, typer.Argument(help=tr("path of agent.toml", "agent.toml 的路径"))],
    full: Annotated[bool, typer.Option(help=tr("every change", "显示全部变化"))] = False,  # noqa: FBT002 - a flag
) -> None:
    """List every policy that was enforced here."""
    config = read_config(path)
    file = config.spool.folder / "registry.json"
    if not file.exists():
        typer.echo(tr("No policy was enforced here yet.", "此处尚未执行过任何策略。"))
        return
    registry = Registry(file)
    try:
        entries, stops = registry.policies(), registry.stops()
    finally:
        registry.close()
    events: list[_Event] = []
    before: CompiledPolicy | None = None
    for entry, following in zip(entries, [*entries[1:], None], strict=True):
        policy = _kept(config, entry)
        events.append((int(entry["at"]), _lines(config, entry, before, policy, full=full)))
        if policy is not None:
            events += _expiry(policy, int(following["at"]) if following else None)
        before = policy
    events += [_stop(stop) for stop in stops]
    for _, lines in sorted(events, key=lambda one: one[0]):
        typer.echo("\n".join(lines))


_Event = tuple[int, list[str]]
"""When (seconds since 1970 UTC), and the lines that tell it."""


def _stop(stop: dict[str, Any]) -> _Event:
    at_s = int(stop["at"])
    line = tr(
        f"{_moment(at_s)}  STOP of version {stop['through']} and every older one",
        f"{_moment(at_s)}  停止：版本 {stop['through']} 及所有更早版本",
    )
    return at_s, [line]


def _expiry(policy: CompiledPolicy, until_s: int | None) -> list[_Event]:
    """Tell when a policy ended by itself, where that was before the next one was enforced."""
    end_s = policy.valid_until
    if end_s > (time.time() if until_s is None else until_s):
        return []
    line = tr(
        f"{_moment(end_s)}  version {policy.version} expired: nothing left from then on",
        f"{_moment(end_s)}  版本 {policy.version} 到期：自此不再放行任何数据",
    )
    return [(end_s, [line])]


def _kept(config: AgentConfig, entry: dict[str, Any]) -> CompiledPolicy | None:
    return archived(config, int(entry["version"]), entry["hash"])


def _lines(
    config: AgentConfig,
    entry: dict[str, Any],
    before: CompiledPolicy | None,
    policy: CompiledPolicy | None,
    *,
    full: bool,
) -> list[str]:
    signers = [who(bytes.fromhex(kid), config.policy.officers) for kid in entry.get("signers", [])]
    signed = ", ".join(signers) or tr("not recorded", "未记录")
    at = _moment(int(entry["at"]))
    lines = [
        tr(
            f"{at}  version {entry['version']}  signed by {signed}",
            f"{at}  版本 {entry['version']}  签署：{signed}",
        ),
        f"  sha256:{entry['hash']}",
    ]
    if policy is None:
        return [*lines, tr("  its content was not kept", "  未保留其内容")]
    found = compare(before, policy)
    changes = [f"  + {one}" for one in found.visible] + [f"  - {one}" for one in found.hidden]
    most = len(changes) if full else _MOST
    lines += changes[:most]
    if len(changes) > most:
        rest = len(changes) - most
        lines.append(tr(f"  … {rest} more (--full)", f"  … 另有 {rest} 项（--full）"))
    return lines


_STATEMENT: Final = tr(
    "Say in plain language what left of a day; yesterday, unless another is given.\n\n"
    "It is read back from the archive of sealed messages with the firm's audit key. The HTML page can be "
    "printed to PDF from any browser.\n\n"
    "Example: millgate policy statement mill/agent.toml --key audit.key --html statement.html",
    "用日常语言说明某一天外发了什么；默认昨天。\n\n"
    "内容用企业审计密钥从密封消息归档中读出。HTML 页面可在浏览器中打印为 PDF。\n\n"
    "示例：millgate policy statement mill/agent.toml --key audit.key --html statement.html",
)


@app.command("statement", help=_STATEMENT)
def statement(
    path: Annotated[Path, typer.Argument(help=tr("path of agent.toml", "agent.toml 的路径"))],
    key: Annotated[Path, typer.Option(help=tr("the firm's private audit key", "企业审计私钥文件"))],
    day: Annotated[str, typer.Option(help=tr("such as 2026-01-31", "例如 2026-01-31"))] = "",
    html: Annotated[Path | None, typer.Option(help=tr("write a page", "写成网页"))] = None,
) -> None:
    """Say in plain language what left of a day."""
    from agent.audit import read_back  # noqa: PLC0415 - the command line starts fast
    from agent.audit_cli import archive  # noqa: PLC0415 - same
    from agent.statement import as_html, as_text, day_span, erasures, tell  # noqa: PLC0415 - same
    from security.policy.tools.page import write_page  # noqa: PLC0415 - same

    config = read_config(path)
    chosen = _day(day)
    brains = {card.encryption_key.kid: card.name for card in config.consumers.values()}
    with archive(config, key) as (spool, opening):
        messages = read_back(spool, opening, *day_span(chosen))
        said = erasures(spool.erasures(), config.identity.address, list(config.consumers.values()))
        found = tell(chosen, messages, brains, said)
    show_text(as_text(found))
    if html is not None:
        write_page(html, as_html(found))
        typer.echo(str(html))


def _day(text: str) -> date:
    if not text:
        return (datetime.now().astimezone() - timedelta(days=1)).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise MillgateError(
            tr("not a day", "不是日期"), where=f"--day {text}", remedy="2026-01-31"
        ) from None


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
