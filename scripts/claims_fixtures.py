#!/usr/bin/env python3
"""Writes tests/data/stats/claims.json: claims about metrics and methods, computed a second time in numpy and scipy.

    python3 -m venv .runtime/claims
    .runtime/claims/bin/pip install numpy scipy
    .runtime/claims/bin/python scripts/claims_fixtures.py

Differences of Kendall's tau with their tests, shares of first places, penalised strengths of pairs, and variance
components of swapped photos are computed without any code of the service, with the same random numbers. Seeds are
fixed: the same versions write the same file.
"""

import importlib.metadata
import json
import math
import pathlib

import numpy as np
import scipy.stats

from second_statistics import Xoshiro, beta_weights, degrees_of_freedom, share_interval, strengths, student

OUT = pathlib.Path(__file__).parent.parent / "tests/data/stats/claims.json"
HIGHER = {"clip_t": 1, "dino": 1, "dreamsim": -1, "ips": 1}


def number(value):
    return None if value is None else float(value)


# Differences of Kendall's tau.


def tau_difference(s):
    return s[..., 0] / np.sqrt(s[..., 2] * s[..., 3]) - s[..., 1] / np.sqrt(s[..., 2] * s[..., 4])


def gradient(s):
    """By complex steps, which are exact to rounding."""
    step = 1e-30
    return np.stack([np.imag(tau_difference(s + 1j * step * np.eye(5)[at])) / step for at in range(5)], axis=-1)


def smooth(sums, counts, resamples):
    """The studentised bootstrap of a smooth function of sums over clusters."""
    filled = counts > 0
    sums, counts = sums[filled], counts[filled].astype(float)
    total = sums.sum(axis=0)
    value = float(tau_difference(total))
    contributions = sums @ gradient(total)
    weights, clusters = counts / counts.sum(), len(counts)
    expected = 1 - 2 * weights + np.sum(weights**2)
    error = math.sqrt(np.sum(contributions**2 / expected))
    if clusters < 3 or error < 1e-12:
        return {"difference": value, "low": None, "high": None, "p": None}
    drawn = beta_weights(clusters, resamples)
    moved = drawn @ sums
    spread = np.sum(drawn * (sums @ gradient(moved).T).T ** 2, axis=1)
    distances = (tau_difference(moved) - value) / np.sqrt(spread)
    wider = student(0.975, degrees_of_freedom(weights)) / student(0.975, clusters - 1)
    unit = error * wider * math.sqrt((clusters - 1) / clusters)
    high, low = np.quantile(distances, [0.975, 0.025])
    side = min(np.sum(distances >= value / unit), np.sum(distances <= value / unit))
    p = min(1.0, 2 * (1 + side) / (1 + resamples))
    return {"difference": value, "low": value - unit * high, "high": value - unit * low, "p": float(p)}


def holm(p, tests):
    adjusted, running = [None] * len(p), 0.0
    for place, at in enumerate(sorted(range(len(p)), key=lambda at: p[at])):
        running = min(1.0, max(running, (tests - place) * p[at]))
        adjusted[at] = running
    return adjusted


def tau_case(random, people, runs, metrics, against, resamples, missing):
    identities, scores, votes = [], {code: [] for code in metrics}, []
    for person in range(people):
        for _ in range(random.integers(1, 6)):
            identities.append(f"p{person}")
            quality = random.normal(size=runs)
            for at, code in enumerate(metrics):
                weight = [0.9, 0.5, 0.2, 0.85][at % 4]
                found = weight * quality + random.normal(size=runs) * 0.8
                # Rounded, so that there are ties.
                row = [None if random.random() < missing else HIGHER[code] * round(float(x), 1) for x in found]
                scores[code].append(row)
            for _ in range(random.integers(1, 4)):
                a, b = (int(x) for x in random.choice(runs, size=2, replace=False))
                gap = quality[a] - quality[b] + random.normal()
                votes.append([len(identities) - 1, a, b, 0 if abs(gap) < 0.3 else int(math.copysign(1, gap))])

    def order(code, name, a, b):
        x, y = scores[code][name][a], scores[code][name][b]
        return None if x is None or y is None else HIGHER[code] * ((x > y) - (x < y))

    orders = {code: [order(code, name, a, b) for name, a, b, _ in votes] for code in metrics}
    human = [vote[3] for vote in votes]

    def tau(code, also=None):
        kept = [at for at, x in enumerate(orders[code]) if x is not None and (also is None or orders[also][at] is not None)]
        # tau-b of pairs with their reversal, which has as many pairs on either side.
        x = np.array([orders[code][at] for at in kept])
        y = np.array([human[at] for at in kept])
        return float(np.sum(x * y) / math.sqrt(np.sum(x**2) * np.sum(y**2)))

    reference = against or max(sorted(metrics), key=tau)
    people_of = sorted(set(identities))
    expected = []
    for code in sorted(metrics):
        sums, counts = np.zeros((len(people_of), 5)), np.zeros(len(people_of), dtype=int)
        pairs = 0
        for at, (name, *_ , preference) in enumerate(votes):
            a, b = orders[code][at], orders[reference][at]
            if a is None or b is None:
                continue
            pairs += 1
            cluster = people_of.index(identities[name])
            sums[cluster] += [preference * a, preference * b, abs(preference), abs(a), abs(b)]
            counts[cluster] += any((preference, a, b))
        of = {"metric": code, "pairs": pairs, "clusters": int(np.sum(counts > 0)), "tau": tau(code, reference)}
        of["tau_reference"] = tau(reference, code)
        if code == reference:
            of |= {"difference": None, "low": None, "high": None, "p": None}
        else:
            # In the order in which clusters appear.
            first = sorted(range(len(people_of)), key=lambda at: identities.index(people_of[at]))
            of |= smooth(sums[first], counts[first], resamples)
        expected.append(of)
    tested = [of for of in expected if of["p"] is not None]
    k = len(metrics)
    for of, p in zip(tested, holm([of["p"] for of in tested], k - 1 if against else k * (k - 1) // 2)):
        of["p_holm"] = p
    return {
        "identities": identities, "runs": runs, "scores": scores, "votes": votes, "against": against,
        "resamples": resamples, "reference": reference, "expected": expected,
    }


# Shares of first places.


def first_places(random, runs, people, single):
    identities, scores, votes = [], [], []
    for person in range(people):
        for _ in range(1 if single else random.integers(1, 5)):
            identities.append(f"p{person}")
            row = random.normal(size=runs) + np.linspace(0.8, 0, runs)
            scores.append([float(x) if single else round(float(x) * 2) / 2 for x in row])
            for _ in range(random.integers(0, 3)):
                a, b = (int(x) for x in random.choice(runs, size=2, replace=False))
                votes.append([len(identities) - 1, a, b, int(random.integers(-1, 2))])
    names = list(dict.fromkeys(identities))

    def shares(rows, clusters, of):
        """Rows of cluster, runs that were compared, and runs that are first."""
        sums, counts = np.zeros((runs, clusters)), np.zeros((runs, clusters))
        for cluster, shown, first in rows:
            for run in shown:
                counts[run, cluster] += 1
            for run in first:
                sums[run, cluster] += 1 / len(first)
        found = []
        for run in range(runs):
            total = counts[run].sum()
            interval = share_interval(sums[run], counts[run]) if total else None
            found.append({"share": sums[run].sum() / total if total else None, "interval": interval})
        return found

    def best(row, shown):
        return [run for run in shown if row[run] == max(row[each] for each in shown)]

    everything = list(range(runs))
    by_metric = [(names.index(of), everything, best(row, everything)) for of, row in zip(identities, scores)]
    asked = sorted({vote[0] for vote in votes})
    chosen = lambda a, b, preference: [a, b] if preference == 0 else [a if preference > 0 else b]
    by_people = [(asked.index(name), [a, b], chosen(a, b, of)) for name, a, b, of in votes]
    on_answers = [(0, [a, b], best(scores[name], [a, b])) for name, a, b, _ in votes]
    answered = np.zeros((2, runs))
    for _, shown, first in on_answers:
        for run in shown:
            answered[1, run] += 1
        for run in first:
            answered[0, run] += 1 / len(first)
    return {
        "identities": identities, "scores": scores, "votes": votes, "runs": runs,
        "metric": shares(by_metric, len(names), None), "people": shares(by_people, len(asked), None),
        "share_of_answers": [number(x / n) if n else None for x, n in answered.T],
    }


# Penalised strengths of pairs.


def penalised(random, methods, prompts, each):
    truth = np.linspace(2.5, -2.5, methods)
    votes = []
    for prompt in range(prompts):
        a, b = (int(x) for x in random.choice(methods, size=2, replace=False))
        for _ in range(each):
            wins = random.random() < 1 / (1 + math.exp(truth[b] - truth[a]))
            votes.append([prompt, a, b, 1 if wins else -1])
    # The last method never wins.
    votes = [[p, a, b, (-1 if a == methods - 1 else 1) if methods - 1 in (a, b) else of] for p, a, b, of in votes]
    choices = [((a, b), a if of > 0 else b, 1.0, prompt) for prompt, a, b, of in votes]
    theta, covariance, curvature, clusters = strengths(methods, choices, 0.5)
    reach = np.sqrt(np.maximum(np.diag(covariance), np.diag(curvature))) * scipy.stats.t.ppf(0.975, clusters - 1)
    return {"methods": methods, "votes": votes, "strengths": theta.tolist(), "reaches": reach.tolist()}


# Variance components of swapped photos.


def components(groups):
    """Henderson's first method for nested random effects with unequal numbers, from its definition."""
    numbers = [[np.array(unit) for unit in group] for group in groups]
    everything = np.concatenate([unit for group in numbers for unit in group])
    n, a, b = len(everything), len(numbers), sum(len(group) for group in numbers)
    sizes = [[len(unit) for unit in group] for group in numbers]
    if b == a:
        return None
    means = [np.concatenate(group).mean() for group in numbers]
    rest = sum(((unit - unit.mean()) ** 2).sum() for group in numbers for unit in group)
    units = sum(len(u) * (u.mean() - mean) ** 2 for group, mean in zip(numbers, means) for u in group)
    between = sum(sum(of) * (mean - everything.mean()) ** 2 for of, mean in zip(sizes, means))
    squares = sum(sum(m * m for m in of) / sum(of) for of in sizes)
    rest = rest / (n - b) if n > b else None
    size = (n - squares) / (b - a)
    unit = units / (b - a) if rest is None else max(0.0, (units / (b - a) - rest) / size)
    group = None
    if a > 1:
        of_unit = (squares - sum(m * m for of in sizes for m in of) / n) / (a - 1)
        of_group = (n - sum(sum(of) ** 2 for of in sizes) / n) / (a - 1)
        group = max(0.0, (between / (a - 1) - (rest or 0.0) - of_unit * unit) / of_group)
    within = unit + (rest or 0.0)
    total = None if group is None else within + group
    share = lambda part: part / total if total else None
    return {
        "spread": math.sqrt(within), "share": share(within),
        "photo_spread": None if rest is None else math.sqrt(unit),
        "rest_spread": None if rest is None else math.sqrt(rest),
        "photo_share": None if rest is None else share(unit),
    }


def dense(groups):
    """The same from expected quadratic forms: projections and traces instead of formulas of sums."""
    labels = [(g, u) for g, group in enumerate(groups) for u, unit in enumerate(group) for _ in unit]
    y = np.array([x for group in groups for unit in group for x in unit])
    zg = np.array([[g == other for other in range(len(groups))] for g, _ in labels], dtype=float)
    units = sorted(set(labels))
    zu = np.array([[label == unit for unit in units] for label in labels], dtype=float)
    project = lambda z: z @ np.linalg.pinv(z)
    one = project(np.ones((len(y), 1)))
    forms = [project(zg) - one, project(zu) - project(zg), np.eye(len(y)) - project(zu)]
    parts = [zg @ zg.T, zu @ zu.T, np.eye(len(y))]
    kept = 3 if len(units) < len(y) else 2
    matrix = np.array([[np.trace(form @ part) for part in parts[:kept]] for form in forms[:kept]])
    return np.linalg.solve(matrix, [y @ form @ y for form in forms[:kept]])


def bca(people, of, resamples=4_000):
    clusters, random = len(people), Xoshiro(0)

    def statistic(times):
        return of([group for person, count in zip(people, times) for _ in range(count) for group in person])

    estimate = statistic([1] * clusters)
    found = []
    for _ in range(resamples):
        times = [0] * clusters
        for _ in range(clusters):
            times[random.below(clusters)] += 1
        value = statistic(times)
        if value is not None:
            found.append(value)
    found = np.array(found)
    left = np.array([statistic([int(at != out) for at in range(clusters)]) for out in range(clusters)])
    norm = scipy.stats.norm
    bias = norm.ppf((np.sum(found < estimate) + np.sum(found <= estimate)) / (2 * len(found)))
    away = left.mean() - left
    acceleration = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
    # Widened for few clusters (Hesterberg 2015).
    z = scipy.stats.t.ppf(0.975, clusters - 1) * math.sqrt(clusters / (clusters - 1))
    moved = [norm.cdf(bias + (bias + at) / (1 - acceleration * (bias + at))) for at in (-z, z)]
    return [float(x) for x in np.quantile(found, moved)]


def swap(random, people, repeats):
    found = []
    for _ in range(people):
        person, groups = random.normal(), []
        for _ in range(random.integers(1, 4)):
            prompt = person + 0.6 * random.normal()
            units = [prompt + 0.7 * random.normal() for _ in range(random.integers(2, 4))]
            sizes = [random.integers(1, 3) if repeats else 1 for _ in units]
            groups.append([[float(u + 0.4 * random.normal()) for _ in range(n)] for u, n in zip(units, sizes)])
        found.append(groups)
    everything = [group for person in found for group in person]
    expected = components(everything)
    group, unit, *rest = dense(everything)
    assert math.isclose(expected["spread"], math.sqrt(unit + sum(rest)), rel_tol=1e-9)
    assert math.isclose(expected["share"], (unit + sum(rest)) / (group + unit + sum(rest)), rel_tol=1e-9)
    expected["spread_interval"] = bca(found, lambda of: components(of)["spread"])
    expected["share_interval"] = bca(found, lambda of: components(of)["share"])
    expected["photo_share_interval"] = bca(found, lambda of: components(of)["photo_share"]) if repeats else None
    return {"people": found, "expected": expected}


def main():
    random = np.random.default_rng(20260519)
    metrics = ["clip_t", "dino", "dreamsim", "ips"]
    cases = {
        "differences": [
            tau_case(random, 24, 3, metrics, None, 2_000, 0.0),
            tau_case(random, 12, 2, metrics, "dino", 1_000, 0.1),
            tau_case(random, 2, 2, metrics[:2], None, 200, 0.0),
        ],
        "first_places": [first_places(random, 4, 16, False), first_places(random, 3, 12, True)],
        "penalised": [penalised(random, 4, 20, 2), penalised(random, 2, 9, 1)],
        "photos": [swap(random, 14, False), swap(random, 12, True)],
    }
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy")}
    lines = [f'"{name}": [\n' + ",\n".join(json.dumps(case, allow_nan=False) for case in of) + "\n]" for name, of in cases.items()]
    OUT.write_text(f'{{"versions": {json.dumps(versions)},\n' + ",\n".join(lines) + "\n}\n")


main()
