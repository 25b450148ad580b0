r"""How far an estimated motion may be from the true one.

Three things foretell the error: how many starts found about the same motion, how long it is, and
how wide the lens, as all starts may miss the same roll. Its 90 % quantile is

.. math:: \log e_{90} = a + b \min(n, 2) + c \log(x + 1) + d \min(\varphi, 0.6)

with the agreement :math:`n`, the extent :math:`x` in px, and the distance :math:`\varphi` of the
corners from the middle by the focal length; quantile regression (Koenker and
Bassett, *Regression quantiles*, Econometrica 1978) over pictures shaken by known motions
(``benchmarks/certainty.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

QUANTILE = 0.9
_CONFIRMING = 1.0
# So many other starts are few, and the agreement that chance makes among them.
FEW, _LONELY = 3, 0.3
COEFFICIENTS = (-2.92, -0.58, 1.36, 2.07)
_WIDE = 0.6


@dataclass(frozen=True)
class Certainty:
    """What speaks for a motion and against it.

    Attributes
    ----------
    extent : float
        Of the motion, px.
    spread : float
        Path error in px to the nearest hypothesis of another start.
    agreement : float
        How many other starts found about the same.
    expected_gain : float
        What the judge expects of it, dB; the exact one, where it was asked.
    low_gain : float
        What it expects to be exceeded nearly everywhere in the picture, dB.
    likelihood_gain : float
        By how much it makes the power spectrum likelier than no motion does, hundredths.
    field : float
        Distance of the corners from the middle, by the focal length.
    starts : int
        How many other starts there were.
    quick_gain : float
        What the judge expects that looks at tiles restored in haste, dB.
    sought : bool
        Whether it was sought by the likelihood of the power spectrum, which then says less.
    """

    extent: float
    spread: float
    agreement: float
    expected_gain: float
    low_gain: float
    likelihood_gain: float
    field: float
    starts: int = 3
    quick_gain: float = -math.inf
    sought: bool = False

    @property
    def lonely(self) -> bool:
        """Whether hardly any other start found anything like it."""
        return is_lonely(self.agreement, self.starts)

    @property
    def confirmed(self) -> bool:
        """Whether as much as another start found the same motion."""
        return self.agreement >= _CONFIRMING

    @property
    def error(self) -> float:
        """Path error that the motion stays within in nine of ten pictures, px."""
        known = signs(self.agreement, self.extent, self.field)
        return math.exp(sum(a * s for a, s in zip(COEFFICIENTS, known, strict=True)))


def is_lonely(agreement: float, starts: int) -> bool:
    """Whether a motion agrees with no more of the other starts than chance would have it."""
    return agreement < _LONELY * max(starts, FEW) / FEW


def typical(chosen: Certainty, alike: Sequence[Certainty]) -> Certainty:
    """That of a motion, with the median of what is foretold of all that are nearly the same."""
    return replace(
        chosen,
        expected_gain=median(c.expected_gain for c in alike),
        low_gain=median(c.low_gain for c in alike),
        likelihood_gain=median(c.likelihood_gain for c in alike),
    )


def signs(agreement: float, extent: float, field: float) -> tuple[float, float, float, float]:
    """What the logarithm of the error is linear in."""
    # More starts that agree do not make it surer.
    return 1.0, min(agreement, 2.0), math.log(extent + 1), min(field, _WIDE)
