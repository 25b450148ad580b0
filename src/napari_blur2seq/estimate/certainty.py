"""How far an estimated motion may be from the true one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Certainty:
    """What speaks for a motion and against it.

    Attributes
    ----------
    extent : float
        Of the motion, px.
    spread : float
        Path error in px to the nearest hypothesis of another start.
    doubt : float
        Path error in px to all hypotheses (root mean square), each of which counts by how well it
        is judged.
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
    doubt: float
    agreement: float
    expected_gain: float
    low_gain: float
    likelihood_gain: float


COEFFICIENTS = ()
signs = None
