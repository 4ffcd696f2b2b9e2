"""Statistics of the service, written a second time in numpy and scipy, for the scripts that write fixtures."""

import functools
import math
from itertools import combinations

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats

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

    def bits(self):
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
        return result

    def unit(self):
        return (self.bits() >> 11) / (1 << 53)

    def below(self, bound):
        """A uniform number below a bound (Lemire 2019)."""
        while True:
            wide = self.bits() * bound
            if (wide & WORD) >= (1 << 64) % bound:
                return wide >> 64

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


def degrees_of_freedom(weights):
    """Satterthwaite's degrees of freedom of a mean over clusters with these weights (Bell and McCaffrey 2002)."""
    clusters = len(weights)
    expected = 1 - 2 * weights + np.sum(weights**2)
    left = np.eye(clusters) - np.outer(np.ones(clusters), weights)
    spread = left.T @ np.diag(weights / np.sqrt(expected))
    eigenvalues = np.linalg.eigvalsh(spread.T @ spread)
    return eigenvalues.sum() ** 2 / (eigenvalues**2).sum()


@functools.cache
def beta_weights(clusters, resamples):
    """The service's random weights of clusters, of mean 1: a row for each resample."""
    random = Xoshiro(0)
    drawn = np.array([[random.beta() for _ in range(clusters)] for _ in range(resamples)])
    return drawn * clusters / drawn.sum(axis=1, keepdims=True)


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
    degrees, drawn = degrees_of_freedom(weights), beta_weights(clusters, resamples)
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
    return theta, inverse @ scores.T @ scores @ inverse * g / (g - 1), inverse, g
