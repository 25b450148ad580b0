"""Errors a user can act on: each message says what is wrong and what to do."""

from __future__ import annotations


class Blur2SeqError(ValueError):
    """Base of every error raised for bad input."""


class ImageError(Blur2SeqError):
    """The image cannot be deblurred (shape, dtype, content or file)."""


class CameraError(Blur2SeqError):
    """The focal length or the principal point makes no sense."""


class TrajectoryError(Blur2SeqError):
    """The trajectory, or the file it should come from, makes no sense."""


class OptionError(Blur2SeqError):
    """An option has a value that does not exist."""
