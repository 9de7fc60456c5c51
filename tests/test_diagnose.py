"""How many clusters: against the slow reference, `cluster` and scikit-learn, and what is refused."""

from itertools import pairwise

import numpy as np
import pytest

import lossift
import reference
from lossift import _native
from lossift.cluster import SHAPES
from lossift.errors import LossiftError
from test_cluster import blobs
from test_select import ids_of, trajectories


@pytest.mark.parametrize("shape", SHAPES)
def test_a_single_number_is_what_cluster_finds(shape):
    losses, ids = trajectories(1500, 5), ids_of(1500)
    losses[::40, 1] = np.nan
    points = reference.shaped(losses, shape)
    for n_clusters in (2, 7, 30):
        (row,) = lossift.diagnose_clusters(losses, [n_clusters], ids=ids, shape=shape, seed=8)
        found = lossift.cluster(losses, n_clusters, ids=ids, shape=shape, seed=8)
        kept = points[found.labels >= 0]
        assert row.inertia == pytest.approx(found.inertia, rel=1e-9)
        assert row.silhouette == pytest.approx(reference.silhouette(kept, found.centroids), abs=1e-5)
        assert (row.n_clusters, row.n_found) == (n_clusters, len(found))
        assert (row.n_iterations, row.why_stopped) == (found.n_iterations, found.why_stopped)


def test_many_numbers_side_by_side():
    points, _ = blobs(3000, 6, 12, 0.3)
    found = lossift.diagnose_clusters(points, range(1, 30))
    assert [row.n_clusters for row in found] == list(range(1, 30))
    assert found[0].silhouette is None
    assert found[0].inertia == pytest.approx(((points - points.mean(axis=0, dtype=np.float64)) ** 2).sum(), rel=1e-6)
    assert max(found[1:], key=lambda row: row.silhouette).n_clusters == 12
    assert found[28].inertia == pytest.approx(lossift.cluster(points, 29).inertia, rel=1e-9)
    for row in found:  # another greedy run would have seeded it, about as well
        assert row.inertia < 1.5 * lossift.cluster(points, row.n_clusters, n_restarts=2).inertia
    inertia = [row.inertia for row in found]
    assert all(after < 1.1 * before for before, after in pairwise(inertia))


def test_the_order_of_the_numbers_the_threads_and_the_rows_leave_no_trace():
    losses, ids = trajectories(2000, 4), ids_of(2000)
    first = lossift.diagnose_clusters(losses, [3, 20, 7], ids=ids, n_threads=1)
    order = np.random.default_rng(1).permutation(2000)
    other = lossift.diagnose_clusters(losses[order], [20, 7, 3], ids=ids[order], n_threads=3)
    assert [first[1], first[2], first[0]] == other.rows
    assert lossift.diagnose_clusters(list(losses.T), [3, 20, 7], ids=ids).rows == first.rows
    assert lossift.diagnose_clusters(losses, [3, 20, 7], ids=ids, seed=1).rows != first.rows


def test_fewer_distinct_examples_than_clusters():
    losses = np.repeat(np.array([[1.0, 2], [3, 4], [5, 9]]), 20, axis=0)
    row = lossift.diagnose_clusters(losses, [10])[0]
    assert (row.n_clusters, row.n_found, row.inertia, row.silhouette) == (10, 3, 0, 1)


@pytest.mark.slow
def test_many_examples_are_fitted_by_a_sample_and_measured_by_all():
    losses = trajectories(_native.AUTO_FULL_ROWS + 1, 2)
    found = lossift.diagnose_clusters(losses, [2, 4], n_iterations=3)
    assert (found.fit, found.n_fit_rows) == ("sample", 1 << 20)
    assert found[1].inertia == pytest.approx(lossift.cluster(losses, 4, n_iterations=3).inertia, rel=1e-6)
    assert "fit sample, on 1,048,576 of 2,097,153 valid rows; seed 0" in found.summary()


def test_printed_it_is_a_table_that_fits_a_terminal():
    losses = trajectories(600, 4)
    losses[0] = np.nan
    text = str(lossift.diagnose_clusters(1e6 * losses, [1, 5, 100_000], n_iterations=500))
    assert all(len(line) <= 80 for line in text.splitlines()), text
    head, states, names, one, five, _ = text.splitlines()
    assert head == "fit full, on all 599 valid rows; seed 0"
    assert states == "trajectories of 4 states, raw"
    assert names.split() == ["K", "found", "inertia", "silhouette", "iterations", "stopped"]
    assert one.split()[3] == "-"
    assert five.endswith("at rest")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_clusters": []}, "n_clusters: found [], allowed is a sequence of whole numbers from 1"),
        ({"n_clusters": 5}, "n_clusters: found 5, allowed is a sequence of whole numbers from 1"),
        ({"n_clusters": "25"}, "n_clusters: found '25', allowed is a sequence of whole numbers from 1"),
        ({"n_clusters": [5, 0]}, "n_clusters: found 0, allowed are whole numbers from 1"),
        ({"n_clusters": [2.5]}, "n_clusters: found 2.5, allowed are whole numbers from 1"),
        ({"n_clusters": [2**25]}, "n_clusters: found 33554432, allowed are 1 to 16777216"),
        ({"n_iterations": 0}, "n_iterations: found 0, allowed are whole numbers from 1"),
        ({"fit": "minibatch"}, "fit: found 'minibatch', allowed are auto, full, sample"),
        ({"shape": "round"}, "shape: found 'round', allowed are raw, relative, zscore, differences"),
        ({"seed": -1}, "seed: found -1, allowed are whole numbers from 0 to 2**64 - 1"),
        ({"losses": np.full((4, 2), np.nan)}, "losses: found no valid example among 4 (4 non-finite loss)"),
    ],
)
def test_refused(arguments, message):
    arguments = {"losses": trajectories(10, 3), "n_clusters": [2]} | arguments
    with pytest.raises(LossiftError) as caught:
        lossift.diagnose_clusters(arguments.pop("losses"), **arguments)
    assert str(caught.value) == message
