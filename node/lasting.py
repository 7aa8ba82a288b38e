"""What is known of processes beyond their end: an ended one may have left something to write (fencing rule F4).

Of the ended ones the last thousand are kept.
"""

from __future__ import annotations

FORMER = 1000


class Lasting(dict[bytes, bytes]):
    """By process. What is put there stays until so many others have ended after it."""

    def __init__(self) -> None:
        super().__init__()
        self._former: dict[bytes, None] = {}

    def ended(self, pid: bytes) -> None:
        """The process is gone. It may be told more than once."""
        if pid in self:
            self._former[pid] = None
            if len(self._former) > FORMER:
                oldest = next(iter(self._former))
                del self._former[oldest], self[oldest]
