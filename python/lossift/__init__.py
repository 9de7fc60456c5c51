"""lossift chooses the part of your fine-tuning data worth training on, from nothing but losses.

The journey: `read_pool` -> `lossift.scoring` (score or trace; needs torch) -> `open` the loss store ->
`select` -> `Selection.write`; `cluster` gives the clusters by themselves. Everything but scoring is light: importing
this never imports torch.

Examples
--------
>>> import lossift
>>> chosen = lossift.select("losses/", method="s2l", budget=0.11)  # doctest: +SKIP
>>> chosen.write("subset.jsonl")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from lossift.cluster import Clustering, cluster
from lossift.diagnose import diagnose_clusters
from lossift.errors import LossiftError
from lossift.pool import Pool, read_pool
from lossift.select import select
from lossift.selection import Selection
from lossift.store import LossStore
from lossift.version import __version__

if TYPE_CHECKING:
    from lossift import scoring as scoring

open = LossStore

__all__ = [
    "Clustering",
    "LossStore",
    "LossiftError",
    "Pool",
    "Selection",
    "__version__",
    "cluster",
    "diagnose_clusters",
    "open",
    "read_pool",
    "select",
]


def __getattr__(name: str) -> Any:
    """Imports `lossift.scoring`, and torch with it, when it is first asked for."""
    if name == "scoring":
        import importlib

        return importlib.import_module("lossift.scoring")
    raise AttributeError(f"module 'lossift' has no attribute {name!r}")
