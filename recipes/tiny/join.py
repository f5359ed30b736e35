"""Write the rows of several manifests into one, their files named from where it lies.

python recipes/tiny/join.py OUT.jsonl MANIFEST MANIFEST...
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from audiograft.data.manifest import find_manifest, read_rows, write_manifest

FILES = ("audio", "image")


def main(out: Path, manifests: list[Path]) -> None:
    rows = []
    for manifest in map(find_manifest, manifests):
        for _, row in read_rows(manifest):
            files = {key: os.path.relpath(manifest.parent / row[key], out.parent) for key in FILES if key in row}
            rows.append({**row, **files})
    write_manifest(out, rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
