"""Mutation testing of the verifier and the replay logic: change one thing, and a test must fail.

    python -m tests.tools.mutation                      every target
    python -m tests.tools.mutation security.cose        one of them
    python -m tests.tools.mutation --list security.cose what would be changed

Every function of a target is compiled anew with one change and put in the place of the right one, in a
forked process that then runs the target's tests. What survives is printed; `docs/mutation.md` says why
each may. It takes long and is not part of CI.
"""

import ast
import contextlib
import copy
import importlib
import io
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.vectors.material import FOLDER
from tests.vectors.run import outcome, read

TARGETS: Final[dict[str, list[str]]] = {
    "security.envelope": ["test_envelope.py"],
    "security.cose": ["test_cose.py"],
    "aggregator.inbox": ["test_restored.py", "test_inbox.py", "test_attestations.py"],
    "aggregator.early": ["test_restored.py"],
    "agent.chains": ["test_restored.py"],
    "protocols.strict_cbor": ["test_strict_cbor.py"],
    "security.transparency": ["test_transparency.py"],
    "aggregator.statements": ["test_asking.py", "test_restored.py", "test_attestations.py"],
    "security.statements": ["test_attestations.py"],
    "security.answers": ["test_answers.py"],
    "agent.asking": ["test_asking.py", "test_restored.py"],
}
"""What is changed, and which tests run after the test kit's vectors, which run first."""

ONLY: Final = {
    "security.envelope": {
        "unpad",
        "parse",
        "read",
        "open_sealed",
        "_read_recipients",
        "_recipient_kid",
        "_read_claims",
        "_is_bytes",
        "_pair",
        "_window",
        "_kids",
        "_before",
        "_gaps",
    },
    "aggregator.inbox": {
        "Inbox._verified",
        "Inbox._in_order",
        "Inbox._prove",
        "Inbox._state",
        "Inbox._attest",
        "Inbox._next_early",
        "Inbox._nameable",
    },
}
"""Of some targets only what verifies and decides about replays."""

# Each of these runs for seconds, and no mutant is known to be killed by it alone.
SLOW: Final = (
    "bit_flip or over_any_broker or arbitrary or any_content or damaged or comes_back or hostile"
    " or whatever_order or survives or nine or cut_anywhere"
)
UNIT: Final = Path(__file__).parents[1] / "unit"
VECTORS: Final = [read(path) for path in sorted(FOLDER.glob("[0-9][0-9][0-9]-*.txt"))]
SECONDS: Final = 240
"""A mutant that runs longer hangs, and counts as killed."""

_COMPARE: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        function: its qualified name in the module.
    """

    function: str
    line: int
    what: str
    code: types.CodeType


def variants(node: ast.AST) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Yield for one node of a tree: what is changed, how, and how it is undone."""
    match node:
        case ast.Compare(ops=[first, *_]) if type(first) in _COMPARE:
            new = _COMPARE[type(first)]()
            yield (
                f"{type(first).__name__} -> {type(new).__name__}",
                lambda: node.ops.__setitem__(0, new),
                lambda: node.ops.__setitem__(0, first),
            )
        case ast.BoolOp(op=old):
            other = ast.Or() if isinstance(old, ast.And) else ast.And()
            yield "and <-> or", lambda: setattr(node, "op", other), lambda: setattr(node, "op", old)
        case ast.BinOp(op=sign) if type(sign) in _ARITHMETIC:
            changed = _ARITHMETIC[type(sign)]()
            yield (
                f"{type(sign).__name__} -> {type(changed).__name__}",
                lambda: setattr(node, "op", changed),
                lambda: setattr(node, "op", sign),
            )
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            yield (
                f"{value} -> {value + 1}",
                lambda: setattr(node, "value", value + 1),
                lambda: setattr(node, "value", value),
            )
        case ast.If(test=test) | ast.IfExp(test=test):
            for constant in (True, False):
                fixed = ast.copy_location(ast.Constant(constant), test)
                yield (
                    f"if {constant}",
                    lambda fixed=fixed: setattr(node, "test", fixed),  # type: ignore[misc] # a default binds it
                    lambda: setattr(node, "test", test),
                )


def dropped(body: list[ast.stmt]) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Yield for a body: each `raise` and each call left out."""
    for at, statement in enumerate(body):
        if isinstance(statement, ast.Raise) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
        ):
            nothing = ast.copy_location(ast.Pass(), statement)
            yield (
                f"without: {ast.unparse(statement)[:60]}",
                lambda at=at, nothing=nothing: body.__setitem__(at, nothing),  # type: ignore[misc] # defaults bind them
                lambda at=at, statement=statement: body.__setitem__(at, statement),  # type: ignore[misc] # same
            )


def mutants(path: Path) -> Iterator[Mutant]:
    """Yield every mutant of a file's functions."""
    tree = ast.parse(path.read_text("utf-8"))
    for name, function in functions(tree, ""):
        for node in ast.walk(function):
            changes = list(variants(node))
            if hasattr(node, "body") and isinstance(node.body, list):
                changes += dropped(node.body)
            for what, do, undo in changes:
                do()
                code = code_of(
                    compile(ast.fix_missing_locations(copy.deepcopy(tree)), path, "exec"), name
                )
                undo()
                yield Mutant(name, getattr(node, "lineno", function.lineno), what, code)


def functions(tree: ast.AST, outer: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{outer}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield f"{outer}{node.name}", node


def code_of(code: types.CodeType, name: str) -> types.CodeType:
    """Return the code object of a qualified name within a module's."""
    for part in name.split("."):
        code = next(
            one for one in code.co_consts if isinstance(one, types.CodeType) and one.co_name == part
        )
    return code


def function_of(module: types.ModuleType, name: str) -> types.FunctionType:
    found: object = module
    for part in name.split("."):
        found = vars(found)[part]
    if isinstance(found, property):
        found = found.fget
    found = getattr(found, "__func__", found)
    found = getattr(found, "__wrapped__", found)
    assert isinstance(found, types.FunctionType)
    return found


def run(tests: list[str]) -> int:
    """Run tests in this process, silently."""
    silent = io.StringIO()
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", f"not ({SLOW})"]
        return int(pytest.main([*arguments, *(str(UNIT / name) for name in tests)]))


def vectors_hold() -> bool:
    """Tell whether every vector of the test kit still gives its reason."""
    return all(outcome(vector) == vector.text("reason") for vector in VECTORS)


def survives(module: types.ModuleType, mutant: Mutant, tests: list[str]) -> bool:
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            function_of(module, mutant.function).__code__ = mutant.code
            status = int(not vectors_hold() or run(tests) != 0)
        os._exit(status)
    deadline = time.monotonic() + SECONDS
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.02)


def main(arguments: list[str]) -> int:
    listing = "--list" in arguments
    chosen = [name for name in arguments if name in TARGETS] or list(TARGETS)
    left = 0
    for name in chosen:
        module = importlib.import_module(name)
        path = Path(str(module.__file__))
        only = ONLY.get(name)
        found = [one for one in mutants(path) if only is None or one.function in only]
        if listing:
            for one in found:
                print(f"{path.name}:{one.line} {one.function}: {one.what}")
            continue
        # Once with nothing changed: the tests are imported, and must be green.
        assert vectors_hold()
        assert run(TARGETS[name]) == 0, name
        alive = []
        for at, one in enumerate(found, 1):
            if survives(module, one, TARGETS[name]):
                alive.append(one)
            sys.stderr.write(f"\r{name} {at}/{len(found)}, {len(alive)} survive ")
        print(f"{name}: {len(found)} mutants, {len(alive)} survive", flush=True)
        for one in alive:
            print(f"  {path.name}:{one.line} {one.function}: {one.what}", flush=True)
        left += len(alive)
    return left


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
