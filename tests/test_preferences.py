"""The page of napari's preferences: the manifest and the code agree."""

from __future__ import annotations

from importlib.resources import files

import pytest

from napari_blur2seq.preferences import Preferences, read


def test_defaults_without_napari(monkeypatch) -> None:
    monkeypatch.setattr("napari_blur2seq.layers.plugin_settings", lambda: None)
    assert read() == Preferences()


def test_what_napari_keeps_is_read(monkeypatch, tmp_path) -> None:
    settings = pytest.importorskip("napari.settings")
    if not hasattr(settings, "get_plugin_settings"):
        pytest.skip("before napari 0.9")
    npe2 = pytest.importorskip("npe2")
    manager = npe2.PluginManager()
    manifest = npe2.PluginManifest.from_file(str(files("napari_blur2seq") / "napari.yaml"))
    manager.register(manifest)
    monkeypatch.setattr(npe2.PluginManager, "instance", staticmethod(lambda: manager))
    monkeypatch.setattr(settings, "_PLUGIN_SETTINGS", {}, raising=False)
    kept = settings.get_plugin_settings("napari-blur2seq", path_dir=tmp_path)
    assert read() == Preferences()
    kept.deblur.device = "cpu"
    kept.deblur.poses = 40
    kept.export.frames_per_second = 24
    assert read() == Preferences(device="cpu", poses=40, frames_per_second=24.0)
    with pytest.raises(ValueError):
        kept.deblur.device = "abacus"
