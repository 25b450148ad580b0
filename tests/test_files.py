"""Pictures and sequences as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_blur2seq import files
from napari_blur2seq.camera import Camera
from napari_blur2seq.errors import ImageError

SHAPES = [(41, 53), (41, 53, 3), (41, 53, 4)]
OWN = [
    (suffix, dtype, shape)
    for suffix, dtypes, shapes in [
        (".png", (np.uint8, np.uint16), SHAPES),
        (".tif", (np.uint8, np.uint16, np.float32, np.float64), SHAPES),
        (".tiff", (np.float16,), SHAPES),
        (".ome.tif", (np.uint8, np.uint16, np.float32), SHAPES),
    ]
    for dtype in dtypes
    for shape in shapes
]


def picture(shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    values = np.random.default_rng(0).random(shape)
    if np.issubdtype(dtype, np.integer):
        return (values * np.iinfo(dtype).max).astype(dtype)
    return (10 * values - 3).astype(dtype)


def smooth(shape: tuple[int, ...]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    grey = 127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7)
    return (grey if len(shape) == 2 else np.stack([grey] * shape[2], -1)).astype(np.uint8)


def nothing_else(folder: Path, *names: str) -> bool:
    return sorted(p.name for p in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize(("suffix", "dtype", "shape"), OWN)
def test_round_trip_is_exact(
    tmp_path: Path, suffix: str, dtype: Any, shape: tuple[int, ...]
) -> None:
    image = picture(shape, dtype)
    path = tmp_path / f"picture{suffix}"
    files.write_image(path, image)
    read, metadata = files.read_image(path)
    assert read.dtype == image.dtype
    np.testing.assert_array_equal(read, image)
    assert metadata["format"] == ("PNG" if suffix == ".png" else "TIFF")
    assert metadata["focal_length"] is None
    assert nothing_else(tmp_path, path.name)


@pytest.mark.parametrize("shape", SHAPES[:2])
@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_jpeg_is_close(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    image = smooth(shape)
    files.write_image(tmp_path / f"picture{suffix}", image)
    read, metadata = files.read_image(tmp_path / f"picture{suffix}")
    assert metadata["format"] == "JPEG"
    assert read.shape == shape
    assert np.abs(read.astype(int) - image).max() < 8


@pytest.mark.parametrize("shape", SHAPES[:2])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_others_read_our_files(tmp_path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    image = picture(shape, dtype)
    files.write_image(tmp_path / "a.tif", image)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), image)
    if dtype == np.uint8 or len(shape) == 2:  # Pillow knows no 16-bit colour
        files.write_image(tmp_path / "a.png", image)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.png", picture((40, 40), np.float32)),
        ("a.jpg", picture((40, 40), np.uint16)),
        ("a.jpg", picture((40, 40, 4))),
        ("a.gif", picture((40, 40))),
        ("a", picture((40, 40))),
        ("a.tif", picture((4, 40, 40))),
        ("a.png", picture((4, 40, 40, 3))),
    ],
)
def test_formats_that_cannot_hold_a_picture(tmp_path: Path, name: str, image: np.ndarray) -> None:
    with pytest.raises(ImageError):
        files.write_image(tmp_path / name, image)
    assert nothing_else(tmp_path)


# Other people's files


def test_kind_is_told_by_content(tmp_path: Path) -> None:
    files.write_image(tmp_path / "a.png", picture((40, 50)))
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    read, metadata = files.read_image(tmp_path / "a.jpg")
    assert metadata["format"] == "PNG"
    np.testing.assert_array_equal(read, picture((40, 50)))


def test_palettes_and_grey_with_alpha_become_colours(tmp_path: Path) -> None:
    rgb = np.zeros((40, 50, 3), np.uint8)
    rgb[:, 25:] = 200, 100, 50
    Image.fromarray(rgb).quantize(4).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(files.read_image(tmp_path / "palette.png")[0], rgb)
    both = picture((40, 50, 2))
    Image.fromarray(both, "LA").save(tmp_path / "la.png")
    read, _ = files.read_image(tmp_path / "la.png")
    np.testing.assert_array_equal(read, both[..., [0, 0, 0, 1]])


def test_tiff_with_planes_apart(tmp_path: Path) -> None:
    image = picture((41, 53, 3), np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", np.moveaxis(image, -1, 0), photometric="rgb", planarconfig="separate"
    )
    np.testing.assert_array_equal(files.read_image(tmp_path / "a.tif")[0], image)


def test_tiff_of_one_page_with_long_axes(tmp_path: Path) -> None:
    image = picture((41, 53), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image[None, None], imagej=True)
    np.testing.assert_array_equal(files.read_image(tmp_path / "a.tif")[0], image)
    tifffile.imwrite(tmp_path / "b.tif", image, photometric="miniswhite")
    np.testing.assert_array_equal(files.read_image(tmp_path / "b.tif")[0], 65535 - image)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "jpeg"])
def test_compressed_tiff(tmp_path: Path, compression: str) -> None:
    image = smooth((64, 80, 3))
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", compression=compression)
    read, _ = files.read_image(tmp_path / "a.tif")
    assert np.abs(read.astype(int) - image).max() <= (16 if compression == "jpeg" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.full((48, 64, 3), 30, np.uint8)
    upright[:16, :16] = 230  # top left
    upright[:16, 48:] = 130  # top right
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tag = (274, 3, 1, orientation, True)
        tifffile.imwrite(path, np.ascontiguousarray(stored), photometric="rgb", extratags=[tag])
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=95)
    read, metadata = files.read_image(path)
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).max() < 12
    # Written again, the picture stays upright.
    files.write_image(path, read, metadata)
    again, _ = files.read_image(path)
    assert np.abs(again.astype(int) - upright).max() < 12


# EXIF


def photograph(path: Path, tags: dict[int, Any], shape: tuple[int, int] = (300, 400)) -> Path:
    exif = Image.Exif()
    exif[271] = "Maker"
    exif.get_ifd(34665).update(tags)
    Image.fromarray(smooth((*shape, 3))).save(path, exif=exif)
    return path


FILM, LENGTH, X_RESOLUTION, UNIT, WIDTH, HEIGHT, EXPOSURE = (
    0xA405, 0x920A, 0xA20E, 0xA210, 0xA002, 0xA003, 0x829A,
)  # fmt: skip


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_film_equivalent_comes_first(tmp_path: Path, suffix: str) -> None:
    tags = {FILM: 28, LENGTH: 4.2, X_RESOLUTION: 5000.0, UNIT: 2}
    path = photograph(tmp_path / f"a{suffix}", tags)
    expected = Camera.from_film_equivalent((300, 400), 28).focal_length
    assert files.read_image(path)[1]["focal_length"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("resolution", "unit"), [(2540.0, 2), (1000.0, 3), (100.0, 4), (0.1, 5), (2540.0, None)]
)
def test_focal_length_by_the_sensor(tmp_path: Path, resolution: float, unit: int | None) -> None:
    tags: dict[int, Any] = {LENGTH: 50.0, X_RESOLUTION: resolution}
    if unit is not None:
        tags[UNIT] = unit
    path = photograph(tmp_path / "a.jpg", tags)
    # 100 px a millimetre.
    assert files.read_image(path)[1]["focal_length"] == pytest.approx(5000, rel=1e-4)


def test_focal_length_of_a_picture_made_smaller(tmp_path: Path) -> None:
    tags = {LENGTH: 50.0, X_RESOLUTION: 100.0, UNIT: 4, WIDTH: 1600, HEIGHT: 1200}
    path = photograph(tmp_path / "a.jpg", tags)
    assert files.read_image(path)[1]["focal_length"] == pytest.approx(1250)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {LENGTH: 50.0},
        {FILM: 0},
        {LENGTH: 50.0, X_RESOLUTION: 0.0, UNIT: 2},
        {LENGTH: 50.0, X_RESOLUTION: 100.0, UNIT: 1},
        {LENGTH: 0.0, X_RESOLUTION: 100.0, UNIT: 2},
    ],
)
def test_no_focal_length(tmp_path: Path, tags: dict[int, Any]) -> None:
    assert files.read_image(photograph(tmp_path / "a.jpg", tags))[1]["focal_length"] is None


def test_exposure_time(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.jpg", {EXPOSURE: 0.125})
    assert files.read_image(path)[1]["exposure"] == 0.125


def test_exif_of_tiff(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271] = "Maker"
    exif.get_ifd(34665).update({FILM: 50, EXPOSURE: 0.25})
    Image.fromarray(smooth((300, 400, 3))).save(tmp_path / "a.tif", exif=exif.tobytes())
    metadata = files.read_image(tmp_path / "a.tif")[1]
    expected = Camera.from_film_equivalent((300, 400), 50).focal_length
    assert metadata["focal_length"] == pytest.approx(expected)
    assert metadata["exposure"] == 0.25


def test_profile_exif_and_pixel_size_are_passed_on(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[271] = "Maker"
    Image.fromarray(smooth((40, 50, 3))).save(tmp_path / "a.jpg", icc_profile=profile, exif=exif)
    image, metadata = files.read_image(tmp_path / "a.jpg")
    for name in ("b.jpg", "b.png", "b.tif"):
        files.write_image(tmp_path / name, image, metadata)
        assert files.read_image(tmp_path / name)[1]["icc_profile"] == profile
    with Image.open(tmp_path / "b.jpg") as written:
        assert written.getexif()[271] == "Maker"

    size = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5}
    files.write_image(tmp_path / "c.ome.tif", image, {"ome": size})
    metadata = files.read_image(tmp_path / "c.ome.tif")[1]
    assert size.items() <= metadata["ome"].items()
    files.write_image(tmp_path / "d.ome.tif", image, metadata)
    assert size.items() <= files.read_image(tmp_path / "d.ome.tif")[1]["ome"].items()


# Bad files


def truncated(path: Path) -> Path:
    files.write_image(path, picture((64, 64, 3)))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def make_bad(kind: str, folder: Path) -> Path:
    path = folder / f"{kind.replace(' ', '_')}.tif"
    if kind == "missing":
        return path
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is no picture")
    elif kind.startswith("half a "):
        return truncated(path.with_suffix("." + kind.split()[-1]))
    elif kind.startswith("only the start of "):
        start = {"png": b"\x89PNG\r\n\x1a\n", "jpg": b"\xff\xd8\xff\xe0", "tif": b"II*\0"}
        path.write_bytes(start[kind.split()[-1]])
    elif kind == "stack":
        tifffile.imwrite(path, picture((3, 40, 40)), photometric="minisblack")
    elif kind == "colour stack":
        tifffile.imwrite(path, picture((3, 40, 40, 3)), photometric="rgb")
    elif kind == "channels":
        tifffile.imwrite(path, picture((2, 40, 40)), ome=True, metadata={"axes": "CYX"})
    elif kind == "pages of two sizes":
        with tifffile.TiffWriter(path) as writer:
            writer.write(picture((40, 40)))
            writer.write(picture((50, 50)))
    elif kind == "cmyk":
        Image.new("CMYK", (40, 40)).save(path.with_suffix(".jpg"))
        return path.with_suffix(".jpg")
    elif kind == "animation":
        frames = [Image.new("RGB", (40, 40), (k, 0, 0)) for k in (0, 99)]
        frames[0].save(path.with_suffix(".png"), save_all=True, append_images=frames[1:])
        return path.with_suffix(".png")
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "missing", "folder", "empty", "text", "half a png", "half a jpg", "half a tif",
        "only the start of png", "only the start of jpg", "only the start of tif", "stack",
        "colour stack", "channels", "pages of two sizes", "cmyk", "animation",
    ],
)  # fmt: skip
def test_bad_files(tmp_path: Path, kind: str) -> None:
    path = make_bad(kind, tmp_path)
    with pytest.raises(ImageError) as caught:
        files.read_image(path)
    message = str(caught.value)
    assert path.name in message
    assert message.endswith(".")
    assert "\n" not in message


# Sequences


def frames(shape: tuple[int, ...], dtype: Any = np.uint8, n: int = 5) -> np.ndarray:
    return picture((n, *shape), dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_sequence_tiff(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    sequence = frames(shape, dtype)
    path = tmp_path / "a.ome.tif"
    metadata = {"ome": {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}}
    files.write_sequence_tiff(path, list(sequence), interval=0.004, metadata=metadata)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert tiff.series[0].axes == ("TYX" if len(shape) == 2 else "TYXS")
        np.testing.assert_array_equal(tiff.series[0].asarray(), sequence)
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
    assert pixels["TimeIncrement"] == 0.004
    assert pixels["TimeIncrementUnit"] == "s"
    assert pixels["PhysicalSizeX"] == 0.5
    assert nothing_else(tmp_path, "a.ome.tif")


def read_video(path: Path) -> np.ndarray:
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["source_size"]
    return np.stack([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader])


@pytest.mark.parametrize("shape", [(64, 80), (63, 79, 3), (65, 80, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_sequence_mp4(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    base = smooth(shape)
    sequence = np.stack([np.roll(base, 5 * k, axis=1) for k in range(4)])
    if dtype == np.uint16:
        sequence = sequence.astype(np.uint16) * 257
    elif dtype == np.float32:
        sequence = (sequence / 255).astype(np.float32)
    files.write_sequence_mp4(tmp_path / "a.mp4", sequence)
    video = read_video(tmp_path / "a.mp4")
    assert video.shape == (4, *(side + side % 2 for side in shape[:2]), 3)
    grey = base if base.ndim == 2 else base[..., 0]
    for k in range(4):
        shown = video[k, : shape[0], : shape[1]].mean(-1)
        assert np.abs(shown - np.roll(grey, 5 * k, axis=1)).mean() < 8
    assert nothing_else(tmp_path, "a.mp4")


def test_limits_of_a_video(tmp_path: Path) -> None:
    sequence = np.full((3, 64, 64), 5.0, np.float32)
    files.write_sequence_mp4(tmp_path / "a.mp4", sequence, limits=(0.0, 10.0))
    assert abs(read_video(tmp_path / "a.mp4").mean() - 127.5) < 6


# Whole or not at all


def failing_frames() -> Any:
    class Frames(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            yield self[0]
            raise RuntimeError("no more frames")

    return Frames(frames((64, 64)))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.ome.tif", files.write_sequence_tiff),
        ("a.mp4", files.write_sequence_mp4),
        ("a.gif", files.write_sequence_gif),
    ],
)
def test_a_failing_sequence_leaves_the_old_file(tmp_path: Path, name: str, write: Any) -> None:
    path = tmp_path / name
    with pytest.raises(RuntimeError, match="no more frames"):
        write(path, failing_frames())
    assert nothing_else(tmp_path)
    path.write_text("old")
    with pytest.raises(RuntimeError, match="no more frames"):
        write(path, failing_frames())
    assert path.read_text() == "old"
    assert nothing_else(tmp_path, name)


def test_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with files.whole_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    with pytest.raises(KeyboardInterrupt), files.whole_file(path) as temporary:
        temporary.write_text("other")
        raise KeyboardInterrupt
    assert path.read_text() == "half"
    assert nothing_else(tmp_path, "a.txt")


def test_split_name() -> None:
    assert files.split_name("x/a.b.ome.TIF") == ("a.b", ".ome.TIF")
    assert files.split_name("x/a.b.png") == ("a.b", ".png")
    assert files.split_name("ome.tif") == ("ome", ".tif")
