"""Planes of a stack one after the other; the estimate itself is replaced by a quick one."""

from __future__ import annotations

import numpy as np
import pytest

from napari_blur2seq import pipeline
from napari_blur2seq.images import to_working, value_range
from napari_blur2seq.pipeline import Options
from napari_blur2seq.progress import Progress
from napari_blur2seq.shake import simulate_tremor
from napari_blur2seq.stacks import PlaneDone, channels_steps, restored_steps, stack_steps
from napari_blur2seq.trajectory import Trajectory

STACK = np.random.default_rng(0).integers(0, 255, (5, 40, 48), dtype=np.uint8)
MOTION = simulate_tremor((40, 48), extent=5.0, seed=3)


@pytest.fixture
def quick(monkeypatch) -> list[np.ndarray]:
    """A pipeline that inverts the picture; returns what it was given."""
    given: list[np.ndarray] = []

    def steps(image, options):
        given.append(image)
        yield Progress("estimate", 0.5, "Looking", preview=image)
        working, form = to_working(image)
        frames = pipeline.FrameSequence(working, MOTION, form)
        return pipeline.Result(255 - image, MOTION, image, {"seed": options.seed}, frames)

    monkeypatch.setattr(pipeline, "deblur_steps", steps)
    return given


def collect(steps) -> tuple[list[Progress], list[PlaneDone], list[str]]:
    events = []
    while True:
        try:
            events.append(next(steps))
        except StopIteration as end:
            return events, [e for e in events if isinstance(e, PlaneDone)], end.value


def test_planes_are_read_and_given_one_at_a_time(quick) -> None:
    asked: list[int] = []

    def reader(i: int):
        def read() -> np.ndarray:
            assert len(quick) == len(asked)  # not before the one before is done
            asked.append(i)
            return STACK[i]

        return read

    events, done, problems = collect(stack_steps([reader(i) for i in range(5)], Options(seed=4)))
    assert asked == list(range(5)) and problems == []
    assert [e.number for e in done] == list(range(5))
    for event in done:
        np.testing.assert_array_equal(event.sharp, 255 - STACK[event.number])
        assert event.trajectory == MOTION and event.metadata == {"seed": 4}
    fractions = [e.fraction for e in events]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert events[0].message == "Plane 1 of 5: Looking"
    assert all(e.preview is None for e in events)


def test_a_plane_of_no_use_does_not_stop_the_others(quick) -> None:
    stack = STACK.copy()
    stack[1] = 7

    def read(i: int):
        return lambda: stack[i]

    _, done, problems = collect(stack_steps([read(i) for i in range(3)], Options()))
    assert len(problems) == 1 and "Plane 2 is left as it is: The image is constant" in problems[0]
    assert done[1].trajectory is None and done[1].problem == problems[0]
    np.testing.assert_array_equal(done[1].sharp, stack[1])
    np.testing.assert_array_equal(done[2].sharp, 255 - stack[2])


def test_the_planes_of_a_stack_share_their_range_of_values(monkeypatch) -> None:
    used: list[Options] = []

    def steps(image, options):
        used.append(options)
        yield Progress("estimate", 0.5, "Looking")
        working, form = to_working(image, limits=options.value_range)
        frames = pipeline.FrameSequence(working, MOTION, form)
        return pipeline.Result(image, MOTION, image, {}, frames)

    monkeypatch.setattr(pipeline, "deblur_steps", steps)
    stack = STACK.astype(np.uint16) * np.arange(1, 6, dtype=np.uint16)[:, None, None]
    readers = [lambda plane=plane: plane for plane in stack]
    events, _, _ = collect(stack_steps(readers, Options()))
    assert {options.value_range for options in used} == {value_range(stack.reshape(-1, 48))}
    fractions = [e.fraction for e in events]
    assert fractions == sorted(fractions)
    used.clear()
    collect(stack_steps(readers, Options(value_range=(0, 4095))))
    assert {options.value_range for options in used} == {(0, 4095)}
    # Channels are not of one brightness.
    used.clear()
    collect(channels_steps(readers[:1], 0, Options()))
    assert used == [Options()]


def test_channels_share_the_motion_of_one(quick) -> None:
    def read(i: int):
        return lambda: STACK[i]

    events, done, problems = collect(
        channels_steps([read(i) for i in range(3)], 1, Options(prior="sparse"))
    )
    assert len(quick) == 1  # estimated once
    np.testing.assert_array_equal(quick[0], STACK[1])
    assert [e.number for e in done] == [1, 0, 2] and problems == []
    assert all(e.trajectory == MOTION for e in done)
    assert done[1].sharp.dtype == np.uint8 and done[1].sharp.shape == (40, 48)
    fractions = [e.fraction for e in events]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    _, done, _ = collect(channels_steps([read(0)], 0, Options()))
    assert len(done) == 1 and done[0].fraction == 1


def test_a_known_motion_restores() -> None:
    from skimage.data import astronaut

    sharp = astronaut()[60:124, 180:260]
    motion = Trajectory.from_camera(
        MOTION.rotations, simulate_tremor(sharp.shape, extent=5.0).camera
    )
    blurry = np.asarray(pipeline.blur(sharp, motion))
    *_, restored = collect(restored_steps(blurry, motion, Options(prior="sparse")))
    assert restored.dtype == np.uint8 and restored.shape == sharp.shape

    def error(image: np.ndarray) -> float:
        return float(np.abs(image[8:-8, 8:-8].astype(float) - sharp[8:-8, 8:-8]).mean())

    assert error(restored) < 0.8 * error(blurry)
