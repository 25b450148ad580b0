r"""How far an estimated motion may be from the true one.

Two things foretell the error: how many starts found about the same motion, and how long it is.
Its 90 % quantile is

.. math:: \log e_{90} = a + b \min(n, 2) + c \log(x + 1)

with the agreement :math:`n` and the extent :math:`x` in px; quantile regression (Koenker and
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
COEFFICIENTS = (-1.42, -0.59, 0.97)


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
        What the judge expects of it, dB.
    low_gain : float
        What it expects to be exceeded nearly everywhere in the picture, dB.
    likelihood_gain : float
        By how much it makes the power spectrum likelier than no motion does, hundredths.
    """

    extent: float
    spread: float
    agreement: float
    expected_gain: float
    low_gain: float
    likelihood_gain: float

    @property
    def confirmed(self) -> bool:
        """Whether as much as another start found the same motion."""
        return self.agreement >= _CONFIRMING

    @property
    def error(self) -> float:
        """Path error that the motion stays within in nine of ten pictures, px."""
        return math.exp(
            sum(
                a * s for a, s in zip(COEFFICIENTS, signs(self.agreement, self.extent), strict=True)
            )
        )


def typical(chosen: Certainty, alike: Sequence[Certainty]) -> Certainty:
    """That of a motion, with the median of what is foretold of all that are nearly the same."""
    return replace(
        chosen,
        expected_gain=median(c.expected_gain for c in alike),
        low_gain=median(c.low_gain for c in alike),
        likelihood_gain=median(c.likelihood_gain for c in alike),
    )


def signs(agreement: float, extent: float) -> tuple[float, float, float]:
    """What the logarithm of the error is linear in."""
    # All starts miss the same roll, so that more of them do not make it surer.
    return 1.0, min(agreement, 2.0), math.log(extent + 1)
