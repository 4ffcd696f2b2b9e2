#!/usr/bin/env python3
"""Writes tests/data/stats/within.json and tests/data/stats/benchmarks.json, computed with numpy, scipy and
scikit-learn.

    python3 -m venv .runtime/stats
    .runtime/stats/bin/pip install scipy scikit-learn
    .runtime/stats/bin/python scripts/benchmarks_fixtures.py

within.json: correlations within prompts, with their intervals, and their means by family. benchmarks.json: means,
areas and shares of a run with two kinds of prompt. Seeds are fixed: the same versions always write the same files.
"""

import json
import math
import pathlib

import numpy as np
import scipy.stats
from sklearn.metrics import roc_auc_score

OUT = pathlib.Path(__file__).parent.parent / "tests/data/stats"
GROUPS = 20


def residuals(values, prompts):
    """What a regression on one dummy variable for each prompt leaves."""
    names = np.unique(prompts)
    dummies = (prompts[:, None] == names[None, :]).astype(float)
    fitted, *_ = np.linalg.lstsq(dummies, values, rcond=None)
    return values - dummies @ fitted


def correlate(a, b):
    if np.ptp(a) < 1e-12 or np.ptp(b) < 1e-12:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def ranks(values, prompts):
    ranked = np.empty(len(values))
    for prompt in np.unique(prompts):
        of = prompts == prompt
        ranked[of] = scipy.stats.rankdata(values[of])
    return ranked


def within(x, y, prompts, coefficient):
    if len(x) == 0:
        return None
    if coefficient == "pearson":
        return correlate(residuals(x, prompts), residuals(y, prompts))
    if coefficient == "spearman":
        return correlate(residuals(ranks(x, prompts), prompts), residuals(ranks(y, prompts), prompts))
    first, second = np.triu_indices(len(x), 1)
    same = prompts[first] == prompts[second]
    dx = np.sign(x[first] - x[second])[same]
    dy = np.sign(y[first] - y[second])[same]
    free = np.sum(dx != 0) * np.sum(dy != 0)
    return float(np.sum(dx * dy) / math.sqrt(free)) if free else None


def jackknife_groups(identities):
    """Identities in at most 20 groups: the largest first, each into the smallest group."""
    order = list(dict.fromkeys(identities))
    sizes = {name: identities.count(name) for name in order}
    filled, group_of = [0] * GROUPS, {}
    for name in sorted(order, key=lambda name: -sizes[name]):
        smallest = int(np.argmin(filled))
        filled[smallest] += sizes[name]
        group_of[name] = smallest
    return np.array([group_of[name] for name in identities])


def paired(x, y, prompts):
    """Rows with both numbers whose prompt has at least two of them."""
    both = np.array([a is not None and b is not None for a, b in zip(x, y, strict=True)])
    counts = {prompt: int(np.sum(both & (prompts == prompt))) for prompt in np.unique(prompts)}
    return both & np.array([counts[prompt] > 1 for prompt in prompts])


def cell(x, y, prompts, groups, coefficient):
    kept = paired(x, y, prompts)
    floats = [np.array([float("nan") if v is None else v for v in column]) for column in (x, y)]
    a, b, p, g = floats[0][kept], floats[1][kept], prompts[kept], groups[kept]
    value = within(a, b, p, coefficient)
    found = {"value": value, "n": int(kept.sum()), "prompts": len(set(p.tolist())), "low": None, "high": None}
    present = sorted(set(g.tolist()))
    if value is None or len(present) < 5:
        return found
    without = [within(a[g != group], b[g != group], p[g != group], coefficient) for group in present]
    if any(each is None for each in without):
        return found
    z = np.arctanh(np.clip(without, -1 + 1e-9, 1 - 1e-9))
    count = len(z)
    error = math.sqrt((count - 1) / count * np.sum((z - z.mean()) ** 2))
    reach = scipy.stats.t.ppf(0.975, count - 1) * error
    middle = math.atanh(max(-1 + 1e-9, min(1 - 1e-9, value)))
    return {**found, "low": math.tanh(middle - reach), "high": math.tanh(middle + reach)}


def within_case(rng, prompts, methods, people, ties, families):
    """Images of several methods for each prompt; a prompt's own level is added to all metrics."""
    columns = [[] for _ in families]
    of_prompts, identities = [], []
    level = rng.normal(size=prompts) * 2
    for prompt in range(prompts):
        for _ in range(methods):
            own = rng.normal()
            for place, column in enumerate(columns):
                value = level[prompt] + (0.7 * own if place % 2 else -0.3 * own) + rng.normal()
                value = float(np.round(value)) if ties else float(value)
                column.append(None if rng.random() < 0.15 else value)
            of_prompts.append(prompt)
            identities.append(f"person {prompt % people}")
    prompts_of, groups = np.array(of_prompts), jackknife_groups(identities)
    cells = []
    for coefficient in ("kendall", "spearman", "pearson"):
        for row in range(len(columns)):
            for column in range(row):
                found = cell(columns[row], columns[column], prompts_of, groups, coefficient)
                cells.append({"coefficient": coefficient, "row": row, "column": column, **found})
    means = {}
    for each in cells:
        if each["coefficient"] == "kendall" and each["value"] is not None:
            key = tuple(sorted((families[each["row"]], families[each["column"]])))
            means.setdefault(key, []).append(abs(each["value"]))
    return {
        "columns": columns,
        "prompts": of_prompts,
        "identities": identities,
        "cells": cells,
        "families": families,
        "family_pairs": [[a, b, len(of), float(np.mean(of))] for (a, b), of in sorted(means.items())],
    }


def optional(rng, values, share):
    return [None if rng.random() < share else float(value) for value in values]


def benchmark_case(rng, samples, spread):
    kinds = rng.choice(["T", "H"], size=samples).tolist()
    noise = np.where(np.array(kinds) == "T", 0.01, spread)
    case = {
        "kinds": kinds,
        "identities": [f"person {at}" for at in rng.integers(0, 9, size=samples)],
        "clip_n": optional(rng, 0.2 + noise * rng.normal(size=samples), 0.05),
        "clip_t": optional(rng, 0.25 + 0.1 * rng.normal(size=samples), 0.05),
        "ips": optional(rng, rng.random(samples), 0.1),
        "attributes": {},
    }
    for name in ("Male", "Young"):
        targets = rng.random(samples) < 0.4
        right = rng.random(samples) < 0.75
        case["attributes"][name] = [
            None if rng.random() < 0.1 else [bool(target), bool(target == ok)]
            for target, ok in zip(targets, right, strict=True)
        ]
    # An attribute that no person of one kind has counts for the other kind only.
    case["attributes"]["Big_Nose"] = [
        [kind == "H" and bool(rng.random() < 0.5), bool(rng.random() < 0.5)] for kind in kinds
    ]
    case["expected"] = [
        expected(case, kind, policy) for kind in ("T", "H", None) for policy in ("stellar", "toolkit", "none")
    ]
    return case


def expected(case, kind, policy):
    """The numbers of one kind of prompt, or of the whole run, from the definition of the penalty."""
    chosen = [at for at in range(len(case["kinds"])) if kind is None or case["kinds"][at] == kind]
    known = [case["clip_n"][at] for at in chosen if case["clip_n"][at] is not None]
    threshold = 2 * float(np.std(known, ddof=1))

    def verdict(at):
        with_prompt, baseline = case["clip_t"][at], case["clip_n"][at]
        if policy == "none":
            return "passed"
        if with_prompt is None or baseline is None:
            return "failed" if policy == "toolkit" else "undecided"
        return "passed" if baseline + threshold < with_prompt else "failed"

    ips = []
    for at in chosen:
        value, of = case["ips"][at], verdict(at)
        if of == "passed" and value is not None:
            ips.append(value)
        elif of == "failed" and (value is not None or policy == "toolkit") and is_measured(case, at):
            ips.append(0.0)
    areas, shares = [], {}
    for name, column in case["attributes"].items():
        targets, answers, right = [], [], []
        for at in chosen:
            of = verdict(at)
            if column[at] is None or of == "undecided":
                continue
            target, predicted = column[at]
            if of == "failed":
                predicted = not predicted if policy == "toolkit" else not target
            targets.append(target)
            answers.append(1.0 if predicted else -1.0)
            right.append(float(predicted == target))
        if len(set(targets)) == 2:
            areas.append(roc_auc_score(targets, answers))
        if right:
            shares[name] = float(np.mean(right))
    return {
        "kind": kind,
        "policy": policy,
        "penalised": sum(verdict(at) == "failed" for at in chosen),
        "ips": float(np.mean(ips)),
        "area": float(np.mean(areas)),
        "shares": shares,
    }


def is_measured(case, at):
    """A sample without a number was not measured: it has no reason either."""
    return case["ips"][at] is not None


def write(name, value):
    (OUT / name).write_text(json.dumps(value) + "\n")


def main():
    rng = np.random.default_rng(20261129)
    relation = ["personalised", "personalised", "text_to_image", "relation"]
    write(
        "within.json",
        [
            within_case(rng, 30, 3, 8, False, relation),
            within_case(rng, 25, 4, 30, True, relation),
            within_case(rng, 6, 2, 3, False, relation[:3]),
        ],
    )
    write("benchmarks.json", [benchmark_case(rng, 80, 0.15), benchmark_case(rng, 60, 0.02)])


if __name__ == "__main__":
    main()
