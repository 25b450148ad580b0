"""From a result to napari layers: what they show, where they lie, what they remember.

No Qt, and napari only where a layer is read or made. `read_source` takes everything the
results need from the input layer before the work starts, because the layer may be renamed
or removed while it runs.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import Blur2SeqError, ImageError, TrajectoryError
from .kernel_field import kernel_picture, path_segments
from .trajectory import Trajectory

if TYPE_CHECKING:
    from napari.components import Dims, ViewerModel
    from napari.layers import Layer

    from .pipeline import Result

LayerKind = Literal["image", "points", "tracks", "vectors"]
LayerData = tuple[Any, dict[str, Any], LayerKind]

# Tracks have at most three axes beside time.
_MAX_AXES = 3
# Of layers that belong to no picture.
_PLAIN: dict[str, Any] = {
    "scale": np.ones(2),
    "translate": np.zeros(2),
    "rotate": np.eye(2),
    "shear": np.eye(2),
    "affine": np.eye(3),
    "units": ("pixel", "pixel"),
    "axis_labels": ("y", "x"),
}
# Tracks over this many points by this many.
_GRID = 7


@dataclass(frozen=True, eq=False)
class Source:
    """The plane of an image layer to deblur, and what the results take over from the layer.

    Attributes
    ----------
    name : str
        Of the layer.
    plane : array_like
        (H, W), (H, W, 3) or (H, W, 4); not copied, possibly a lazy dask array.
    rgb : bool
        Whether the last axis holds colours.
    index : tuple
        Position of the plane along the axes of the layer, None along the two shown.
    shown : tuple of int
        The two axes of the results that hold rows and columns; the others have length 1.
    spatial : dict
        scale, translate, rotate, shear, affine, units and axis_labels of the results.
    display : dict
        contrast_limits, colormap, gamma and interpolation of the layer.
    contrast_limits_range : tuple of float
        Ends of the contrast slider.
    """

    name: str
    plane: Any
    rgb: bool
    index: tuple[int | None, ...]
    shown: tuple[int, int]
    spatial: dict[str, Any]
    display: dict[str, Any]
    contrast_limits_range: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.plane.shape[:2]
        return int(height), int(width)

    @property
    def hidden(self) -> tuple[int, ...]:
        """Axes of the results of length 1."""
        return tuple(a for a in range(len(self.spatial["scale"])) if a not in self.shown)

    def pixels(self) -> NDArray[Any]:
        """The plane in memory, a copy: the layer may be painted over while the work runs."""
        return np.array(self.plane)


def read_planes(layer: Layer | None, dims: Dims) -> list[Source]:
    """All planes of an image layer, in the order of their indices; see `read_source`.

    They are cut along the axes that the viewer does not show.
    """
    shown = read_source(layer, dims)
    assert layer is not None
    data = layer.data[0] if layer.multiscale else layer.data
    counts = [
        range(data.shape[axis]) if i is not None else (None,) for axis, i in enumerate(shown.index)
    ]
    return [_source_at(layer, index, shown.shown) for index in itertools.product(*counts)]


def read_source(layer: Layer | None, dims: Dims) -> Source:
    """The plane of an image layer that the viewer shows.

    Parameters
    ----------
    layer : napari.layers.Image
        Grey or colour, of any number of axes, in memory, dask or multiscale (its full
        resolution is used).
    dims : napari.components.Dims
        The viewer's.

    Raises
    ------
    ImageError
        Not an image layer; 3D display; no plane of the layer is shown.
    """
    from napari.layers import Image

    if not isinstance(layer, Image):
        kind = "no layer" if layer is None else f"a {type(layer).__name__} layer"
        raise ImageError(f"Deblurring needs an image layer, not {kind}; choose a picture.")
    if dims.ndisplay != 2:
        raise ImageError("Deblurring works on one plane; switch the viewer back to 2D display.")
    offset = dims.ndim - layer.ndim
    shown = sorted(axis - offset for axis in dims.displayed if axis >= offset)
    dropped = max(0, layer.ndim - _MAX_AXES)
    if len(shown) != 2 or shown[0] < dropped:
        raise ImageError(
            "The viewer does not show a plane of this layer; roll the axes back to their order."
        )
    data = layer.data[0] if layer.multiscale else layer.data
    position = np.rint(layer.world_to_data(dims.point)).astype(int)
    outside = [
        axis
        for axis in range(layer.ndim)
        if axis not in shown and not 0 <= position[axis] < data.shape[axis]
    ]
    if outside:
        raise ImageError(
            "The layer shows nothing at this position of the sliders; move them to one of its "
            "planes."
        )
    index = tuple(None if a in shown else int(position[a]) for a in range(layer.ndim))
    return _source_at(layer, index, (shown[0] - dropped, shown[1] - dropped))


def _source_at(layer: Layer, index: tuple[int | None, ...], shown: tuple[int, int]) -> Source:
    """The plane of a layer at an index, None along the two axes shown."""
    data = layer.data[0] if layer.multiscale else layer.data
    dropped = max(0, layer.ndim - _MAX_AXES)
    spatial = _shifted(_spatial(layer), [i or 0 for i in index])
    return Source(
        name=layer.name,
        plane=data[tuple(slice(None) if i is None else i for i in index)],
        rgb=bool(layer.rgb),
        index=index,
        shown=shown,
        spatial=_last_axes(spatial, layer.ndim - dropped),
        display={
            "contrast_limits": tuple(layer.contrast_limits),
            "colormap": layer.colormap,
            "gamma": layer.gamma,
            "interpolation2d": layer.interpolation2d,
        },
        contrast_limits_range=tuple(layer.contrast_limits_range),
    )


def result_layers(
    result: Result,
    source: Source,
    frames: Any = None,
    parameters: dict[str, Any] | None = None,
) -> list[LayerData]:
    """The sharp image, the sequence (hidden at first) and the trajectory as layer data tuples.

    Parameters
    ----------
    result : Result
        Of the plane of `source`.
    source : Source
        What was deblurred.
    frames : array_like, optional
        The sequence, (T, H, W[, C]), in memory or lazy; by default that of `result`.
    parameters : dict, optional
        Kept in the layers' metadata, where the result has none of that name.

    Returns
    -------
    list of tuple
        (data, keywords, kind) each; the sequence and the trajectory have a time axis, one
        step a pose, before the axes of the source.
    """
    metadata = {
        **(parameters or {}),
        **result.metadata,
        "source": {"layer": source.name, "index": list(source.index)},
        # In every layer, so that each is enough to go on from.
        "trajectory_csv": result.trajectory.to_csv(),
    }
    frames = result.sequence if frames is None else frames
    for axis in source.hidden:
        frames = _expand(frames, axis + 1)
    image = {"rgb": source.rgb, "multiscale": False, **source.display}
    return [
        (
            np.expand_dims(result.sharp, source.hidden),
            {
                "name": f"{source.name} deblurred",
                "metadata": {"blur2seq": copy.deepcopy(metadata)},
                **image,
                **copy.deepcopy(source.spatial),
            },
            "image",
        ),
        (
            frames,
            {
                "name": f"{source.name} sequence",
                "metadata": {"blur2seq": copy.deepcopy(metadata)},
                # It covers the sharp image, which most people want to see first.
                "visible": False,
                **image,
                **_with_time(copy.deepcopy(source.spatial)),
            },
            "image",
        ),
        trajectory_layer(result.trajectory, f"{source.name} trajectory", source, metadata),
    ]


def trajectory_layer(
    trajectory: Trajectory,
    name: str,
    source: Source | None = None,
    metadata: dict[str, Any] | None = None,
) -> LayerData:
    """A trajectory as tracks of a grid of points, coloured by time.

    Parameters
    ----------
    trajectory : Trajectory
    name : str
        Of the layer.
    source : Source, optional
        The picture it belongs to: the tracks lie where that lies.
    metadata : dict, optional
        Kept with the trajectory itself, from which `trajectory_of` makes it again.
    """
    tracks, time = _tracks(trajectory, source.hidden if source else ())
    spatial = source.spatial if source else _PLAIN
    return (
        tracks,
        {
            "name": name,
            "metadata": {
                "blur2seq": copy.deepcopy(metadata or {}) | {"trajectory_csv": trajectory.to_csv()}
            },
            "features": {"time": time},
            "color_by": "time",
            "colormap": "turbo",
            # Additive lines vanish on bright pictures.
            "blending": "translucent",
            "tail_width": 3,
            # The path up to the time of the slider, hardly fading towards its start.
            "tail_length": 10 * len(trajectory),
            "head_length": 0,
            **_with_time(copy.deepcopy(spatial)),
        },
        "tracks",
    )


def shaken_layers(
    shaken: NDArray[Any], trajectory: Trajectory, source: Source, metadata: dict[str, Any]
) -> list[LayerData]:
    """A picture shaken here and its true trajectory as layer data tuples.

    The picture does not remember the trajectory: nothing that is to be estimated is given away.
    """
    return [
        (
            np.expand_dims(shaken, source.hidden),
            {
                "name": f"{source.name} shaken",
                "metadata": {"blur2seq": copy.deepcopy(metadata)},
                "rgb": source.rgb,
                "multiscale": False,
                **source.display,
                **copy.deepcopy(source.spatial),
            },
            "image",
        ),
        trajectory_layer(trajectory, f"{source.name} true trajectory", source, metadata),
    ]


def paths_layer(
    trajectory: Trajectory, points: Any, magnification: float, name: str, source: Source
) -> LayerData:
    """The paths about image points (x, y) as vectors on a picture, coloured by time."""
    segments, time = path_segments(trajectory, points, magnification)
    vectors = np.zeros((len(segments), 2, 2 + len(source.hidden)))
    vectors[..., list(source.shown)] = segments
    return (
        vectors,
        {
            "name": name,
            "features": {"time": time},
            "edge_color": "time",
            "edge_colormap": "turbo",
            "vector_style": "line",
            "edge_width": max(0.5, max(source.shape) / 400),
            "opacity": 1.0,
            "metadata": {"blur2seq": {"trajectory_csv": trajectory.to_csv()}},
            **copy.deepcopy(source.spatial),
        },
        "vectors",
    )


def kernels_layer(
    trajectory: Trajectory, points: Any, magnification: float, name: str, source: Source
) -> LayerData:
    """The local kernels at image points (x, y) as a picture that is clear where there is none."""
    picture = kernel_picture(trajectory, points, magnification)
    return (
        np.expand_dims(picture, source.hidden),
        {
            "name": name,
            "colormap": {"name": "kernels", "colors": [[1, 0.9, 0.1, 0], [1, 0.9, 0.1, 1]]},
            "blending": "translucent_no_depth",
            "contrast_limits": (0, 0.6),
            "metadata": {"blur2seq": {"trajectory_csv": trajectory.to_csv()}},
            **copy.deepcopy(source.spatial),
        },
        "image",
    )


def trajectory_of(layer: Layer, dims: Dims | None = None) -> Trajectory | None:
    """The trajectory that a layer of ours remembers, or None.

    Of a stack, that of the plane that the viewer shows, or else of the first one.
    """
    kept = layer.metadata.get("blur2seq")
    if not isinstance(kept, dict):
        return None
    text = _of_plane(layer, kept, dims).get("trajectory_csv")
    try:
        return Trajectory.from_csv(text) if isinstance(text, str) else None
    except Blur2SeqError:  # metadata is the user's to write to
        return None


def _of_plane(layer: Layer, kept: dict[str, Any], dims: Dims | None) -> dict[str, Any]:
    """What is kept of the plane that the viewer shows, or of the first one; all, if of one."""
    planes = kept.get("planes")
    if not isinstance(planes, list) or not planes:
        return kept
    at = [p for p in planes if dims is not None and _shows(layer, p["index"], dims)]
    plane: dict[str, Any] = (at or planes)[0]
    return plane


def sequence_of(tracks: Layer, viewer: ViewerModel) -> tuple[Any, dict[str, Any]]:
    """Data and attributes of the frames that belong to the tracks of a result.

    Of a stack, those of the plane that the viewer shows.

    Raises
    ------
    ImageError
        If there are none among the layers.
    """
    from napari.layers import Image

    kept = tracks.metadata["blur2seq"]
    of = "planes" if "planes" in kept else "trajectory_csv"
    for layer in reversed(viewer.layers):
        theirs = layer.metadata.get("blur2seq", {})
        if isinstance(layer, Image) and layer.ndim == tracks.ndim and theirs.get(of) == kept[of]:
            data, attributes, _ = layer.as_layer_data_tuple()
            if of == "planes":
                plane = next((p for p in kept[of] if _shows(tracks, p["index"], viewer.dims)), None)
                if plane is None:
                    break
                cut = [slice(None) if i is None else slice(i, i + 1) for i in plane["index"]]
                data = data[(slice(None), *cut)]
                attributes["metadata"] = {"blur2seq": plane}
            return data, attributes
    raise ImageError(
        f"No sequence belongs to '{tracks.name}'; deblur the picture, and keep its sequence."
    )


def _shows(layer: Layer, index: Sequence[int | None], dims: Dims) -> bool:
    """Whether the viewer shows the plane of a stack at this index."""
    position = np.rint(layer.world_to_data(dims.point))[-len(index) :]
    return all(i is None or i == p for i, p in zip(index, position, strict=True))


def flip_time(layers: Iterable[Layer], tracks: Layer) -> None:
    """Let time run the other way in a trajectory layer, its sequence, and what remembers both.

    One picture does not tell the direction of time.

    Parameters
    ----------
    layers : iterable of napari.layers.Layer
        Those of the viewer.
    tracks : napari.layers.Tracks
        See `is_trajectory`.

    Raises
    ------
    TrajectoryError
        If it holds the motions of several planes.
    """
    trajectory = single_trajectory(tracks)
    before = tracks.metadata["blur2seq"]["trajectory_csv"]
    after = trajectory.reversed()
    for layer in layers:
        kept = layer.metadata.get("blur2seq")
        if not isinstance(kept, dict) or kept.get("trajectory_csv") != before:
            continue
        metadata = layer.metadata | {"blur2seq": kept | {"trajectory_csv": after.to_csv()}}
        if is_trajectory(layer):
            place = place_of_tracks(layer, trajectory)
            data, keywords, kind = trajectory_layer(after, layer.name, place)
            update_layer(layer, (data, {"features": keywords["features"]}, kind))
        elif layer.ndim == tracks.ndim and len(layer.data) == len(trajectory):
            layer.data = layer.data[::-1]
        layer.metadata = metadata


def single_trajectory(layer: Layer) -> Trajectory:
    """The trajectory of a layer of one exposure.

    Raises
    ------
    TrajectoryError
        If there is none, or it holds those of several planes.
    """
    trajectory = trajectory_of(layer)
    if trajectory is None or layer.metadata["blur2seq"].get("planes"):
        raise TrajectoryError(
            f"The layer '{layer.name}' does not hold the motion of one exposure; choose one that "
            "does, or refine a plane of it first."
        )
    return trajectory


def path_points(trajectory: Trajectory, point: Any, name: str, place: Source) -> LayerData:
    """The path of an image point (x, y) as points to drag, coloured by time."""
    xy = point + trajectory.paths([point])[:, 0]
    size = max(0.6, trajectory.extent / 25)
    return (
        _on_picture(xy, place),
        {
            "name": name,
            "features": {"time": np.linspace(0.0, 1.0, len(trajectory))},
            "face_color": "time",
            "face_colormap": "turbo",
            "border_color": "white",
            "border_width": 0.15,
            "size": size,
            "opacity": 1.0,
            **copy.deepcopy(place.spatial),
        },
        "points",
    )


def path_of_points(layer: Layer, place: Source) -> NDArray[np.float64]:
    """Where the points of `path_points` are now, (x, y) in px of the picture, shape (T, 2)."""
    return np.array(layer.data, dtype=float)[:, list(place.shown)[::-1]]


def put_points(layer: Layer, xy: NDArray[np.float64], place: Source) -> None:
    """Move the points of `path_points`; a drag that is under way goes on."""
    layer.data[...] = _on_picture(xy, place)
    layer.refresh()


def _on_picture(xy: NDArray[np.float64], place: Source) -> NDArray[np.float64]:
    """Data coordinates of points (x, y) of a picture, shape (N, axes)."""
    points = np.zeros((len(xy), len(place.spatial["scale"])))
    points[:, list(place.shown)] = xy[:, ::-1]
    return points


def is_trajectory(layer: Layer) -> bool:
    """Whether a layer is the tracks of a trajectory that it remembers."""
    from napari.layers import Tracks

    return isinstance(layer, Tracks) and trajectory_of(layer) is not None


def parameters_of(layer: Layer, dims: Dims | None = None) -> dict[str, Any]:
    """The options that a result of ours was made with; empty where that is unknown.

    Of a stack, those of the plane that the viewer shows, or else of the first one.
    """
    kept = layer.metadata.get("blur2seq")
    if not isinstance(kept, dict):
        return {}
    parameters = _of_plane(layer, kept, dims).get("parameters", kept.get("parameters"))
    return dict(parameters) if isinstance(parameters, dict) else {}


def source_of(layer: Layer, layers: Iterable[Layer]) -> Layer | None:
    """The layer that a result of ours was made from, where it is still there under its name."""
    kept = layer.metadata.get("blur2seq")
    source = kept.get("source") if isinstance(kept, dict) else None
    name = source.get("layer") if isinstance(source, dict) else None
    return next((other for other in layers if other.name == name), None)


def error_of(layer: Layer) -> float | None:
    """What the error of a result's trajectory seldom exceeds, px, or None if that is unknown."""
    kept = layer.metadata.get("blur2seq")
    certainty = kept.get("certainty") if isinstance(kept, dict) else None
    error = certainty.get("error_px") if isinstance(certainty, dict) else None
    return float(error) if isinstance(error, int | float) and np.isfinite(error) else None


def place_of_tracks(layer: Layer, trajectory: Trajectory) -> Source:
    """A stand-in for the picture of a trajectory layer, where that is no longer open."""
    axes = layer.ndim - 1
    return Source(
        name=layer.name,
        plane=np.zeros(trajectory.image_shape, np.uint8),
        rgb=False,
        index=(*(0,) * (axes - 2), None, None),
        shown=(axes - 2, axes - 1),
        spatial=_last_axes(_spatial(layer), axes),
        display={},
        contrast_limits_range=(0, 1),
    )


def picture_of(viewer: ViewerModel | None, shape: tuple[int, int] | None = None) -> Source | None:
    """The picture in a viewer that a trajectory for pictures of this shape belongs to.

    The active layer, or else the uppermost, whose shown plane has the (height, width).
    """
    from napari.layers import Image

    if viewer is None:
        return None
    for layer in (viewer.layers.selection.active, *reversed(viewer.layers)):
        if isinstance(layer, Image):
            try:
                source = read_source(layer, viewer.dims)
            except Blur2SeqError:
                continue
            if shape in (None, source.shape):
                return source
    return None


def picture_of_current_viewer(shape: tuple[int, int] | None = None) -> Source | None:
    """`picture_of` of the viewer the user works in, None outside napari."""
    import napari

    return picture_of(napari.current_viewer(), shape)


def plugin_settings() -> Any:
    """What napari keeps of the plugin's preferences, or None where it keeps nothing."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # outside napari, or before 0.9
        return None
    try:
        return get_plugin_settings("napari-blur2seq")
    except KeyError:  # the plugin is not registered
        return None


Region = tuple[int, int, int, int]


def region_of(shapes: Layer, layer: Layer, source: Source, dims: Dims) -> Region:
    """Box around a shape, (top, left, bottom, right) in px of the plane of a picture.

    Parameters
    ----------
    shapes : napari.layers.Shapes
        Its selected shape counts, or else its last one.
    layer : napari.layers.Image
        Whose plane is `source`.
    dims : napari.components.Dims

    Raises
    ------
    ImageError
        If there is no shape.
    """
    if not len(shapes.data):
        raise ImageError(f"The layer '{shapes.name}' holds no shape; draw a rectangle.")
    chosen = max(shapes.selected_data, default=len(shapes.data) - 1)
    axes = [axis for axis, i in enumerate(source.index) if i is None]
    corners = []
    for corner in np.asarray(shapes.data[chosen]):
        world = np.array(dims.point, dtype=float)
        world[-shapes.ndim :] = shapes.data_to_world(corner)
        corners.append(np.asarray(layer.world_to_data(world))[axes])
    return _box(np.array(corners))


def view_of(layer: Layer, source: Source, zoom: float) -> tuple[Region, float]:
    """What the viewer shows of a picture: its box in px, and px of the screen per px of it."""
    axes = [axis for axis, i in enumerate(source.index) if i is None]
    corners = np.array(layer.corner_pixels, dtype=float)
    if layer.multiscale:
        corners = corners * np.asarray(layer.downsample_factors)[layer.data_level]
    scale = float(np.sqrt(abs(np.prod([layer.scale[axis] for axis in axes]))))
    top, left, bottom, right = _box(corners[:, axes])
    height, width = source.shape
    return (max(top, 0), max(left, 0), min(bottom, height), min(right, width)), zoom * scale


def cut(source: Source, region: Region) -> Source:
    """A part of a source, at its place."""
    top, left, bottom, right = region
    origin = np.zeros(len(source.spatial["scale"]))
    origin[list(source.shown)] = top, left
    return replace(
        source,
        plane=source.plane[top:bottom, left:right],
        spatial=_shifted(source.spatial, origin),
    )


def _box(corners: NDArray[np.float64]) -> Region:
    low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0)) + 1
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


class StackResult:
    """The layers of a stack being deblurred: planes and trajectories added as they are ready.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    layer : napari.layers.Image
        The stack; read now, for it may be removed while the work runs.
    planes : list of Source
        From `read_planes`.
    metadata : dict
        Kept in the layers.
    """

    def __init__(
        self, viewer: ViewerModel, layer: Layer, planes: list[Source], metadata: dict[str, Any]
    ) -> None:
        self._viewer = viewer
        self._planes = planes
        self._metadata = metadata
        self._shape = tuple((layer.data[0] if layer.multiscale else layer.data).shape)
        self._spatial = _spatial(layer)
        self._name = layer.name
        self._sharp: Layer | None = None
        self._tracks: Layer | None = None
        self._frames: Layer | None = None
        self._trajectories: dict[tuple[int | None, ...], Trajectory] = {}
        self._rows: list[NDArray[np.float64]] = []
        self._times: list[NDArray[np.float64]] = []
        self._kept: list[dict[str, Any]] = []
        self.done = 0

    def add(
        self, number: int, sharp: NDArray[Any], trajectory: Trajectory | None, about: dict[str, Any]
    ) -> None:
        """Show a plane that is ready, and the trajectory of its motion."""
        source = self._planes[number]
        self.done += 1
        self._kept.append(
            {
                **copy.deepcopy(about),
                "index": list(source.index),
                "trajectory_csv": None if trajectory is None else trajectory.to_csv(),
            }
        )
        self._add_plane(source, sharp)
        if trajectory is not None:
            axes = self._viewer.dims.ndim
            self._add_frames(source, trajectory)
            self._add_tracks(source, trajectory)
            _to_last_pose(self._viewer, axes)

    @property
    def _remembered(self) -> dict[str, Any]:
        return {"blur2seq": {**copy.deepcopy(self._metadata), "planes": self._kept}}

    def _add_plane(self, source: Source, sharp: NDArray[Any]) -> None:
        from napari.layers import Image

        index = tuple(slice(None) if i is None else i for i in source.index)
        if self._sharp is None:
            data = np.zeros(self._shape, sharp.dtype)
            data[index] = sharp
            self._sharp = Image(
                data, rgb=source.rgb, multiscale=False, **source.display, **self._spatial
            )
            self._sharp.contrast_limits_range = source.contrast_limits_range
            self._viewer.add_layer(self._sharp)
        else:
            self._sharp.data[index] = sharp
            self._sharp.refresh()
        self._sharp.metadata = self._remembered
        of = f" ({self.done} of {len(self._planes)})" if self.done < len(self._planes) else ""
        self._sharp.name = f"{self._name} deblurred{of}"

    def _add_frames(self, source: Source, trajectory: Trajectory) -> None:
        from napari.layers import Image

        from .stacks import stack_frames

        assert self._sharp is not None
        self._trajectories[source.index] = trajectory
        shown = [axis for axis, i in enumerate(source.index) if i is None]
        linear = self._metadata.get("parameters", {}).get("linear", False)
        data = stack_frames(self._sharp.data, dict(self._trajectories), shown, linear=linear)
        if self._frames is None:
            self._frames = Image(
                data,
                name=f"{self._name} sequence",
                rgb=source.rgb,
                multiscale=False,
                visible=False,
                **source.display,
                **_with_time(copy.deepcopy(self._spatial)),
            )
            self._frames.contrast_limits_range = source.contrast_limits_range
            self._viewer.add_layer(self._frames)
        else:
            self._frames.data = data
        self._frames.metadata = self._remembered

    def _add_tracks(self, source: Source, trajectory: Trajectory) -> None:
        from napari.layers import Tracks

        hidden = [axis for axis, i in enumerate(source.index) if i is not None]
        rows, time = _tracks(trajectory, hidden)
        rows[:, 0] += 1 + max((r[:, 0].max() for r in self._rows), default=-1)
        for axis in hidden:
            rows[:, 2 + axis] = source.index[axis]
        self._rows.append(rows)
        self._times.append(time)
        data, features = np.concatenate(self._rows), {"time": np.concatenate(self._times)}
        # Tracks have no more than three axes beside time.
        if len(source.index) <= _MAX_AXES:
            if self._tracks is None:
                _, keywords, _ = trajectory_layer(trajectory, f"{self._name} trajectories")
                keywords |= {"features": features, **_with_time(copy.deepcopy(self._spatial))}
                self._tracks = Tracks(data, **keywords)
                self._viewer.add_layer(self._tracks)
            else:
                update_layer(self._tracks, (data, {"features": features}, "tracks"))
            self._tracks.metadata = self._remembered


def preview_layer(preview: NDArray[Any], source: Source) -> LayerData:
    """An intermediate sharp image, possibly smaller than the source, as a layer data tuple."""
    ratio = np.ones(len(source.spatial["scale"]))
    ratio[list(source.shown)] = np.divide(source.shape, preview.shape[:2])
    # The outer edges of the pixels coincide, not the centres of the first.
    spatial = _shifted(source.spatial, (ratio - 1) / 2)
    spatial["scale"] = spatial["scale"] * ratio
    return (
        np.expand_dims(preview, source.hidden),
        {
            "name": f"{source.name} (deblurring ...)",
            "rgb": source.rgb,
            "multiscale": False,
            **source.display,
            **spatial,
        },
        "image",
    )


def add_layers(viewer: ViewerModel, layers: Iterable[LayerData], source: Source) -> Iterator[Layer]:
    """Add layer data tuples to a viewer, one at each step, and show them as they are meant.

    A new time slider is put on the last pose, so that the whole path is visible.
    """
    from napari.layers import Layer

    axes = viewer.dims.ndim
    for data, keywords, kind in layers:
        layer = Layer.create(data, keywords, kind)
        if kind == "image":
            layer.contrast_limits_range = source.contrast_limits_range
        yield viewer.add_layer(layer)
    _to_last_pose(viewer, axes)


def _to_last_pose(viewer: ViewerModel, axes: int) -> None:
    """Put the time slider on the end, if it is new: `axes` are those there were before."""
    if viewer.dims.ndim > axes:
        viewer.dims.set_current_step(0, viewer.dims.nsteps[0] - 1)


def update_layer(layer: Layer, data: LayerData) -> None:
    """Let a layer show a layer data tuple of its kind: the data, their place, name and metadata."""
    values, keywords, kind = data
    if kind == "tracks":
        # Coloured by time once more when every point has one.
        layer.color_by = "track_id"
        layer.data = values
        layer.features = keywords["features"]
        layer.color_by = "time"
    else:
        layer.data = values
    for name in ("scale", "translate", "name", "metadata"):
        if name in keywords:
            setattr(layer, name, keywords[name])


def _tracks(
    trajectory: Trajectory, hidden: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows [track, time, axes ...] of the paths of a grid of points, and the share of time."""
    points = trajectory.grid(_GRID)
    xy = np.swapaxes(points + trajectory.paths(points), 0, 1)
    tracks, poses = xy.shape[:2]
    columns = [np.repeat(np.arange(tracks), poses), np.tile(np.arange(poses), tracks)]
    axes = [xy[..., 1].ravel(), xy[..., 0].ravel()]
    for axis in hidden:
        axes.insert(axis, np.zeros(tracks * poses))
    # Floats: napari takes a feature of few whole numbers for categories.
    time = columns[1] / max(poses - 1, 1)
    return np.stack([*columns, *axes], axis=1).astype(np.float64), time


def _expand(array: Any, axis: int) -> Any:
    """`numpy.expand_dims` that leaves dask arrays lazy."""
    return array[(slice(None),) * axis + (None,)]


def _shear_matrix(shear: NDArray[np.float64], ndim: int) -> NDArray[np.float64]:
    if shear.ndim == 2:
        return shear
    matrix = np.eye(ndim)
    matrix[np.triu_indices(ndim, k=1)] = shear
    return matrix


def _spatial(layer: Layer) -> dict[str, Any]:
    """Where a layer lies: all seven attributes that say so."""
    return {
        "scale": np.array(layer.scale, dtype=float),
        "translate": np.array(layer.translate, dtype=float),
        "rotate": np.array(layer.rotate, dtype=float),
        "shear": _shear_matrix(np.array(layer.shear, dtype=float), layer.ndim),
        "affine": np.array(layer.affine.affine_matrix, dtype=float),
        "units": tuple(layer.units),
        "axis_labels": tuple(layer.axis_labels),
    }


def _shifted(spatial: dict[str, Any], origin: Any) -> dict[str, Any]:
    """Spatial attributes of a part of the layer that begins at data coordinates `origin`."""
    linear = spatial["rotate"] @ spatial["shear"] @ np.diag(spatial["scale"])
    return spatial | {"translate": spatial["translate"] + linear @ np.asarray(origin, dtype=float)}


def _last_axes(spatial: dict[str, Any], n: int) -> dict[str, Any]:
    affine = np.eye(n + 1)
    affine[:n, :n] = spatial["affine"][-n - 1 : -1, -n - 1 : -1]
    affine[:n, n] = spatial["affine"][-n - 1 : -1, -1]
    return {
        **{k: spatial[k][-n:] for k in ("scale", "translate", "units", "axis_labels")},
        **{k: spatial[k][-n:, -n:] for k in ("rotate", "shear")},
        "affine": affine,
    }


def _with_time(spatial: dict[str, Any]) -> dict[str, Any]:
    """Spatial attributes with a time axis, one unit a pose, before the others."""
    labels = spatial["axis_labels"]
    return {
        "scale": np.concatenate([[1.0], spatial["scale"]]),
        "translate": np.concatenate([[0.0], spatial["translate"]]),
        "rotate": _below_one(spatial["rotate"]),
        "shear": _below_one(spatial["shear"]),
        "affine": _below_one(spatial["affine"]),
        "units": ("pixel", *spatial["units"]),
        "axis_labels": ("exposure" if "t" in labels else "t", *labels),
    }


def _below_one(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    embedded = np.eye(len(matrix) + 1)
    embedded[1:, 1:] = matrix
    return embedded
