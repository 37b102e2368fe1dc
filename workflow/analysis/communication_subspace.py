"""How much of one area's activity another area predicts, and through how few dimensions.

Semedo, Zandvakili, Machens, Yu & Kohn (2019), Neuron 102:249: reduced-rank ridge regression of the target on
the source, cross-validated. With x and y about their means in the training frames and ridge λ, the minimum of
‖Y - BᵀX‖² + λ‖B‖² among matrices B of rank r is B V Vᵀ, where B = (XXᵀ + λ)⁻¹XYᵀ is the ridge regression of
full rank and V holds the first r eigenvectors of Bᵀ(XXᵀ + λ)B. (It is the *target* side of that
decomposition that is truncated.) So one decomposition serves every rank, and because V is orthonormal, the
error at rank r is that at rank r - 1 less the contribution of column r of V.

Only sums over frames enter, so they are taken once per block of frames and added up as training needs them.
All lags use the same source frames, hence the same blocks of them; the eigenvectors of XXᵀ, found once per
training set, solve the regression at every lag and with every ridge.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workflow.analysis.arrays import Floats, real_matrix
from workflow.analysis.eigen import largest_eigenvectors

#: Ridges to choose from, in units of the mean variance of the source ROIs.
RIDGES = tuple(float(ridge) for ridge in np.logspace(-4, 0, 9))
#: So many that the block that is tested and the one that the ridge is chosen on have others between them.
MIN_FOLDS = 4
MIN_BLOCK = 2  # frames


@dataclass(frozen=True, slots=True, eq=False)
class CommunicationSubspace:
    """Cross-validated predictions of the target from the source.

    Attributes
    ----------
    r2 : (max_lag + 1, max_rank + 1) float64 array
        Mean over the folds of R² = 1 - (squared error) / (squared deviation from the training mean), all
        target ROIs together. Rank 0 predicts the training mean: R² = 0 exactly.
    standard_error : (max_lag + 1, max_rank + 1) float64 array
        Standard error of that mean.
    best_rank : (max_lag + 1,) int64 array
        At each lag the smallest rank that is within one standard error of the best.
    ridge : (max_lag + 1, folds) float64 array
        The ridge chosen for each fold, in units of the mean variance of the source ROIs.
    """

    r2: Floats
    standard_error: Floats
    best_rank: NDArray[np.int64]
    ridge: Floats

    @property
    def best_lag(self) -> int:
        """Return the lag in frames at which the best rank predicts best."""
        return int(np.argmax(self.r2[np.arange(len(self.r2)), self.best_rank]))


def shortest(max_lag: int, folds: int, gap: int) -> int:
    """Count the frames that an analysis needs at least: a block is no shorter than the gaps on both sides."""
    return max_lag + max(MIN_BLOCK, 2 * gap) * folds


def communication_subspace(
    X: ArrayLike,
    Y: ArrayLike,
    *,
    max_rank: int = 40,
    max_lag: int = 30,
    folds: int = 10,
    gap: int = 50,
    ridges: ArrayLike = RIDGES,
) -> CommunicationSubspace:
    """Predict the target from the source at every rank and lag.

    At lag l the source at frame t predicts the target at frame t + l: with a positive lag, the source leads.
    The source frames that have a target at every lag are cut into contiguous blocks, one per fold, because
    neighbouring frames resemble each other. Each block is predicted by a fit to all other blocks, without the
    ``gap`` frames next to it, from which slow activity would reach over the edge. Its ridge is the one that,
    in a fit without that block, best predicts (at full rank) the block half the recording away; so nothing
    that R² is measured on has had a part in any choice. Every trace is centred at its training mean.

    Parameters
    ----------
    X : (p, T) array_like of real numbers
        Source, one ROI per row; usually z-scores. Ridge treats all rows alike, so their scale matters.
    Y : (q, T) array_like of real numbers
        Target, one ROI per row.
    max_rank : int
        Ranks 0 … max_rank are tried; at most p and q.
    max_lag : int
        Lags 0 … max_lag frames are tried.
    folds : int
        Blocks of frames, at least 4.
    gap : int
        Frames left out of training on either side of a block; blocks must be twice as long.
    ridges : (n,) array_like of positive numbers
        Ridges to choose from, in units of the mean variance of the source ROIs.

    Returns
    -------
    CommunicationSubspace

    Raises
    ------
    ValueError
        If a parameter is out of range, the traces are too few, too short, of different lengths, not finite or
        constant throughout, or the target does not vary about its training mean in one of the blocks.
    """
    source, target = _centred(X, "X"), _centred(Y, "Y")
    choices = np.sort(np.asarray(ridges, dtype=np.float64).ravel())
    _check(source, target, max_rank, max_lag, folds, gap, choices)
    blocks = _Blocks(source, target, source.shape[1] - max_lag, folds, gap)
    fits = [_Split(blocks, tested=fold, held_out=(fold,)) for fold in range(folds)]
    choosers = []
    if len(choices) > 1:
        away = [(fold + folds // 2) % folds for fold in range(folds)]
        choosers = [_Split(blocks, tested=other, held_out=(fold, other)) for fold, other in enumerate(away)]
    r2 = np.zeros((max_lag + 1, folds, max_rank + 1))
    chosen = np.full((max_lag + 1, folds), choices[0])
    for lag in range(max_lag + 1):
        blocks.align(lag)
        for fold, chooser in enumerate(choosers):
            chosen[lag, fold] = choices[int(np.argmax(chooser.explained(choices)))]
        for fold, fit in enumerate(fits):
            r2[lag, fold, 1:] = fit.r2_by_rank(chosen[lag, fold], max_rank)
    mean, error = r2.mean(axis=1), r2.std(axis=1, ddof=1) / np.sqrt(folds)
    return CommunicationSubspace(mean, error, smallest_good_rank(mean, error), chosen)


def smallest_good_rank(mean: Floats, standard_error: Floats) -> NDArray[np.int64]:
    """Find the smallest rank whose mean is within one standard error of the best.

    Parameters
    ----------
    mean, standard_error : (…, ranks) arrays
        Performance by rank, beginning with rank 0; the standard error that counts is that of the best rank.

    Returns
    -------
    (…) int64 array
    """
    best = mean.argmax(axis=-1)[..., None]
    enough = np.take_along_axis(mean, best, axis=-1) - np.take_along_axis(standard_error, best, axis=-1)
    return np.asarray(np.argmax(mean >= enough, axis=-1), dtype=np.int64)


class _Blocks:
    """Sums over the frames of each block: of the source once, with the target for one lag at a time.

    A last row of ones among the source makes sums and counts part of the products. ``wide`` sums are over a
    block and the gaps around it, which is what training leaves out.
    """

    def __init__(self, X: Floats, Y: Floats, n_frames: int, folds: int, gap: int) -> None:
        edges = np.linspace(0, n_frames, folds + 1).astype(np.int64)
        self.starts = edges[:-1]
        self.blocks = [slice(start, stop) for start, stop in pairwise(edges.tolist())]
        self.before = [slice(max(block.start - gap, 0), block.start) for block in self.blocks]
        self.after = [slice(block.stop, min(block.stop + gap, n_frames)) for block in self.blocks]
        self.X, self.Y = np.vstack([X[:, :n_frames], np.ones(n_frames)]), Y
        self.xx, self.wide_xx, self.all_xx = self._products(self.X)

    def align(self, lag: int) -> None:
        """Pair source frame t with target frame t + lag."""
        Y = self.Y[:, lag : lag + self.X.shape[1]]
        self.yy = np.add.reduceat(np.einsum("ij,ij->j", Y, Y), self.starts)
        self.xy, self.wide_xy, self.all_xy = self._products(Y)

    def _products(self, Z: Floats) -> tuple[Floats, Floats, Floats]:
        inside, before, after = (
            np.stack([self.X[:, frames] @ Z[:, frames].T for frames in slices])
            for slices in (self.blocks, self.before, self.after)
        )
        return inside, inside + before + after, inside.sum(axis=0)


class _Split:
    """One training set (all blocks but those held out) and one block on which its fit is tested."""

    def __init__(self, blocks: _Blocks, tested: int, held_out: tuple[int, ...]) -> None:
        self.blocks, self.tested, self.held_out = blocks, tested, list(held_out)
        sums = blocks.all_xx - blocks.wide_xx[self.held_out].sum(axis=0)
        self.n = sums[-1, -1]
        self.x = sums[:-1, -1]
        self.x_mean = self.x / self.n
        S = np.asfortranarray(sums[:-1, :-1] - np.outer(self.x, self.x_mean))
        self.scale = float(np.trace(S)) / len(S)
        variances, self.Q = largest_eigenvectors(S, len)
        self.variances = np.maximum(variances, 0.0)
        test = blocks.xx[tested]
        self.n_test = test[-1, -1]
        self.test_xx = self.Q.T @ self._about_means(test[:-1, :-1], test[:-1, -1], self.x_mean) @ self.Q

    def _about_means(self, xz: Floats, z: Floats, z_mean: Floats) -> Floats:
        """Σ x zᵀ of the tested block about the training means."""
        x = self.blocks.xx[self.tested, :-1, -1] - self.n_test * self.x_mean
        return np.asarray(xz - np.outer(self.x_mean, z) - np.outer(x, z_mean))

    def _cross(self) -> tuple[Floats, Floats, float]:
        """Σ x yᵀ in training, in the basis Q; Σ x yᵀ and Σ y² in the test; all about the training means."""
        blocks = self.blocks
        sums = blocks.all_xy - blocks.wide_xy[self.held_out].sum(axis=0)
        y, y_mean = sums[-1], sums[-1] / self.n
        train = sums[:-1] - np.outer(self.x_mean, y)
        inside = blocks.xy[self.tested]
        test = self._about_means(inside[:-1], inside[-1], y_mean)
        deviation = blocks.yy[self.tested] - 2 * y_mean @ inside[-1] + self.n_test * y_mean @ y_mean
        return self.Q.T @ train, test, float(deviation)

    def _shrinkage(self, ridge: Floats) -> Floats:
        """(XXᵀ + λ)⁻¹ in the basis Q; a source that is silent in training predicts nothing."""
        if self.scale <= 0:
            return np.zeros((*ridge.shape, len(self.variances)))
        return np.asarray(1 / (self.variances + self.scale * ridge[..., None]))

    def explained(self, ridges: Floats) -> Floats:
        """Reduction of the squared error in the test by the regression of full rank, for each ridge."""
        C, test, _ = self._cross()
        shrinkage = self._shrinkage(ridges)
        hits = shrinkage @ np.einsum("ij,ij->i", C, self.Q.T @ test)
        power = np.einsum("ri,ri->r", shrinkage @ (self.test_xx * (C @ C.T)), shrinkage)
        return np.asarray(2 * hits - power)

    def r2_by_rank(self, ridge: float, max_rank: int) -> Floats:
        """R² in the test at ranks 1 … max_rank."""
        C, test, deviation = self._cross()
        if not deviation > 0:
            raise ValueError(
                f"the target does not vary in block {self.tested + 1} of {len(self.blocks.blocks)}"
            )
        shrinkage = self._shrinkage(np.asarray(ridge))
        W = np.sqrt(shrinkage)[:, None] * C
        _, V = largest_eigenvectors(np.asfortranarray(W.T @ W), lambda _: max_rank)
        P = shrinkage[:, None] * (C @ V)
        hits = np.einsum("ij,ij->j", self.Q @ P, test @ V)
        power = np.einsum("ij,ij->j", P, self.test_xx @ P)
        return np.asarray(np.cumsum(2 * hits - power) / deviation)


def _centred(values: ArrayLike, name: str) -> Floats:
    """Copy traces as float64 of mean 0: a shift changes nothing, and sums of products keep their digits."""
    F = real_matrix(values, name).astype(np.float64)
    if not F.size:
        raise ValueError(f"{name} must hold at least one ROI and one frame, not {F.shape[0]} × {F.shape[1]}")
    with np.errstate(invalid="ignore", over="ignore"):
        F -= F.mean(axis=1)[:, None]
        energy = float(np.einsum("ij,ij->", F, F))
    if not np.isfinite(energy):
        raise ValueError(f"{name} must be finite: it holds NaN, infinity or numbers too large to square")
    if not energy > 0:
        raise ValueError(f"{name} must not be constant")
    return F


def _check(X: Floats, Y: Floats, max_rank: int, max_lag: int, folds: int, gap: int, ridges: Floats) -> None:
    if X.shape[1] != Y.shape[1]:
        raise ValueError(f"X and Y must be equally long, not {X.shape[1]} and {Y.shape[1]} frames")
    if not 0 <= max_rank <= min(len(X), len(Y)):
        raise ValueError(f"max_rank must be 0 … min(p, q) = {min(len(X), len(Y))}, not {max_rank}")
    for name, value in (("max_lag", max_lag), ("gap", gap)):
        if value < 0:
            raise ValueError(f"{name} must be 0 or more, not {value}")
    if folds < MIN_FOLDS:
        raise ValueError(f"folds must be at least {MIN_FOLDS}, not {folds}")
    if not (ridges.size and (ridges > 0).all() and np.isfinite(ridges).all()):
        raise ValueError(f"ridges must be positive numbers, at least one, not {ridges.tolist()}")
    if X.shape[1] < shortest(max_lag, folds, gap):
        raise ValueError(f"too short: {X.shape[1]} frame(s), needs {shortest(max_lag, folds, gap)}")
