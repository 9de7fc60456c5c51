"""Clustering, quotas and draws over columns of per-example losses, in Rust: arrays, numbers and names cross.

The documentation of each function is its ``__doc__``. Everything here is a pure function of its arguments: the
number of threads, the CPU and the order of the rows (as long as their ids go with them) leave no trace.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, SupportsIndex, TypeAlias, final

import numpy as np
import numpy.typing as npt

# float16, bfloat16 (of ml_dtypes, a type that NumPy's stubs don't know), float32 or float64
_Losses: TypeAlias = npt.NDArray[Any]
_Backend: TypeAlias = Literal["avx512", "avx2", "neon", "scalar"]

__all__ = [
    "AUTO_FULL_ROWS",
    "Clustering",
    "Diagnoses",
    "LostFileError",
    "__version__",
    "available_threads",
    "census",
    "cluster",
    "count_reasons",
    "diagnose",
    "draw",
    "keys",
    "mark_reasons",
    "merge_reasons",
    "simd",
    "simd_available",
    "smallest_first",
]

AUTO_FULL_ROWS: int
__version__: str

def available_threads() -> int: ...
def simd() -> _Backend: ...
def simd_available() -> list[_Backend]: ...
def keys(ids: npt.NDArray[np.uint64], seed: SupportsIndex, purpose: str) -> npt.NDArray[np.uint64]: ...
def cluster(
    columns: Sequence[_Losses] | _Losses,
    valid: npt.NDArray[np.bool_] | None = None,
    ids: npt.NDArray[np.uint64] | None = None,
    *,
    n_clusters: SupportsIndex,
    n_iterations: SupportsIndex,
    seed: SupportsIndex,
    shape: str = "raw",
    init: str | npt.NDArray[np.float32] | None = None,
    fit: str = "auto",
    max_fit_rows: SupportsIndex | None = None,
    n_restarts: SupportsIndex | None = None,
    tolerance: float = 0.0,
    pruning: str | None = None,
    n_threads: SupportsIndex | None = None,
    progress: Callable[[str, int, int], Any] | None = None,
) -> Clustering: ...
def diagnose(
    columns: Sequence[_Losses] | _Losses,
    valid: npt.NDArray[np.bool_] | None = None,
    ids: npt.NDArray[np.uint64] | None = None,
    *,
    n_clusters: Sequence[SupportsIndex],
    n_iterations: SupportsIndex,
    seed: SupportsIndex,
    shape: str = "raw",
    fit: str = "auto",
    n_threads: SupportsIndex | None = None,
    progress: Callable[[str, int, int], Any] | None = None,
) -> Diagnoses: ...
def smallest_first(
    sizes: npt.NDArray[np.int64], ranks: npt.NDArray[np.uint64], budget: SupportsIndex
) -> npt.NDArray[np.int64]: ...
def census(
    n_strata: SupportsIndex,
    n_clusters: SupportsIndex,
    ids: npt.NDArray[np.uint64] | None = None,
    *,
    clusters: npt.NDArray[np.int32] | None = None,
    strata: npt.NDArray[np.int32] | None = None,
    excluded: npt.NDArray[np.uint8] | None = None,
    seed: SupportsIndex,
    n_threads: SupportsIndex | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]: ...
def draw(
    quotas: npt.NDArray[np.int64],
    ids: npt.NDArray[np.uint64] | None = None,
    *,
    clusters: npt.NDArray[np.int32] | None = None,
    strata: npt.NDArray[np.int32] | None = None,
    excluded: npt.NDArray[np.uint8] | None = None,
    seed: SupportsIndex,
    sizes: npt.NDArray[np.int64] | None = None,
    scores: npt.NDArray[np.float64] | None = None,
    n_threads: SupportsIndex | None = None,
) -> npt.NDArray[np.int64]: ...
def merge_reasons(
    why: npt.NDArray[np.uint8], others: Iterable[npt.NDArray[np.uint8]], *, n_threads: SupportsIndex | None = None
) -> None: ...
def mark_reasons(
    why: npt.NDArray[np.uint8],
    columns: Sequence[_Losses] | _Losses,
    states: npt.NDArray[np.int64],
    rule: str,
    reason: SupportsIndex,
    *,
    n_threads: SupportsIndex | None = None,
) -> None: ...
def count_reasons(why: npt.NDArray[np.uint8], *, n_threads: SupportsIndex | None = None) -> npt.NDArray[np.int64]: ...

class LostFileError(OSError): ...

@final
class Clustering:
    @property
    def labels(self) -> npt.NDArray[np.int32]: ...
    @property
    def centroids(self) -> npt.NDArray[np.float32]: ...
    @property
    def sizes(self) -> npt.NDArray[np.int64]: ...
    @property
    def total_inertia(self) -> float: ...
    @property
    def inertia(self) -> list[float]: ...
    @property
    def moved(self) -> list[int]: ...
    @property
    def reseeded(self) -> list[int]: ...
    @property
    def why_stopped(
        self,
    ) -> Literal["no label moved", "few labels moved", "inertia stalled", "n_iterations reached"]: ...
    @property
    def fit(self) -> Literal["full", "sample", "minibatch"]: ...
    @property
    def pruning(self) -> Literal["cells", "none"]: ...
    @property
    def evaluated(self) -> list[float]: ...
    @property
    def n_fit_rows(self) -> int: ...

@final
class Diagnoses:
    @property
    def n_found(self) -> list[int]: ...
    @property
    def inertia(self) -> list[float]: ...
    @property
    def silhouette(self) -> list[float | None]: ...
    @property
    def n_iterations(self) -> list[int]: ...
    @property
    def why_stopped(self) -> list[Literal["no label moved", "n_iterations reached"]]: ...
    @property
    def fit(self) -> Literal["full", "sample"]: ...
    @property
    def n_fit_rows(self) -> int: ...
