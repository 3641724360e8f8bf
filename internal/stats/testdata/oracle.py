"""Oracle values of internal/stats from ruptures and scipy. Run from testdata:

    python3 -m venv /tmp/v && /tmp/v/bin/pip install ruptures==1.1.10 scipy==1.17.1 numpy
    /tmp/v/bin/python oracle.py > oracle_py.json

PELT: ruptures' Pelt with jump=1 and CostNormal, whose cost n*ln(var) differs
from ours by a constant per series, and penalties 15*ln(n) and 3*ln(n). The
small diagonal that ruptures adds (1e-6) is switched off. Because pruning with a minimum segment can
lose the optimum, the least cost is found a second time here by plain O(n^2)
optimal partitioning, and both must agree or the script stops.
"""
import json
import sys

import numpy as np
import ruptures as rpt
from scipy import stats

MIN = 3


def ar1(rng, n, rho):
    x = np.empty(n)
    x[0] = rng.standard_normal()
    for t in range(1, n):
        x[t] = rho * x[t - 1] + np.sqrt(1 - rho * rho) * rng.standard_normal()
    return x


def optimal(x, pen):
    n = len(x)
    best, last = [-pen] + [np.inf] * n, [0] * (n + 1)
    for t in range(MIN, n + 1):
        for s in range(0, t - MIN + 1):
            if np.isfinite(best[s]):
                c = best[s] + (t - s) * np.log(np.var(x[s:t])) + pen
                if c < best[t]:
                    best[t], last[t] = c, s
    out, t = [], n
    while last[t] > 0:
        out.append(last[t])
        t = last[t]
    return out[::-1]


def pelt_cases():
    rng = np.random.default_rng(17)
    plans = [
        ("flat", [(60, 100, 3)], 0.0), ("warm-up 8", [(8, 118, 3), (52, 100, 3)], 0.3),
        ("slowdown", [(70, 100, 2), (50, 112, 2)], 0.0), ("variance only", [(60, 100, 1), (60, 100, 8)], 0.0),
        ("three levels", [(30, 130, 2), (40, 115, 2), (80, 100, 2)], 0.0),
        ("correlated .9", [(200, 100, 3)], 0.9), ("short levels", [(5, 150, 1), (6, 120, 1), (5, 150, 1), (30, 100, 1)], 0.0),
        ("late", [(90, 100, 2), (10, 140, 2)], 0.0),
    ]
    for name, parts, rho in plans:
        noise = ar1(rng, sum(p[0] for p in parts), rho)
        x = np.concatenate([np.full(n, m, float) for n, m, _ in parts]) + noise * np.concatenate([np.full(n, s, float) for n, _, s in parts])
        x = np.round(x, 6)
        for factor in (15, 3):
            pen = factor * np.log(len(x))
            opt = optimal(x, pen)
            algo = rpt.Pelt(custom_cost=rpt.costs.CostNormal(add_small_diag=False), min_size=MIN, jump=1).fit(x)
            got = algo.predict(pen=pen)[:-1]
            if got != opt:
                print(f"{name} x{factor}: ruptures {got}, optimal partition {opt}", file=sys.stderr)
                if factor == 15:
                    sys.exit(1)
            yield {"name": name, "x": x.tolist(), "factor": factor, "starts": [int(v) for v in opt]}


def mser5(x):
    k = len(x) // 5
    b = [np.mean(x[5 * i:5 * i + 5]) for i in range(k)]
    v = [np.sum((np.array(b[d:]) - np.mean(b[d:])) ** 2) / (k - d) ** 2 for d in range(k // 2 + 1)]
    return int(np.argmin(v)) * 5


cases = list(pelt_cases())
a = [3, 3, 4, 5, 5, 5, 9]
b = [4, 5, 6, 6, 7, 9]
ranks = stats.rankdata(a + b)
perm = stats.permutation_test((ranks[:7], ranks[7:]), lambda x, y, axis: np.sum(x, axis=axis), vectorized=True,
                              permutation_type="independent", alternative="two-sided", n_resamples=np.inf)
la, lb = np.sin(np.arange(1, 61) * 1.7), np.round(np.sin(np.arange(1, 71) * 2.9) + 0.3, 1)
la = np.round(la, 1)
json.dump({
    "pelt": cases,
    "mser5": [{"x": c["x"], "drop": mser5(np.array(c["x"]))} for c in cases if c["factor"] == 15],
    "rank_sum_ties": [
        {"a": a, "b": b, "p": float(perm.pvalue), "exact": True},
        {"a": la.tolist(), "b": lb.tolist(), "exact": False,
         "p": float(stats.mannwhitneyu(la, lb, method="asymptotic", use_continuity=True).pvalue)},
    ],
}, sys.stdout)
