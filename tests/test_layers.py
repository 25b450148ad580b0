"""Layers made of a result lie where the input lies, look like it and leave it alone."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("napari")

from napari.components import ViewerModel
from napari.layers import Image, Tracks

from napari_blur2seq.errors import ImageError
from napari_blur2seq.images import to_working
from napari_blur2seq.layers import add_layers, preview_layer, read_source, result_layers
from napari_blur2seq.pipeline import FrameSequence, Result
from napari_blur2seq.trajectory import Trajectory

RNG = np.random.default_rng(0)

SPATIAL_2D = {
    "scale": (0.4, 0.7),
    "translate": (-30.0, 12.5),
    "rotate": 25.0,
    "shear": [0.3],
    "affine": np.array([[1.1, 0.2, 5.0], [-0.1, 0.9, -7.0], [0, 0, 1.0]]),
    "units": ("um", "um"),
    "axis_labels": ("row", "column"),
}


def rotations(n: int) -> np.ndarray:
    t = np.linspace(-1, 1, n)[:, None]
    return np.hstack([0.03 * t, 0.02 * t**2, -0.05 * t])


def result_for(plane: np.ndarray, n: int = 5) -> Result:
    """A result that needs no computation: the input as the sharp image."""
    working, form = to_working(plane)
    trajectory = Trajectory(rotations(n), 60.0, (24.0, 20.0), plane.shape[:2])
    return Result(
        plane.copy(),
        trajectory,
        plane.copy(),
        {"version": "1"},
        FrameSequence(working, trajectory, form),
    )


def run_on(viewer: ViewerModel, layer: Image, n: int = 5) -> tuple[Image, Image, Tracks]:
    source = read_source(layer, viewer.dims)
    data = result_layers(result_for(source.pixels(), n), source, None, {"parameters": {"n": n}})
    sharp, sequence, tracks = add_layers(viewer, data, source)
    return sharp, sequence, tracks


def grey() -> np.ndarray:
    return RNG.integers(0, 255, (40, 48), dtype=np.uint8)


def colour() -> np.ndarray:
    return RNG.integers(0, 255, (40, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("picture", [grey, colour])
@pytest.mark.parametrize("lower", [False, True], ids=["upper shear", "lower shear"])
def test_results_lie_where_the_input_lies(picture, lower):
    viewer = ViewerModel()
    spatial = dict(SPATIAL_2D)
    if lower:
        spatial["shear"] = np.array([[1, 0], [0.3, 1.0]])
    image = viewer.add_image(picture(), **spatial)
    sharp, sequence, tracks = run_on(viewer, image)
    assert sharp.data.shape == image.data.shape
    assert sequence.data.shape == (5, *image.data.shape)
    for y, x in [(0, 0), (39, 47), (13.5, 7.25)]:
        world = image.data_to_world((y, x))
        np.testing.assert_allclose(sharp.data_to_world((y, x)), world, atol=1e-6)
        for layer in (sequence, tracks):
            np.testing.assert_allclose(layer.data_to_world((3, y, x)), (3, *world), atol=1e-6)
    for layer in (sequence, tracks):
        assert layer.axis_labels == ("t", "row", "column")
        assert layer.units[1:] == image.units
        np.testing.assert_allclose(layer.scale, (1, *image.scale))
        np.testing.assert_allclose(layer.translate, (0, *image.translate))
        np.testing.assert_allclose(layer.rotate[1:, 1:], image.rotate)
        np.testing.assert_allclose(layer.affine.affine_matrix[1:, 1:], image.affine.affine_matrix)
    assert sharp.axis_labels == image.axis_labels
    assert sharp.units == image.units
    np.testing.assert_allclose(sharp.shear, image.shear)
    # The viewer keeps its units: no layer is without.
    assert viewer.layers.extent.units is not None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_results_look_like_the_input(dtype):
    viewer = ViewerModel()
    data = (RNG.random((40, 48)) * 200).astype(dtype)
    image = viewer.add_image(data, contrast_limits=(20, 90), colormap="magma", gamma=0.7)
    image.contrast_limits_range = (5, 150)
    sharp, sequence, _ = run_on(viewer, image)
    for layer in (sharp, sequence):
        assert layer.dtype == dtype
        assert tuple(layer.contrast_limits) == (20, 90)
        assert tuple(layer.contrast_limits_range) == (5, 150)
        assert layer.colormap.name == "magma"
        assert layer.gamma == 0.7
    np.testing.assert_array_equal(image.data, data)


def test_tracks_are_the_paths_of_a_grid_in_step_with_the_sequence():
    viewer = ViewerModel()
    image = viewer.add_image(grey())
    _, sequence, tracks = run_on(viewer, image, n=6)
    trajectory = Trajectory(rotations(6), 60.0, (24.0, 20.0), (40, 48))
    points = trajectory.grid(7)
    assert tracks.data.shape == (49 * 6, 4)
    for identity, t in [(0, 0), (10, 3), (48, 5)]:
        (row,) = tracks.data[(tracks.data[:, 0] == identity) & (tracks.data[:, 1] == t)]
        expected = points[identity] + trajectory.paths(points)[t, identity]
        np.testing.assert_allclose(row[[3, 2]], expected)
    assert tracks.color_by == "time"
    assert tracks.features["time"].dtype.kind == "f"  # whole numbers would be categories
    assert viewer.dims.nsteps[0] == len(sequence.data) == 6
    # The whole path shows at first, over a visible sharp image and a hidden sequence.
    assert viewer.dims.current_step[0] == 5
    assert tracks.tail_length >= 6
    assert [layer.visible for layer in viewer.layers] == [True, True, False, True]


def test_metadata_is_kept_apart_and_the_trajectory_can_be_loaded(tmp_path):
    viewer = ViewerModel()
    sharp, sequence, tracks = run_on(viewer, viewer.add_image(grey(), name="mine"))
    for layer in (sharp, sequence, tracks):
        kept = layer.metadata["blur2seq"]
        assert kept["version"] == "1"
        assert kept["parameters"] == {"n": 5}
        assert kept["source"] == {"layer": "mine", "index": [None, None]}
    sharp.metadata["blur2seq"]["parameters"]["n"] = 0
    assert sequence.metadata["blur2seq"]["parameters"] == {"n": 5}
    file = tmp_path / "t.csv"
    file.write_text(tracks.metadata["blur2seq"]["trajectory_csv"])
    np.testing.assert_array_equal(Trajectory.load(file).rotations, rotations(5))


def test_a_plane_of_a_stack_stays_in_its_place():
    viewer = ViewerModel()
    stack = RNG.random((6, 40, 48)).astype(np.float32)
    image = viewer.add_image(
        stack,
        scale=(2, 0.5, 0.5),
        translate=(10, 1, 2),
        units=("um", "um", "um"),
        axis_labels=("z", "y", "x"),
        rotate=[[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]],
    )
    viewer.dims.set_current_step(0, 4)
    source = read_source(image, viewer.dims)
    np.testing.assert_array_equal(source.pixels(), stack[4])
    sharp, sequence, tracks = run_on(viewer, image)
    assert sharp.data.shape == (1, 40, 48)
    assert sequence.data.shape == (5, 1, 40, 48)
    world = image.data_to_world((4, 11, 17))
    np.testing.assert_allclose(sharp.data_to_world((0, 11, 17)), world, atol=1e-6)
    for layer in (sequence, tracks):
        np.testing.assert_allclose(layer.data_to_world((2, 0, 11, 17)), (2, *world), atol=1e-6)
        assert layer.axis_labels == ("t", "z", "y", "x")
    # The stack's slider stays, and a second run takes the plane it shows.
    viewer.dims.set_current_step(1, 2)
    np.testing.assert_array_equal(read_source(image, viewer.dims).pixels(), stack[2])


def test_colour_stacks_time_axes_and_other_orders():
    viewer = ViewerModel()
    stack = RNG.integers(0, 255, (3, 40, 48, 3), dtype=np.uint8)
    image = viewer.add_image(stack, rgb=True, axis_labels=("t", "y", "x"))
    viewer.dims.set_current_step(0, 1)
    sharp, sequence, _ = run_on(viewer, image)
    np.testing.assert_array_equal(sharp.data[0], stack[1])
    assert sequence.data.shape == (5, 1, 40, 48, 3)
    assert sequence.axis_labels == ("exposure", "t", "y", "x")

    viewer = ViewerModel()
    volume = RNG.random((36, 40, 48))
    image = viewer.add_image(volume)
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 7)
    sharp, _, tracks = run_on(viewer, image)
    np.testing.assert_array_equal(sharp.data[:, 0], volume[:, 7])
    np.testing.assert_allclose(
        sharp.data_to_world((3, 0, 9)), image.data_to_world((3, 7, 9)), atol=1e-6
    )
    assert np.all(tracks.data[:, 3] == 0)


def test_five_dimensional_stack_and_a_layer_under_more_sliders():
    viewer = ViewerModel()
    hyper = RNG.random((2, 2, 3, 40, 48)).astype(np.float32)
    image = viewer.add_image(hyper, scale=(1, 1, 3, 0.5, 0.5))
    flat = viewer.add_image(grey(), name="flat")
    for axis, step in enumerate((1, 0, 2)):
        viewer.dims.set_current_step(axis, step)
    source = read_source(image, viewer.dims)
    assert source.index == (1, 0, 2, None, None)
    np.testing.assert_array_equal(source.pixels(), hyper[1, 0, 2])
    np.testing.assert_array_equal(read_source(flat, viewer.dims).pixels(), flat.data)
    sharp, sequence, tracks = run_on(viewer, image)
    # Tracks have no more than three axes beside time: the leading ones are left out.
    assert (sharp.ndim, sequence.ndim, tracks.ndim) == (3, 4, 4)
    np.testing.assert_allclose(
        sharp.data_to_world((0, 9, 5)), image.data_to_world((1, 0, 2, 9, 5))[2:], atol=1e-6
    )


def test_dask_and_multiscale_give_the_full_resolution():
    import dask.array

    viewer = ViewerModel()
    stack = RNG.random((3, 40, 48)).astype(np.float32)
    lazy = viewer.add_image(dask.array.from_array(stack, chunks=(1, 20, 48)))
    viewer.dims.set_current_step(0, 2)
    np.testing.assert_array_equal(read_source(lazy, viewer.dims).pixels(), stack[2])
    picture = grey()
    pyramid = viewer.add_image([picture, picture[::2, ::2]], multiscale=True)
    np.testing.assert_array_equal(read_source(pyramid, viewer.dims).pixels(), picture)


def test_the_plane_is_a_copy():
    viewer = ViewerModel()
    image = viewer.add_image(grey())
    before = image.data.copy()
    read_source(image, viewer.dims).pixels()[:] = 0
    np.testing.assert_array_equal(image.data, before)


def test_what_cannot_be_deblurred_is_refused_in_a_sentence():
    viewer = ViewerModel()
    with pytest.raises(ImageError, match="not no layer; choose a picture"):
        read_source(None, viewer.dims)
    labels = viewer.add_labels(np.zeros((40, 48), int))
    with pytest.raises(ImageError, match="not a Labels layer"):
        read_source(labels, viewer.dims)
    image = viewer.add_image(RNG.random((4, 40, 48)))
    viewer.dims.ndisplay = 3
    with pytest.raises(ImageError, match="back to 2D display"):
        read_source(image, viewer.dims)
    viewer.dims.ndisplay = 2
    moved = viewer.add_image(RNG.random((4, 40, 48)), translate=(50, 0, 0))
    viewer.dims.set_point(0, 0)
    with pytest.raises(ImageError, match="shows nothing"):
        read_source(moved, viewer.dims)
    flat = viewer.add_image(grey())
    viewer.dims.order = (1, 0, 2)
    with pytest.raises(ImageError, match="does not show a plane"):
        read_source(flat, viewer.dims)


@pytest.mark.parametrize("picture", [grey, colour])
def test_a_smaller_preview_covers_the_input(picture):
    viewer = ViewerModel()
    image = viewer.add_image(picture(), **SPATIAL_2D)
    source = read_source(image, viewer.dims)
    data, keywords, _ = preview_layer(image.data[::2, ::4], source)
    preview = Image(data, **keywords)
    # Outer edges of the corner pixels, half a pixel beyond their centres.
    for small, large in [((-0.5, -0.5), (-0.5, -0.5)), ((19.5, 11.5), (39.5, 47.5))]:
        np.testing.assert_allclose(
            preview.data_to_world(small), image.data_to_world(large), atol=1e-6
        )
