"""How much of one area's activity another area predicts, and through how few dimensions.

Semedo, Zandvakili, Machens, Yu & Kohn (2019), Neuron 102:249: reduced-rank ridge regression of the target on
the source, cross-validated. With x and y about their means in the training frames and ridge λ, the minimum of
‖Y - BᵀX‖² + λ‖B‖² among matrices B of rank r is B V Vᵀ, where B = (XXᵀ + λ)⁻¹XYᵀ is the ridge regression of
full rank and V holds the first r eigenvectors of Bᵀ(XXᵀ + λ)B. (It is the *target* side of that
decomposition that is truncated.) So one decomposition serves every rank, and because V is orthonormal, the
error at rank r is that at rank r - 1 less the contribution of column r of V.

Only sums over frames enter, so they are taken once per block of frames and added up as training needs them.
All lags use the same source frames, hence the same blocks of them; the eigenvectors of XXᵀ, found once per
training set, solve the regression at every lag and with every ridge. The training set that lacks two blocks
serves the choice of the ridge for either of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workflow.analysis.arrays import Floats, real_matrix
from workflow.analysis.eigen import largest_eigenvectors

#: Ridges to choose from, in units of the mean variance of the source ROIs.
RIDGES = tuple(float(ridge) for ridge in np.logspace(-4, 0, 9))
#: So many that for every block there is another that is not next to it, on which its ridge can be chosen.
MIN_FOLDS = 4
MOST_FOLDS = 50  # every pair of blocks has a training set of its own
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


def kept_matrices(folds: int) -> int:
    """Bound how many matrices of ROIs × ROIs are kept: three per pair of blocks, and sums over each block."""
    return 3 * (folds - 1) * (folds - 2) // 2 + 11 * folds + 10


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
    ``gap`` frames next to it, from which slow activity would reach over the edge. Its ridge is chosen by
    cross-validation without that block: every block that is not next to it is predicted (at full rank) by a
    fit to all blocks but these two, and the ridge with the least squared error in all of them is taken. So
    nothing that R² is measured on has had a part in any choice. Every trace is centred at its training mean.

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
        Blocks of frames, from 4 to 50.
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
    fits = [_Split(blocks, (fold,)) for fold in range(folds)]
    # Two blocks next to each other are no pair: the gaps around them would overlap.
    pairs = [pair for pair in combinations(range(folds), 2) if pair[1] - pair[0] > 1]
    inner = [_Split(blocks, pair) for pair in pairs] if len(choices) > 1 else []
    r2 = np.zeros((max_lag + 1, folds, max_rank + 1))
    chosen = np.full((max_lag + 1, folds), choices[0])
    for lag in range(max_lag + 1):
        blocks.align(lag)
        if inner:
            chosen[lag] = choices[_explained_elsewhere(inner, folds, choices).argmax(axis=1)]
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
    """One training set: all blocks but one or two that are held out, on which its fit is tested."""

    def __init__(self, blocks: _Blocks, held_out: tuple[int, ...]) -> None:
        self.blocks, self.held_out = blocks, held_out
        sums = blocks.all_xx - blocks.wide_xx[list(held_out)].sum(axis=0)
        x, self.n = sums[:-1, -1], float(sums[-1, -1])
        self.x_mean = x / self.n
        S = np.asfortranarray(sums[:-1, :-1] - np.outer(x, self.x_mean))
        self.scale = float(np.trace(S)) / len(S)
        variances, self.Q = largest_eigenvectors(S, len)
        self.variances = np.maximum(variances, 0.0)
        inside = {tested: blocks.xx[tested] for tested in held_out}
        self.test_xx = {
            tested: self.Q.T @ self._about_means(tested, xx[:-1, :-1], xx[:-1, -1], self.x_mean) @ self.Q
            for tested, xx in inside.items()
        }

    def _about_means(self, tested: int, xz: Floats, z: Floats, z_mean: Floats) -> Floats:
        """Σ x zᵀ of a tested block about the training means."""
        x = self.blocks.xx[tested, :-1, -1] - self.blocks.xx[tested, -1, -1] * self.x_mean
        return np.asarray(xz - np.outer(self.x_mean, z) - np.outer(x, z_mean))

    def _trained(self) -> tuple[Floats, Floats]:
        """Σ x yᵀ in training about the means, in the basis Q; the mean of y."""
        sums = self.blocks.all_xy - self.blocks.wide_xy[list(self.held_out)].sum(axis=0)
        y = sums[-1]
        return self.Q.T @ (sums[:-1] - np.outer(self.x_mean, y)), y / self.n

    def _tested(self, tested: int, y_mean: Floats) -> Floats:
        """Σ x yᵀ of a tested block about the training means."""
        inside = self.blocks.xy[tested]
        return self._about_means(tested, inside[:-1], inside[-1], y_mean)

    def _shrinkage(self, ridge: Floats) -> Floats:
        """(XXᵀ + λ)⁻¹ in the basis Q; a source that is silent in training predicts nothing."""
        if self.scale <= 0:
            return np.zeros((*ridge.shape, len(self.variances)))
        return np.asarray(1 / (self.variances + self.scale * ridge[..., None]))

    def explained(self, ridges: Floats) -> list[Floats]:
        """Reduction of the squared error by the regression of full rank, by tested block and by ridge."""
        C, y_mean = self._trained()
        shrinkage, CC = self._shrinkage(ridges), C @ C.T
        found = []
        for tested in self.held_out:
            hits = shrinkage @ np.einsum("ij,ij->i", C, self.Q.T @ self._tested(tested, y_mean))
            power = np.einsum("ri,ri->r", shrinkage @ (self.test_xx[tested] * CC), shrinkage)
            found.append(np.asarray(2 * hits - power))
        return found

    def r2_by_rank(self, ridge: float, max_rank: int) -> Floats:
        """R² in the one tested block at ranks 1 … max_rank."""
        [tested] = self.held_out
        blocks, (C, y_mean) = self.blocks, self._trained()
        test, y, n = self._tested(tested, y_mean), blocks.xy[tested, -1], blocks.xx[tested, -1, -1]
        deviation = float(blocks.yy[tested] - 2 * y_mean @ y + n * y_mean @ y_mean)
        if not deviation > 0:
            raise ValueError(f"the target does not vary in block {tested + 1} of {len(blocks.blocks)}")
        shrinkage = self._shrinkage(np.asarray(ridge))
        W = np.sqrt(shrinkage)[:, None] * C
        _, V = largest_eigenvectors(np.asfortranarray(W.T @ W), lambda _: max_rank)
        P = shrinkage[:, None] * (C @ V)
        hits = np.einsum("ij,ij->j", self.Q @ P, test @ V)
        power = np.einsum("ij,ij->j", P, self.test_xx[tested] @ P)
        return np.asarray(np.cumsum(2 * hits - power) / deviation)


def _explained_elsewhere(inner: list[_Split], folds: int, ridges: Floats) -> Floats:
    """Add up, by block and by ridge, how much of the others is explained by fits that lack both."""
    explained = np.zeros((folds, len(ridges)))
    for split in inner:
        (first, second), (of_first, of_second) = split.held_out, split.explained(ridges)
        explained[first] += of_second
        explained[second] += of_first
    return explained


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
    if not MIN_FOLDS <= folds <= MOST_FOLDS:
        raise ValueError(f"folds must be {MIN_FOLDS} … {MOST_FOLDS}, not {folds}")
    if not (ridges.size and (ridges > 0).all() and np.isfinite(ridges).all()):
        raise ValueError(f"ridges must be positive numbers, at least one, not {ridges.tolist()}")
    if X.shape[1] < shortest(max_lag, folds, gap):
        raise ValueError(f"too short: {X.shape[1]} frame(s), needs {shortest(max_lag, folds, gap)}")
