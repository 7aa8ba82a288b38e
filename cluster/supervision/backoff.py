"""How long to wait before something that failed is started again.

The k-th wait in a row is initial_delay x factor^(k-1), at most max_delay, then made longer or
shorter by up to the part ``jitter``. What ran for ``stable_threshold`` starts the row anew.
"""

from __future__ import annotations

from dataclasses import dataclass

EXPONENT = 64
"""The exponent is bounded because the power of a child that fails for years overflows."""


@dataclass(frozen=True)
class Backoff:
    """Times in seconds."""

    initial_delay: float = 0.0
    max_delay: float = 90.0
    factor: float = 2.0
    jitter: float = 0.1
    """Part of the delay that is random, 0 to 1."""
    stable_threshold: float = 5.0

    def __post_init__(self) -> None:
        if self.factor < 1 or not 0 <= self.jitter <= 1 or self.initial_delay < 0:
            raise ValueError(
                "expected factor >= 1, jitter in 0..1 and initial_delay >= 0, got "
                f"{self.factor}, {self.jitter}, {self.initial_delay}"
            )

    def delay(self, failures: int, jitter: float) -> float:
        """Seconds to wait after so many failures in a row (>= 1); ``jitter`` is a random number in [-1, 1]."""
        grown = self.initial_delay * self.factor ** min(failures - 1, EXPONENT)
        return min(grown, self.max_delay) * (1 + self.jitter * max(-1.0, min(1.0, jitter)))
