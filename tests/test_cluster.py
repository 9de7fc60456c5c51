"""Clusters by themselves: what they are, that they depend on nothing else, and what is refused."""

import numpy as np
import pytest

import lossift
import reference
from lossift import _native
from lossift.cluster import FITS, SHAPES
from lossift.errors import ArgumentError, LossiftError
from test_select import ids_of, trajectories


def blobs(n, t, n_kinds, spread, seed=0):
    """Normal clouds around as many centres: far apart for a small spread, through one another for a large one."""
    rng = np.random.default_rng(seed)
    centres = rng.random((n_kinds, t)) * 10
    kind = rng.integers(n_kinds, size=n)
    return (centres[kind] + spread * rng.standard_normal((n, t))).astype(np.float32), kind


def inertia_of(points, found):
    """Sum of squared distances of the labelled points from their centroids, in float64."""
    kept = found.labels >= 0
    return ((points[kept].astype(np.float64) - found.centroids[found.labels[kept]]) ** 2).sum()


# ------------------------------------------------------------- what it is


def test_defaults():
    losses = trajectories(2000, 6)
    found = lossift.cluster(losses, 30)
    assert isinstance(found, lossift.Clustering)
    assert (found.labels.dtype, found.labels.shape) == (np.int32, (2000,))
    assert (found.centroids.dtype, found.centroids.shape) == (np.float32, (30, 6))
    assert found.sizes.tolist() == np.bincount(found.labels).tolist()
    assert len(found) == 30
    assert (found.fit, found.n_fit_rows, found.seed, found.columns) == ("full", 2000, 0, list("012345"))
    assert (reference.nearest(losses, found.centroids)[0] == found.labels).mean() > 0.999
    assert found.inertia == pytest.approx(inertia_of(losses, found), rel=1e-6)
    assert found.inertia == pytest.approx(found.steps[-1].inertia, rel=1e-6)
    assert found.steps[0].moved == 2000
    assert all(0 < step.evaluated <= 1 for step in found.steps)
    assert 1 <= found.n_iterations == len(found.steps) - 1 <= 20
    inertia = [step.inertia for step in found.steps]
    assert inertia == sorted(inertia, reverse=True)
    with pytest.raises(AttributeError):
        found.inertia = 0


@pytest.mark.parametrize("shape", SHAPES)
def test_converged_centroids_are_the_means_of_their_shaped_members(shape):
    losses = trajectories(600, 5)
    found = lossift.cluster(losses, 8, shape=shape, n_iterations=300)
    points = reference.shaped(losses, shape)
    assert found.why_stopped == "no label moved"
    for c, centroid in enumerate(found.centroids):
        assert np.allclose(centroid, points[found.labels == c].mean(axis=0), rtol=1e-4, atol=1e-5)
    assert found.inertia == pytest.approx(inertia_of(points, found), rel=1e-4)


@pytest.mark.parametrize("fit", FITS)
def test_every_fit_labels_every_row_with_its_nearest_centroid(fit):
    losses = trajectories(5000, 4)
    found = lossift.cluster(losses, 10, fit=fit)
    assert (reference.nearest(losses, found.centroids)[0] == found.labels).mean() > 0.999
    assert found.inertia == pytest.approx(inertia_of(losses, found), rel=1e-6)
    assert found.fit == ("minibatch" if fit == "minibatch" else "full")  # a sample of 5,000 rows would be all
    assert found.inertia < 1.2 * lossift.cluster(losses, 10, fit="full").inertia
    if fit == "minibatch":
        assert found.n_iterations == len(found.steps)


@pytest.mark.slow
def test_auto_fits_on_a_sample_of_many_rows_and_says_why():
    n = _native.AUTO_FULL_ROWS + 1
    losses = trajectories(n, 2)
    found = lossift.cluster(losses, 5, n_iterations=3)
    assert (found.fit, found.n_fit_rows) == ("sample", 1 << 20)
    assert found.why_fit == "auto: N = 2,097,153 is above 2,097,152; K = 5 takes 1,048,576 rows"
    assert found.inertia == pytest.approx(inertia_of(losses, found), rel=1e-6)
    assert found.steps[-1].inertia < 0.6 * found.inertia  # about half of the rows
    assert lossift.cluster(losses[1:], 5, n_iterations=1).fit == "full"
    mostly_invalid = losses.copy()
    mostly_invalid[1000:] = np.nan
    assert lossift.cluster(mostly_invalid, 5).why_fit == (
        "auto: N = 2,097,153 is above 2,097,152; K = 5 takes all 1,000 valid rows"
    )


def test_summary_fits_a_terminal():
    losses = trajectories(3000, 4)
    losses[:7] = np.nan
    for options in (
        {},
        {"fit": "sample"},
        {"fit": "minibatch", "n_restarts": 3},
        {"init": losses[10:30].astype(np.float64), "tolerance": 0.1},
        {"shape": "relative"},
        {"n_iterations": 1},
    ):
        found = lossift.cluster(losses, 20, **options)
        text = found.summary()
        assert all(len(line) <= 80 for line in text.splitlines()), text
        assert "invalid: 7 non-finite loss" in text
        assert found.why_stopped in text
        assert "\n" not in repr(found)
    summary = lossift.cluster(losses, 20).summary()
    assert summary.startswith("20 clusters of ")
    assert "fit full, on all 2,993 valid rows (k-means++)\n    auto: N = 3,000 is at most 2,097,152\n" in summary
    assert "1 iteration, n_iterations reached" in lossift.cluster(losses, 20, n_iterations=1).summary()
    few = lossift.cluster(np.ones((5, 2)), 3)
    assert "1 clusters of 5 to 5 examples (median 5), 3 asked for" in few.summary()


def test_given_centroids_are_where_it_starts():
    points, kind = blobs(500, 3, 4, 0.1)
    start = np.array([points[kind == k].mean(axis=0) for k in range(4)])
    found = lossift.cluster(points, 4, init=start, n_iterations=50)
    assert found.n_iterations <= 2
    assert all(len(set(found.labels[kind == k])) == 1 for k in range(4))
    for dtype in (np.float16, ">f4", np.float32):
        rounded = start.astype(dtype)
        again = lossift.cluster(points, 4, init=rounded)
        assert (again.labels == lossift.cluster(points, 4, init=rounded.astype(np.float64)).labels).all()
    # A start in the shape that is clustered: one value fewer for differences.
    steps = lossift.cluster(points, 2, shape="differences", init=np.diff(start[:2], axis=1))
    assert steps.centroids.shape == (2, 2)


def test_restarts_keep_the_smallest_inertia():
    losses = np.random.default_rng(0).random((1500, 6)).astype(np.float32)
    seeds = [5, *(int(_native.keys(np.array([i], np.uint64), 5, "restart")[0]) for i in (1, 2, 3))]
    single = [lossift.cluster(losses, 40, seed=seed).inertia for seed in seeds]
    assert len(set(single)) == 4
    for n_restarts in (1, 2, 3, 4):
        found = lossift.cluster(losses, 40, seed=5, n_restarts=n_restarts)
        assert found.inertia == pytest.approx(min(single[:n_restarts]), rel=1e-6)
        assert found.inertia == pytest.approx(inertia_of(losses, found), rel=1e-6)


def test_tolerance_ends_the_iterations_sooner():
    losses = np.random.default_rng(0).random((2000, 6)).astype(np.float32)
    exact = lossift.cluster(losses, 20, n_iterations=500)
    loose = lossift.cluster(losses, 20, n_iterations=500, tolerance=0.01)
    assert (exact.why_stopped, loose.why_stopped) == ("no label moved", "few labels moved")
    assert loose.steps[-1].moved <= 20 < loose.steps[-2].moved
    assert loose.steps[:-1] == exact.steps[: len(loose.steps) - 1]
    assert lossift.cluster(losses, 20, tolerance=1).n_iterations == 0


# ---------------------------------------------------- what it depends on


@pytest.mark.parametrize("options", [{}, {"fit": "minibatch"}, {"init": "random", "n_restarts": 2}], ids=str)
def test_threads_row_order_and_process_leave_no_trace(options):
    losses, ids = trajectories(3000, 7), ids_of(3000)
    losses[::13, 3] = np.nan
    first = lossift.cluster(losses, 15, ids=ids, seed=3, n_threads=1, **options)
    order = np.random.default_rng(2).permutation(3000)
    for n_threads in (2, 3, 8):
        again = lossift.cluster(losses, 15, ids=ids, seed=3, n_threads=n_threads, **options)
        other = lossift.cluster(losses[order], 15, ids=ids[order], seed=3, n_threads=n_threads, **options)
        assert (again.labels == first.labels).all()
        assert (other.labels == first.labels[order]).all()
        for found in (again, other):
            assert found.centroids.tobytes() == first.centroids.tobytes()
            assert (found.inertia, found.steps) == (first.inertia, first.steps)
    assert lossift.cluster(losses, 15, ids=ids, seed=4, **options).inertia != first.inertia


def test_layouts_and_dtypes_agree(tmp_path):
    losses = trajectories(500, 6)
    np.save(tmp_path / "losses.npy", losses)
    first = lossift.cluster(losses, 10)
    for other in (
        np.asfortranarray(losses),
        losses.astype(np.float64),
        np.asfortranarray(losses.astype(np.float64)),
        list(losses.T),
        [np.ascontiguousarray(column) for column in losses.T],
        np.repeat(losses, 2, axis=0)[::2],
        losses.astype(">f4"),
        np.load(tmp_path / "losses.npy", mmap_mode="r"),
    ):
        found = lossift.cluster(other, 10)
        assert (found.labels == first.labels).all()
        assert found.centroids.tobytes() == first.centroids.tobytes()


def test_states_are_the_columns_that_are_clustered():
    losses = trajectories(300, 5)
    some = lossift.cluster(losses, 6, states=[1, 3])
    assert some.columns == ["1", "3"]
    assert (some.labels == lossift.cluster(losses[:, [1, 3]], 6).labels).all()


def test_invalid_rows_have_no_cluster_and_move_no_centroid():
    losses = trajectories(200, 3)
    spoilt = np.concatenate([losses, [[np.nan, 1, 1], [1, np.inf, 1], [-np.inf] * 3]]).astype(np.float32)
    ids = np.arange(203)
    found, clean = lossift.cluster(spoilt, 9, ids=ids), lossift.cluster(losses, 9, ids=ids[:200])
    assert found.labels.tolist() == [*clean.labels.tolist(), -1, -1, -1]
    assert found.centroids.tobytes() == clean.centroids.tobytes()
    assert found.counts == {"examples": 203, "clustered": 200, "invalid": {"non-finite loss": 3}}
    zero = losses.copy()
    zero[4, 0] = 0
    relative = lossift.cluster(zero, 9, shape="relative")
    assert relative.labels[4] == -1
    assert relative.counts["invalid"] == {"first loss not positive": 1}


def test_fewer_distinct_examples_than_clusters():
    losses = np.repeat(trajectories(4, 3), 25, axis=0)
    found = lossift.cluster(losses, 10)
    assert sorted(found.sizes.tolist()) == [25] * 4
    assert found.inertia == 0
    assert lossift.cluster(losses[:1], 3).labels.tolist() == [0]


# ------------------------------------------------------------------ quality


@pytest.mark.parametrize("spread", [0.1, 3.0], ids=["apart", "overlapping"])
def test_inertia_is_about_the_best_of_five_of_scikit_learn(spread):
    cluster = pytest.importorskip("sklearn.cluster", reason="compares with scikit-learn, which isn't installed")
    points, _ = blobs(20_000, 8, 30, spread)
    best = min(cluster.KMeans(30, n_init=1, random_state=seed).fit(points).inertia_ for seed in range(5))
    found = lossift.cluster(points, 30, n_iterations=300, n_restarts=3)
    assert found.inertia < 1.003 * best


# ----------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_clusters": 0}, "n_clusters: found 0, allowed are whole numbers from 1"),
        ({"n_clusters": True}, "n_clusters: found True, allowed are whole numbers from 1"),
        ({"n_clusters": 2**25}, "n_clusters: found 33554432, allowed are 1 to 16777216"),
        ({"n_iterations": 2.0}, "n_iterations: found 2.0, allowed are whole numbers from 1"),
        ({"n_restarts": 0}, "n_restarts: found 0, allowed are whole numbers from 1"),
        ({"fit": "half"}, "fit: found 'half', allowed are auto, full, minibatch, sample"),
        ({"fit": None}, "fit: found None, allowed are auto, full, minibatch, sample"),
        ({"shape": "round"}, "shape: found 'round', allowed are raw, relative, zscore, differences"),
        ({"seed": 2**64}, "seed: found 18446744073709551616, allowed are whole numbers from 0 to 2**64 - 1"),
        ({"tolerance": -0.1}, "tolerance: found -0.1, allowed are 0 to 1"),
        ({"tolerance": float("nan")}, "tolerance: found nan, allowed are 0 to 1"),
        ({"tolerance": "small"}, "tolerance: found 'small', allowed are 0 to 1"),
        ({"n_threads": 0}, "n_threads: found 0, allowed are whole numbers from 1 to 1024"),
        ({"init": "best"}, "init: found 'best', allowed are k-means++, random, or an array of centroids"),
        (
            {"init": [[1, 2, 3], [4, 5, 6]]},
            "init: found dtype int64, allowed are k-means++, random, or an array of floats (2, 3)",
        ),
        (
            {"init": np.ones((3, 2))},
            "init: found an array of shape (3, 2), allowed is (2, 3), n_clusters centroids of 3 values",
        ),
        (
            {"init": np.ones((2, 3)), "shape": "differences"},
            "init: found an array of shape (2, 3), allowed is (2, 2), n_clusters centroids of 2 values",
        ),
        (
            {"init": np.ones((2, 3)), "n_restarts": 2},
            "n_restarts: found 2, allowed is 1 where init is an array: each would start from the same centroids",
        ),
        (
            {"init": np.full((2, 3), np.nan)},
            "init: found NaN at index 0, allowed are finite numbers of magnitudes up to 1e15",
        ),
        (
            {"init": np.full((2, 3), 1e300)},
            "init: found inf at index 0, allowed are finite numbers of magnitudes up to 1e15",
        ),
        ({"states": [7]}, "states: found 7, allowed are column numbers 0 to 2"),
        ({"ids": [1] * 10}, "ids: found 1 more than once, every example needs its own"),
        (
            {"losses": np.zeros((10, 3), np.int64)},
            "losses: found dtype int64, allowed are float16, bfloat16, float32, float64",
        ),
        ({"losses": np.full((4, 2), np.nan)}, "losses: found no valid example among 4 (4 non-finite loss)"),
        (
            {"losses": np.zeros((4, 2)), "shape": "relative"},
            "losses: found no valid example among 4 (4 first loss not positive)",
        ),
        ({"losses": np.zeros((4, 1)), "shape": "differences"}, 'shape: "differences" needs at least 2 states, found 1'),
        ({"losses": "nowhere"}, "nowhere: there is no such loss store"),
    ],
)
def test_refused(arguments, message):
    arguments = {"losses": trajectories(10, 3), "n_clusters": 2} | arguments
    with pytest.raises(LossiftError) as caught:
        lossift.cluster(arguments.pop("losses"), arguments.pop("n_clusters"), **arguments)
    assert str(caught.value) == message


def test_what_progress_raises_comes_out():
    seen = []

    def progress(what, done, total):
        seen.append((what, done, total))
        if what == "clustering":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        lossift.cluster(trajectories(3000, 4), 10, progress=progress)
    assert {"reading", "seeding", "clustering"} == {what for what, _, _ in seen}


def test_a_value_too_large_to_cluster_names_its_row():
    losses = trajectories(50, 3)
    losses[31, 2] = 1e16
    with pytest.raises(ArgumentError, match="found 1e16 in row 31, state 2, allowed are magnitudes up to 1e15"):
        lossift.cluster(losses, 3)
