"""Say what a wheel lacks: python .ci/check_wheel.py dist/*.whl"""

from __future__ import annotations

import sys
from pathlib import Path
from zipfile import ZipFile

SOURCE = Path(__file__).parents[1] / "src"
SHIPPED = {".py", ".yaml", ".typed", ".svg", ".png", ".json", ".safetensors"}


def main(wheel: str) -> None:
    names = set(ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and path.suffix in SHIPPED
    }
    wanted |= {"napari_blur2seq/napari.yaml", "napari_blur2seq/py.typed"}
    missing = sorted(wanted - names)
    stray = sorted(n for n in names if not n.startswith("napari_blur2seq"))
    if missing or stray:
        sys.exit(f"{wheel}: missing {missing}, not ours {stray}")
    print(f"{wheel}: complete, {Path(wheel).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
