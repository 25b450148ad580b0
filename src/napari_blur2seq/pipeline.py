"""deblur(): one blurry picture in; sharp picture, trajectory and sequence out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .camera import Camera
from .devices import resolve
from .errors import OptionError, TrajectoryError
from .images import MIN_SIDE, ImageFormat, to_working
from .progress import Progress, Steps, announced, mapped, run, within
from .trajectory import Trajectory

if TYPE_CHECKING:
    from torch import Tensor

    from .estimate.kernel_based import Estimate
    from .estimate.picture_network import PictureNetwork
    from .estimate.refinement import Refinement

DEFAULT_POSES = 25
# `blur` can be cancelled after so many poses.


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
        Version, parameters, certainty (px) and scores: what is needed to make the
        result again. Plain numbers, strings, lists and dicts.
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
        Pixels; the longer side of the image by default.
    principal_point : tuple of float, optional
        ``(cx, cy)`` in pixels; ``(width / 2, height / 2)`` by default.
    n_poses : int
        Poses of the trajectory and frames of the sequence.
    refine : bool
        Refine the estimated trajectory: see `refine`. The official model's results stay those of
        its networks.
    region : tuple of int, optional
        ``(top, left, bottom, right)`` in px: the part of the image that the trajectory is
        estimated from. By default all of it.
    noise : float, optional
        Standard deviation of the noise as a share of the image's range; estimated by default.
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
    seed : int
        Of random numbers; the present estimate draws none.
    """

    focal_length: float | None = None
    principal_point: tuple[float, float] | None = None
    n_poses: int = DEFAULT_POSES
    refine: bool = True
    region: tuple[int, int, int, int] | None = None
    noise: float | None = None
    linear: bool = False
    prior: str = "auto"
    estimator: str = "auto"
    model: Model = "built-in"
    weights: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None
    device: str = "auto"
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
        estimators = ("auto", "kernels", "network")
        if self.estimator not in estimators and not self.estimator.endswith(".safetensors"):
            raise OptionError(
                f"There is no estimator {self.estimator!r}; choose auto, kernels, network or a "
                ".safetensors file."
            )
        if self.model not in ("built-in", "official"):
            raise OptionError(f"There is no model {self.model!r}; choose built-in or official.")
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


def deblur_steps(image: ArrayLike, options: Options | None = None) -> Steps[Result]:
    """The work of `deblur` as a generator of `Progress` events; its return value is the `Result`.

    Close the generator between any two events to cancel.
    """
    options = options or Options()
    working, form = to_working(image, options.linear)
    camera = Camera.for_image(working.shape[1:], options.focal_length, options.principal_point)

    import torch

    # As a decorator, unlike as a context, it is off while the generator waits for its caller.
    return (yield from torch.no_grad()(_deblur_tensor)(working, form, camera, options))


def _deblur_tensor(
    working: NDArray[np.float32], form: ImageFormat, camera: Camera, options: Options
) -> Steps[Result]:
    import torch

    from .estimate import load_estimator
    from .motion_blur import MotionBlur
    from .restoration import load_prior, restore_steps

    yield Progress("estimate", 0.0, "Looking at the blur")
    device = resolve(options.device)
    tensor = torch.from_numpy(working).to(device)
    official = None
    if options.weights is not None:
        from .models.official import OfficialModel

        official = OfficialModel(options.weights, device)
        estimated = yield from within(official.estimate_steps(tensor, camera), 0.0, 0.1)
        moves, estimating = True, 0.1
        about: dict[str, Any] = {"weights": official.description, "certainty": None}
    else:
        prior, prior_name = load_prior(options.prior, device)
        kernels, network, estimator = load_estimator(options.estimator)
        estimating_steps = _estimate(tensor, camera, options, kernels, network)
        estimate = yield from within(estimating_steps, 0.0, 0.5)
        estimated, moves, estimating = estimate.trajectory, estimate.moves, 0.5
        certainty = {"spread_px": estimate.spread, "hypotheses": estimate.candidates}
        about = {"prior": prior_name, "estimator": estimator, "certainty": certainty}
    if moves:
        restoring = estimating
        if options.refine and official is None:
            restoring += 0.25
            refining = _refine(tensor, estimated, options)
            refinement = yield from within(refining, estimating, restoring)
            estimated = refinement.trajectory
            about["refinement"] = {"objective_db": refinement.objective}
        if official is not None:
            steps = official.restore_steps(tensor, estimated, options.noise)
        else:
            steps = restore_steps(
                tensor, estimated, prior, noise=options.noise, blind=True, preview=True
            )
        sharp = yield from within(_encoded(steps, form), restoring, 0.98)
    else:
        sharp = tensor.clamp(0, 1)
    trajectory = estimated.resample(options.n_poses).centered()
    yield Progress("sequence", 0.98, "Blurring the result again")
    reblurred = MotionBlur(trajectory, device)(sharp[None])[0]
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
            "reblur_residual_rms": residual,
            **about,
        },
        FrameSequence(sharp_array, trajectory, form),
    )
    yield Progress("sequence", 1.0, "Done")
    return result


def _encoded(steps: Steps[Tensor], form: ImageFormat) -> Steps[Tensor]:
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


def _refine(image: Tensor, trajectory: Trajectory, options: Options) -> Steps[Refinement]:
    """The trajectory refined on the region of the options."""
    from .estimate.refinement import refine_steps

    cut, part = _region(image, trajectory.camera, options)
    first = Trajectory.from_camera(trajectory.rotations, part, trajectory.times)
    refinement = yield from refine_steps(cut, first)
    return replace(refinement, trajectory=_seen_by(trajectory.camera, refinement.trajectory))


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
    refine: bool = True,
    device: str = "auto",
    progress: Callable[[Progress], object] | None = None,
    **options: Any,
) -> Result:
    """Sharp image, camera trajectory and frame sequence from one blurry image.

    Parameters
    ----------
    image : array_like
        Shape (H, W), (H, W, 3) or (H, W, 4); uint8, uint16 or float of any range; both
        sides at least 32 px. Alpha is kept as it is.
    focal_length : float, optional
        In pixels; the longer side of the image by default.
    refine : bool
        Refine the estimated trajectory: see `refine`.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    progress : callable, optional
        Called with each `Progress`; an exception it raises cancels the work.
    **options
        Further fields of `Options`: ``n_poses``, ``region``, ``noise``, ``linear``, ``prior``,
        ``estimator``, ``model``, ``weights``, ``principal_point``, ``seed``.

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
    return run(deblur_steps(image, chosen), progress)


def refine(
    image: ArrayLike,
    trajectory: Trajectory,
    *,
    region: tuple[int, int, int, int] | None = None,
    linear: bool = False,
    device: str = "auto",
    progress: Callable[[Progress], object] | None = None,
) -> Trajectory:
    """A better trajectory of a blurry image, from one that is nearly right.

    Climbs from `trajectory` by the gradient of what a learned judge and a classical cost
    expect of a quick restoration (`estimate.refinement`); where nothing better is found, the
    trajectory comes back as it is. `deblur` does the same to its own estimate.

    Parameters
    ----------
    image : array_like
        As for `deblur`.
    trajectory : Trajectory
        Of the same image shape: an estimate, a recording, or one drawn by hand, a few pixels
        from the truth at most.
    region, linear, device, progress
        As for `deblur`.

    Returns
    -------
    Trajectory
        Centred, with as many poses and the focal length of `trajectory`.

    Raises
    ------
    ImageError, OptionError, TrajectoryError
        One sentence on what is wrong and what to do.
    """
    chosen = _options(region=region, linear=linear, device=device)
    working, _ = _working_for(trajectory, image, linear)

    import torch

    with torch.no_grad():
        tensor = torch.from_numpy(working).to(resolve(chosen.device))
        return run(_refine(tensor, trajectory, chosen), progress).trajectory


def restore(
    image: ArrayLike,
    trajectory: Trajectory,
    *,
    noise: float | None = None,
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
    noise : float, optional
        Standard deviation of the noise as a share of the image's range; estimated by default.
    prior, linear, device, progress
        As for `deblur`.

    Returns
    -------
    ndarray
        Like the input.
    """
    chosen = _options(noise=noise, prior=prior, linear=linear, device=device)
    working, form = _working_for(trajectory, image, linear)

    import torch

    from .restoration import load_prior, restore_steps

    target = resolve(chosen.device)
    with torch.no_grad():
        model, _ = load_prior(chosen.prior, target)
        tensor = torch.from_numpy(working).to(target)
        sharp = run(restore_steps(tensor, trajectory, model, noise=noise), progress)
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

    Of the options, ``noise`` (none by default), ``linear``, ``seed`` and ``device`` count.
    """
    working, form = _working_for(trajectory, image, options.linear)
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
        values = values.clip(0, 1)
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
    trajectory: Trajectory, image: ArrayLike, linear: bool
) -> tuple[NDArray[np.float32], ImageFormat]:
    """The working image, after a look at whether the trajectory belongs to it."""
    working, form = to_working(image, linear)
    if working.shape[1:] != trajectory.image_shape:
        raise TrajectoryError(
            f"The trajectory belongs to an image of {trajectory.image_shape[1]} x "
            f"{trajectory.image_shape[0]} px, the image has {working.shape[2]} x "
            f"{working.shape[1]} px."
        )
    return working, form


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("napari-blur2seq")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
