"""Singular values of random subsets of a brain area's ROIs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import datajoint as dj

from workflow.analysis.arrays import Floats
from workflow.analysis.shuffle import shuffled_singular_values
from workflow.analysis.svd import n_components_for
from workflow.pipeline import exp2, img, lab
from workflow.pipeline.computing import Key, ThreeSteps, insert_chunked
from workflow.pipeline.decomposition import (
    MIN_FRAMES,
    PREPARATION_COLUMNS,
    SIZE_COLUMNS,
    UNUSED_ROIS,
    Inputs,
    check_preparation,
    fetch_inputs,
    size_columns,
    too_small,
)
from workflow.pipeline.epochs import area_keys
from workflow.pipeline.memory import Sized
from workflow.pipeline.parameters import CheckedLookup, Row, at_least, at_most, problems
from workflow.pipeline.prepared import prepare

schema = dj.Schema()

MOST_SHUFFLES = 2**15 - 1  # the column `shuffle` is an int16


@schema
class AreaShuffleParams(CheckedLookup):
    """How many subsets of which size, and how activity is prepared."""

    definition = f"""
    # random subsets of an area's ROIs
    area_shuffle_params : varchar(32)
    ---
    {PREPARATION_COLUMNS}
    subset_rois : int32  # ROIs in each subset
    n_shuffles : int32  # subsets
    seed : int32  # the seed of each key follows from it
    """
    contents: ClassVar = [("mesoscope_100x500", "dff", "mesoscope", 0.0, 0.0, 500, 100, 0)]

    @staticmethod
    def check(row: Row) -> str:
        """Require subsets that can be decomposed."""
        return problems(
            check_preparation(row),
            at_least(row, "subset_rois", 2),
            at_least(row, "n_shuffles", 1),
            at_most(row, "n_shuffles", MOST_SHUFFLES),
            at_least(row, "seed", 0),
        )


@dataclass(frozen=True)
class _Result:
    columns: dict[str, Any]
    unused: list[tuple[Key, str]]
    singular_values: list[Floats]


@schema
class AreaShuffle(Sized, ThreeSteps, dj.Computed):
    """Singular values of random subsets, all of one size, of the good ROIs of one area in one epoch."""

    definition = f"""
    # singular values of random subsets of a brain area's ROIs
    -> exp2.SessionEpoch
    -> lab.BrainArea
    -> AreaShuffleParams
    ---
    {SIZE_COLUMNS}
    seed : int64  # of numpy.random.default_rng
    code_commit="" : varchar(40)  # commit that computed this row
    """

    class Shuffle(dj.Part):
        """One subset."""

        definition = """
        # singular values of one subset
        -> master
        shuffle : int16  # from 0
        ---
        k90 : int32  # components that explain nine tenths of the variance
        singular_values : <blob>  # all of them, descending
        """

    class UnusedROI(dj.Part):
        """An ROI that could not be normalised, and so is in no subset."""

        definition = UNUSED_ROIS

    @property
    def key_source(self) -> Any:
        """Epochs of included animals and the areas that have good ROIs with traces in them."""
        return area_keys(AreaShuffleParams())

    @staticmethod
    def held_values(n_rois: int, n_frames: int) -> int:
        """Traces, and their Gram matrix."""
        return 2 * n_rois * n_frames + n_rois**2

    def read(self, key: Key) -> Inputs:
        """Find the traces and fetch the parameters."""
        return fetch_inputs(key, AreaShuffleParams())

    def compute(self, inputs: Inputs) -> _Result:
        """Bin, normalise, and decompose the subsets."""
        params = inputs.params
        small = too_small(inputs.activity, params, params["subset_rois"], MIN_FRAMES)
        if small:
            return _Result({**small, "seed": inputs.seed}, [], [])
        prepared = prepare(inputs.activity, params["time_bin"], params["threshold"], overwrite=True)
        reason = prepared.shortfall(params["subset_rois"], MIN_FRAMES)
        columns = {**size_columns(prepared, reason), "seed": inputs.seed}
        if reason:
            return _Result(columns, prepared.unused, [])
        spectra = shuffled_singular_values(
            prepared.Z, params["subset_rois"], params["n_shuffles"], inputs.seed
        )
        return _Result(columns, prepared.unused, list(spectra))

    def store(self, key: Key, result: _Result) -> None:
        """Insert the singular values of each subset."""
        insert_chunked(self, [{**key, **result.columns, "code_commit": self.code_commit}])
        insert_chunked(self.UnusedROI, ({**key, **roi, "reason": reason} for roi, reason in result.unused))
        insert_chunked(
            self.Shuffle,
            (
                {**key, "shuffle": i, "k90": n_components_for(s), "singular_values": s}
                for i, s in enumerate(result.singular_values)
            ),
        )
