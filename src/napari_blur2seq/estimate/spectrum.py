r"""What the blurry picture's power spectrum says about the motion.

Take the sharp picture for Gaussian, of an unknown but smooth power spectrum :math:`S`: then the
periodogram :math:`I_n` of a tile of the blurry one, with the blur kernel's transfer function
:math:`\hat k_n` and noise of variance :math:`\sigma^2`, has the likelihood (Whittle 1953)

.. math:: -\sum_{n,\omega} \Big(\log P_n(\omega) + \frac{I_n(\omega)}{P_n(\omega)}\Big), \qquad
          P_n = S\,|\hat k_n|^2 + \sigma^2 .

The sharp picture itself is integrated out, so that there is no favour for short motions, which
any estimate of picture and motion together has (Levin, Weiss, Durand and Freeman, *Efficient
marginal likelihood optimization in blind deconvolution*, CVPR 2011; Goldstein and Fattal, *Blur
kernel estimation from spectral irregularities*, ECCV 2012). :math:`S` is constant, but for
the :math:`1/\omega^2` of pictures, in cells of a polar grid that are larger than the ripples of
a kernel's spectrum, and is put in by expectation maximisation. Power spectra do not know a
motion from the same one turned by 180 degrees: this makes a motion finer, others find it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.fft import fftfreq, rfft2, rfftfreq

from ..fourier import power_spectrum, transfer_functions
from ..progress import Parts
from ..restoration.tiles import spread
from ..trajectory import Trajectory
from .curve import centred_displacements, cosine_basis, reach_of, to_trajectory
from .kernel_network import rasterise
from .view import View

# Side of a tile in px, and the focal length by it: ripples of long kernels need large tiles, but
# within one the kernel may hardly change, and the wider the lens, the more it does.
_LEAST_SIDE, _MOST_SIDE, _LENS = 160, 320, 4
_MOST = 36
_RINGS, _SECTORS = 10, 8
# Cycles in a tile that are left to the window.
_LOWEST = 3
# Of images of 8 bits; errors of the model act like noise.
_LEAST_NOISE = 1 / 250
# Of the estimate of the sharp picture's spectrum, from nothing and from a similar motion's.
FIRST_ROUNDS, LATER_ROUNDS = 20, 4
_POSES = 96
# Few: more of them follow the chances of one picture.
_STEPS = 20
_RATE = 0.1
# For each term of the curve that is fitted, of the spectra: fewer show chance.
_NUMBERS = 2000
# Roll is seen from further away than pitch and yaw.
_ROLL_RATE = 2.0


class Spectrum:
    """Periodograms of tiles of a picture.

    Parameters
    ----------
    view : View
        The picture.
    reach : float
        Px that a point may be displaced from its middle place.
    alike : bool
        Whether the blur is taken for the same all over the picture: then the mean of the tiles'
        periodograms says all, and many motions are looked at in the time of one.
    """

    def __init__(self, view: View, reach: float, *, alike: bool = False) -> None:
        height, width = view.grey.shape
        self._camera, self._reach = view.camera, math.ceil(reach) + 2
        side = min(max(int(view.camera.focal_length / _LENS), _LEAST_SIDE), _MOST_SIDE)
        # The kernels must fit in.
        least = 2 * self._reach + 4
        side = max(_LEAST_SIDE, least) if alike else max(side, least)
        side = min(side, height, width) // 2 * 2
        self._side = side
        corners = _corners((height, width), side)
        self._middles = torch.tensor([[x + side / 2, y + side / 2] for y, x in corners])
        profile = torch.hann_window(side)
        window = profile[:, None] * profile
        tiles = torch.stack([view.grey[y : y + side, x : x + side] for y, x in corners])
        tiles = (tiles - tiles.mean((-2, -1), keepdim=True)) * window
        power = power_spectrum(rfft2(tiles)) / window.square().sum()
        fy, fx = fftfreq(side)[:, None], rfftfreq(side)[None]
        radius = (fx.square() + fy.square()).sqrt()
        lowest = _LOWEST / side
        # The column of no horizontal frequency is each other's mirror image.
        self._used = (radius > lowest) & (radius < 0.5) & (fx > 0)
        ring = _RINGS * (radius.clamp_min(lowest) / lowest).log() / math.log(0.5 / lowest)
        sector = _SECTORS * (torch.atan2(fy, fx) / math.pi + 0.5)
        cells = ring.long().clamp(max=_RINGS - 1) * _SECTORS
        cells = cells + sector.long().clamp(max=_SECTORS - 1)
        self._cells = cells[self._used]
        steep = 4 * ((math.pi * fx).sin().square() + (math.pi * fy).sin().square())
        self._slope = 1 / steep[self._used]
        self._power = power[:, self._used]
        if alike:
            self._power = self._power.mean(0, keepdim=True)
            self._middles = torch.tensor([view.camera.principal_point])
        self._noise = max(view.noise, _LEAST_NOISE) ** 2
        numbers = self._summed(torch.ones_like(self._slope)).clamp_min(1)
        self._count = numbers * len(self._power)
        self._levels = torch.full((_RINGS * _SECTORS,), 1e-3)

    @property
    def size(self) -> int:
        """How many numbers the spectra have."""
        return int(self._power.numel())

    def _summed(self, values: Tensor) -> Tensor:
        """Sums (..., cells) of numbers (..., F)."""
        sums = torch.zeros(*values.shape[:-1], _RINGS * _SECTORS)
        return sums.index_add_(-1, self._cells, values)

    def likelihood(self, moved: Tensor, rounds: int = FIRST_ROUNDS) -> Tensor:
        """Logarithm of a motion's likelihood per number of the spectra, in hundredths.

        Parameters
        ----------
        moved : Tensor
            Displacements of the tiles' middles in px, zero on average, shape (..., N, T, 2).
        rounds : int
            Of the estimate of the sharp picture's spectrum, from the last call's.

        Returns
        -------
        Tensor
            Shape (...).
        """
        *batch, tiles, poses, _ = moved.shape
        moved = moved.reshape(-1, poses, 2).clamp(-self._reach, self._reach)
        weights = torch.full(moved.shape[:2], 1 / poses)
        kernels = rasterise(moved, weights, torch.ones(len(moved)), 2 * self._reach + 3)
        transfer = transfer_functions(kernels, (self._side, self._side))
        response = _through_window(power_spectrum(transfer))[:, self._used]
        response = response.reshape(*batch, tiles, -1)
        if self._levels.shape[:-1] != tuple(batch):
            self._levels = self._levels.reshape(-1, _RINGS * _SECTORS)[0].repeat(*batch, 1)
        with torch.no_grad():
            for _ in range(rounds):
                sharp = self._sharp()
                gain = sharp / (sharp * response + self._noise)
                expected = gain * self._noise + gain.square() * response * self._power
                self._levels = self._summed((expected / self._slope).sum(-2)) / self._count
        power = self._sharp() * response + self._noise
        mean: Tensor = (power.log() + self._power / power).mean((-2, -1))
        return -100 * mean

    def moved(self, poses: Tensor) -> Tensor:
        """Displacements of the tiles' middles by poses of pitch, yaw and roll in px, (..., T, 3).

        Shape (..., N, T, 2).
        """
        return centred_displacements(poses, self._middles, self._camera)

    def _sharp(self) -> Tensor:
        """The sharp picture's power spectrum, (..., 1, F)."""
        spectrum: Tensor = self._levels[..., None, self._cells] * self._slope
        return spectrum


def ascend_parts(
    spectrum: Spectrum, values: Tensor, rates: Tensor, *, poses: int, steps: int
) -> Parts[tuple[Tensor, Tensor]]:
    """Raise the likelihood of curves by gradient ascent with momentum, with pauses.

    Parameters
    ----------
    spectrum : Spectrum
    values : Tensor
        Cosine coefficients of pitch, yaw and roll in px, shape (B, K, 3).
    rates : Tensor
        Lengths of the first steps in px, shape (K, 3).
    poses : int
        Of a motion.
    steps : int

    Returns
    -------
    best : Tensor
        The likeliest on the way, shape (B, K, 3).
    likelihood : Tensor
        Shape (B,).
    """
    basis = cosine_basis(poses, values.shape[1])
    mean, square = torch.zeros_like(values), torch.zeros_like(values)
    best, highest = values, torch.full((len(values),), -math.inf)
    for step in range(1, steps + 1):
        with torch.enable_grad():
            current = values.clone().requires_grad_(True)
            rounds = FIRST_ROUNDS if step == 1 else LATER_ROUNDS
            heights = spectrum.likelihood(spectrum.moved(basis @ current), rounds)
            (gradient,) = torch.autograd.grad(heights.sum(), current)
        heights = heights.detach()
        best = torch.where((heights > highest)[:, None, None], values, best)
        highest = torch.maximum(heights, highest)
        mean.lerp_(gradient, 0.2)
        square.lerp_(gradient.square(), 0.05)
        size = (square / (1 - 0.95**step)).sqrt()
        size = 0.5 * (size + size.mean((1, 2), keepdim=True)) + 1e-9
        shorter = 0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        values = values + shorter * rates * mean / (1 - 0.8**step) / size
        yield step / steps
    return best, highest


def fit_to_spectrum(view: View, curve: Tensor) -> Parts[Tensor]:
    """Make a curve likely by some steps of ascent, with pauses.

    The smaller the picture, the fewer of the first terms are moved.

    Parameters
    ----------
    view : View
        The picture.
    curve : Tensor
        Cosine coefficients of pitch, yaw and roll in px, shape (K, 3).

    Returns
    -------
    Tensor
        Shape (K, 3).
    """
    poses = max(_POSES, len(curve) + 1)
    start = to_trajectory(curve, view.camera, poses)
    spectrum = Spectrum(view, 1.3 * reach_of(start) + 4)
    orders = torch.arange(1.0, len(curve) + 1)[:, None]
    fitted = orders <= spectrum.size // _NUMBERS
    rates = fitted * _RATE / orders.sqrt() * torch.tensor([1.0, 1.0, _ROLL_RATE])
    best, _ = yield from ascend_parts(spectrum, curve[None], rates, poses=poses, steps=_STEPS)
    return best[0]


def likelihood_parts(view: View, trajectory: Trajectory) -> Parts[float]:
    """Logarithm of a trajectory's likelihood, with a pause; see `Spectrum.likelihood`."""
    spectrum = Spectrum(view, reach_of(trajectory))
    yield 0.5
    poses = torch.from_numpy(trajectory.rotations * trajectory.focal_length).float()
    return float(spectrum.likelihood(spectrum.moved(poses)))


def _through_window(power: Tensor) -> Tensor:
    """Power spectra (N, H, W / 2 + 1) as a picture under a Hann window shows them."""
    rows = (power.roll(1, -2) + power.roll(-1, -2)) / 6 + 2 / 3 * power
    left = torch.cat([rows[..., 1:2], rows[..., :-1]], -1)
    right = torch.cat([rows[..., 1:], rows[..., -2:-1]], -1)
    return (left + right) / 6 + 2 / 3 * rows


def _corners(shape: tuple[int, int], side: int) -> list[tuple[int, int]]:
    """Top left corners (y, x) of tiles that overlap by about half, spread evenly."""
    counts = [max(1, math.ceil((length - side / 4) / (0.6 * side))) for length in shape]
    tops, lefts = spread(shape, (side, side), counts, _MOST)
    return [(y, x) for y in tops for x in lefts]
