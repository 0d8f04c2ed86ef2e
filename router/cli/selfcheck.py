"""Whether ``router``, ``policies`` and ``loadgen`` are pointsman's own.

These names are generic. A folder of the same name on PYTHONPATH stands in front of ours, and
another distribution that installs one of them overwrites our files without a word. Both end in
errors that nobody understands, so they are looked for at the start.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("router", "policies", "loadgen")


class ForeignPackageError(Exception):
    """A package is not pointsman's own; ``str()`` is one line that says what to do."""


def check_packages(home: Path | None = None) -> None:
    """Check where each package comes from, and that it is what was installed.

    Args:
        home: The folder that must hold them; the one that this module is in when left out.

    Raises:
        ForeignPackageError: One is shadowed or was overwritten.
    """
    home = Path(__file__).resolve().parents[2] if home is None else home
    recorded = _recorded(home)
    for name in PACKAGES:
        ours = home / name / "__init__.py"
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found != ours:
            where = found.parent if found else "nowhere"
            msg = (
                f"the Python package {name!r} is found in {where} and not in {ours.parent}: "
                "take the folder before it off PYTHONPATH, or rename what stands there"
            )
            raise ForeignPackageError(msg)
        digest = recorded.get(f"{name}/__init__.py")
        if digest is not None and digest != _digest(ours):
            msg = (
                f"the Python package {name!r} in {ours.parent} was overwritten by another "
                "distribution: install pointsman in an environment of its own"
            )
            raise ForeignPackageError(msg)


def _recorded(home: Path) -> dict[str, str]:
    """Digests of the files as they were installed; none for an editable installation.

    Reads the list that pip keeps by itself: importlib.metadata takes 50 ms to import.
    """
    rows = (
        line.split(",")
        for record in home.glob("pointsman-*.dist-info/RECORD")
        for line in record.read_text("utf-8").splitlines()
    )
    return {row[0]: row[1].removeprefix("sha256=") for row in rows if len(row) == 3 and row[1]}


def _digest(file: Path) -> str:
    return urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).rstrip(b"=").decode()
