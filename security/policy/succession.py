"""Whether one policy may come after another."""

from protocols.language import tr
from security.policy.compiled import CompiledPolicy, content_hash, owner_of, to_bytes


def owners(policy: CompiledPolicy) -> dict[int, bytes]:
    """Return whose every number is that a policy uses or has retired."""
    found = {
        number: one.owner
        for one in policy.retired
        for number in range(one.number, one.number + one.width)
    }
    for leaving in policy.leaving:
        owner = owner_of(leaving)
        found |= dict.fromkeys(range(leaving.number, leaving.number + leaving.width), owner)
    return found


def number_faults(old: CompiledPolicy, new: CompiledPolicy) -> list[str]:
    """Return a line for everything that took the number of something else, or forgot one."""
    before, now = owners(old), owners(new)
    faults = []
    for one in new.leaving:
        mine = owner_of(one)
        taken = [
            n for n in range(one.number, one.number + one.width) if before.get(n, mine) != mine
        ]
        if taken:
            faults.append(
                tr(
                    f"{one.source}: number {taken[0]} belonged to another point; give it a new one",
                    f"{one.source}：编号 {taken[0]} 曾属于其他点；请使用新编号",
                )
            )
    forgotten = sorted(number for number in before if number not in now)
    if forgotten:
        faults.append(
            tr(
                f"number {forgotten[0]} was used before and is not kept as retired; compile it "
                "with the policy before at hand",
                f"编号 {forgotten[0]} 曾被使用而未保留；请在提供上一版策略的情况下编译",
            )
        )
    return faults


def succession_faults(last: CompiledPolicy, new: CompiledPolicy) -> list[str]:
    """Return a line for every reason why `new` may not be enforced after `last` was.

    The same policy may always be enforced again.
    """
    if new == last:
        return []
    faults = number_faults(last, new)
    if new.previous != content_hash(to_bytes(last)):
        faults.append(
            tr(
                f"it does not follow version {last.version}, the last that was enforced here "
                f'(previous = "sha256:{content_hash(to_bytes(last)).hex()}")',
                f"它不接续此处最后执行的版本 {last.version}"
                f'（previous = "sha256:{content_hash(to_bytes(last)).hex()}"）',
            )
        )
    canaries = {one.point for one in last.secrets if one.canary}
    leaving = {one.source for one in new.rules}
    faults += [
        tr(
            f"{point} was a canary: it cannot be released in the version that takes the mark away",
            f"{point} 原为金丝雀点：取消标记的同一版本不得放行它",
        )
        for point in sorted(canaries & leaving)
    ]
    return faults
