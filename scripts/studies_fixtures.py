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
import scipy.special
import scipy.stats

from second_statistics import share_interval, strengths

OUT = pathlib.Path(__file__).parent.parent / "tests/data/stats/studies.json"
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
    theta, covariance, curvature, clusters = strengths(methods, choices, 0.5 if always else 0.0)
    if not always and all(row["chosen"] is not None for row in rows):
        # choix takes the winner and the losers of each choice.
        data = [(row["chosen"], [at for at in row["set"] if at != row["chosen"]]) for row in rows]
        other = choix.opt_top1(methods, data, tol=1e-12)
        assert np.allclose(theta, other - np.mean(other), atol=1e-4), (theta, other)
    # A penalised fit has the larger one of the errors over prompts and of the curvature.
    kinds = [covariance, curvature] if always else [covariance]
    reach = np.sqrt(np.max([np.diag(of) for of in kinds], axis=0)) * scipy.stats.t.ppf(0.975, clusters - 1)
    difference = max(of[0, 0] + of[1, 1] - 2 * of[0, 1] for of in kinds)
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
        "difference_error": float(math.sqrt(difference)),
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
