"""One measured value."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Row"]


@dataclass(frozen=True)
class Row:
    """One measured value.

    :ivar per: what the ratio compares it with: "dict" or "c", or None for no ratio
    :ivar better: "higher" or "lower": which way is an improvement
    """

    name: str
    value: float
    unit: str
    per: str | None = None
    better: str = "higher"
