"""Sums and shares of medians, in numpy and scipy: see README.md."""
import json
import sys

import numpy as np
from scipy import optimize, stats

z = stats.norm.ppf(0.975)


def se(x):
    """Standard error of a median from the order statistics k and n+1-k (Bonett & Price 2020)."""
    n = len(x)
    k = max(1, round(n / 2 - np.sqrt(n)))
    p = stats.binom.cdf(k - 1, n, 0.5)
    s = np.sort(x)
    return (s[n - k] - s[k - 1]) / (2 * stats.norm.ppf(1 - p))


def cov(x, y):
    """Covariance of the medians of two samples of the same blocks."""
    n = len(x)
    both = np.sum((x < np.median(x)) & (y < np.median(y)))
    p00 = (both + 0.25) / (n + 1 if n % 2 == 0 else n)
    return (4 * p00 - 1) * se(x) * se(y)


def share(part, whole, paired):
    mp, mq, c = np.median(part), np.median(whole), cov(part, whole) if paired else 0.0
    # Not Fieller's formula: the ratios r at which median(part) - r median(whole) is z standard errors from zero.
    f = lambda r: abs(mp - r * mq) - z * np.sqrt(se(part) ** 2 - 2 * r * c + r**2 * se(whole) ** 2)
    r = mp / mq
    return {"part": part.tolist(), "whole": whole.tolist(), "paired": paired, "value": r,
            "lo": optimize.brentq(f, r / 3, r, xtol=1e-15), "hi": optimize.brentq(f, r, 3 * r, xtol=1e-15)}


def contrast(to, frm, other):
    """median(to) - median(frm) of the same blocks, less the median of another record's."""
    v = se(to) ** 2 + se(frm) ** 2 - 2 * cov(to, frm) + se(other) ** 2
    parts = [(se(x) ** 2, len(x) - 1) for x in (to, frm, other)]
    df = int(sum(p for p, _ in parts) ** 2 / sum(p**2 / n for p, n in parts))  # Satterthwaite's, rounded down
    z = stats.t.ppf(0.975, df)
    m = np.median(to) - np.median(frm) - np.median(other)
    return {"to": to.tolist(), "from": frm.tolist(), "other": other.tolist(), "value": m, "lo": m - z * np.sqrt(v), "hi": m + z * np.sqrt(v)}


part = np.array([41.2, 43.9, 40.1, 44.4, 42.0, 41.7, 43.3, 42.8])
whole = np.array([120.4, 131.0, 118.2, 127.7, 125.0, 119.9, 128.8, 124.1])
wide = np.array([118.4, 131.9, 109.2, 127.7, 140.0, 119.9, 128.8, 104.1, 122.6, 133.3, 125.2])
odd = np.array([9.1, 9.4, 9.0, 9.9, 9.3, 9.2, 9.6])
json.dump({"shares": [share(part, whole, True), share(part, wide, False), share(odd, whole[:7], True)],
           "contrasts": [contrast(whole, part, odd)]}, sys.stdout)
print()
