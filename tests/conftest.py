"""Tests leave the user's home, settings and caches alone, and compute with one or two threads."""

from __future__ import annotations

import os
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

# Set before anything that reads it is imported; removed when the interpreter ends.
_home = tempfile.TemporaryDirectory(prefix="napari-blur2seq-", ignore_cleanup_errors=True)
_folders = {
    "HOME": "home",
    "USERPROFILE": "home",
    "APPDATA": "home/appdata",
    "LOCALAPPDATA": "home/appdata/local",
    "XDG_CACHE_HOME": "home/cache",
    "XDG_CONFIG_HOME": "home/config",
    "XDG_DATA_HOME": "home/data",
    "XDG_STATE_HOME": "home/state",
    "MPLCONFIGDIR": "home/matplotlib",
}
# The key to the display lies in the home that is about to be hidden.
os.environ.setdefault("XAUTHORITY", str(Path.home() / ".Xauthority"))
for _name, _folder in _folders.items():
    _path = Path(_home.name, _folder)
    _path.mkdir(parents=True, exist_ok=True)
    os.environ[_name] = str(_path)
os.environ["NAPARI_CONFIG"] = str(Path(_home.name, "napari.yaml"))
os.environ["MPLBACKEND"] = "Agg"
# Sums of floats depend on the number of threads. Subprocesses inherit these. Where tests run beside
# each other (pytest-xdist), each has one core.
_threads = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = _threads

# Triton, which torch.optim imports where it is installed, crashes when it is loaded after the LLVM
# of a software OpenGL: so it comes first.
if find_spec("triton"):
    import_module("triton")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here."""
    if item.get_closest_marker("gui") and not (find_spec("napari") and find_spec("pytestqt")):
        pytest.skip("needs napari, a Qt binding and pytest-qt")
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
