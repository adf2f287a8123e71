"""Percentiles of latency, and how far they can be believed: MLPerf's early-stopping estimate.

A percentile of n samples says nothing of the percentile of the machine unless n is large enough. MLPerf Inference therefore
reports, beside the percentile itself, the smallest sample of which it can be said with 99 % confidence that it is not below the
machine's own percentile. With q = 1 - p the rate at which queries take longer than the percentile p, n queries of which t took
longer refute "the rate is q or more" if

    P(X <= t) = sum over k = 0 … t of C(n, k) q^k (1 - q)^(n - k)  <  1 - confidence.

The estimate is the t-th largest sample for the largest such t; at least one is needed, so that p90 takes 64 queries, p99 662.
Source: "Early Stopping" of the MLPerf Inference rules
(https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc), and the code that submissions are judged by,
`loadgen/early_stopping.cc` and `loadgen/results.cc` of https://github.com/mlcommons/inference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

CONFIDENCE = 0.99
"""MLPerf's, with a tolerance of 0."""
PERCENTS = (50, 90, 99)


def nearest_rank(ordered: Sequence[int], percent: int) -> int:
    """Return the smallest sample that at least `percent` of all samples do not exceed; it is always one of them.

    Args:
        ordered: the samples, ascending, at least one.
        percent: from 1 to 100.
    """
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def overlatency_allowed(queries: int, percent: int, confidence: float = CONFIDENCE) -> int:
    """Return the largest t of this module's formula: so many queries may exceed the estimate; 0 where they are too few.

    Args:
        queries: n, at least 1.
        percent: 100 p, from 1 to 99.
        confidence: of the estimate.
    """
    under, over = math.log(percent / 100), math.log1p(-percent / 100)
    allowed, total = 0, 0.0
    for number in range(queries):
        ways = math.lgamma(queries + 1) - math.lgamma(number + 1) - math.lgamma(queries - number + 1)
        total += math.exp(ways + number * over + (queries - number) * under)
        if total >= 1 - confidence:
            break
        allowed = number
    return allowed


def queries_needed(percent: int, confidence: float = CONFIDENCE) -> int:
    """Return the least number of queries that says anything about a percentile: 64 for p90, 662 for p99."""
    queries = 2
    while overlatency_allowed(queries, percent, confidence) < 1:
        queries += 1
    return queries


def early_stopping(ordered: Sequence[int]) -> dict[str, Any]:
    """Return the early-stopping estimates of sorted samples.

    Args:
        ordered: nanoseconds, ascending, at least one.

    Returns:
        `confidence`; `p50_ms`, `p90_ms`, `p99_ms`, of which the machine's own percentiles are not above with that confidence,
        None where the queries are too few; `skipped`: by these keys, why.
    """
    result: dict[str, Any] = {"confidence": CONFIDENCE}
    skipped = {}
    for percent in PERCENTS:
        allowed = overlatency_allowed(len(ordered), percent)
        result[f"p{percent}_ms"] = round(ordered[len(ordered) - allowed] / 1e6, 6) if allowed else None
        if not allowed:
            skipped[f"p{percent}_ms"] = f"{len(ordered)} queries; p{percent} takes at least {queries_needed(percent)}"
    return {**result, "skipped": skipped}
