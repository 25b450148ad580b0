"""Every example of the documentation runs, every picture and page it names exists."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small shaken picture and its motion, by the documentation's names in the current folder."""
    from imageio.v3 import imwrite
    from skimage.data import astronaut

    import napari_blur2seq as b2s

    sharp = astronaut()[40:136, 160:288]
    trajectory = b2s.shake.simulate_tremor(sharp.shape[:2], extent=6.0, seed=1)
    imwrite(tmp_path / "photograph.png", np.asarray(b2s.blur(sharp, trajectory)))
    trajectory.scaled(0.9).save(tmp_path / "start.csv")
    monkeypatch.chdir(tmp_path)


def test_python_examples_run(photograph: None, monkeypatch: pytest.MonkeyPatch) -> None:
    scope: dict[str, object] = {}
    for block in blocks("scripts.md", "python"):
        exec(compile(block, "scripts.md", "exec"), scope)
    assert scope["degrees"].shape == (25, 3)  # type: ignore[attr-defined]
    assert scope["result"].trajectory.camera.is_stage  # type: ignore[attr-defined]
    assert scope["sharp"].any()  # type: ignore[attr-defined]
    assert Path("curves.svg").stat().st_size > 0


def test_examples_of_refinement_run(photograph: None) -> None:
    scope: dict[str, object] = {}
    for block in blocks("refine.md", "python"):
        exec(compile(block, "refine.md", "exec"), scope)
    for name in ("better", "quick", "best"):
        assert len(scope[name]) == 25  # type: ignore[arg-type]


@pytest.mark.parametrize(("page", "count"), [("scripts.md", 2), ("refine.md", 1)])
def test_commands_run(
    photograph: None, monkeypatch: pytest.MonkeyPatch, page: str, count: int
) -> None:
    from napari_blur2seq.cli import main

    lines = "\n".join(blocks(page, "console")).splitlines()
    commands = [shlex.split(line[2:]) for line in lines if line.startswith("$ ")]
    assert len(commands) == count
    for words in commands:
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code, words


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
