"""Builds wheel and source archive of this checkout: `python scripts/build_dist.py OUT`. Needs poetry-core."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str]) -> int:
    """Exit status: 0 once both are there, 2 after a mistake."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python scripts/build_dist.py OUT\n")
        return 2
    from poetry.core.masonry.api import build_sdist, build_wheel

    folder = Path(arguments[0]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    for old in (*folder.glob("*.whl"), *folder.glob("*.tar.gz")):
        old.unlink()
    for build in (build_wheel, build_sdist):
        path = folder / build(str(folder))
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
