"""The front door: one `millgate` command. Each room brings its own commands and loads when asked.

`reconcile` stands here because it is the only command that looks into more than one room.
"""

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.last_words import say_why
from protocols.version import VERSION

if TYPE_CHECKING:
    from aggregator.account import BrainAccount, Ends, PointCells
    from aggregator.sums import ChainSum, LostRange
    from protocols.topics import Address


_ROOMS: Final = {
    "agent": (
        "agent.cli:app",
        tr("on the factory floor: collect, gate, seal, deliver", "厂内：采集、放行、封装、投递"),
    ),
    "policy": (
        "agent.policy_cli:app",
        tr(
            "what may leave: write, lint, preview, diff, attack, sign, stop, statement",
            "可公开数据策略：编写、检查、预览、比较、攻击、签署、停止、对账单",
        ),
    ),
    "keys": (
        "agent.keys_cli:app",
        tr(
            "make, encrypt, list, rotate, revoke, back up keys",
            "密钥：生成、加密、列出、更换、撤销、备份",
        ),
    ),
    "aggregator": (
        "aggregator.cli:app",
        tr("at the brain: verify, keep, serve", "产业大脑侧：验签、留存、服务"),
    ),
    "evidence": (
        "aggregator.evidence_cli:app",
        tr("who sent what, received when: export, verify, disclose", "证据：导出、验证、披露"),
    ),
    "sim": (
        "simulators.cli:app",
        tr("a simulated factory, recordings, a broker", "模拟工厂、历史数据回放、消息代理"),
    ),
    "demo": (
        "simulators.demo_cli:app",
        tr("the whole way on this machine, from machine to page", "本机演示：从设备到页面的全过程"),
    ),
    "reconcile": (
        "millgate:app",
        tr("do the sums hold? compare both ends and the truth", "对账：两端与真值是否相符"),
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; faults are one line each and a non-zero exit."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        sys.exit(_run(arguments))
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - the last place to say what went wrong
        sys.exit(say_why(error))


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in _ROOMS:
        module, name = _ROOMS[arguments[0]][0].split(":")
        room: typer.Typer = getattr(importlib.import_module(module), name)
        room(args=arguments[1:], prog_name=f"millgate {arguments[0]}", standalone_mode=True)
        return 0
    if arguments and arguments[0] in {"--version", "-V"}:
        typer.echo(VERSION)
        return 0
    wanted = not arguments or arguments[0] in {"--help", "-h"}
    if not wanted:
        unknown = tr(f"there is no command '{arguments[0]}'", f"没有命令 '{arguments[0]}'")
        typer.echo(f"millgate: {unknown}", err=True)
    typer.echo(_help(), err=not wanted)
    return 0 if wanted else 2


def _help() -> str:
    width = max(len(name) for name in _ROOMS)
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in _ROOMS.items())
    return tr(
        f"Usage: millgate COMMAND [ARGUMENTS]\n\nCommands:\n{rows}\n\n"
        "'millgate COMMAND --help' tells more. Example: millgate demo --duration 60",
        f"用法：millgate 命令 [参数]\n\n命令：\n{rows}\n\n"
        "'millgate 命令 --help' 查看详情。示例：millgate demo --duration 60",
    )


app = typer.Typer(rich_markup_mode=None, add_completion=False)

_RECONCILE: Final = tr(
    "Print the sums that always hold, and say whether they do.\n\n"
    "Inputs, known only inside the factory: produced = consumed + withheld + open + dropped.\n"
    "Outputs: released = stored + waiting + refused + declared lost + lost.\n\n"
    "Example: millgate reconcile --agent mill/agent.toml --aggregator brain/aggregator.toml",
    "打印恒等的两个总账，并说明是否相符。\n\n"
    "输入（仅厂内可知）：读取 = 已用 + 未放行 + 未结 + 丢弃。\n输出：放行 = 入库 + 等待 + 被拒 + 声明丢失 + 丢失。\n\n"
    "示例：millgate reconcile --agent mill/agent.toml --aggregator brain/aggregator.toml",
)


@app.command(help=_RECONCILE)
def reconcile(
    agent: Annotated[Path | None, typer.Option(help="agent.toml")] = None,
    aggregator: Annotated[Path | None, typer.Option(help="aggregator.toml")] = None,
    truth: Annotated[
        Path | None, typer.Option(help=tr("truth file of 'sim plant'", "sim plant 的真值文件"))
    ] = None,
    tolerance: Annotated[
        str,
        typer.Option(
            help=tr(
                "how old the last meter reading of a slot may be (polling interval and a little)",
                "时段末最后一次抄表允许的时差（轮询间隔略加）",
            )
        ),
    ] = "2s",
    as_json: Annotated[bool, typer.Option("--json", help=tr("as JSON", "输出 JSON"))] = False,  # noqa: FBT002 - a flag
) -> None:
    """Compare what was read, released, stored and true."""
    if agent is None and aggregator is None:
        raise MillgateError(
            tr("nothing to look at", "没有可对账的对象"),
            remedy=tr("give --agent, --aggregator or both", "请给出 --agent、--aggregator 或两者"),
        )
    report = account(agent, aggregator, truth, tolerance)
    typer.echo(json.dumps(report, ensure_ascii=False, indent=2) if as_json else _in_words(report))
    if not report["balanced"] or report["lost"] or report["wrong"]:
        raise typer.Exit(1)


def account(
    agent: Path | None, aggregator: Path | None, truth: Path | None, tolerance: str
) -> dict[str, Any]:
    """Return the account of one agent, one brain, or both, as plain data.

    Raises:
        MillgateError: when one of them cannot be read.
    """
    report: dict[str, Any] = {"balanced": True, "lost": 0, "wrong": 0, "first_wrong": ""}
    found, address = _agent_account(agent) if agent is not None else ({}, None)
    # The agent comes first: what it released is at the brain, or waits, when that is read.
    ends = {address: (found["epoch"], found["chains"])} if address is not None else {}
    brain = _brain_account(aggregator, ends) if aggregator is not None else None
    if address is not None:
        # The spool counts since its epoch began; epochs before it are settled.
        _add_agent(report, found, None if brain is None else brain.known.get(address, 0))
    if brain is not None:
        cells = [
            cell for owner, kept in brain.cells.items() if address in {None, owner} for cell in kept
        ]
        _add_brain(report, brain, cells, address)
        if truth is not None:
            ours = [owner for owner in brain.restarts if address in {None, owner}]
            restarts = [moment for owner in ours for moment in brain.restarts[owner]]
            losses = [one for owner in ours for one in brain.losses.get(owner, [])]
            _add_truth(report, cells, truth, tolerance, (restarts, losses))
    return report


def _agent_account(path: Path) -> tuple[dict[str, Any], "Address"]:
    from agent.account import read_account  # noqa: PLC0415 - only the rooms asked for are loaded
    from agent.config import read_config  # noqa: PLC0415 - same

    config = read_config(path)
    return read_account(config), config.identity.address


def _brain_account(path: Path, ends: "Ends") -> "BrainAccount":
    from aggregator.account import read_account  # noqa: PLC0415 - only the rooms asked for are loaded
    from aggregator.config import read_config  # noqa: PLC0415 - same

    return read_account(read_config(path), ends)


def _add_agent(report: dict[str, Any], found: dict[str, Any], stored: int | None) -> None:
    devices = found["devices"].values()
    for name in ("produced", "consumed", "withheld", "open"):
        report[name] = sum(device[name] for device in devices)
    report["dropped"] = sum(sum(device["dropped"].values()) for device in devices)
    report["devices"] = found["devices"]
    out = found["outputs"]
    kept = out["acknowledged"] if stored is None else stored
    # What the brain keeps already while its receipt is on the way does not wait any more, nor is it
    # given up.
    rest = out["released"] - kept - out["refused"]
    given_up = max(min(out["given_up"], rest), 0)
    waiting = max(min(out["waiting"], rest - given_up), 0)
    report |= {
        "released": out["released"],
        "stored": kept,
        "waiting": waiting,
        "refused": out["refused"],
        "given_up": given_up,
        "said_given_up": out["given_up"],
    }
    report["lost"] = rest - given_up - waiting
    report["streams"] = found["streams"]
    unbalanced = [name for name, book in found["devices"].items() if not book["balanced"]]
    report["balanced"] = not unbalanced and report["lost"] >= 0
    if unbalanced:
        report["first_wrong"] = tr(f"inputs of {unbalanced[0]}", f"{unbalanced[0]} 的输入总账")
    if found["altered"]:
        report["wrong"] += 1
        report["first_wrong"] = report["first_wrong"] or found["altered"]


def _add_brain(
    report: dict[str, Any],
    brain: "BrainAccount",
    cells: Sequence["PointCells"],
    address: "Address | None",
) -> None:
    if address is None:
        report["stored"] = sum(sum(epochs.values()) for epochs in brain.stored.values())
        report["refused_batches"] = sum(brain.refused.values())
    report["series"] = brain.series
    doubled = sum(cell.doubled for cell in cells)
    report["doubled"] = doubled
    sums = [one for one in brain.sums if address in {None, one.address}]
    report["chains"] = [_chain_as_dict(one) for one in sums]
    unbalanced = [one for one in sums if not one.balanced]
    report["wrong"] += doubled + brain.differing + brain.altered + len(unbalanced)
    broken = [_chain_in_words(one) for one in unbalanced]
    for first in (brain.first_altered, *broken[:1], brain.first_differing):
        report["first_wrong"] = report["first_wrong"] or first


def _chain_as_dict(one: "ChainSum") -> dict[str, Any]:
    names = ("epoch", "stream", "decided", "kept", "refused", "lost")
    return {
        "agent": one.address.agent.hex(),
        **{name: getattr(one, name) for name in names},
        "balanced": one.balanced,
    }


def _chain_in_words(one: "ChainSum") -> str:
    return tr(
        f"stream {one.stream}, epoch {one.epoch}: {one.decided} messages are not {one.kept} kept + "
        f"{one.refused} refused + {one.lost} lost",
        f"流 {one.stream}，纪元 {one.epoch}：{one.decided} 条消息不等于留存 {one.kept} + "
        f"被拒 {one.refused} + 丢失 {one.lost}",
    )


def _is_replaced(cell: "PointCells") -> bool:
    point = cell.point
    return bool(point.bands or point.clamp or point.pseudonym_s)


def _add_truth(
    report: dict[str, Any],
    cells: Sequence["PointCells"],
    truth: Path,
    tolerance: str,
    said: tuple[Sequence[int], Sequence["LostRange"]],
) -> None:
    from protocols.frame import SECOND  # noqa: PLC0415 - only when it is asked for
    from protocols.settings import parse_duration  # noqa: PLC0415 - only when it is asked for
    from simulators.judge import Kept, judge, together  # noqa: PLC0415 - same
    from simulators.truth import read_truth  # noqa: PLC0415 - same

    # What was made of several samples, or replaced by something else, the truth does not tell.
    judged: dict[str, Literal["last", "delta", "state"]] = {
        "last": "last",
        "delta": "delta",
        "state": "state",
    }
    kept = [
        Kept(
            equipment=cell.point.equipment,
            measurand=cell.point.measurand,
            part=cell.point.part,
            aggregate=aggregate,
            window_ns=cell.window_ns,
            start_ns=cell.start_ns,
            mantissa=cell.mantissa,
            exponent=cell.point.exponent,
            span=cell.span,
            step=cell.point.step,
        )
        for cell in cells
        if (aggregate := judged.get(cell.point.aggregate)) and not _is_replaced(cell)
    ]
    verdicts = judge(
        read_truth(truth),
        kept,
        tolerance_ns=parse_duration(tolerance),
        restarts=[moment * SECOND for moment in said[0]],
        losses=[(one.start_s * SECOND, one.end_s * SECOND) for one in said[1]],
    )
    verdict = together(verdicts)
    delta = together(
        [one for one, series in zip(verdicts, kept, strict=True) if series.aggregate == "delta"]
    )
    report["judged"] = verdict.slots
    report["partial"] = verdict.partial
    # A counter counts over what could not be read; a quantity or state of that time is absent.
    report["lost"] += delta.gaps
    report["declared"] = delta.declared + delta.given_up
    report["losses"] = [asdict(one) for one in said[1]]
    report["missing"] = [asdict(one) for one in verdict.missing]
    report["absent"] = verdict.gaps + verdict.declared - delta.gaps - delta.declared
    report["wrong"] += verdict.wrong + verdict.doubled
    report["first_wrong"] = report["first_wrong"] or verdict.first_wrong
    report["first_lost"] = delta.first_gap


def _in_words(report: dict[str, Any]) -> str:
    lines = []
    if "produced" in report:
        lines += [
            tr(
                "inputs:  produced {produced} = consumed {consumed} + withheld {withheld} "
                "+ open {open} + dropped {dropped}",
                "输入：读取 {produced} = 已用 {consumed} + 未放行 {withheld} + 未结 {open} + 丢弃 {dropped}",
            ),
            tr(
                "outputs: released {released} = stored {stored} + waiting {waiting} "
                "+ refused {refused} + declared lost {given_up} + lost {lost}",
                "输出：放行 {released} = 入库 {stored} + 等待 {waiting} + 被拒 {refused} "
                "+ 声明丢失 {given_up} + 丢失 {lost}",
            ),
        ]
        lines += [_device_line(name, book) for name, book in report["devices"].items()]
        lines += [_stream_line(one) for one in report["streams"]]
    if "chains" in report:
        lines += [_chain_line(one) for one in report["chains"]]
    if "series" in report:
        rows = ", ".join(f"{name} {count}" for name, count in report["series"].items())
        lines.append(tr(f"series:  {rows}", f"序列：{rows}"))
    if "judged" in report:
        lines.append(
            tr(
                "truth:   {judged} values judged, {wrong} wrong, {lost} lost, {declared} declared lost",
                "真值：核对 {judged} 个值，错误 {wrong}，丢失 {lost}，已声明丢失 {declared}",
            )
        )
    if report["first_wrong"]:
        lines.append(tr("first wrong: {first_wrong}", "首个错误：{first_wrong}"))
    if report.get("first_lost"):
        lines.append(tr("first lost: {first_lost}", "首个丢失：{first_lost}"))
    good = report["balanced"] and not report["lost"] and not report["wrong"]
    lines.append(
        tr("the account holds", "账目相符") if good else tr("THE ACCOUNT DOES NOT HOLD", "账目不符")
    )
    return "\n".join(lines).format(**report)


def _device_line(name: str, book: dict[str, Any]) -> str:
    dropped = ", ".join(f"{reason} {count}" for reason, count in book["dropped"].items())
    said = tr(
        f"  {name}: {book['produced']} = {book['consumed']} + {book['withheld']} + {book['open']} "
        f"+ {sum(book['dropped'].values())}",
        f"  {name}：{book['produced']} = {book['consumed']} + {book['withheld']} + {book['open']} "
        f"+ {sum(book['dropped'].values())}",
    )
    return _literal(f"{said} ({dropped})" if dropped else said)


def _stream_line(one: dict[str, Any]) -> str:
    return tr(
        f"  stream {one['stream']}: {one['sealed']} messages = {one['receipted']} receipted "
        f"+ {one['waiting']} waiting + {one['refused']} refused + {one['lost']} lost",
        f"  流 {one['stream']}：{one['sealed']} 条消息 = 已回执 {one['receipted']} "
        f"+ 等待 {one['waiting']} + 被拒 {one['refused']} + 丢失 {one['lost']}",
    )


def _chain_line(one: dict[str, Any]) -> str:
    return tr(
        f"  brain, {one['agent'][:8]} stream {one['stream']} epoch {one['epoch']}: {one['decided']} "
        f"messages = {one['kept']} kept + {one['refused']} refused + {one['lost']} lost",
        f"  产业大脑 {one['agent'][:8]} 流 {one['stream']} 纪元 {one['epoch']}：{one['decided']} "
        f"条消息 = 留存 {one['kept']} + 被拒 {one['refused']} + 丢失 {one['lost']}",
    )


def _literal(text: str) -> str:
    """Keep braces of a name from being filled in."""
    return text.replace("{", "{{").replace("}", "}}")


if __name__ == "__main__":
    main()
