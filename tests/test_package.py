"""The package as a whole: what importing it costs, what it promises, what it ships."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import napari_blur2seq as b2s

ROOT = Path(__file__).parents[1]
PACKAGE = Path(b2s.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Hides napari and Qt, as if they were not installed.
WITHOUT_NAPARI = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"napari", "npe2", "qtpy", "superqt", "magicgui",
                                      "PyQt5", "PyQt6", "PySide2", "PySide6"}:
            raise ModuleNotFoundError(f"{name} is hidden", name=name)

sys.meta_path.insert(0, Hidden())
"""


IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def library_modules() -> list[str]:
    """Every module but those of the widgets."""
    modules = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if "_qt" not in parts and parts[-1] != "__main__":
            modules.append(".".join(parts).removesuffix(".__init__"))
    return modules


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language in the README."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def console_commands() -> list[list[str]]:
    """The commands after each prompt in the README, in words."""
    lines = "\n".join(blocks("console")).replace("\\\n", " ").splitlines()
    return [shlex.split(line[2:]) for line in lines if line.startswith("$ ")]


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert b2s.__version__ == version("napari-blur2seq")
    assert re.match(r"\d+\.\d+", b2s.__version__)


def test_import_is_light() -> None:
    heavy = "{'torch', 'napari', 'qtpy', 'scipy', 'skimage', 'matplotlib', 'numpy'}"
    done = run_python(f"import sys, napari_blur2seq; print(*{heavy} & set(sys.modules), end='')")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("name", b2s.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(b2s, name) is not None
    assert name in dir(b2s)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        b2s.no_such_name  # noqa: B018


def test_public_names_are_documented() -> None:
    undocumented = [n for n in b2s.__all__ if n != "__version__" and not getattr(b2s, n).__doc__]
    assert not undocumented


@pytest.mark.skipif(os.name == "nt", reason="git may check out links as text on Windows")
def test_manifest_at_the_root_is_the_packaged_one() -> None:
    assert (ROOT / "napari.yaml").is_symlink()
    assert (ROOT / "napari.yaml").resolve() == PACKAGE / "napari.yaml"


def test_type_hints_are_declared() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_manifest_is_found_and_its_names_exist() -> None:
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_distribution("napari-blur2seq")
    assert manifest.name == "napari-blur2seq"
    manifest.validate_imports()


def test_library_and_command_line_need_no_napari() -> None:
    done = run_python(WITHOUT_NAPARI + IMPORT_ALL, *library_modules())
    assert done.returncode == 0, done.stderr


def test_modules_do_not_hide_public_functions() -> None:
    """Python binds a submodule to its package under its name, over a function of that name."""
    code = """
import napari_blur2seq
print(*(type(getattr(napari_blur2seq, name)).__name__ for name in ("blur", "deblur", "restore")))
"""
    done = run_python(IMPORT_ALL + code, *library_modules())
    assert done.stdout.split() == ["function"] * 3, done.stderr


def test_pictures_are_shaken_without_napari(tmp_path: Path) -> None:
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "sharp.png")
    code = """
        from napari_blur2seq.cli import main
        main()
    """
    done = run_python(
        WITHOUT_NAPARI + textwrap.dedent(code),
        *("blur", str(tmp_path / "sharp.png"), "-o", str(tmp_path / "shaken.png")),
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "shaken.png") as shaken:
        assert np.asarray(shaken).std() < picture.std()


def test_core_does_not_import_napari_or_qt() -> None:
    """Not even inside functions: only `_qt` may, and `layers` where it makes layers."""
    pattern = re.compile(r"^\s*(?:from|import) (?:napari|qtpy|superqt|PyQt\d|PySide\d)\b", re.M)
    offenders = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "_qt" not in path.parts
        and path.name != "layers.py"
        and pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert offenders == []


@pytest.fixture
def photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A small shaken picture, under the README's name in the current folder."""
    from PIL import Image
    from skimage.data import astronaut

    sharp = astronaut()[40:136, 160:288]
    trajectory = b2s.shake.simulate_tremor(sharp.shape[:2], seed=1)
    shaken = b2s.blur(sharp, trajectory)
    Image.fromarray(shaken).save(tmp_path / "photograph.png")
    monkeypatch.chdir(tmp_path)
    return shaken


def test_readme_python_runs(photograph: np.ndarray) -> None:
    assert blocks("python")
    scope: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), scope)
    sharp = scope["result"].sharp  # type: ignore[attr-defined]
    assert (sharp.shape, sharp.dtype) == (photograph.shape, photograph.dtype)
    assert Path("sharp.png").is_file()
    assert len(b2s.Trajectory.load("trajectory.csv")) == 25


def test_readme_commands_run(photograph: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_blur2seq.cli import main

    commands = [words for words in console_commands() if words[0] == "napari-blur2seq"]
    assert commands
    for words in commands:
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code, words
    assert list(Path("results").glob("photograph_sharp.*"))


def test_readme_names_existing_targets_and_files() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words[1] for words in console_commands() if words[0] == "make"}
    assert {"demo", "test"} <= named <= targets
    links = re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
