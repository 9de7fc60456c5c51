"""Selecting: against the slow reference, and the promises of determinism, exact budgets and nesting."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lossift
import reference
from lossift import _native
from lossift.cells import Cell, set_quotas
from lossift.errors import ArgumentError, LossiftError
from lossift.scores import SCORES
from lossift.select import METHODS, SHAPES


def trajectories(n=400, t=6, seed=0, n_kinds=7):
    """Falling curves of a few kinds, with noise: what losses of a proxy look like."""
    rng = np.random.default_rng(seed)
    kinds = rng.random((n_kinds, 3)) * [2, 3, 1]
    kind = rng.integers(n_kinds, size=n)
    x = np.arange(t) / t
    curves = kinds[kind, :1] + kinds[kind, 1:2] * np.exp(-3 * kinds[kind, 2:] * x)
    return (curves + 0.05 * rng.standard_normal((n, t))).astype(np.float32)


def ids_of(n, seed=1):
    return np.random.default_rng(seed).permutation(np.arange(10 * n, dtype=np.uint64))[:n]


def few_clusters(method, n_clusters):
    """The option that only S2L takes."""
    return {"n_clusters": n_clusters} if method == "s2l" else {}


def keys(ids, seed, purpose):
    return [int(key) for key in _native.keys(np.asarray(ids, np.uint64), seed, purpose)]


# ---------------------------------------------------------------- reference


sizes = st.lists(st.integers(0, 30), min_size=1, max_size=20)


@given(sizes, st.data())
def test_quotas(sizes, data):
    budget = data.draw(st.integers(0, sum(sizes)))
    ranks = data.draw(st.permutations(range(len(sizes))))
    found = _native.smallest_first(np.array(sizes, np.int64), np.array(ranks, np.uint64), budget)
    assert found.tolist() == reference.smallest_first(sizes, ranks, budget)
    assert found.sum() == budget


@given(
    st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 1), st.booleans(), st.integers(-2, 2)), min_size=1),
    st.sampled_from(["clusters", "strata", "excluded", "clusters strata", "clusters strata excluded"]),
    st.booleans(),
    st.integers(0, 2**64 - 1),
    st.data(),
)
def test_census_and_draw(rows, given, scored, seed, data):
    clusters, strata, excluded, scores = (np.array(column) for column in zip(*rows, strict=True))
    arrays = {
        "clusters": clusters.astype(np.int32) if "clusters" in given else None,
        "strata": strata.astype(np.int32) if "strata" in given else None,
        "excluded": excluded.astype(np.uint8) if "excluded" in given else None,
    }
    shape = (2 if "strata" in given else 1, 4 if "clusters" in given else 1)
    cluster = clusters if "clusters" in given else np.zeros(len(rows), int)
    stratum = strata % 2 if "strata" in given else np.zeros(len(rows), int)  # -1 is the last one
    cells = np.where((cluster < 0) | (excluded if "excluded" in given else False), -1, stratum * shape[1] + cluster)
    ids = ids_of(len(rows))
    tie = keys(ids, seed, "tie")

    sizes, smallest = _native.census(*shape, ids, **arrays, seed=seed, n_threads=2)
    n_cells = shape[0] * shape[1]
    assert sizes.shape == smallest.shape == shape
    assert sizes.ravel().tolist() == [int((cells == c).sum()) for c in range(n_cells)]
    expected = [
        min((k for k, cell in zip(tie, cells, strict=True) if cell == c), default=2**64 - 1) for c in range(n_cells)
    ]
    assert smallest.ravel().tolist() == expected

    quotas = [data.draw(st.integers(0, size)) for size in sizes.ravel().tolist()]
    options = {"seed": seed, "scores": scores / 2 if scored else None}
    for extra in ({}, {"sizes": sizes}, {"n_threads": 3}):
        found = _native.draw(np.array(quotas).reshape(shape), ids, **arrays, **options, **extra)
        if scored:
            assert found.tolist() == reference.top(cells, quotas, scores, tie)
        else:
            assert found.tolist() == reference.draw(cells, quotas, keys(ids, seed, "draw"))


def test_cells_and_draws_refused():
    ones = np.ones((1, 1), np.int64)
    clusters = np.zeros(3, np.int32)
    for function, arguments, message in (
        (_native.draw, (ones,), "cells: found neither clusters nor strata nor excluded, need one of them"),
        (_native.census, (0, 1), "n_strata: found 0, need a whole number from 1 to 2\\*\\*32 - 1"),
        (_native.census, (2, 1), "strata: found none, but there are to be 2"),
    ):
        with pytest.raises(ValueError, match=message):
            function(*arguments, seed=0)
    with pytest.raises(ValueError, match="quotas: found 4 for cell 0, which has 3 examples"):
        _native.draw(4 * ones, clusters=clusters, seed=0)
    with pytest.raises(ValueError, match="clusters: found none, but there are to be 2"):
        _native.draw(np.ones((1, 2), np.int64), excluded=np.zeros(3, np.uint8), seed=0)
    with pytest.raises(ValueError, match="cells: found 0, allowed are 1 to 2147483646"):
        _native.draw(np.ones((1, 0), np.int64), clusters=clusters, seed=0)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 60),
    t=st.integers(1, 4),
    n_clusters=st.integers(1, 80),
    n_strata=st.integers(1, 5),
    equal=st.booleans(),
    preset=st.sampled_from(["paper", "released"]),
    data=st.data(),
)
def test_s2l_from_its_clusters(n, t, n_clusters, n_strata, equal, preset, data):
    """K > N, tiny clusters, budget = N, one state, all rows equal: the draw follows from the labels."""
    losses = np.full((n, t), 1.5, np.float32) if equal else trajectories(n, t)
    strata = np.random.default_rng(2).integers(n_strata, size=n)
    ids = ids_of(n)
    budget = data.draw(st.integers(1, n))
    chosen = lossift.select(
        losses, budget=budget, by=strata, ids=ids, preset=preset, n_clusters=n_clusters, seed=3, n_threads=2
    )
    assert len(chosen) == budget
    labels = chosen.clusters
    tie, drawn = keys(ids, 3, "tie"), keys(ids, 3, "draw")
    if preset == "released":
        assert chosen.rows.tolist() == reference.s2l_released(labels, strata, budget, tie, drawn)
    else:
        cluster_keys = {c: min(tie[row] for row in np.flatnonzero(labels == c)) for c in np.unique(labels)}
        assert chosen.rows.tolist() == reference.s2l_paper(labels, strata, budget, cluster_keys, tie, drawn)
        # Clusters are numbered by their smallest keyed member id.
        assert list(cluster_keys.values()) == sorted(cluster_keys.values())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 50), st.integers(1, 4), st.data())
def test_learnability(n, n_strata, data):
    rng = np.random.default_rng(n)
    losses = rng.choice([0.5, 1.0, 2.0, 0.0, -1.0, np.nan], size=(n, 3))
    strata = rng.integers(n_strata, size=n)
    ids = ids_of(n)
    scores = [reference.learnability(base, ref) for base, ref in losses[:, [0, 2]]]
    valid = [score is not None for score in scores]
    if not any(valid):
        with pytest.raises(ArgumentError, match="0 are valid for learnability"):
            lossift.select(losses, "learnability", budget=1, ids=ids)
        return
    budget = data.draw(st.integers(1, sum(valid)))
    chosen = lossift.select(losses, "learnability", budget=budget, by=strata, ids=ids, seed=4)
    tie = keys(ids, 4, "tie")
    names = sorted(set(strata[valid]))
    sizes = [sum(v and s == name for v, s in zip(valid, strata, strict=True)) for name in names]
    ranks = [min(k for k, v, s in zip(tie, valid, strata, strict=True) if v and s == name) for name in names]
    quotas = reference.smallest_first(sizes, ranks, budget)
    cells = [names.index(s) if v else -1 for v, s in zip(valid, strata, strict=True)]
    assert chosen.rows.tolist() == reference.top(cells, quotas, [s or 0 for s in scores], tie)


def test_learnability_by_hand():
    losses = np.array([[2.0, 1.0], [1.0, 1.5], [4.0, 1.0], [0.0, 1.0], [1.0, np.inf]])
    chosen = lossift.select(losses, "learnability", budget=3)
    assert chosen.rows.tolist() == [0, 1, 2]
    assert chosen.scores[:3].tolist() == [0.5, -0.5, 0.75]
    assert chosen.counts == {
        "pool": 5,
        "chosen": 3,
        "not_chosen": 0,
        "invalid": {"non-finite loss": 1, "base loss not positive": 1},
    }
    assert "1 chosen with a score at or below 0" in chosen.summary()


def test_delta_and_learnability_rank_differently():
    losses = np.array([[10.0, 8.0], [1.0, 0.1]])
    assert lossift.select(losses, "delta", budget=1).rows.tolist() == [0]
    assert lossift.select(losses, "learnability", budget=1).rows.tolist() == [1]
    assert lossift.select(losses, "learnability", budget=1, base=1, ref=0).rows.tolist() == [0]


# ----------------------------------------------------------------- k-means


@pytest.mark.parametrize("shape", SHAPES)
def test_kmeans_is_a_local_optimum_of_the_shaped_trajectories(shape):
    losses = trajectories(500, 5)
    found = _native.cluster(
        losses, np.ones(500, bool), ids_of(500), n_clusters=12, n_iterations=200, seed=0, shape=shape, n_threads=2
    )
    points = reference.shaped(losses, shape)
    assert found.why_stopped == "no label moved"
    nearest, distances = reference.nearest(points, found.centroids)
    own = distances[np.arange(500), found.labels]
    assert np.allclose(own, distances.min(axis=1), rtol=1e-4, atol=1e-6)
    for c in range(len(found.sizes)):
        assert np.allclose(found.centroids[c], points[found.labels == c].mean(axis=0), rtol=1e-4, atol=1e-5)
    assert found.inertia[-1] == pytest.approx(own.sum(), rel=1e-4)
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in zip(found.inertia, found.inertia[1:], strict=False))
    assert found.sizes.tolist() == np.bincount(found.labels).tolist()
    assert (nearest == found.labels).mean() > 0.99


def test_well_separated_kinds_are_found():
    rng = np.random.default_rng(0)
    kind = rng.integers(5, size=1000)
    losses = (10.0 * kind[:, None] + rng.random((1000, 4))).astype(np.float32)
    labels = lossift.select(losses, budget=100, n_clusters=5).clusters
    assert all(len(set(labels[kind == k])) == 1 for k in range(5))
    assert len(set(labels)) == 5


def test_large_offset_small_spread():
    """Trajectories with an offset of 10^4 and a spread of 10^-2 still cluster right."""
    rng = np.random.default_rng(0)
    kind = rng.integers(2, size=400)
    losses = (1e4 + 1e-2 * kind[:, None] + 1e-3 * rng.standard_normal((400, 4))).astype(np.float32)
    labels = lossift.select(losses, budget=10, n_clusters=2).clusters
    assert (labels == labels[kind == 0][0]).sum() in {(kind == 0).sum()}


# ------------------------------------------------------------- determinism


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("by", [None, "strata"])
def test_same_selection_for_any_threads_and_row_order(method, by):
    n = 3000
    losses, ids = trajectories(n, 8), ids_of(n)
    losses[::17, 2] = np.nan
    strata = np.random.default_rng(3).integers(4, size=n) if by else None
    options = {"method": method, "budget": "11%", "seed": 9} | few_clusters(method, 20)
    first = lossift.select(losses, ids=ids, by=strata, n_threads=1, **options)
    assert len(first) == 330
    for n_threads in (2, 3, 7):
        again = lossift.select(losses, ids=ids, by=strata, n_threads=n_threads, **options)
        assert again.rows.tolist() == first.rows.tolist()
        if first.clusters is not None:
            assert (again.clusters == first.clusters).all()
    order = np.random.default_rng(4).permutation(n)
    shuffled = lossift.select(losses[order], ids=ids[order], by=strata[order] if by else None, n_threads=2, **options)
    assert set(shuffled.ids.tolist()) == set(first.ids.tolist())
    if first.clusters is not None:
        assert (shuffled.clusters == first.clusters[order]).all()


def test_other_seeds_choose_others():
    losses = trajectories()
    one, two = (lossift.select(losses, budget=40, n_clusters=10, seed=seed) for seed in (0, 1))
    assert one.rows.tolist() != two.rows.tolist()


@pytest.mark.parametrize(
    ("by", "preset"), [(False, "paper"), (True, "paper"), (True, "released")], ids=["pool", "paper", "released"]
)
@pytest.mark.parametrize("method", [*METHODS, "min_score"])
def test_smaller_budgets_lie_inside_larger_ones(method, by, preset):
    n = 1000
    losses = trajectories(n)
    options = {"by": np.random.default_rng(3).integers(5, size=n) if by else None}
    if method == "s2l":
        options["preset"] = preset
    if method == "min_score":
        method, options["min_score"] = "learnability", 0.1
    inside: set[int] = set()
    # Below one example per cluster, in between, and until the tiny clusters are used up.
    for budget in (1, 3, "1%", "5%", "10%", "50%", "90%", n - 3, n - 1, n):
        chosen = lossift.select(losses, method, budget=budget, **few_clusters(method, 60), **options)
        chosen = set(chosen.rows.tolist())
        assert inside <= chosen
        inside = chosen
    assert (len(inside) < n) == ("min_score" in options)


@given(
    st.dictionaries(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), st.integers(1, 8), min_size=1),
    st.sampled_from(["paper", "released"]),
)
def test_no_quota_shrinks_when_the_budget_grows(sizes, preset):
    smallest = np.arange(len(sizes), dtype=np.uint64)
    before = [0] * len(sizes)
    for budget in range(sum(sizes.values()) + 1):
        cells = {i: Cell(stratum, cluster, size) for i, ((stratum, cluster), size) in enumerate(sizes.items())}
        set_quotas(cells, smallest, budget, preset)
        quotas = [cell.quota for cell in cells.values()]
        assert sum(quotas) == budget
        assert all(quota >= old for quota, old in zip(quotas, before, strict=True))
        before = quotas


def test_a_higher_min_score_is_inside_a_lower_one_without_strata():
    losses = trajectories(300)
    high, low = (
        set(lossift.select(losses, "learnability", budget=200, min_score=score).rows.tolist()) for score in (0.5, 0.2)
    )
    assert 0 < len(high) < 200
    assert high < low


def test_layouts_and_dtypes_agree():
    losses = trajectories(500, 6)
    first = lossift.select(losses, budget=50, n_clusters=10)
    wide = losses.astype(np.float64)
    for other in (
        np.asfortranarray(losses),
        wide,
        np.asfortranarray(wide),
        list(losses.T),
        [np.ascontiguousarray(column) for column in losses.T],
        np.repeat(losses, 2, axis=1)[:, ::2],
        np.repeat(losses, 2, axis=0)[::2],
        losses.astype(">f4"),
    ):
        chosen = lossift.select(other, budget=50, n_clusters=10)
        assert chosen.rows.tolist() == first.rows.tolist()
        assert (chosen.clusters == first.clusters).all()


def test_memory_map(tmp_path):
    losses = trajectories(100, 4)
    np.save(tmp_path / "losses.npy", losses)
    mapped = np.load(tmp_path / "losses.npy", mmap_mode="r")
    columns = [np.ascontiguousarray(column) for column in losses.T]
    first = lossift.select(columns, budget=10, n_clusters=5)
    assert lossift.select(mapped, budget=10, n_clusters=5).rows.tolist() == first.rows.tolist()


def test_states_choose_columns():
    losses = trajectories(200, 5)
    some = lossift.select(losses, budget=20, n_clusters=5, states=[1, 3])
    assert some.rows.tolist() == lossift.select(losses[:, [1, 3]], budget=20, n_clusters=5).rows.tolist()


def test_invalid_rows_are_never_chosen():
    losses = trajectories(100, 3)
    losses[::2] = [[np.nan, 1, 1], [1, np.inf, 1], [1, 1, -np.inf], [1, 1, np.nan], [np.inf] * 3] * 10
    for method in METHODS:
        # A column makes a row invalid only for methods that use it: scores don't read the one in the middle.
        n_valid = 60 if method in SCORES else 50
        chosen = lossift.select(losses, method, budget=n_valid, **few_clusters(method, 5))
        unread = set(range(2, 100, 10)) if method in SCORES else set()
        assert set(chosen.rows.tolist()) == set(range(1, 100, 2)) | unread
        assert chosen.counts["invalid"] == {"non-finite loss": 100 - n_valid}
    assert lossift.select(losses, budget=5).clusters[::2].tolist() == [-1] * 50


def test_float64_beyond_float32_is_invalid():
    losses = trajectories(20, 3).astype(np.float64)
    losses[3, 1] = 1e300
    assert lossift.select(losses, budget=19, n_clusters=3).counts["invalid"] == {"non-finite loss": 1}


def test_relative_needs_a_positive_first_loss():
    losses = trajectories(30, 3)
    losses[4, 0] = 0.0
    chosen = lossift.select(losses, budget=29, shape="relative", n_clusters=3)
    assert chosen.why(row=4)["because"] == "invalid: first loss not positive"


# ------------------------------------------------------------- how it clusters


def test_manifest_says_how_it_clustered():
    losses = trajectories(400, 5)
    start = losses[:6].astype(np.float64)
    chosen = lossift.select(losses, budget=40, n_clusters=6, init=start, fit="full", tolerance=0.01)
    parameters, (fit,) = chosen.manifest["parameters"], chosen.manifest["clustering"]
    assert (parameters["fit"], parameters["n_restarts"], parameters["tolerance"]) == ("full", 1, 0.01)
    assert (fit["fit"], fit["n_fit_rows"]) == ("full", 400)
    assert fit["total_inertia"] == pytest.approx(fit["inertia"][-1])
    digest = parameters["init"]["centroids"]
    other = lossift.select(losses, budget=40, n_clusters=6, init=losses[1:7]).manifest["parameters"]["init"]
    again = lossift.select(losses, budget=40, n_clusters=6, init=losses[:6]).manifest["parameters"]["init"]
    assert again == {"centroids": digest} != other
    json.dumps(chosen.manifest)


@pytest.mark.parametrize(
    "options",
    [{}, {"fit": "minibatch"}, {"init": "random", "n_restarts": 3}, {"tolerance": 0.2}, {"shape": "relative"}],
    ids=str,
)
def test_clusters_are_those_of_cluster(options):
    losses, ids = trajectories(3000, 5), ids_of(3000)
    losses[::50, 1] = np.inf
    chosen = lossift.select(losses, budget=40, ids=ids, n_clusters=12, seed=4, **options)
    found = lossift.cluster(losses, 12, ids=ids, seed=4, **options)
    assert (chosen.clusters == found.labels).all()
    assert (chosen.why_invalid == found.why_invalid).all()
    (fit,) = chosen.fits
    assert (fit["total_inertia"], fit["fit"], fit["why_stopped"]) == (found.inertia, found.fit, found.why_stopped)
    if options.get("fit") == "minibatch":
        assert f"{len(found.steps)} mini-batches, " in chosen.summary()


def test_released_fits_on_few_rows_from_centroids_that_are_given():
    losses = trajectories(3000, 4)
    by = np.arange(3000) % 2
    few = lossift.select(losses, budget=100, by=by, preset="released", n_clusters=3, init=losses[:3])
    assert [(fit["fit"], fit["n_fit_rows"]) for fit in few.fits] == [("sample", 768)] * 2
    tiny = lossift.select(losses[:8], budget=8, by=by[:8], preset="released", n_clusters=6, init=losses[:6])
    assert len(tiny) == 8


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "method: found 'magic', allowed are s2l, learnability, delta, random"),
        ({"preset": "other"}, "preset: found 'other', allowed are paper, released"),
        ({"shape": "round"}, "shape: found 'round', allowed are raw, relative, zscore, differences"),
        ({"preset": "released"}, "preset: 'released' clusters each stratum by itself and needs by=; found none"),
        ({"n_clusters": 0}, "n_clusters: found 0, allowed are whole numbers from 1"),
        ({"n_iterations": 1.5}, "n_iterations: found 1.5, allowed are whole numbers from 1"),
        ({"seed": -1}, "seed: found -1, allowed are whole numbers from 0 to 2**64 - 1"),
        ({"n_threads": 0}, "n_threads: found 0, allowed are whole numbers from 1 to 1024"),
        ({"by": "source"}, "by: found the name 'source', an array of losses needs an array of N labels"),
        ({"by": [1, 2]}, "by: found labels of shape (2,), one for each of the 10 examples is needed"),
        ({"states": [1.7]}, "states: found 1.7, allowed are column numbers 0 to 2"),
        ({"states": [None]}, "states: found None, allowed are column numbers 0 to 2"),
        ({"method": "delta", "states": [1]}, "states: found [1], but method 'delta' uses base, min_score, ref"),
        ({"method": "delta", "min_score": float("nan")}, "min_score: found nan, allowed are finite numbers"),
        ({"states": [7]}, "states: found 7, allowed are column numbers 0 to 2"),
        ({"states": []}, "states: found none, at least one is needed"),
        ({"method": "delta", "base": 1, "ref": 1}, "delta: base and ref are both '1', two different states are needed"),
        ({"ids": [1] * 10}, "ids: found 1 more than once, every example needs its own"),
        ({"ids": [-1] * 10}, "ids: found shape (10,) and dtype int64, allowed are 10 whole numbers"),
        (
            {"min_score": 0.1},
            "min_score: found 0.1, but method 's2l' uses fit, init, n_clusters, n_iterations, n_restarts",
        ),
        ({"method": "random", "n_clusters": 7}, "n_clusters: found 7, but method 'random' uses states"),
        ({"method": "random", "preset": "released"}, "preset: found 'released', but method 'random' uses states"),
        ({"method": "delta", "shape": "zscore"}, "shape: found 'zscore', but method 'delta' uses base, min_score, ref"),
        ({"method": "random", "init": np.ones((2, 3))}, "init: found an array, but method 'random' uses states"),
        ({"method": "random", "tolerance": 0.5}, "tolerance: found 0.5, but method 'random' uses states"),
        ({"fit": "half"}, "fit: found 'half', allowed are auto, full, minibatch, sample"),
        ({"tolerance": 2}, "tolerance: found 2, allowed are 0 to 1"),
        ({"n_restarts": 0}, "n_restarts: found 0, allowed are whole numbers from 1"),
        (
            {"preset": "released", "by": [0] * 10, "fit": "full"},
            "fit: found 'full', but preset 'released' fits on at most 256 rows per cluster",
        ),
        (
            {"losses": np.zeros((10, 3), np.int64)},
            "losses: found dtype int64, allowed are float16, bfloat16, float32, float64",
        ),
        ({"losses": np.zeros(10)}, "losses: found an array of shape (10,), allowed are (n_examples, n_states)"),
        ({"losses": np.zeros((0, 3))}, "losses: found 3 states, at least one example and state are needed"),
        ({"losses": np.zeros((10, 1)), "method": "delta"}, "delta: needs two states, a base and a ref; there are: 0"),
        ({"losses": np.zeros((10, 1)), "shape": "differences"}, "shape: "),
        ({"losses": [np.zeros(3), np.zeros(4)]}, "losses: columns must have one length and one dtype"),
        ({"losses": np.full((10, 2), np.nan)}, "budget: found 5 (5 examples), 0 are valid for s2l (10 non-finite"),
        ({"budget": 11}, "budget: found 11 examples, the pool has 10"),
    ],
)
def test_refused(arguments, message):
    losses = arguments.pop("losses", None)
    if losses is None:
        losses = trajectories(10, 3)
    with pytest.raises(LossiftError) as caught:
        lossift.select(losses, **({"budget": 5} | arguments))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_threads_from_the_environment(monkeypatch):
    monkeypatch.setenv("LOSSIFT_NUM_THREADS", "many")
    with pytest.raises(ArgumentError, match="LOSSIFT_NUM_THREADS: found 'many', allowed are whole numbers from 1"):
        lossift.select(trajectories(10), budget=5)
    monkeypatch.setenv("LOSSIFT_NUM_THREADS", "2")
    assert len(lossift.select(trajectories(10), budget=5)) == 5


def test_min_score_cuts_below_the_budget():
    losses = np.array([[2.0, 1.0], [1.0, 1.5], [4.0, 1.0]])
    chosen = lossift.select(losses, "learnability", budget=3, min_score=0.0)
    assert chosen.rows.tolist() == [0, 2]
    assert chosen.why(row=1)["because"] == "its score is below min_score 0.0"


# ------------------------------------------------------------------ Ctrl-C

INTERRUPTED = """
import signal, threading, time
import numpy as np, lossift
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background start with it ignored
losses = np.random.default_rng(0).random((300_000, 32), dtype=np.float32)
for _ in range(3):
    sent = []
    threading.Timer(1.0, lambda: (sent.append(time.monotonic()), signal.raise_signal(signal.SIGINT))).start()
    try:
        lossift.select(losses, budget=0.5, n_clusters=4000, n_iterations=1000)
        print("finished")
    except KeyboardInterrupt:
        print(time.monotonic() - sent[0])
"""


@pytest.mark.slow
def test_ctrl_c_works_within_a_second():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120, check=True)
    assert "finished" not in done.stdout
    assert min(map(float, done.stdout.split())) < 1  # the machine may be busy with something else
