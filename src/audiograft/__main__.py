"""`python -m audiograft` is `audiograft`."""

from __future__ import annotations

import sys

from audiograft.cli import main

if __name__ == "__main__":
    sys.exit(main())
