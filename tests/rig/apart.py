"""A network namespace whose link to the database can be cut, and whose link to Wix stays; needs root."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.real_parts import lacking, require

_NETWORK: Final = "10.231"


class Apart:
    """Where a node runs: it reaches Wix at `wix` and the database at `database`, over a link each.

    A cut link loses what is sent, in silence, as a real one does: nobody is told of an end.
    """

    def __init__(self, name: str, number: int) -> None:
        self._name = name
        self._number = number
        self.wix = self._address("wix", ours=True)
        self.database = self._address("db", ours=True)

    @property
    def started_by(self) -> tuple[str, ...]:
        """The command that runs the command after it in there."""
        return ("ip", "netns", "exec", self._name)

    def make(self) -> None:
        """Make the namespace and its links."""
        _ip("netns", "add", self._name)
        _ip("-n", self._name, "link", "set", "lo", "up")
        for kind in ("wix", "db"):
            here, there = self._link(kind), f"{self._link(kind)}n"
            _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", self._name)
            _ip("addr", "add", f"{self._address(kind, ours=True)}/30", "dev", here)
            _ip("link", "set", here, "up")
            _ip("-n", self._name, "addr", "add", f"{self._address(kind, ours=False)}/30", "dev", there)
            _ip("-n", self._name, "link", "set", there, "up")

    def unmake(self) -> None:
        """Take it away; its ends of the links go with ours."""
        for kind in ("wix", "db"):
            subprocess.run(["ip", "link", "del", self._link(kind)], check=False, capture_output=True)
        _ip("netns", "del", self._name)

    def cut(self) -> None:
        """Lose all that goes to the database and comes from it."""
        _ip("link", "set", self._link("db"), "down")

    def heal(self) -> None:
        """Carry it again."""
        _ip("link", "set", self._link("db"), "up")

    def _link(self, kind: str) -> str:
        return f"{self._name[-8:]}{kind}"

    def _address(self, kind: str, *, ours: bool) -> str:
        return f"{_NETWORK}.{self._number}.{(0 if kind == 'wix' else 4) + (1 if ours else 2)}"


@contextmanager
def apart() -> Iterator[Apart]:
    """A namespace; skipped without root or without iproute2, a failure with CI=true."""
    if os.geteuid() != 0:
        lacking("a network namespace needs root")
    require("ip")
    made = Apart(f"wcm{os.getpid()}", os.getpid() % 250)
    made.make()
    try:
        yield made
    finally:
        made.unmake()


def certificate(address: str, folder: Path) -> Path:
    """What a server at that address shows, its key in the same file; it is its own authority."""
    file = folder / f"{address}.pem"
    wanted = (
        "-addext",
        f"subjectAltName=IP:{address}",
        "-addext",
        "keyUsage=critical,keyCertSign,digitalSignature",
    )
    made = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    told = ("-days", "2", "-subj", "/CN=wix", "-keyout", file, "-out", folder / "shown.pem")
    subprocess.run([require("openssl"), *made, *told, *wanted], check=True, capture_output=True)
    with file.open("a") as both:
        both.write((folder / "shown.pem").read_text())
    return file


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
