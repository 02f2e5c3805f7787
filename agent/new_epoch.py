"""Begins a new epoch by order of a person: the way out for an agent whose clock was far ahead and is right now.

Its slots up to the wrong time are used up, and nothing may leave for them a second time under the same
chains' memory. In a new epoch it goes on at once: counters take new baselines, and the first message of
each chain says, signed, where the one before ended.
"""

from agent.chains import end_chains
from agent.config import AgentConfig
from agent.mending import open_mended
from agent.registry import Registry
from agent.spool import Spool
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.status import only_one


def begin_new_epoch(config: AgentConfig, now_s: int) -> int:
    """Let the agent go on in a new epoch when it is started next; return which.

    Args:
        config: whose; it must not be running.
        now_s: the right time, seconds since 1970 UTC.

    Raises:
        AlreadyRunning: while the agent runs.
        MillgateError: when nothing was ever sealed, or something still waits for the brain.
    """
    folder = config.spool.folder
    path = folder / "spool.db"
    with only_one(folder):
        if not path.exists():
            raise _nothing(config)
        spool, registry = open_mended(path), Registry(folder / "registry.json")
        try:
            epoch = int(spool.meta("epoch", 0))
            if not epoch:
                raise _nothing(config)
            _check_delivered(spool, config)
            new = max(epoch, registry.epoch, int(spool.meta("epoch_due", 0))) + 1
            with spool.transaction() as db:
                end_chains(spool, db, epoch, new)
                spool.set_meta({"at": 0, "acknowledged_at": 0})
            registry.not_later_than(now_s)
        finally:
            registry.close()
            spool.close()
    return new


def _check_delivered(spool: Spool, config: AgentConfig) -> None:
    """Refuse while something waits: the brain could not tell its end from a loss."""
    waiting = spool.tally().waiting_batches
    if waiting:
        raise MillgateError(
            tr(
                f"{waiting} message(s) still wait for the brain",
                f"仍有 {waiting} 条消息等待产业大脑确认",
            ),
            where=str(config.path),
            remedy=tr(
                "start the agent and let it deliver them (it does, while nothing new leaves), then stop it",
                "请启动代理程序使其投递完毕（不放行新数据时也会投递），再停止",
            ),
        )


def _nothing(config: AgentConfig) -> MillgateError:
    return MillgateError(
        tr("nothing was released here yet", "此处尚未放行过任何数据"),
        where=str(config.path),
        remedy=tr(
            f"start it: millgate agent run {config.path}",
            f"请启动：millgate agent run {config.path}",
        ),
    )
