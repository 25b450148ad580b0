"""deblur(): one blurry picture in; sharp picture, trajectory and sequence out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .camera import Camera
from .devices import resolve
from .errors import OptionError, TrajectoryError
from .estimate.budget import STEPS
from .images import MIN_SIDE, ImageFormat, to_working
from .memory import Sparing
from .progress import Climbed, Progress, Steps, announced, mapped, run, within
from .trajectory import Trajectory

if TYPE_CHECKING:
    import threading

    from torch import Tensor

    from .estimate.kernel_based import Estimate
    from .estimate.picture_network import PictureNetwork
    from .estimate.refinement import Refinement

T = TypeVar("T")

DEFAULT_POSES = 25
_LEAST_TILE = 64
# Of the previews of a refinement.
_LOOK_PIXELS = 320 * 200


class FrameSequence(Sequence[NDArray[np.generic]]):
    """The sharp frames of one exposure, computed when asked for.

    Behaves like an array of shape (T, H, W[, C]): has ``shape``, ``dtype``, ``ndim``,
    gives frames by index or slice, and becomes an array with ``numpy.asarray``.
    """

    def __init__(
        self, sharp: NDArray[np.float32], trajectory: Trajectory, form: ImageFormat
    ) -> None:
        self._sharp = sharp
        self._trajectory = trajectory
        self._form = form

    def __len__(self) -> int:
        return len(self._trajectory)

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, H, W[, C])."""
        channels = () if self._form.grey else (3 if self._form.alpha is None else 4,)
        return (len(self), *self._sharp.shape[1:], *channels)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """As the input image."""
        return self._form.dtype

    @cached_property
    def _operator(self) -> Any:
        from .motion_blur import MotionBlur

        return MotionBlur(self._trajectory)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple):
            return (
                self[index[0]][(slice(None), *index[1:])]
                if isinstance(index[0], slice)
                else self[index[0]][index[1:]]
            )
        if isinstance(index, slice):
            frames = [self[j] for j in range(*index.indices(len(self)))]
            return np.stack(frames) if frames else np.empty((0, *self.shape[1:]), self.dtype)
        import torch

        j = range(len(self))[int(index)]
        frame = self._operator.frame(torch.from_numpy(self._sharp)[None], j)[0]
        return self._form.encode(frame.numpy())

    def __iter__(self) -> Iterator[NDArray[np.generic]]:
        return (self[j] for j in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.generic]:
        result = np.empty(self.shape, self.dtype)
        for j, frame in enumerate(self):
            result[j] = frame
        return result if dtype is None else result.astype(dtype)


@dataclass(eq=False)
class Result:
    """What `deblur` gives back.

    Attributes
    ----------
    sharp : ndarray
        The sharp image, of the input's shape, dtype and range.
    trajectory : Trajectory
        The camera's rotation, centred, `n_poses` poses.
    reblurred : ndarray
        The sharp image blurred by the trajectory, like the input.
    metadata : dict
        Version, parameters, certainty and scores: what is needed to make the result again.
        ``["certainty"]["error_px"]`` is the path error that an estimated trajectory stays within in
        nine of ten pictures (see `estimate.certainty`), None where no motion was believed in.
        Plain numbers, strings, lists and dicts.
    frames : FrameSequence
        The sequence, computed frame by frame when asked for.
    """

    sharp: NDArray[np.generic]
    trajectory: Trajectory
    reblurred: NDArray[np.generic]
    metadata: dict[str, Any]
    frames: FrameSequence = field(repr=False)

    @cached_property
    def sequence(self) -> NDArray[np.generic]:
        """Sharp frames whose mean is `reblurred`, shape (T, H, W[, C])."""
        return np.asarray(self.frames)


Model = Literal["built-in", "official"]


@dataclass(frozen=True)
class Options:
    """Everything `deblur` can be told.

    Attributes
    ----------
    focal_length : float, optional
        Pixels; by default the longer side of the image or four times as long, whichever
        explains the blur better (for the official model, the longer side).
    principal_point : tuple of float, optional
        ``(cx, cy)`` in pixels; ``(width / 2, height / 2)`` by default.
    n_poses : int
        Poses of the trajectory and frames of the sequence.
    refine : bool, optional
        Refine the estimated trajectory: see `refine`. By default, the built-in model does, and the
        official model's results stay those of its networks.
    steps : int
        At most so many of the refinement.
    seconds : float, optional
        At most about so many of computing for the refinement. With such a limit the result
        depends on how fast the machine is.
    fit_focal_length : bool
        Whether the refinement tries other focal lengths, from half to four times as long, and
        takes one that is clearly better.
    region : tuple of int, optional
        ``(top, left, bottom, right)`` in px: the part of the image that the trajectory is
        estimated from. By default all of it.
    value_range : tuple of float, optional
        ``(black, white)``: values of the image that stand for black and white; what lies beyond is
        taken for clipped. By default the dtype's range (of floats, [0, 1]) or that of the sensor
        that the image is clipped by, or, of dim or flat images and in other units, the image's
        own: see `images.value_range`. Give it to treat several images alike.
    noise : float, optional
        Standard deviation of the noise as a share of the image's range, from black to white;
        estimated by default.
    noise_model : str
        ``"white"``: noise of one level; or ``"poisson"``: counted photons, whose noise grows with
        the brightness. Gain and read noise are measured in the picture; `noise`, where given, is
        their root mean square over it. Not used by the official model.
    linear : bool
        Decode sRGB and let light add up in linear values; by default it adds up in the
        values as they are.
    prior : str
        ``"learned"`` (denoising network), ``"sparse"`` (sparse gradients), or ``"auto"``:
        learned where its weights are at hand. The path of a ``.safetensors`` file is the
        learned prior with weights of your own (see docs/training.md). Not used by the official
        model.
    estimator : str
        Where trajectories come from: ``"kernels"`` (blur kernels), ``"network"`` (a network that
        looks at the picture), or ``"auto"``: both, where the network's weights are at hand, and
        the best is chosen. The path of a ``.safetensors`` file is the network with weights of
        your own (see docs/training.md). Not used by the official model.
    model : str
        ``"built-in"``, or ``"official"`` for the networks of Blur2seq's authors, whose
        `weights` you have.
    weights : tuple of path, optional
        Files of the official model: trajectory network, restoration network.
    device : str
        ``"auto"``, or a name from `devices.available`.
    tile : int, optional
        Largest side in px of the tiles that the networks restore a picture in: smaller ones need
        less memory and more time. At least 64; by default what each model works best with.
    seed : int
        Of random numbers; the present estimate draws none.
    """

    focal_length: float | None = None
    principal_point: tuple[float, float] | None = None
    n_poses: int = DEFAULT_POSES
    refine: bool | None = None
    steps: int = STEPS
    seconds: float | None = None
    fit_focal_length: bool = False
    region: tuple[int, int, int, int] | None = None
    value_range: tuple[float, float] | None = None
    noise: float | None = None
    noise_model: Literal["white", "poisson"] = "white"
    linear: bool = False
    prior: str = "auto"
    estimator: str = "auto"
    model: Model = "built-in"
    weights: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None
    device: str = "auto"
    tile: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            isinstance(self.n_poses, bool)
            or int(self.n_poses) != self.n_poses
            or not 2 <= self.n_poses <= 1000
        ):
            raise OptionError(
                f"The number of poses must lie between 2 and 1000, not {self.n_poses}."
            )
        if int(self.steps) != self.steps or self.steps < 1:
            raise OptionError(
                f"The steps of the refinement must be a whole number of at least 1, not "
                f"{self.steps}."
            )
        if self.seconds is not None and not self.seconds > 0:
            raise OptionError(f"The seconds must be a positive number, not {self.seconds:g}.")
        if self.value_range is not None:
            if len(self.value_range) != 2 or not self.value_range[0] < self.value_range[1]:
                raise OptionError(
                    "The range of values must be that of black, then that of white, which is "
                    f"larger, not {self.value_range}."
                )
            black, white = self.value_range
            object.__setattr__(self, "value_range", (float(black), float(white)))
        if self.noise is not None and not 0 <= self.noise < 1:
            raise OptionError(
                f"The noise must be a share of the image's range in [0, 1), not {self.noise:g}."
            )
        if self.prior not in ("auto", "learned", "sparse") and not self.prior.endswith(
            ".safetensors"
        ):
            raise OptionError(
                f"There is no prior {self.prior!r}; choose auto, learned, sparse or a "
                ".safetensors file."
            )
        if self.noise_model not in ("white", "poisson"):
            raise OptionError(
                f"There is no noise model {self.noise_model!r}; choose white or poisson."
            )
        if self.tile is not None and self.tile < _LEAST_TILE:
            raise OptionError(f"Tiles must have {_LEAST_TILE} px a side at least, not {self.tile}.")
        estimators = ("auto", "kernels", "network")
        if self.estimator not in estimators and not self.estimator.endswith(".safetensors"):
            raise OptionError(
                f"There is no estimator {self.estimator!r}; choose auto, kernels, network or a "
                ".safetensors file."
            )
        if self.model not in ("built-in", "official"):
            raise OptionError(f"There is no model {self.model!r}; choose built-in or official.")
        if self.refine is None:
            object.__setattr__(self, "refine", self.model == "built-in")
        self._check_weights()

    def _check_weights(self) -> None:
        if self.weights is None:
            if self.model == "official":
                raise OptionError(
                    "The official model needs its weights: the file of the trajectory network, "
                    "then the file of the restoration network."
                )
            return
        if self.model != "official":
            raise OptionError("Weights are for the official model; choose model='official', too.")
        if isinstance(self.weights, str | bytes) or len(self.weights) != 2:
            raise OptionError(
                "The weights must be two files: of the trajectory network and of the restoration "
                "network."
            )
        # Text, so that the options can be written down.
        first, second = (os.fspath(file) for file in self.weights)
        object.__setattr__(self, "weights", (first, second))


def deblur_steps(
    image: ArrayLike,
    options: Options | None = None,
    starts: Sequence[Trajectory] = (),
    stop: threading.Event | None = None,
) -> Steps[Result]:
    """The work of `deblur` as a generator of `Progress` events; its return value is the `Result`.

    Close the generator between any two events to cancel.

    Parameters
    ----------
    image : array_like
    options : Options, optional
    starts : sequence of Trajectory, optional
        Trajectories of the image, nearly right: nothing is estimated then. The best is refined
        and restored with, or without ``refine`` the first one restored with as it is.
    stop : threading.Event, optional
        Set it to end the refinement with its best so far; the rest of the work follows.
    """
    options = options or Options()
    working, form = to_working(image, options.linear, options.value_range)
    camera = Camera.for_image(working.shape[1:], options.focal_length, options.principal_point)
    for start in starts:
        _check_shape(start, working)

    import torch

    # As a decorator, unlike as a context, it is off while the generator waits for its caller.
    work = torch.no_grad()(_deblur_tensor)
    return (yield from work(working, form, camera, options, starts, stop))


def _deblur_tensor(
    working: NDArray[np.float32],
    form: ImageFormat,
    camera: Camera,
    options: Options,
    starts: Sequence[Trajectory],
    stop: threading.Event | None,
) -> Steps[Result]:
    import torch

    from .estimate import load_estimator
    from .motion_blur import MotionBlur
    from .restoration import PhotonNoise, load_prior, noise_of, restore_estimated_steps

    looking = Progress("estimate", 0.0, "Looking at the blur")
    yield looking
    device = resolve(options.device)
    tensor = torch.from_numpy(working).to(device)
    official = None
    refined, confirmed = options.refine, True
    if starts:
        prior, prior_name = load_prior(options.prior, device, options.tile)
        estimated, moves, estimating = starts[0], True, 0.0
        about: dict[str, Any] = {"prior": prior_name, "certainty": None}
    elif options.weights is not None:
        from .models.official import OfficialModel

        official = OfficialModel(options.weights, device)
        estimated = yield from within(official.estimate_steps(tensor, camera), 0.0, 0.1)
        moves, estimating = True, 0.1
        about = {"weights": official.description, "certainty": None}
    else:
        prior, prior_name = load_prior(options.prior, device, options.tile)
        yield looking
        kernels, network, estimator = load_estimator(options.estimator)
        yield looking
        estimating_steps = _estimate(tensor, camera, options, kernels, network)
        estimate = yield from within(estimating_steps, 0.0, 0.5)
        estimated, moves, estimating = estimate.trajectory, estimate.moves, 0.5
        # Who misjudges the motion that was found cannot lead to a better one.
        refined = refined and estimate.certainty.expected_gain > 0
        confirmed = estimate.certainty.confirmed
        about = {"prior": prior_name, "estimator": estimator, "certainty": _certainty(estimate)}
    if moves:
        restoring = estimating
        if refined:
            restoring += 0.5 if starts else 0.25
            # Previews take time; while a given start is refined there is nothing else to see.
            refining = _refine(tensor, starts or [estimated], options, stop, bool(starts))
            refinement = yield from within(_encoded(refining, form), estimating, restoring)
            estimated = refinement.trajectory
            about["refinement"] = {
                "kernel_scores_db": refinement.kernel_scores,
                "objective_db": refinement.objective,
                "start": refinement.start,
            }
            if refinement.spread is not None:
                about["certainty"] = {"spread_px": refinement.spread}
        if official is not None:
            steps = official.restore_steps(tensor, estimated, options.noise, options.tile)
        else:
            noise = noise_of(tensor, options.noise, options.noise_model)
            if isinstance(noise, PhotonNoise):
                about["noise"] = asdict(noise)
            steps = restore_estimated_steps(
                tensor,
                estimated,
                prior,
                confirmed=confirmed,
                noise=noise,
                preview=True,
                bounds=form.bounds,
            )
        sharp = yield from within(_encoded(steps, form), restoring, 0.98)
    else:
        sharp = tensor
    trajectory = estimated.resample(options.n_poses).centered()
    message = "Blurring the result again"
    yield Progress("sequence", 0.98, message)
    blurring = MotionBlur(trajectory, device).parts(sharp[None])
    reblurred = (yield from announced(blurring, "sequence", 0.98, 1.0, message))[0]
    residual = float((reblurred - tensor).square().mean().sqrt())
    sharp_array = sharp.cpu().numpy()
    result = Result(
        form.encode(sharp_array),
        trajectory,
        form.encode(reblurred.cpu().numpy()),
        {
            "version": _version(),
            "parameters": asdict(options),
            "device": str(device),
            "focal_length_px": trajectory.focal_length,
            "extent_px": trajectory.extent,
            "value_range": [form.low, form.high],
            "reblur_residual_rms": residual,
            **about,
        },
        FrameSequence(sharp_array, trajectory, form),
    )
    yield Progress("sequence", 1.0, "Done")
    return result


def _certainty(estimate: Estimate) -> dict[str, Any]:
    """How certain an estimate is, for the metadata."""
    signs = estimate.certainty
    return {
        # Where no motion is believed in, nothing is said of the true one.
        "error_px": signs.error if estimate.moves else None,
        "spread_px": signs.spread,
        "agreement": signs.agreement,
        "expected_gain_db": signs.expected_gain,
        "low_gain_db": signs.low_gain,
        "likelihood_gain": signs.likelihood_gain,
        "hypotheses": estimate.candidates,
    }


def _encoded(steps: Steps[T], form: ImageFormat) -> Steps[T]:
    """The same events with their previews like the input."""
    opaque = replace(form, alpha=None)

    def encode(event: Progress) -> Progress:
        if event.preview is None:
            return event
        return replace(event, preview=opaque.encode(event.preview))

    return mapped(steps, encode)


def _estimate(
    image: Tensor,
    camera: Camera,
    options: Options,
    kernels: bool,
    network: PictureNetwork | None,
) -> Steps[Estimate]:
    """The estimate from the region of the options, for the camera of the whole image."""
    from .estimate.kernel_based import estimate_steps

    known = options.focal_length is not None
    cut, part = _region(image, camera, options)
    estimate = yield from estimate_steps(
        cut, part, focal_length_known=known, kernels=kernels, network=network
    )
    return replace(estimate, trajectory=_seen_by(camera, estimate.trajectory))


def _refine(
    image: Tensor,
    starts: Sequence[Trajectory],
    options: Options,
    stop: threading.Event | None,
    previews: bool,
) -> Steps[Refinement]:
    """The best of some trajectories refined on the region of the options."""
    from .estimate.refinement import refine_steps

    parts = [_region(image, start.camera, options) for start in starts]
    first = [
        Trajectory.from_camera(start.rotations, part, start.times)
        for start, (_, part) in zip(starts, parts, strict=True)
    ]
    camera = starts[0].camera

    def whole(event: Progress) -> Progress:
        if not isinstance(event, Climbed) or event.trajectory is None:
            return event
        return replace(event, trajectory=_seen_by(camera, event.trajectory))

    steps = refine_steps(
        parts[0][0],
        first,
        steps=options.steps,
        seconds=options.seconds,
        stop=stop,
        fit_focal_length=options.fit_focal_length,
        look=_quick_look(image, camera, options.noise_model) if previews else None,
    )
    refinement = yield from mapped(steps, whole)
    chosen = starts[refinement.start].camera
    return replace(refinement, trajectory=_seen_by(chosen, refinement.trajectory))


def _quick_look(
    image: Tensor, camera: Camera, noise_model: str
) -> Callable[[Trajectory], NDArray[np.float32]]:
    """Makes a small sharp picture (C, h, w) of a motion."""
    from .estimate.view import reduced
    from .restoration.quick import quick_steps

    small, factor = reduced(image.cpu(), _LOOK_PIXELS)
    shape = (small.shape[-2], small.shape[-1])

    def look(trajectory: Trajectory) -> NDArray[np.float32]:
        whole = _seen_by(camera, trajectory).camera
        seen = whole.scaled(factor, factor, shape) if factor != 1 else whole
        motion = Trajectory.from_camera(trajectory.rotations, seen)
        # The level given is that of the picture before it was reduced.
        return np.asarray(run(quick_steps(small, motion, None, noise_model)).numpy())

    return look


def _region(image: Tensor, camera: Camera, options: Options) -> tuple[Tensor, Camera]:
    """The part of the image that the motion is estimated from, and its camera."""
    if options.region is None:
        return image, camera
    top, left, bottom, right = clipped_region(options.region, camera.image_shape)
    cx, cy = camera.principal_point
    part = Camera(camera.focal_length, (cx - left, cy - top), (bottom - top, right - left))
    return image[:, top:bottom, left:right], part


def _seen_by(camera: Camera, trajectory: Trajectory) -> Trajectory:
    """The motion for the whole image of a camera, whose focal length it may know better."""
    whole = Camera(trajectory.focal_length, camera.principal_point, camera.image_shape)
    return Trajectory.from_camera(trajectory.rotations, whole, trajectory.times)


def clipped_region(
    region: tuple[int, int, int, int], image_shape: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The part of a region (top, left, bottom, right) within an image; large enough, or an error.

    Raises
    ------
    OptionError
        If a side is under 32 px.
    """
    height, width = image_shape
    top, left, bottom, right = (int(edge) for edge in region)
    top, left, bottom, right = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
    if bottom - top < MIN_SIDE or right - left < MIN_SIDE:
        raise OptionError(
            f"The region is {max(right - left, 0)} x {max(bottom - top, 0)} px within the image; "
            f"both sides must be at least {MIN_SIDE} px."
        )
    return top, left, bottom, right


def deblur(
    image: ArrayLike,
    focal_length: float | None = None,
    refine: bool | None = None,
    device: str = "auto",
    progress: Callable[[Progress], object] | None = None,
    **options: Any,
) -> Result:
    """Sharp image, camera trajectory and frame sequence from one blurry image.

    Where the memory is full, the work is done again in smaller tiles, then on the CPU; the
    parameters in the result's metadata say how it was done in the end.

    Parameters
    ----------
    image : array_like
        Shape (H, W), (H, W, 3) or (H, W, 4); uint8, uint16 or float of any range; both
        sides at least 32 px. Alpha is kept as it is.
    focal_length : float, optional
        In pixels; by default the longer side of the image or four times as long, whichever
        explains the blur better.
    refine : bool, optional
        Refine the estimated trajectory: see `refine`. True by default, but for the official model,
        whose results stay those of its networks unless this is asked for.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    progress : callable, optional
        Called with each `Progress`; an exception it raises cancels the work.
    **options
        Further fields of `Options`: ``n_poses``, ``region``, ``value_range``, ``noise``,
        ``noise_model``, ``linear``, ``prior``, ``estimator``, ``model``, ``weights``,
        ``principal_point``, ``tile``, ``seed``.

    Returns
    -------
    Result

    Raises
    ------
    ImageError, CameraError, OptionError
        One sentence on what is wrong and what to do.

    Examples
    --------
    >>> import napari_blur2seq as b2s
    >>> from skimage.data import clock
    >>> result = b2s.deblur(clock()[:128, :128])
    >>> result.sharp.shape, len(result.trajectory), result.sequence.shape
    ((128, 128), 25, (25, 128, 128))
    """
    chosen = _options(focal_length=focal_length, refine=refine, device=device, **options)
    return run(Sparing(chosen).steps(lambda o: deblur_steps(image, o)), progress)


def refine(
    image: ArrayLike,
    trajectory: Trajectory | Sequence[Trajectory],
    *,
    steps: int = STEPS,
    seconds: float | None = None,
    fit_focal_length: bool = False,
    region: tuple[int, int, int, int] | None = None,
    value_range: tuple[float, float] | None = None,
    linear: bool = False,
    device: str = "auto",
    progress: Callable[[Progress], object] | None = None,
    stop: threading.Event | None = None,
) -> Trajectory:
    """A better trajectory of a blurry image, from one that is nearly right.

    Climbs from `trajectory` by the gradient of what a learned judge and a classical cost
    expect of a quick restoration (`estimate.refinement`); where nothing better is found, the
    trajectory comes back as it is. `deblur` does the same to its own estimate.

    Parameters
    ----------
    image : array_like
        As for `deblur`.
    trajectory : Trajectory or sequence of Trajectory
        Of the same image shape: an estimate, a recording, or one drawn by hand, a few pixels
        from the truth at most. Of several, the one that leads to the best is followed.
    steps : int
        At most so many; less where further ones do not pay.
    seconds : float, optional
        At most about so many, of computing. The result then depends on how fast the machine
        is; without, the same call gives the same result.
    fit_focal_length : bool
        Whether focal lengths from half to four times that of the trajectory are tried; one is
        taken if it is clearly better.
    region, value_range, linear, device
        As for `deblur`.
    progress : callable, optional
        Called with each `Progress`, after a step of the climb a `Climbed`, which holds the
        best trajectory so far; an exception it raises cancels the work.
    stop : threading.Event, optional
        Set it, from `progress` or another thread, to get the best so far.

    Returns
    -------
    Trajectory
        Centred, with as many poses as `trajectory`.

    Raises
    ------
    ImageError, OptionError, TrajectoryError
        One sentence on what is wrong and what to do.
    """
    chosen = _options(
        steps=steps,
        seconds=seconds,
        fit_focal_length=fit_focal_length,
        region=region,
        value_range=value_range,
        linear=linear,
        device=device,
    )
    starts = [trajectory] if isinstance(trajectory, Trajectory) else list(trajectory)
    if not starts:
        raise TrajectoryError("There is no trajectory to refine; give at least one.")
    working, _ = to_working(image, linear, chosen.value_range)
    for start in starts:
        _check_shape(start, working)

    import torch

    with torch.no_grad():
        tensor = torch.from_numpy(working).to(resolve(chosen.device))
        return run(_refine(tensor, starts, chosen, stop, False), progress).trajectory


def restore(
    image: ArrayLike,
    trajectory: Trajectory,
    *,
    value_range: tuple[float, float] | None = None,
    noise: float | None = None,
    noise_model: Literal["white", "poisson"] = "white",
    prior: str = "auto",
    linear: bool = False,
    device: str = "auto",
    progress: Callable[[Progress], object] | None = None,
) -> NDArray[np.generic]:
    """Sharp image from a blurry one whose camera trajectory is known.

    Parameters
    ----------
    image : array_like
        As for `deblur`.
    trajectory : Trajectory
        Camera motion, of the same image shape.
    value_range : tuple of float, optional
        As for `deblur`: see `Options`.
    noise : float, optional
        Standard deviation of the noise as a share of the image's range; estimated by default.
    noise_model : str
        ``"white"``, or ``"poisson"`` for noise that grows with the brightness.
    prior, linear, device, progress
        As for `deblur`.

    Returns
    -------
    ndarray
        Like the input.
    """
    chosen = _options(
        value_range=value_range,
        noise=noise,
        noise_model=noise_model,
        prior=prior,
        linear=linear,
        device=device,
    )
    working, form = _working_for(trajectory, image, chosen)

    import torch

    from .restoration import load_prior, noise_of, restore_steps

    target = resolve(chosen.device)
    with torch.no_grad():
        model, _ = load_prior(chosen.prior, target)
        tensor = torch.from_numpy(working).to(target)
        level = noise_of(tensor, noise, noise_model)
        steps = restore_steps(tensor, trajectory, model, noise=level, bounds=form.bounds)
        sharp = run(steps, progress)
    return form.encode(sharp.cpu().numpy())


def blur(
    image: ArrayLike,
    trajectory: Trajectory,
    *,
    linear: bool = False,
    noise: float = 0.0,
    seed: int = 0,
    device: str = "auto",
) -> NDArray[np.generic]:
    """Blur a sharp image by a camera trajectory: the forward projective motion blur model.

    Parameters
    ----------
    image : array_like
        As for `deblur`.
    trajectory : Trajectory
        Camera motion, of the same image shape.
    linear : bool
        Decode sRGB and add up in linear light.
    noise : float
        Standard deviation of white noise added, as a share of the image's range.
    seed : int
        Of the noise.
    device : str
        As for `deblur`.

    Returns
    -------
    ndarray
        Like the input.
    """
    chosen = _options(noise=noise, linear=linear, device=device, seed=seed)
    return run(blur_steps(image, trajectory, chosen))


def blur_steps(
    image: ArrayLike, trajectory: Trajectory, options: Options
) -> Steps[NDArray[np.generic]]:
    """The work of `blur` as a generator of `Progress` events; its return value is the picture.

    Of the options, ``noise`` (none by default), ``value_range``, ``linear``, ``seed`` and
    ``device`` count.
    """
    working, form = _working_for(trajectory, image, options)
    yield Progress("sequence", 0.0, "Blurring the picture")

    import torch

    from .motion_blur import MotionBlur

    target = resolve(options.device)
    tensor = torch.from_numpy(working).to(target)[None]
    blurring = MotionBlur(trajectory, target).parts(tensor)
    blurred = yield from announced(blurring, "sequence", 0.0, 1.0, "Blurring the picture")
    yield Progress("sequence", 1.0, "The picture is blurred")
    values = blurred[0].cpu().numpy()
    if options.noise:
        generator = np.random.default_rng(options.seed)
        values = values + options.noise * generator.standard_normal(values.shape, dtype=np.float32)
        values = values.clip(*form.bounds)
    return form.encode(values)


def _options(**values: Any) -> Options:
    names = {f.name for f in fields(Options)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise OptionError(
            f"There is no option {unknown[0]!r}; choose from {', '.join(sorted(names))}."
        )
    return Options(**values)


def _working_for(
    trajectory: Trajectory, image: ArrayLike, options: Options
) -> tuple[NDArray[np.float32], ImageFormat]:
    """The working image, after a look at whether the trajectory belongs to it."""
    working, form = to_working(image, options.linear, options.value_range)
    _check_shape(trajectory, working)
    return working, form


def _check_shape(trajectory: Trajectory, working: NDArray[np.float32]) -> None:
    if working.shape[1:] != trajectory.image_shape:
        raise TrajectoryError(
            f"The trajectory belongs to an image of {trajectory.image_shape[1]} x "
            f"{trajectory.image_shape[0]} px, the image has {working.shape[2]} x "
            f"{working.shape[1]} px."
        )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("napari-blur2seq")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
