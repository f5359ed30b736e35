"""A mixed model of being right: SNR, log duration and their product, and an intercept of each recording."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special

from audiograft.metrics.bootstrap import as_units

Array = np.ndarray

PERFORMANCE = 0.75
"""Whose contour is told."""
TERMS = ("intercept", "snr_db", "log2_duration", "product")
_FEWEST_ERRORS = 10
_FEWEST_RECORDINGS = 5
_NODES = 81
_REACH = 5.0
"""The integral over recordings goes so many standard deviations to both sides."""
_LEAST_SD, _MOST_SD = 0.02, 20.0
_RUN_OFF = 8.0
"""A standardised coefficient with a standard error above this has no end: right and wrong can be told apart without an exception."""
_STEP = 1e-4


@dataclass(frozen=True)
class _Table:
    """Cells: `right` of `n` clips of one recording at one SNR and duration; `design` (n_cells, 4) of the terms; `unit`, rising, the recording."""

    design: Array
    right: Array
    n: Array
    unit: Array


def fit_mixed_model(
    right: Sequence[bool] | Array,
    duration_ms: Sequence[float | None],
    snr_db: Sequence[float | None],
    recordings: Sequence[str | None] | None,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """logit P(right) = intercept + SNR + log2 duration + their product + an intercept of the recording, by maximum marginal likelihood.

    The predictors are standardised, so that the intercept is that of a clip of middling SNR and duration, and coefficients are per standard
    deviation. Recordings' intercepts are normal and integrated out on a fine grid; intervals are Wald's. (statsmodels' BinomialBayesMixedGLM was
    tried: with simulated recordings its variational intervals of the intercept held the truth in 57 % of the trials, and its maximum a posteriori
    takes the recordings for all alike.) Guessing is not part of the model: it describes the range that was measured, and no clips beyond.

    Args:
        right: whether each clip was called right (n_clips,).
        duration_ms: of each clip; clips with a None are left out and counted.
        snr_db: of each clip; likewise.
        recordings: of each clip; a None in it is a recording of its own.
        confidence: of the intervals.

    Returns:
        Ready for JSON: `coefficients` (term to value, low, high), `recording_sd` (value, low, high; an end of None is not known), `scales` (mean
        and sd of the predictors), `contour` (for each duration the SNR at which 75 % of the clips of all recordings together are right; None with
        a `reason` where it is not within the SNRs measured), `log_likelihood`, `converged`, `n`, `n_recordings`, `left_out`, `confidence`; or
        `refused`, why the clips can't carry it.
    """
    columns = [np.array([np.nan if value is None else value for value in values], dtype=float) for values in (duration_ms, snr_db)]
    stated = np.isfinite(columns[0]) & np.isfinite(columns[1])
    answers, durations, snrs = np.asarray(right, dtype=bool)[stated], columns[0][stated], columns[1][stated]
    groups = [None if recordings is None else recordings[i] for i in np.flatnonzero(stated).tolist()]
    if refused := _why_not(answers, durations, snrs, groups):
        return {"refused": refused}
    log_durations = np.log2(durations)
    scales = {name: {"mean": float(x.mean()), "sd": float(x.std())} for name, x in (("snr_db", snrs), ("log2_duration", log_durations))}
    table = _tabulate(_design(snrs, log_durations, scales), answers, as_units(groups))
    found, covariance, likelihood, converged = _maximise(table)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    if not converged or not np.isfinite(errors).all() or (errors[:4] > _RUN_OFF).any():
        return {"refused": "no end of the coefficients was found: SNR and duration tell right from wrong with hardly an exception"}
    far = float(special.ndtri((1 + confidence) / 2))
    told = {
        "coefficients": {
            name: {"value": float(value), "low": float(value - far * error), "high": float(value + far * error)}
            for name, value, error in zip(TERMS, found[:4], errors[:4], strict=True)
        },
        "recording_sd": _recording_sd(table, float(found[4]), float(far * errors[4]), likelihood, far**2),
        "scales": scales,
    }
    return {
        **told,
        "contour": _contour(told, np.unique(durations), (float(snrs.min()), float(snrs.max()))),
        "log_likelihood": likelihood,
        "converged": converged,
        "n": len(answers),
        "n_recordings": int(table.unit.max()) + 1,
        "left_out": int((~stated).sum()),
        "confidence": confidence,
    }


def predict_accuracy(model: Mapping[str, Any], duration_ms: Array, snr_db: Array) -> Array:
    """P(right) of all recordings together, at durations and SNRs of one shape, after a model of `fit_mixed_model`."""
    shape = np.shape(duration_ms)
    design = _design(np.ravel(snr_db), np.log2(np.ravel(duration_ms)), model["scales"])
    return _averaged(design @ _values(model), model["recording_sd"]["value"]).reshape(shape)


def _values(model: Mapping[str, Any]) -> Array:
    return np.array([model["coefficients"][name]["value"] for name in TERMS])


def _averaged(logits: Array, sd: float) -> Array:
    nodes, weights = _grid()
    rates: Array = special.expit(logits[:, None] + sd * nodes) @ weights
    return rates


def _why_not(answers: Array, durations: Array, snrs: Array, groups: Sequence[str | None]) -> str | None:
    if not len(answers):
        return "no clip states both its duration and its SNR"
    for name, values in (("durations", durations), ("SNRs", snrs)):
        if len(np.unique(values)) < 2:
            return f"all clips have the same of their {name}: it takes two {name} at least"
    n_errors = int((~answers).sum())
    if min(n_errors, len(answers) - n_errors) < _FEWEST_ERRORS:
        rarer = f"{n_errors} wrong" if n_errors < len(answers) / 2 else f"{len(answers) - n_errors} right"
        return f"{rarer} of {len(answers)} clips are too few for four coefficients: it takes {_FEWEST_ERRORS} at least"
    n_recordings = int(as_units(groups).max()) + 1
    if n_recordings == len(answers) or n_recordings < _FEWEST_RECORDINGS:
        several = "no recording has two clips" if n_recordings == len(answers) else f"there are {n_recordings} recordings"
        return f"{several}: how recordings differ takes {_FEWEST_RECORDINGS} of them with several clips each"
    return None


def _design(snrs: Array, log_durations: Array, scales: Mapping[str, Mapping[str, float]]) -> Array:
    snr, duration = ((x - scales[name]["mean"]) / scales[name]["sd"] for x, name in ((snrs, "snr_db"), (log_durations, "log2_duration")))
    return np.column_stack([np.ones(len(snrs)), snr, duration, snr * duration])


def _tabulate(design: Array, answers: Array, units: Array) -> _Table:
    cells, index = np.unique(np.column_stack([units, design]), axis=0, return_inverse=True)
    index = index.ravel()
    return _Table(cells[:, 1:], np.bincount(index, answers), np.bincount(index).astype(float), cells[:, 0].astype(int))


def _grid() -> tuple[Array, Array]:
    """Nodes in standard deviations, and their share of a normal distribution."""
    nodes = np.linspace(-_REACH, _REACH, _NODES)
    weights = np.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()


def _loss(parameters: Array, table: _Table) -> tuple[float, Array]:
    """Negative marginal log-likelihood, and its gradient by the coefficients and the log of the recordings' standard deviation."""
    nodes, weights = _grid()
    sd = math.exp(parameters[4])
    logits = (table.design @ parameters[:4])[:, None] + sd * nodes
    by_cell = table.right[:, None] * logits - table.n[:, None] * np.logaddexp(0, logits)
    joint = np.add.reduceat(by_cell, np.flatnonzero(np.diff(table.unit, prepend=-1)), axis=0) + np.log(weights)
    marginal = special.logsumexp(joint, axis=1)
    posterior = np.exp(joint - marginal[:, None])[table.unit]
    residuals = posterior * (table.right[:, None] - table.n[:, None] * special.expit(logits))
    gradient = np.append(table.design.T @ residuals.sum(axis=1), float((residuals @ nodes).sum()) * sd)
    return -float(marginal.sum()), -gradient


def _recording_sd(table: _Table, log_sd: float, margin: float, likelihood: float, cutoff: float) -> dict[str, float | None]:
    """Wald's interval on the logarithm; it begins at 0 where recordings that are all alike are not too unlikely."""
    if log_sd <= math.log(_LEAST_SD) + _STEP:  # where the likelihood has no curvature
        return {"value": 0.0, "low": 0.0, "high": None}
    alike = _climb(table, (_LEAST_SD, _LEAST_SD))
    low = 0.0 if 2 * (likelihood + float(alike.fun)) < cutoff else math.exp(log_sd - margin)
    return {"value": math.exp(log_sd), "low": low, "high": math.exp(log_sd + margin)}


def _climb(table: _Table, sds: tuple[float, float]) -> optimize.OptimizeResult:
    rate = float(table.right.sum() / table.n.sum())
    start = np.array([special.logit(rate), 0.0, 0.0, 0.0, math.log(min(max(0.5, sds[0]), sds[1]))])
    limits = [(-50.0, 50.0)] * 4 + [(math.log(sds[0]), math.log(sds[1]))]
    return optimize.minimize(_loss, start, (table,), "L-BFGS-B", jac=True, bounds=limits, options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-6})


def _maximise(table: _Table) -> tuple[Array, Array, float, bool]:
    """Parameters, their covariance (without the spread of recordings where that is at its bound), log-likelihood, and whether an end was reached."""
    found = _climb(table, (_LEAST_SD, _MOST_SD))
    parameters = np.asarray(found.x)
    free = 4 if parameters[4] <= math.log(_LEAST_SD) + _STEP else 5
    hessian = np.zeros((free, free))
    for i in range(free):
        moved = np.zeros(5)
        moved[i] = _STEP
        hessian[i] = ((_loss(parameters + moved, table)[1] - _loss(parameters - moved, table)[1]) / (2 * _STEP))[:free]
    covariance = np.zeros((5, 5))
    covariance[:free, :free] = np.linalg.pinv((hessian + hessian.T) / 2)
    positive = bool((np.linalg.eigvalsh((hessian + hessian.T) / 2) > 0).all())
    return parameters, covariance, -float(found.fun), bool(found.success) and positive


def _contour(model: Mapping[str, Any], durations: Array, snrs: tuple[float, float]) -> list[dict[str, Any]]:
    sd = float(model["recording_sd"]["value"])
    needed = float(optimize.brentq(lambda logit: float(_averaged(np.array([logit]), sd)[0]) - PERFORMANCE, -10.0, 10.0 + 10 * sd))
    rows = []
    for duration in durations.tolist():
        # The logit is linear in the SNR: two points give it.
        low, high = (_design(np.array(snrs), np.log2(np.full(2, duration)), model["scales"]) @ _values(model)).tolist()
        place = snrs[0] + (needed - low) / (high - low) * (snrs[1] - snrs[0]) if high != low else math.nan
        reason = None
        if min(low, high) >= needed:
            reason = f"{PERFORMANCE:.0%} and more at all SNRs measured, {snrs[0]:g} to {snrs[1]:g} dB"
        elif max(low, high) < needed:
            reason = f"less than {PERFORMANCE:.0%} at all SNRs measured, {snrs[0]:g} to {snrs[1]:g} dB"
        rows.append({"duration_ms": duration, "snr_db": None if reason else float(place), "reason": reason})
    return rows
