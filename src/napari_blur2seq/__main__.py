"""`python -m napari_blur2seq` is the command `napari-blur2seq`."""

from .cli import main

main()
