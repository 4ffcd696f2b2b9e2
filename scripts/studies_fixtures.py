#!/usr/bin/env python3
"""Writes tests/data/stats/studies.json: results of studies, computed a second time in numpy and scipy.

    python3 -m venv .runtime/studies
    .runtime/studies/bin/pip install numpy scipy choix krippendorff
    .runtime/studies/bin/python scripts/studies_fixtures.py

Answers are drawn from known strengths with an effect of each prompt. First-choice shares, their studentised bootstrap
over prompts (with the same random numbers as the service), Plackett-Luce strengths, their errors over prompts,
Krippendorff's alpha and sample sizes are computed without any code of the service. The strengths are also compared
with choix, an independent package. Seeds are fixed: the same versions write the same file.
"""

import importlib.metadata
import json
import math
import pathlib
from itertools import combinations

import choix
import krippendorff
import numpy as np
import scipy.optimize
import scipy.stats

OUT = pathlib.Path(__file__).parent.parent / "tests/data/stats/studies.json"
WORD = (1 << 64) - 1


class Xoshiro:
    """xoshiro256++ seeded by SplitMix64 (Blackman and Vigna 2021)."""

    def __init__(self, seed):
        self.state = []
        for _ in range(4):
            seed = (seed + 0x9E3779B97F4A7C15) & WORD
            z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & WORD
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
            self.state.append(z ^ (z >> 31))

    def unit(self):
        s = self.state
        turn = lambda x, by: ((x << by) | (x >> (64 - by))) & WORD
        result = (turn((s[0] + s[3]) & WORD, 23) + s[0]) & WORD
        t = (s[1] << 17) & WORD
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = turn(s[3], 45)
        return (result >> 11) / (1 << 53)

    def beta(self):
        while True:
            x, y = self.unit(), self.unit()
            if x * x + y * y < 1:
                return x * x


def student(p, degrees):
    """Student's quantile, between whole degrees linear in 1/degrees, from 50 on Abramowitz and Stegun 26.7.5."""
    if degrees > 50:
        z = scipy.stats.norm.ppf(p)
        g = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + g[0] / degrees + g[1] / degrees**2 + g[2] / degrees**3
    below = math.floor(max(degrees, 1))
    low, high = scipy.stats.t.ppf(p, below), scipy.stats.t.ppf(p, below + 1)
    return low + (high - low) * (1 / below - 1 / max(degrees, 1)) * below * (below + 1)


def share_interval(sums, counts, resamples=4_000):
    """The studentised beta bootstrap of a mean over clusters (Owen 2025; Bell and McCaffrey 2002)."""
    filled = counts > 0
    sums, counts = sums[filled], counts[filled].astype(float)
    clusters = len(counts)
    if clusters < 2:
        return None
    if counts.max() == 1 and sums.sum() == round(sums.sum()):
        # One answer for each prompt: they are independent, and Wilson's interval is used.
        found = scipy.stats.binomtest(round(sums.sum()), clusters).proportion_ci(0.95, "wilson")
        return [float(found.low), float(found.high)]
    mean, weights = sums.sum() / counts.sum(), counts / counts.sum()
    deviations = sums - mean * counts
    expected = 1 - 2 * weights + np.sum(weights**2)
    error = math.sqrt(np.sum((deviations / counts.sum()) ** 2 / expected))
    left = np.eye(clusters) - np.outer(np.ones(clusters), weights)
    spread = left.T @ np.diag(weights / np.sqrt(expected))
    eigenvalues = np.linalg.eigvalsh(spread.T @ spread)
    degrees = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    random = Xoshiro(0)
    drawn = np.array([[random.beta() for _ in range(clusters)] for _ in range(resamples)])
    drawn *= clusters / drawn.sum(axis=1, keepdims=True)
    moved = drawn @ deviations / (drawn @ counts)
    residuals = deviations - moved[:, None] * counts
    if not residuals.any():
        # Always or never chosen: Wilson's interval over prompts.
        z2 = scipy.stats.norm.ppf(0.975) ** 2
        assert mean in (0, 1)
        return [0.0, z2 / (clusters + z2)] if mean == 0 else [clusters / (clusters + z2), 1.0]
    distances = drawn @ deviations / np.sqrt(np.sum(drawn * residuals**2, axis=1))
    high, low = np.quantile(distances, [0.975, 0.025])
    unit = error * student(0.975, degrees) / student(0.975, clusters - 1) * math.sqrt((clusters - 1) / clusters)
    return [max(0.0, mean - unit * high), min(1.0, mean - unit * low)]


def strengths(methods, choices, prior):
    """Maximum likelihood of first choices, and the sandwich covariance over clusters, dense and unoptimised."""
    terms = [(list(s), s.index(c), t) for s, c, t, _ in choices]
    if prior:
        together = {pair for s, *_ in choices for pair in combinations(sorted(s), 2)}
        terms += [([a, b], at, prior) for a, b in sorted(together) for at in (0, 1)]

    def loss(theta):
        return -sum(t * (theta[s][at] - scipy.special.logsumexp(theta[s])) for s, at, t in terms)

    def probabilities(theta, s):
        return np.exp(theta[s] - scipy.special.logsumexp(theta[s]))

    def information(theta):
        found = np.zeros((methods, methods))
        for s, _, t in terms:
            p = probabilities(theta, s)
            found[np.ix_(s, s)] += t * (np.diag(p) - np.outer(p, p))
        return found

    def gradient(theta):
        found = np.zeros(methods)
        for s, at, t in terms:
            found[s] -= t * probabilities(theta, s)
            found[s[at]] += t
        return found

    theta = scipy.optimize.minimize(loss, np.zeros(methods), method="BFGS").x
    for _ in range(20):
        theta = theta + np.linalg.pinv(information(theta)) @ gradient(theta)
    theta -= theta.mean()
    inverse = np.linalg.pinv(information(theta))
    clusters = sorted({cluster for *_, cluster in choices})
    scores = np.zeros((len(clusters), methods))
    for s, c, t, cluster in choices:
        at = clusters.index(cluster)
        scores[at, list(s)] -= t * probabilities(theta, list(s))
        scores[at, c] += t
    g = len(clusters)
    return theta, inverse @ scores.T @ scores @ inverse * g / (g - 1), g


def study(random, methods, k, prompts, answers, truth, spread, ties=0.0):
    sets = list(combinations(range(methods), k))
    random.shuffle(sets)
    rows = []
    for prompt in range(prompts):
        effect = np.array(truth) + spread * random.normal(size=methods)
        shown = list(sets[prompt % len(sets)])
        for annotator in range(random.integers(1, answers + 1)):
            order = [int(at) for at in random.permutation(shown)]
            p = np.exp(effect[shown] - scipy.special.logsumexp(effect[shown]))
            chosen = None if random.random() < ties else int(random.choice(shown, p=p))
            rows.append({"item": prompt, "set": [int(at) for at in shown], "shown": order, "annotator": annotator, "chosen": chosen})
    return rows


def results(methods, k, rows):
    choices, units = [], {}
    for row in rows:
        chosen = [(row["chosen"], 1.0)] if row["chosen"] is not None else [(at, 1 / k) for at in row["set"]]
        choices += [(row["set"], at, times, row["item"]) for at, times in chosen]
        units.setdefault(row["item"], []).append(methods if row["chosen"] is None else row["chosen"])
    prompts = max(row["item"] for row in rows) + 1
    won, shown = np.zeros((methods, prompts)), np.zeros((methods, prompts))
    for s, c, t, cluster in choices:
        won[c, cluster] += t
        shown[list(s), cluster] += t
    always = any(won[at].sum() in (0, shown[at].sum()) for at in range(methods))
    theta, covariance, clusters = strengths(methods, choices, 0.5 if always else 0.0)
    if not always and all(row["chosen"] is not None for row in rows):
        # choix takes the winner and the losers of each choice.
        data = [(row["chosen"], [at for at in row["set"] if at != row["chosen"]]) for row in rows]
        other = choix.opt_top1(methods, data, tol=1e-12)
        assert np.allclose(theta, other - np.mean(other), atol=1e-4), (theta, other)
    reach = np.sqrt(np.diag(covariance)) * scipy.stats.t.ppf(0.975, clusters - 1)
    # One column per answer of an item. The annotators do not matter.
    most = max(len(unit) for unit in units.values())
    ratings = [[unit[at] if at < len(unit) else np.nan for unit in units.values()] for at in range(most)]
    alpha = float(krippendorff.alpha(reliability_data=ratings, level_of_measurement="nominal")) if most > 1 else None
    placed = [sum(row["chosen"] is not None and row["shown"].index(row["chosen"]) == at for row in rows) for at in range(k)]
    return {
        "methods": methods, "images": k, "answers": rows, "penalised": always,
        "shares": (won.sum(axis=1) / shown.sum(axis=1)).tolist(),
        "intervals": [share_interval(won[at], np.round(shown[at])) for at in range(methods)],
        "strengths": theta.tolist(), "reaches": reach.tolist(), "alpha": alpha, "positions": placed,
        "difference_error": float(math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])),
    }


def sample_sizes():
    z = scipy.stats.norm.ppf
    for p0, p, alpha, power in ((0.25, 0.35, 0.05, 0.8), (0.5, 0.45, 0.01, 0.9), (0.125, 0.4, 0.1, 0.5)):
        reach = z(1 - alpha / 2) * math.sqrt(p0 * (1 - p0)) + z(power) * math.sqrt(p * (1 - p))
        yield {"p0": p0, "p": p, "alpha": alpha, "power": power, "answers": float((reach / (p - p0)) ** 2)}


def main():
    random = np.random.default_rng(20260419)
    cases = [
        results(4, 4, study(random, 4, 4, 12, 5, [0.6, 0.2, -0.1, -0.7], 0.5)),
        results(6, 3, study(random, 6, 3, 40, 3, [0.8, 0.4, 0.1, -0.2, -0.4, -0.7], 0.0)),
        results(3, 2, study(random, 3, 2, 18, 6, [0.4, 0.0, -0.4], 0.8, ties=0.2)),
        results(4, 4, study(random, 4, 4, 10, 3, [2.0, 1.5, 1.0, -9.0], 0.2)),
        results(5, 4, study(random, 5, 4, 50, 1, [0.6, 0.3, 0.0, -0.3, -0.6], 0.0)),
    ]
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "choix", "krippendorff")}
    lines = ",\n".join(json.dumps(case, allow_nan=False) for case in cases)
    sizes = json.dumps(list(sample_sizes()), allow_nan=False)
    OUT.write_text(f'{{"versions": {json.dumps(versions)},\n"sample_sizes": {sizes},\n"studies": [\n{lines}\n]}}\n')


main()
