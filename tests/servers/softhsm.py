"""A real PKCS#11 token in software: SoftHSM2, from Debian."""

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Final

from tests.servers import debian

PIN: Final = "246810"
_OFFICER_PIN: Final = "13579111"


class Tokens:
    """A folder of tokens, which this process and those that it starts see from now on.

    A process looks for them only once, so one folder serves a whole run.

    Args:
        labels: of the tokens to make; the PIN of each is in a file beside them.
    """

    def __init__(self, folder: Path, *labels: str) -> None:
        if importlib.util.find_spec("pkcs11") is None:
            debian.missing("needs python-pkcs11 (extra millgate[token]), which is not installed")
        self._util = debian.require("softhsm2-util", "softhsm2")
        self.module = _module()
        self._folder = folder
        (folder / "tokens").mkdir(parents=True)
        config = folder / "softhsm2.conf"
        config.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = str(config)
        for label in labels:
            self._make(label)

    def _make(self, label: str) -> None:
        words = ("--init-token", "--free", "--label", label, "--pin", PIN)
        subprocess.run(
            [self._util, *words, "--so-pin", _OFFICER_PIN],
            check=True,
            capture_output=True,
            timeout=60,
        )
        pin = self.pin(label)
        pin.touch(mode=0o600)
        pin.write_text(f"{PIN}\n", "ascii")

    def pin(self, label: str) -> Path:
        """Return the file with a token's PIN."""
        return self._folder / f"{label}.pin"

    def place(self, label: str, key: str, pin: str = "") -> str:
        """Return the place of a key, its PIN in the token's file or in another place."""
        pin = pin or str(self.pin(label))
        return f"pkcs11:token={label};object={key}?module-path={self.module}&pin-source={pin}"


def _module() -> Path:
    found = next(Path("/usr/lib").glob("**/softhsm/libsofthsm2.so"), None)
    if found is None:
        debian.missing("needs libsofthsm2.so (Debian package libsofthsm2), which is not installed")
    return found
