"""Folders for data, and what is said when they cannot be used."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocols.errors import MillgateError
from protocols.language import tr


class NoFolder(MillgateError):
    """A folder for data that cannot be made or written to."""


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Tell in words when what is done here to a folder for data is refused.

    Raises:
        NoFolder: instead of the operating system's fault.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise NoFolder(
            tr(
                f"the folder cannot be made or written to ({why})", f"无法创建或写入该目录（{why}）"
            ),
            where=str(folder),
            remedy=tr(
                "correct 'folder' in the configuration, or who owns it",
                "请更正配置中的 folder 或目录的所有者",
            ),
        ) from None
