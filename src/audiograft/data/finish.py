"""The end of a preparation: the rows are put into splits, counted, and given their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from audiograft.data.card import write_card
from audiograft.data.folder import Folder
from audiograft.data.ledger import in_progress
from audiograft.data.options import PrepareOptions
from audiograft.types import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_RESERVED = ("manifest", "rejected")


def finish(folder: Folder, options: PrepareOptions, shares: Mapping[str, float], n_rows: int, made_by: Mapping[str, Any]) -> dict[str, Any]:
    parts = {name: in_progress(path) for name, path in folder.manifests.items()}
    card = write_card(folder.path, parts, in_progress(folder.rejected), n_read=n_rows, made_by=made_by)
    folder.publish(made_by)
    return card


def parse_shares(splits: Sequence[str]) -> dict[str, float]:
    """`train=0.9,test=0.1`, in one word or several, as shares by name.

    Raises:
        ConfigError: no such pair, a name that is taken, or shares that don't come to 1.
    """
    shares: dict[str, float] = {}
    for pair in filter(None, ",".join(splits).split(",")):
        name, _, share = pair.strip().partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise ConfigError(f"splits {pair}: write names with their shares, such as train=0.9,test=0.1") from None
        if not _NAME.fullmatch(name) or name in _RESERVED or not 0 < shares[name] < 1:
            raise ConfigError(f"splits {pair}: give a name of letters and digits other than {', '.join(_RESERVED)}, and a share between 0 and 1")
    if shares and abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(f"splits {','.join(splits)}: the shares come to {sum(shares.values()):g}: make them 1 together")
    return shares
