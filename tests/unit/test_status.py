"""Asking a running process how it does."""

import socket
import threading
from pathlib import Path

import pytest

from protocols.status import NotRunning, ask


@pytest.mark.parametrize("said", [b"", b'{"half'], ids=["nothing", "half"])
def test_a_process_that_ends_while_it_is_asked_is_told_as_not_running(
    tmp_path: Path, said: bytes
) -> None:
    path = tmp_path / "status"

    def answer(listener: socket.socket) -> None:
        end, _ = listener.accept()
        end.sendall(said)
        end.close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        ending = threading.Thread(target=answer, args=(listener,))
        ending.start()
        with pytest.raises(NotRunning):
            ask(path)
        ending.join(10)
