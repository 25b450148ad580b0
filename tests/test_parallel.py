"""Computations beside each other: results, events, ends."""

import threading

import pytest
import torch

from napari_blur2seq import parallel
from napari_blur2seq.parallel import side_by_side
from napari_blur2seq.progress import Notice, Progress, run


@pytest.fixture(autouse=True)
def _every_step_is_handed_over(monkeypatch):
    monkeypatch.setattr(parallel, "_WHILE", 0.0)


@pytest.fixture(params=[1, 3])
def cores(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def counting(number, closed, steps=4):
    """Yields, and returns what it has seen of the thread it ran in."""
    threads, gradients = set(), set()
    try:
        for step in range(steps):
            threads.add(threading.get_ident())
            gradients.add(torch.is_grad_enabled())
            yield Progress("estimate", step / steps, f"work {number}")
        return number, len(threads), gradients, torch.get_num_threads()
    finally:
        closed.append(number)


def test_results_come_in_order_each_from_one_thread(cores):
    closed, events = [], []
    with torch.no_grad():
        works = side_by_side([counting(i, closed) for i in range(7)])
        results = run(works, events.append)
    assert results == [(i, 1, {False}, 1) for i in range(7)]
    assert sorted(closed) == list(range(7))
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions) and fractions[0] >= 0 and fractions[-1] < 1
    assert torch.get_num_threads() == cores


def test_steps_that_say_nothing_new_are_taken_in_one_go(monkeypatch):
    def work():
        for step in range(6):
            kind = Notice if step == 2 else Progress
            yield kind("estimate", step / 6, f"step {step}")
        return "done"

    monkeypatch.setattr(parallel, "_WHILE", 60.0)
    events = []
    assert run(side_by_side([work()]), events.append) == ["done"]
    assert [event.message for event in events] == ["step 2"]


def test_fewer_works_than_cores_share_them():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        results = run(side_by_side([counting(i, []) for i in range(2)]))
        assert [threads for *_, threads in results] == [2, 2]
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_threads_that_follow_have_all_cores(cores):
    run(side_by_side([counting(i, []) for i in range(2)]))
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [cores]


def test_no_works():
    assert run(side_by_side([])) == []


def test_closing_ends_all(cores):
    closed = []
    works = side_by_side([counting(i, closed) for i in range(5)])
    next(works)
    works.close()
    begun = min(cores, 5)
    assert sorted(closed) == list(range(begun))
    assert torch.get_num_threads() == cores


def test_an_error_ends_all_and_is_raised(cores):
    closed = []

    def failing():
        yield Progress("estimate", 0.5, "so far so good")
        raise ValueError("broken")

    works = side_by_side([failing(), *(counting(i, closed, 10**9) for i in range(cores - 1))])
    with pytest.raises(ValueError, match="broken"):
        run(works)
    assert sorted(closed) == list(range(cores - 1))
