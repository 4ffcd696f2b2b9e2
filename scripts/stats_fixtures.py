#!/usr/bin/env python3
"""Writes tests/data/stats/golden.json: results of published packages for random and degenerate numbers.

    python3 -m venv .runtime/stats
    .runtime/stats/bin/pip install scipy scikit-learn statsmodels krippendorff choix
    .runtime/stats/bin/python scripts/stats_fixtures.py

The file records the versions of the packages. Seeds are fixed: the same versions always write the same file.
"""

import importlib.metadata
import json
import math
import pathlib
import warnings

import choix
import krippendorff
import numpy as np
import scipy.stats
import statsmodels.api as sm
from scipy.special import ndtr, ndtri
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

OUT = pathlib.Path(__file__).parent.parent / "tests/data/stats/golden.json"
rng = np.random.default_rng(20260320)


def series(n, ties):
    """Two related series, with many ties or none."""
    x = rng.normal(size=n)
    y = 0.5 * x + rng.normal(size=n)
    return (np.round(x), np.round(y)) if ties else (x, y)


def summaries():
    for values in [rng.normal(size=50), 1e6 + rng.normal(size=30) * 1e-3, np.array([0.25, 0.5])]:
        yield {"values": values.tolist(), "mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}


def coefficients():
    pairs = [series(n, ties) for n in (2, 3, 10, 101) for ties in (False, True)]
    pairs.append((np.arange(20.0), np.arange(20.0)))
    pairs.append((np.arange(20.0), -(np.arange(20.0) ** 3)))
    pairs.append((np.array([0.0, -0.0, 1.0, 1.0]), np.array([1.0, 2.0, 2.0, 3.0])))
    pairs.append((np.full(5, 0.1), np.arange(5.0)))
    for x, y in pairs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = {
                "pearson": scipy.stats.pearsonr(x, y)[0],
                "spearman": scipy.stats.spearmanr(x, y)[0],
                "kendall": scipy.stats.kendalltau(x, y, variant="b")[0],
            }
        found = {name: None if math.isnan(value) else float(value) for name, value in found.items()}
        yield {"x": x.tolist(), "y": y.tolist(), **found}


def areas():
    for n, ties in [(4, False), (60, False), (60, True), (200, True)]:
        scores, other = series(n, ties)
        labels = other > 0
        labels[:2] = [True, False]
        yield {
            "scores": scores.tolist(),
            "labels": labels.tolist(),
            "area": float(roc_auc_score(labels, scores)),
        }
    # Hard predictions, as in attribute preservation.
    labels = rng.random(40) > 0.3
    predictions = np.where(rng.random(40) > 0.2, labels, ~labels) * 2.0 - 1.0
    yield {
        "scores": predictions.tolist(),
        "labels": labels.tolist(),
        "area": float(roc_auc_score(labels, predictions)),
    }


def normal():
    points = [-37.0, -20.0, -8.0, -6.0, -5.999, -3.0, -1.0, -1e-9, 0.0, 0.5, 1.96, 4.0, 6.5, 9.0]
    shares = [1e-300, 1e-20, 1e-6, 0.0249, 0.025, 0.3, 0.5, 0.7, 0.975, 1 - 1e-9]
    return {
        "cdf": [[x, float(ndtr(x))] for x in points],
        "quantile": [[p, float(ndtri(p))] for p in shares],
    }


def corrections():
    lists = [rng.random(12), rng.random(30) ** 4, np.array([0.01, 0.01, 0.01, 0.04]), np.array([0.0, 1.0, 0.5])]
    for p in lists:
        yield {
            "p": p.tolist(),
            "holm": multipletests(p, method="holm")[1].tolist(),
            "benjamini_hochberg": multipletests(p, method="fdr_bh")[1].tolist(),
        }


def intervals():
    """Intervals of one bootstrap distribution, which scipy returns: equal up to rounding."""
    for data in [rng.normal(size=25), rng.exponential(size=40), np.round(rng.normal(size=12))]:
        common = {"n_resamples": 400, "random_state": 7, "confidence_level": 0.9}
        bca = scipy.stats.bootstrap((data,), np.mean, method="BCa", **common)
        percentile = scipy.stats.bootstrap((data,), np.mean, method="percentile", **common)
        assert np.array_equal(bca.bootstrap_distribution, percentile.bootstrap_distribution)
        yield {
            "distribution": bca.bootstrap_distribution.tolist(),
            "estimate": float(np.mean(data)),
            "jackknife": [float(np.mean(np.delete(data, i))) for i in range(len(data))],
            "confidence": 0.9,
            "percentile": [float(end) for end in percentile.confidence_interval],
            "bca": [float(end) for end in bca.confidence_interval],
        }


def clustered():
    """Intervals of a mean over clusters; the draws differ, so they agree only within sampling error."""
    for clusters in (15, 60):
        counts = rng.integers(1, 20, size=clusters)
        sums = counts * rng.normal(0.6, 0.1, size=clusters) + rng.normal(0, 0.2, size=clusters)
        found = scipy.stats.bootstrap(
            (sums, counts),
            lambda s, c, axis: s.sum(axis=axis) / c.sum(axis=axis),
            paired=True,
            vectorized=True,
            method="BCa",
            n_resamples=200_000,
            batch=10_000,
            random_state=3,
        ).confidence_interval
        yield {
            "clusters": [[float(s), int(c)] for s, c in zip(sums, counts)],
            "interval": [float(end) for end in found],
        }


def regressions():
    def case(name, x, y, weights=None):
        x = np.round(x, 4)
        weights = np.ones(len(y)) if weights is None else weights
        # The default solver, run to convergence.
        fit = LogisticRegression(tol=1e-12, max_iter=100_000).fit(x, y, sample_weight=weights)
        newton = LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(x, y, sample_weight=weights)
        assert np.abs(fit.decision_function(x) - newton.decision_function(x)).max() < 1e-5, name
        return {
            "name": name,
            "columns": x.shape[1],
            "features": x.ravel().tolist(),
            "labels": y.tolist(),
            "weights": weights.tolist(),
            "coefficients": newton.coef_[0].tolist(),
            "intercept": float(newton.intercept_[0]),
            "decisions": newton.decision_function(x).tolist(),
        }

    x = rng.normal(size=(60, 4))
    y = x[:, 0] + rng.normal(size=60) > 0
    yield case("overlapping", x, y)
    yield case("separable", x, x[:, 1] > 0.1)
    yield case("constant column", np.column_stack([x[:, :2], np.full(60, 3.0), np.zeros(60)]), y)
    yield case("one positive", x, np.arange(60) == 17)
    yield case("weighted", x, y, rng.integers(0, 50, size=60).astype(float))
    yield case("large features", x * 1e3, y)
    unit = rng.normal(size=(30, 64))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    yield case("unit vectors, more columns than rows", unit, rng.random(30) > 0.5, np.full(30, 50.0))
    # Random shapes: every third problem is separable, every fourth has a constant column, every fifth has weights. They
    # have their own generator, so that later draws do not change.
    own = np.random.default_rng(20260321)
    for number in range(20):
        rows, columns = int(own.integers(8, 60)), int(own.integers(1, 12))
        x = own.normal(size=(rows, columns)) * 10 ** own.uniform(-2, 1)
        signal = x @ own.normal(size=columns)
        noise = 0 if number % 3 == 0 else signal.std()
        y = signal + own.normal(size=rows) * noise > np.quantile(signal, own.uniform(0.2, 0.8))
        y[:2] = [True, False] if noise else y[:2]
        if number % 4 == 1:
            x[:, 0] = own.normal()
        yield case(f"random {number}", x, y, own.integers(1, 9, size=rows).astype(float) if number % 5 == 4 else None)


def agreements():
    for units, annotators, missing, noise in [(30, 3, 0.0, 0.6), (40, 5, 0.4, 1.0), (12, 2, 0.2, 3.0)]:
        truth = rng.integers(1, 6, size=units)
        ratings = np.clip(np.round(truth + rng.normal(0, noise, size=(annotators, units))), 1, 5)
        ratings[rng.random(ratings.shape) < missing] = np.nan
        yield {
            "ratings": [[None if math.isnan(r) else r for r in unit] for unit in ratings.T.tolist()],
            **{
                level: float(krippendorff.alpha(reliability_data=ratings, level_of_measurement=level))
                for level in ("nominal", "ordinal", "interval")
            },
        }


def strengths():
    for methods, votes in [(3, 40), (6, 300), (12, 2000)]:
        truth = rng.normal(size=methods)
        pairs = []
        for _ in range(votes):
            a, b = rng.choice(methods, size=2, replace=False)
            pairs.append((a, b) if rng.random() < 1 / (1 + np.exp(truth[b] - truth[a])) else (b, a))
        found = choix.opt_pairwise(methods, pairs, alpha=0.0, method="Newton-CG", tol=1e-12)
        # Errors from a logistic regression without the first method, which fixes its strength at 0.
        design = np.zeros((votes, methods))
        for row, (winner, loser) in enumerate(pairs):
            design[row, winner], design[row, loser] = 1, -1
        flip = np.where(np.arange(votes) % 2, 1, -1)
        glm = sm.GLM((flip > 0).astype(float), design[:, 1:] * flip[:, None], family=sm.families.Binomial())
        fit = glm.fit(tol=1e-14, maxiter=200)
        centre = np.eye(methods) - 1 / methods
        covariance = np.zeros((methods, methods))
        covariance[1:, 1:] = fit.cov_params()
        reference = centre @ np.concatenate([[0], fit.params])
        assert np.abs(reference - (found - found.mean())).max() < 1e-6
        yield {
            "methods": methods,
            "pairs": [[int(a), int(b)] for a, b in pairs],
            "strengths": reference.tolist(),
            "errors": np.sqrt(np.diag(centre @ covariance @ centre)).tolist(),
        }


def student():
    points = [-40.0, -3.2, -1.0, -1e-6, 0.0, 0.4, 1.96, 12.7, 300.0]
    shares = [1e-6, 0.0249, 0.025, 0.3, 0.5, 0.7, 0.975, 0.9995]
    degrees = [1, 2, 3, 4, 7, 10, 29, 100, 999, 5000]
    return {
        "cdf": [[t, v, float(scipy.stats.t.cdf(t, v))] for v in degrees for t in points],
        "quantile": [[p, v, float(scipy.stats.t.ppf(p, v))] for v in degrees for p in shares],
    }


def linearised():
    """The error of a mean over clusters and its degrees of freedom (Bell and McCaffrey), by their matrices.

    The means of the clusters are regressed on a constant, weighted by size. The residuals are (I - H)y, and the matrices of
    the expectation of the squared and weighted residuals are computed explicitly. With clusters of equal size, the result
    is that of statsmodels.
    """
    for clusters in (2, 9, 40, 9):
        equal = clusters == 9
        counts = np.full(clusters, 4) if equal else rng.integers(1, 12, size=clusters)
        groups = np.repeat(np.arange(clusters), counts)
        values = rng.normal(size=clusters)[groups] + rng.normal(size=len(groups))
        sums = np.bincount(groups, weights=values)
        weights = counts / counts.sum()
        left = np.eye(clusters) - np.outer(np.ones(clusters), weights)
        expected = np.diag(left @ left.T)
        residuals = left @ (sums / counts)
        variance = np.sum((weights * residuals) ** 2 / expected)
        spread = left.T @ np.diag(weights / np.sqrt(expected))
        eigenvalues = np.linalg.eigvalsh(spread.T @ spread)
        degrees = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
        if equal:
            fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
            assert math.isclose(fit.bse[0], math.sqrt(variance), rel_tol=1e-9) and math.isclose(degrees, clusters - 1)
        reach = math.sqrt(variance) * scipy.stats.t.ppf(0.975, degrees)
        mean = values.mean()
        yield {
            "clusters": [[float(s), int(c)] for s, c in zip(sums, counts)],
            "error": math.sqrt(variance),
            "degrees": float(degrees),
            "interval": [float(mean - reach), float(mean + reach)],
        }


def studentised():
    """Owen's (2025) beta bootstrap t for a mean over clusters, in numpy."""
    draws = np.random.default_rng(20250810)
    for clusters, equal in ((6, True), (10, False), (30, False)):
        counts = np.full(clusters, 3) if equal else draws.integers(1, 10, size=clusters)
        sums = counts * (draws.exponential(size=clusters) + draws.normal(size=clusters) / np.sqrt(counts))
        mean, weights = sums.sum() / counts.sum(), counts / counts.sum()
        deviations = sums - mean * counts
        expected = 1 - 2 * weights + np.sum(weights**2)
        error = math.sqrt(np.sum((deviations / counts.sum()) ** 2 / expected))
        left = np.eye(clusters) - np.outer(np.ones(clusters), weights)
        spread = left.T @ np.diag(weights / np.sqrt(expected))
        eigenvalues = np.linalg.eigvalsh(spread.T @ spread)
        degrees = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
        drawn = draws.beta(0.5, 1.5, size=(400_000, clusters))
        drawn *= clusters / drawn.sum(axis=1, keepdims=True)
        moved = drawn @ deviations / (drawn @ counts)
        residuals = deviations - moved[:, None] * counts
        errors = np.sqrt(np.sum(drawn * residuals**2, axis=1) * clusters / (clusters - 1)) / (drawn @ counts)
        high, low = np.quantile(moved / errors, [0.975, 0.025])
        wider = scipy.stats.t.ppf(0.975, degrees) / scipy.stats.t.ppf(0.975, clusters - 1)
        yield {
            "clusters": [[float(s), int(c)] for s, c in zip(sums, counts)],
            "interval": [float(mean - wider * error * high), float(mean - wider * error * low)],
        }


def sign_flips():
    """All assignments of signs, as in scipy; it reports twice the smaller tail, ours both tails, which are equal."""
    samples = [rng.normal(size=10), rng.normal(0.6, 1, size=12), np.round(rng.normal(size=9)), np.zeros(4), np.ones(2)]
    for sums in samples:
        found = scipy.stats.permutation_test(
            (sums,), lambda x, axis: x.sum(axis=axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
        )
        yield {"sums": sums.tolist(), "p": float(found.pvalue)}


def pairwise():
    """Coefficients of columns with gaps, over the rows with numbers in both."""
    for n, gaps, ties in [(40, 0.2, False), (60, 0.5, True), (12, 0.7, True), (30, 0.0, True)]:
        columns = [series(n, ties)[0] for _ in range(2)]
        columns += [0.7 * columns[0] + columns[1], np.full(n, 0.25)]
        columns = [np.where(rng.random(n) < gaps, np.nan, np.round(column, 3)) for column in columns]
        matrices = {"pearson": [], "spearman": [], "kendall": []}
        for x in columns:
            for y in columns:
                both = ~(np.isnan(x) | np.isnan(y))
                a, b = x[both], y[both]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    enough = len(a) > 1
                    found = {
                        "pearson": scipy.stats.pearsonr(a, b)[0] if enough else math.nan,
                        "spearman": scipy.stats.spearmanr(a, b)[0] if enough else math.nan,
                        "kendall": scipy.stats.kendalltau(a, b, variant="b")[0] if enough else math.nan,
                    }
                for name, value in found.items():
                    matrices[name].append(None if math.isnan(value) else float(value))
        yield {
            "columns": [[None if math.isnan(v) else v for v in column.tolist()] for column in columns],
            **matrices,
        }


def tied_strengths():
    """Comparisons with ties, which count as half a win each, as in a weighted logistic regression."""
    for methods, votes in [(3, 60), (5, 400)]:
        truth = rng.normal(size=methods)
        wins = np.zeros((methods, methods))
        for _ in range(votes):
            a, b = rng.choice(methods, size=2, replace=False)
            if rng.random() < 0.2:
                wins[a, b] += 0.5
                wins[b, a] += 0.5
            elif rng.random() < 1 / (1 + np.exp(truth[b] - truth[a])):
                wins[a, b] += 1
            else:
                wins[b, a] += 1
        pairs = [(a, b) for a in range(methods) for b in range(methods) if wins[a, b] > 0]
        design = np.zeros((2 * len(pairs), methods))
        for row, (a, b) in enumerate(pairs):
            design[2 * row, a], design[2 * row, b] = 1, -1
            design[2 * row + 1] = -design[2 * row]
        # Each comparison occurs twice, once from either side, with half its weight.
        weights = np.repeat([wins[a, b] / 2 for a, b in pairs], 2)
        outcomes = np.tile([1.0, 0.0], len(pairs))
        glm = sm.GLM(outcomes, design[:, 1:], family=sm.families.Binomial(), freq_weights=weights)
        fit = glm.fit(tol=1e-14, maxiter=200)
        centre = np.eye(methods) - 1 / methods
        covariance = np.zeros((methods, methods))
        covariance[1:, 1:] = fit.cov_params()
        yield {
            "methods": methods,
            "wins": [[a, b, wins[a, b]] for a, b in pairs],
            "strengths": (centre @ np.concatenate([[0], fit.params])).tolist(),
            "errors": np.sqrt(np.diag(centre @ covariance @ centre)).tolist(),
        }


packages = ["numpy", "scipy", "scikit-learn", "statsmodels", "krippendorff", "choix"]
golden = {
    "versions": {name: importlib.metadata.version(name) for name in packages},
    "summaries": list(summaries()),
    "coefficients": list(coefficients()),
    "areas": list(areas()),
    "normal": normal(),
    "corrections": list(corrections()),
    "intervals": list(intervals()),
    "clustered": list(clustered()),
    "regressions": list(regressions()),
    "agreements": list(agreements()),
    "strengths": list(strengths()),
    "student": student(),
    "linearised": list(linearised()),
    "studentised": list(studentised()),
    "sign_flips": list(sign_flips()),
    "pairwise": list(pairwise()),
    "tied_strengths": list(tied_strengths()),
}
OUT.parent.mkdir(parents=True, exist_ok=True)
# One case per line: the file is small, and a diff shows the changed case.
lines = []
for name, cases in golden.items():
    if isinstance(cases, list):
        body = ",\n".join(json.dumps(case, allow_nan=False) for case in cases)
        lines.append(f"{json.dumps(name)}: [\n{body}\n]")
    else:
        lines.append(f"{json.dumps(name)}: {json.dumps(cases, allow_nan=False)}")
OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
