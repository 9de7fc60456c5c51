"""What the benches stand on: data that a seed decides, a store like any other, and quality by the plain definition."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

import lossift


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of benches/, which is no package."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benches"))
    return importlib.import_module


@pytest.mark.parametrize("data", ["trajectories", "noise"])
def test_a_pool_is_a_prefix_of_any_larger_one(bench, data):
    trajectories = bench("trajectories")
    large = trajectories.make(data, trajectories.BLOCK + 1_000, 5, seed=3)
    assert np.isfinite(large).all()
    for n_examples in (10, trajectories.BLOCK + 1):
        assert np.array_equal(trajectories.make(data, n_examples, 5, seed=3), large[:n_examples])
    assert not np.array_equal(trajectories.make(data, 10, 5, seed=4), large[:10])


def test_a_written_store_holds_the_rows_and_selects_like_any_other(bench, tmp_path):
    trajectories, stores = bench("trajectories"), bench("stores")
    n_examples = trajectories.BLOCK + 1_000
    stores.write(tmp_path / "losses", n_examples, 3)
    store = lossift.open(tmp_path / "losses")
    losses = trajectories.make("trajectories", n_examples, 3)
    for state, column in zip(store.states, losses.T, strict=True):
        assert np.array_equal(store.column(state), column)
    assert store.valid.all()
    assert len(np.unique(store.ids)) == n_examples
    options = {"budget": 500, "n_clusters": 8, "n_iterations": 2}
    assert np.array_equal(
        lossift.select(store, **options).rows, lossift.select(losses, ids=np.array(store.ids), **options).rows
    )


def test_inertia_is_the_sum_of_squared_distances(bench):
    exact = bench("exact")
    rng = np.random.default_rng(0)
    losses, centroids = (rng.normal(1e3, 1, (n, 4)).astype(np.float32) for n in (1_000, 7))
    squares = ((losses[:, None].astype(float) - centroids.astype(float)) ** 2).sum(axis=2)
    assert exact.inertia(losses, centroids) == pytest.approx(squares.min(axis=1).sum(), rel=1e-12)
    labels = rng.integers(7, size=len(losses))
    assert exact.inertia(losses, centroids, labels) == pytest.approx(
        squares[np.arange(len(losses)), labels].sum(), rel=1e-12
    )
    within = sum(
        ((part - part.mean(axis=0)) ** 2).sum() for part in (losses[labels == k].astype(float) for k in range(7))
    )
    assert exact.inertia_within(losses.T, labels, 7) == pytest.approx(within, rel=1e-6)
