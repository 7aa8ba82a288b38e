"""Where a user's own files are: what a program remembers from one run to the next."""

from __future__ import annotations

import os
from pathlib import Path


def state_directory() -> Path:
    """``$XDG_STATE_HOME/wippy``, or ``~/.local/state/wippy``."""
    named = os.environ.get("XDG_STATE_HOME", "")
    base = Path(named) if named.startswith("/") else Path.home() / ".local" / "state"
    return base / "wippy"
