"""Files in and out: pictures, sequences, and writing whole or not at all."""

from __future__ import annotations

import io
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .camera import Camera
from .errors import CameraError, ImageError
from .images import value_range

Array = NDArray[Any]

# What `read_image` reads and `write_image` writes.
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_ORIENTATION = 274
_EXIF = 34665
# Millimetres in EXIF's units of resolution: inch, centimetre, millimetre, micrometre.
_MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside `path` to write to, renamed to it if all goes well.

    Examples
    --------
    >>> with whole_file("result.txt") as temporary:  # doctest: +SKIP
    ...     temporary.write_text("all of it")
    """
    path = Path(path)
    descriptor, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=f".part{path.suffix}"
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all: to a temporary name beside it, then rename."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def split_name(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Stem and suffix of a file's name, with ``.ome.tif`` for one suffix."""
    name = Path(path).name
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in (".tif", ".tiff") and stem.lower().endswith(".ome"):
        return stem[:-4], stem[-4:] + suffix
    return stem, suffix


def read_image(path: str | os.PathLike[str]) -> tuple[Array, dict[str, Any]]:
    """Read a picture, upright, with what the file tells about it.

    The kind of file is told by its content. Grey pictures with alpha become RGBA.

    Parameters
    ----------
    path : path
        PNG or TIFF/OME-TIFF of 8 or 16 bits or (TIFF) floats, or JPEG; grey or colour.

    Returns
    -------
    image : ndarray
        Shape (H, W), (H, W, 3) or (H, W, 4), dtype as in the file.
    metadata : dict
        ``"format"``: ``"PNG"``, ``"JPEG"`` or ``"TIFF"``; ``"focal_length"``: px, by
        EXIF's 35 mm equivalent, else by its focal length and sensor resolution, or
        None; ``"exposure"``: seconds or None; and for `write_image` ``"icc_profile"``
        and ``"exif"``: bytes or None, and ``"ome"``: dict of pixel sizes.

    Raises
    ------
    ImageError
        If the file is missing, empty, damaged, of another kind, or holds a stack.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = "is a folder" if path.is_dir() else f"cannot be read: {error.strerror}"
        raise ImageError(f"{path.name} {reason}; choose a PNG, JPEG or TIFF file.") from error
    if not data:
        raise ImageError(f"{path.name} is empty; choose another file.")
    kind = next((k for signature, k in _SIGNATURES.items() if data.startswith(signature)), None)
    if kind is None:
        raise ImageError(f"{path.name} is not a PNG, JPEG or TIFF picture; convert it first.")
    try:
        array, metadata = (_read_tiff if kind == "TIFF" else _read_pillow)(data, path.name)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders of damaged files raise anything
        raise ImageError(
            f"{path.name} is damaged or of an unknown kind of {kind}; save it again."
        ) from error
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    elif array.ndim == 3 and array.shape[2] == 2:
        array = array[..., [0, 0, 0, 1]]
    return np.ascontiguousarray(array), {"format": kind, **metadata}


def _read_pillow(data: bytes, name: str) -> tuple[Array, dict[str, Any]]:
    """PNG and JPEG."""
    from PIL import ExifTags, Image

    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
        exif = picture.getexif()
        profile = picture.info.get("icc_profile")
        if getattr(picture, "n_frames", 1) > 1 and picture.format == "PNG":
            raise ImageError(f"{name} is an animation; save one of its frames.")
        if picture.format == "PNG" and data[24] == 16:  # Pillow cuts 16-bit colour to 8
            import imagecodecs

            array: Array = imagecodecs.png_decode(data)
        else:
            if picture.mode == "CMYK":
                raise ImageError(f"{name} has CMYK colours; convert it to RGB.")
            if picture.mode == "P":
                transparent = "transparency" in picture.info
                array = np.array(picture.convert("RGBA" if transparent else "RGB"))
            else:
                array = np.array(picture)
    tags = {ExifTags.TAGS.get(key, ""): value for key, value in exif.get_ifd(_EXIF).items()}
    array = _upright(array, exif.get(_ORIENTATION, 1))
    exif[_ORIENTATION] = 1
    return array, {
        "focal_length": _focal_length(tags, array.shape[:2]),
        "exposure": _number(tags.get("ExposureTime")),
        "icc_profile": profile,
        "exif": exif.tobytes() if len(exif) > 1 else None,
        "ome": {},
    }


def _read_tiff(data: bytes, name: str) -> tuple[Array, dict[str, Any]]:
    """TIFF and OME-TIFF with one picture."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        series = [s for s in file.series if not s.keyframe.is_reduced]
        pictures = sum(
            math.prod(n for n, axis in zip(s.shape, s.axes, strict=True) if axis not in "YXS")
            for s in series
        )
        if pictures != 1:
            raise ImageError(f"{name} is a stack of {pictures} pictures; save one of them.")
        page = series[0].keyframe
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and not file.is_imagej:
            raise ImageError(f"{name} has a colour palette; convert it to RGB.")
        if page.photometric in (tifffile.PHOTOMETRIC.SEPARATED, tifffile.PHOTOMETRIC.CIELAB):
            raise ImageError(f"{name} has CMYK or Lab colours; convert it to RGB.")
        array: Array = series[0].asarray()
        axes = series[0].axes
        expected = math.prod(series[0].shape)
        if array.size != expected:
            raise ValueError("fewer pixels than announced")
        array = array.reshape([n for n, a in zip(series[0].shape, axes, strict=True) if a in "YXS"])
        order = [a for a in axes if a in "YXS"]
        array = array.transpose([order.index(a) for a in "YXS" if a in order])
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and array.dtype.kind == "u":
            array = np.iinfo(array.dtype).max - array
        exif_tag = page.tags.get(_EXIF)
        tags = exif_tag.value if exif_tag is not None and isinstance(exif_tag.value, dict) else {}
        orientation = page.tags.valueof(_ORIENTATION, 1)
        profile = page.iccprofile
        ome = _pixel_size(file.ome_metadata)
    array = _upright(array, orientation)
    return array, {
        "focal_length": _focal_length(tags, array.shape[:2]),
        "exposure": _number(tags.get("ExposureTime")),
        "icc_profile": profile,
        "exif": None,
        "ome": ome,
    }


def _pixel_size(ome: str | None) -> dict[str, Any]:
    """Physical pixel size of OME metadata, under the names `tifffile` writes."""
    if not ome:
        return {}
    import tifffile

    image = tifffile.xml2dict(ome)["OME"]["Image"]
    pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
    names = ("PhysicalSizeX", "PhysicalSizeXUnit", "PhysicalSizeY", "PhysicalSizeYUnit")
    return {name: pixels[name] for name in names if name in pixels}


def _upright(array: Array, orientation: object) -> Array:
    """Apply EXIF's orientation (1 to 8; anything else means upright)."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _number(value: Any) -> float | None:
    """A positive EXIF number, given as such or as numerator and denominator."""
    try:
        number = value[0] / value[1] if isinstance(value, tuple) else float(value)
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _focal_length(tags: Mapping[str, Any], shape: tuple[int, ...]) -> float | None:
    """Focal length in px of EXIF tags, or None where they do not tell."""
    size = (shape[0], shape[1])
    equivalent = _number(tags.get("FocalLengthIn35mmFilm"))
    if equivalent is not None:
        return Camera.from_film_equivalent(size, equivalent).focal_length
    millimetres = _number(tags.get("FocalLength"))
    resolution = _number(tags.get("FocalPlaneXResolution"))
    unit = _MILLIMETRES.get(tags.get("FocalPlaneResolutionUnit", 2))
    if millimetres is None or resolution is None or unit is None:
        return None
    # The resolution is that of the picture taken, which may have been resized since.
    taken = [_number(tags.get(name)) for name in ("ExifImageWidth", "PixelXDimension")]
    taken += [_number(tags.get(name)) for name in ("ExifImageHeight", "PixelYDimension")]
    sides = [side for side in taken if side is not None]
    factor = max(size) / max(sides) if len(sides) >= 2 else 1.0
    try:
        return Camera.for_image(size, millimetres * resolution / unit * factor).focal_length
    except CameraError:
        return None


def write_image(
    path: str | os.PathLike[str], image: Array, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a picture whole or not at all, in the format its name ends with.

    Parameters
    ----------
    path : path
        Ends with ``.png``, ``.jpg``, ``.jpeg``, ``.tif`` or ``.tiff`` (``.ome.tif``
        writes OME-TIFF).
    image : ndarray
        Shape (H, W), (H, W, 3) or (H, W, 4): uint8; PNG also uint16; TIFF also
        uint16 and floats. JPEG has no alpha.
    metadata : mapping, optional
        As from `read_image`: colour profile, EXIF (PNG and JPEG of 8 bits) and pixel
        size are passed on.

    Raises
    ------
    ImageError
        If the format is unknown or cannot hold the picture.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ImageError(
            f"{path.name} must end with one of {', '.join(SUFFIXES)} to say its format."
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise ImageError(f"A picture of shape {image.shape} cannot be written as {suffix}.")
    metadata = metadata or {}
    extra = {key: metadata[key] for key in ("icc_profile", "exif") if metadata.get(key)}
    buffer = io.BytesIO()
    if suffix in (".tif", ".tiff"):
        import tifffile

        ome = split_name(path)[1].lower().startswith(".ome")
        tifffile.imwrite(
            buffer,
            image,
            ome=ome,
            iccprofile=extra.get("icc_profile"),
            metadata=metadata.get("ome", {}) if ome else None,
            **_tiff_options(image.shape, image.dtype),
        )
    elif image.dtype == np.uint8 and (suffix == ".png" or image.ndim == 2 or image.shape[2] == 3):
        from PIL import Image

        picture = Image.fromarray(image)
        if suffix == ".png":
            picture.save(buffer, format="PNG", **extra)
        else:
            picture.save(buffer, format="JPEG", quality=95, subsampling=0, **extra)
    elif image.dtype == np.uint16 and suffix == ".png":
        import imagecodecs

        buffer.write(imagecodecs.png_encode(np.ascontiguousarray(image), level=4))
    else:
        alpha = " with alpha" if image.ndim == 3 and image.shape[2] == 4 else ""
        raise ImageError(
            f"{path.name}: {suffix[1:].upper()} holds no {image.dtype} pictures{alpha}; use TIFF."
        )
    write_whole(path, buffer.getvalue())


def write_sequence_tiff(
    path: str | os.PathLike[str],
    frames: Sequence[Array] | Array,
    *,
    interval: float | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a sequence as OME-TIFF with axes TYX or TYXS, whole or not at all.

    Parameters
    ----------
    path : path
        Ends with ``.ome.tif``.
    frames : sequence of ndarray
        T frames (H, W[, C]), asked for one at a time.
    interval : float, optional
        Seconds from frame to frame.
    metadata : mapping, optional
        As from `read_image`: colour profile and pixel size are passed on.
    """
    import tifffile

    first = np.asarray(frames[0])
    metadata = metadata or {}
    ome = {"axes": "TYX" if first.ndim == 2 else "TYXS", **metadata.get("ome", {})}
    if interval is not None:
        ome |= {"TimeIncrement": interval, "TimeIncrementUnit": "s"}
    with whole_file(path) as temporary:
        tifffile.imwrite(
            temporary,
            (np.ascontiguousarray(frame) for frame in frames),
            shape=(len(frames), *first.shape),
            dtype=first.dtype,
            ome=True,
            iccprofile=metadata.get("icc_profile"),
            metadata=ome,
            **_tiff_options(first.shape, first.dtype),
        )


def _tiff_options(shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "photometric": "minisblack" if len(shape) == 2 else "rgb",
        "compression": "zlib",
        "compressionargs": {"level": 2},
        "predictor": dtype.kind == "u",  # few programs read the predictor for floats
    }
    if len(shape) == 3 and shape[2] == 4:
        options["extrasamples"] = ["unassalpha"]
    return options


def write_sequence_mp4(
    path: str | os.PathLike[str],
    frames: Sequence[Array] | Array,
    *,
    fps: float = 10.0,
    limits: tuple[float, float] | None = None,
) -> None:
    """Write a sequence as H.264 video that every player plays, whole or not at all.

    Odd sides get one more row or column at the edge, alpha is left out.

    Parameters
    ----------
    path : path
        Ends with ``.mp4``.
    frames : sequence of ndarray
        T frames (H, W[, C]), asked for one at a time.
    fps : float
        Frames shown per second.
    limits : tuple of float, optional
        Values shown black and white; by default the `value_range` of the first frame.
    """
    import imageio_ffmpeg

    first = np.asarray(frames[0])
    if limits is None:
        limits = value_range(first)
    height, width = (side + side % 2 for side in first.shape[:2])
    with whole_file(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            (width, height),
            pix_fmt_in="rgb24",
            pix_fmt_out="yuv420p",
            fps=fps,
            codec="libx264",
            quality=8,
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=["-movflags", "+faststart"],
        )
        writer.send(None)
        try:
            for frame in frames:
                rgb = displayed(np.asarray(frame), limits)
                padding = ((0, height - rgb.shape[0]), (0, width - rgb.shape[1]), (0, 0))
                writer.send(np.ascontiguousarray(np.pad(rgb, padding, mode="edge")))
        finally:
            writer.close()
        if temporary.stat().st_size == 0:
            raise OSError(f"The video {Path(path).name} could not be encoded.")


def write_sequence_gif(
    path: str | os.PathLike[str],
    frames: Sequence[Array] | Array,
    *,
    fps: float = 10.0,
    limits: tuple[float, float] | None = None,
) -> None:
    """Write a sequence as an endless animation of 256 colours, whole or not at all.

    Parameters
    ----------
    path : path
        Ends with ``.gif``.
    frames : sequence of ndarray
        T frames (H, W[, C]), asked for one at a time.
    fps : float
        Frames shown per second; GIF counts in hundredths of a second.
    limits : tuple of float, optional
        As for `write_sequence_mp4`.
    """
    from PIL import Image

    first = np.asarray(frames[0])
    shown_range = value_range(first) if limits is None else limits
    grey = first.ndim == 2
    # One palette for all frames: a palette of its own for each makes still parts flicker.
    palette = None if grey else Image.fromarray(displayed(first, shown_range)).quantize(256)

    def pictures() -> Iterator[Image.Image]:
        for frame in frames:
            shown = displayed(np.asarray(frame), shown_range)
            if palette is None:
                yield Image.fromarray(np.ascontiguousarray(shown[..., 0]))
            else:
                yield Image.fromarray(shown).quantize(palette=palette)

    with whole_file(path) as temporary:
        rest = pictures()
        next(rest).save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=rest,
            duration=round(1000 / fps),
            loop=0,
            disposal=1,
        )


def displayed(frame: Array, limits: tuple[float, float]) -> NDArray[np.uint8]:
    """RGB of 8 bits, shape (H, W, 3), from `limits` shown black and white."""
    low, high = limits
    frame = np.stack([frame] * 3, axis=-1) if frame.ndim == 2 else frame[..., :3]
    if frame.dtype == np.uint8 and limits == (0.0, 255.0):
        return frame
    scaled = (frame.astype(np.float32) - low) * (255 / max(high - low, 1e-12))
    result: NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return result
