"""The outcome of a selection: a value that can be questioned, repeated and written.

It keeps what was chosen and why, the quota of every cell, the seed and the digest of all it was made from.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lossift.atomic import replacing
from lossift.cells import Cell, Grid
from lossift.cluster import describe_iterations
from lossift.errors import ArgumentError
from lossift.jsontext import to_json
from lossift.pool import read_pool
from lossift.reasons import Reason, count_reasons
from lossift.scores import SCORES, Score
from lossift.version import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lossift.pool import Pool, Stratum
    from lossift.table import LossTable

MANIFEST_VERSION = 1


@dataclass(frozen=True, eq=False)
class Selection:
    """The chosen examples, with the reason for each.

    Attributes
    ----------
    rows
        Row numbers of the chosen examples, int64, ascending.
    why_invalid
        uint8[N], codes of `lossift.reasons`.
    cells
        Size, quota and number drawn of every cell that holds examples, by its number in the grid.
    grid
        Which cell each example is in.
    strata
        Which stratum each example is in; None without `by`.
    columns
        Names of the loss columns the method read.
    parameters
        Every parameter, as it was used; of labels given as `by`, the manifest has a digest.
    fits
        How each k-means went: inertia and moved labels per iteration, why it stopped.
    """

    table: LossTable = field(repr=False)
    rows: NDArray[np.int64]
    why_invalid: NDArray[np.uint8] = field(repr=False)
    cells: dict[int, Cell] = field(repr=False)
    grid: Grid = field(repr=False)
    strata: Stratum | None = field(repr=False)
    columns: list[str]
    parameters: dict[str, Any]
    fits: list[dict[str, Any]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> NDArray[np.uint64]:
        """Ids of the chosen examples, in the order of `rows`."""
        return self.table.ids_of(self.rows)

    @property
    def clusters(self) -> NDArray[np.int32] | None:
        """int32[N], -1 for invalid examples; None for methods without clusters.

        Clusters are numbered by their smallest keyed member id.
        """
        return self.grid.clusters

    @cached_property
    def scores(self) -> NDArray[np.float32] | None:
        """float32[N], NaN for invalid examples; None for methods without scores. Calculated when asked for."""
        if self._score is None:
            return None
        base, ref = map(self.table.column, self.columns)
        return self._score(base, ref, dtype=np.float32)

    @property
    def quotas(self) -> list[Cell]:
        """Size, quota and number drawn of every cell that holds examples."""
        return list(self.cells.values())

    @property
    def method(self) -> str:
        """The method's name; a score from a proxy's own trace is called what it is."""
        name = str(self.parameters["method"])
        proxy = name in SCORES and self.table.store is not None and self.table.store.is_trace
        return f"proxy {name}" if proxy else name

    @cached_property
    def counts(self) -> dict[str, Any]:
        """Pool = chosen + not_chosen + the sum of invalid, always."""
        reasons = count_reasons(self.why_invalid)
        n_valid = reasons.pop(Reason.VALID, 0)
        return {
            "pool": self.table.n_examples,
            "chosen": len(self.rows),
            "not_chosen": n_valid - len(self.rows),
            "invalid": {reason.text: n for reason, n in reasons.items()},
        }

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Everything needed to reproduce the selection, as JSON values."""
        store = self.table.store
        return {
            "format": "lossift-selection",
            "format_version": MANIFEST_VERSION,
            "lossift": __version__,
            "method": self.method,
            "parameters": self.parameters | {"by": self._by()},
            "losses": {
                "store": str(store.path.resolve()) if store else None,
                "columns": self.table.digests(self.columns),
                "ids": self.table.ids_digest(),
                "views": {name: view.meta for name, view in store.views.items()} if store else {},
                "info": store.info if store else {},
            },
            "pool": store.pool_record if store else None,
            "counts": self.counts,
            "kept_at_or_below_zero": self._kept_at_or_below_zero(),
            "quotas": [asdict(cell) for cell in self.quotas],
            "clustering": self.fits,
            "result_digest": hashlib.blake2b(np.sort(self.ids).astype("<u8").tobytes(), digest_size=16).hexdigest(),
        }

    def summary(self) -> str:
        """Returns what was chosen, from what and why, in a few lines of at most 80 columns."""
        counts, parameters = self.counts, self.parameters
        share = 100 * counts["chosen"] / counts["pool"]
        lines = [
            f"{self.method}: {counts['chosen']:,} of {counts['pool']:,} examples chosen ({share:.1f} %), "
            f"seed {parameters['seed']}"
        ]
        invalid = ", ".join(f"{n:,} {reason}" for reason, n in counts["invalid"].items()) or "none"
        lines.append(f"not chosen {counts['not_chosen']:,}; invalid: {invalid}")
        if parameters["method"] in SCORES:
            lines.append(f"score {SCORES[parameters['method']].formula}")
            lines.append(f"base = {parameters['base']}, ref = {parameters['ref']}")
            if self.method.startswith("proxy"):
                lines.append("the states are a proxy's, not the model's to be trained: the papers don't test that")
            if below := self._kept_at_or_below_zero():
                lines.append(f"{below:,} chosen with a score at or below 0: training made them no better")
        if self.fits:
            lines.append(f"trajectories of {len(self.columns)} states, {self.columns[0]} to {self.columns[-1]}")
            lines.append(self._describe_clusters())
        if tiny := self._unused_clusters():
            what = "clusters" if self.quotas[0].stratum is None else "cells (stratum x cluster)"
            lines.append(f"{tiny} of {len(self.quotas)} {what} got nothing: too small a budget")
        if any(cell.stratum is not None for cell in self.quotas):
            lines += ["", *self._stratum_lines()]
        return "\n".join(lines)

    def why(self, *, row: int | None = None, id: int | None = None) -> dict[str, Any]:
        """Returns every number that led to keeping or dropping one example, and the outcome in a sentence.

        Parameters
        ----------
        row
            Row number in the pool, from 0.
        id
            Or the example's id.
        """
        if (row is None) == (id is None):
            raise ArgumentError("why: give row= or id=, one of them")
        if id is not None:
            row = self.table.row_of(id)
        assert row is not None
        if not 0 <= row < self.table.n_examples:
            raise ArgumentError(f"row: found {row}, allowed are 0 to {self.table.n_examples - 1}")
        at = int(np.searchsorted(self.rows, row))
        chosen = at < len(self.rows) and self.rows[at] == row
        answer: dict[str, Any] = {
            "row": int(row),
            "id": int(self.table.ids_of(np.array([row]))[0]),
            "chosen": bool(chosen),
            "losses": {name: float(self.table.column(name)[row]) for name in self.columns},
        }
        if self.scores is not None:
            answer["score"] = float(self.scores[row])
        if (number := self.grid.number_of(row)) >= 0:
            answer |= asdict(self.cells[number])
        return answer | {"because": self._because(row, bool(chosen))}

    def write(
        self, path: str | Path, pool: Pool | str | Path | None = None, *, command: list[str] | None = None
    ) -> Path:
        """Writes the chosen rows, untouched, and ``<name>.manifest.json`` beside them; returns the latter's path.

        Parameters
        ----------
        path
            Where to; the extension sets the container (.jsonl, .json, .parquet, .csv; .gz of the text ones).
        pool
            The pool, when the losses came as an array; a store knows its own.
        command
            The command line to note in the manifest.

        Raises
        ------
        ArgumentError
            When the pool is unknown, of another length, or the extension is not a container's.
        StoreError
            When the pool's files have changed since they were scored.
        """
        if pool is not None:
            rows_of = read_pool(pool)
            if len(rows_of) != self.table.n_examples:
                raise ArgumentError(f"pool: found {len(rows_of)} examples, the losses are of {self.table.n_examples}")
            if self.table.store is not None:
                self.table.store.check_pool(rows_of)
        elif self.table.store is not None:
            rows_of = self.table.store.pool()
        else:
            raise ArgumentError(
                "pool: the losses came as an array, so the rows' source is unknown",
                hint="give write(path, pool=...) or use selection.rows on your own data",
            )
        path = Path(path)
        manifest = self.manifest | {"subset": path.name, "command": command}
        manifest_path = path.with_name(f"{Path(path.name.removesuffix('.gz')).stem}.manifest.json")
        # The manifest is on disk before the rows take their name, and takes its own right after: no mixed pair.
        with replacing(manifest_path) as temporary:
            temporary.write_bytes(f"{to_json(manifest, indent=2, sort_keys=False)}\n".encode())
            rows_of.write(self.rows, path)
        return manifest_path

    # ---------------------------------------------------------------- inside

    @property
    def _score(self) -> Score | None:
        return SCORES.get(self.parameters["method"])

    def _by(self) -> str | dict[str, str] | None:
        """Returns the name of the strata, or what tells labels that were given from others."""
        by: str | None = self.parameters["by"]
        if isinstance(by, str) or self.strata is None:
            return by
        digest = hashlib.blake2b(np.ascontiguousarray(self.strata.codes).data, digest_size=16)
        digest.update(repr(self.strata.names).encode())
        return {"labels": digest.hexdigest()}

    def _kept_at_or_below_zero(self) -> int | None:
        if self._score is None:
            return None
        base, ref = (self.table.column(name)[self.rows] for name in self.columns)
        return int(np.count_nonzero(self._score(base, ref) <= 0))

    def _unused_clusters(self) -> int:
        if not self.fits or len(self.rows) >= len(self.quotas):
            return 0
        return sum(1 for cell in self.quotas if cell.quota == 0)

    def _describe_clusters(self) -> str:
        members: Counter[int | None] = Counter()
        for cell in self.quotas:
            members[cell.cluster] += cell.size
        sizes = np.array(list(members.values()))
        reasons = ", ".join(f"{n} x {why}" for why, n in Counter(fit["why_stopped"] for fit in self.fits).items())
        longest = max(self.fits, key=lambda fit: len(fit["moved"]))
        iterations = describe_iterations(longest["fit"], len(longest["moved"]))
        why = reasons.removeprefix("1 x ") if len(self.fits) == 1 else reasons
        return (
            f"{len(sizes)} clusters of {sizes.min():,} to {sizes.max():,} examples "
            f"(median {int(np.median(sizes)):,}); {iterations}, {why}"
        )

    def _stratum_lines(self) -> list[str]:
        totals: dict[str, list[int]] = {}
        for cell in self.quotas:
            total = totals.setdefault(str(cell.stratum), [0, 0, 0])
            total[0] += cell.size
            total[1] += cell.quota
            total[2] += cell.drawn
        header = by if isinstance(by := self.parameters["by"], str) else "stratum"
        width = min(40, max(len(header), *(len(name) for name in totals)))
        lines = [f"{header:<{width}}  {'size':>10}  {'quota':>8}  {'drawn':>8}"]
        lines += [f"{name[:width]:<{width}}  {a:>10,}  {b:>8,}  {c:>8,}" for name, (a, b, c) in totals.items()]
        return lines

    def _because(self, row: int, chosen: bool) -> str:
        if self.why_invalid[row] != Reason.VALID:
            return f"invalid: {Reason(self.why_invalid[row]).text}"
        if (number := self.grid.number_of(row)) < 0:
            return f"its score is below min_score {self.parameters['min_score']}"
        cell = self.cells[number]
        place = ", ".join(
            f"{what} {value}"
            for what, value in (("stratum", cell.stratum), ("cluster", cell.cluster))
            if value is not None
        )
        of = f"of the {cell.size:,} examples of {place or 'the pool'}, {cell.quota:,} are chosen"
        if self.scores is None:
            return f"{of}, by keyed id; this one is {'' if chosen else 'not '}among them"
        rank = 1 + int(np.count_nonzero(self.grid.members(number) & (self.scores > self.scores[row])))
        return f"{of}, the highest scores first; this one ranks {rank:,}"
