"""Singular value decomposition of equally large parts of the brain areas, so that they can be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

from workflow.analysis.binning import frames_per_bin
from workflow.analysis.subsets import random_block, random_rows
from workflow.pipeline import exp2, img, lab
from workflow.pipeline.decomposition import (
    MOST_COMPONENTS,
    NO_RESULT,
    PREPARATION_COLUMNS,
    RESULT_COLUMNS,
    ROI_WEIGHTS,
    SIZE_COLUMNS,
    TIME_COURSES,
    UNUSED_ROIS,
    Decomposition,
    Inputs,
    Result,
    check_preparation,
    decompose,
    too_small,
)
from workflow.pipeline.epochs import area_keys
from workflow.pipeline.memory import Sized
from workflow.pipeline.parameters import CheckedLookup, Row, at_least, at_most, problems
from workflow.pipeline.prepared import prepare

schema = dj.Schema()


@schema
class MatchedAreaSVDParams(CheckedLookup):
    """How much of an area is decomposed, and how it is prepared."""

    definition = f"""
    # size and preparation of the part of an area that is decomposed
    matched_area_svd_params : varchar(32)
    ---
    {PREPARATION_COLUMNS}
    subset_rois : int32  # ROIs drawn
    subset_frames : int32  # consecutive time bins drawn
    n_components : int32  # weights and time courses stored at most
    seed : int32  # the seed of each key follows from it
    """
    contents: ClassVar = [("mesoscope_500x1500", "dff", "mesoscope", 0.0, 0.0, 500, 1500, 500, 0)]

    @staticmethod
    def check(row: Row) -> str:
        """Require a subset that can be decomposed."""
        return problems(
            check_preparation(row),
            at_least(row, "subset_rois", 2),
            at_least(row, "subset_frames", 2),
            at_least(row, "n_components", 1),
            at_most(row, "n_components", "subset_rois"),
            at_most(row, "n_components", "subset_frames"),
            at_most(row, "n_components", MOST_COMPONENTS),
            at_least(row, "seed", 0),
        )


@schema
class MatchedAreaSVD(Decomposition, dj.Computed):
    """Z = U S Vᵀ of the same number of ROIs and time bins in every area.

    The time bins are consecutive. ROIs are normalised within them, and drawn from those for which that is
    possible.
    """

    definition = f"""
    # singular value decomposition of an equally large part of each brain area
    -> exp2.SessionEpoch
    -> lab.BrainArea
    -> MatchedAreaSVDParams
    ---
    {SIZE_COLUMNS}
    n_available : int32  # usable ROIs, of which those were drawn
    first_frame : int32  # time bin of the epoch, from 0, with which those that were drawn begin
    seed : int64  # of numpy.random.default_rng
    {RESULT_COLUMNS}
    """
    params = MatchedAreaSVDParams
    held_values = staticmethod(Sized.held_values)  # the part that is decomposed is small

    class ROI(dj.Part):
        """The weights of one ROI that was drawn."""

        definition = ROI_WEIGHTS

    class Component(dj.Part):
        """One component in time."""

        definition = TIME_COURSES

    class UnusedROI(dj.Part):
        """An ROI that could not be normalised, and so not be drawn."""

        definition = UNUSED_ROIS

    @property
    def key_source(self) -> Any:
        """Epochs of included animals and the areas that have good ROIs with traces in them."""
        return area_keys(MatchedAreaSVDParams())

    def compute(self, inputs: Inputs) -> Result:
        """Draw time bins, normalise, draw ROIs and decompose."""
        activity, params = inputs.activity, inputs.params
        n_rois, n_frames = params["subset_rois"], params["subset_frames"]
        small = too_small(activity, params, n_rois, n_frames)
        if small:
            drawn = {"n_available": small["n_rois"], "first_frame": 0, "seed": inputs.seed}
            return Result({**small, **drawn, **NO_RESULT})
        rng = np.random.default_rng(inputs.seed)
        c = frames_per_bin(params["time_bin"], activity.frame_rate)
        bins = random_block(activity.n_frames // c, n_frames, rng)
        part = activity.between(bins.start * c, bins.stop * c)
        available = prepare(part, params["time_bin"], params["threshold"])
        reason = available.shortfall(n_rois, n_frames)
        chosen = available
        if not reason:
            chosen = available.take(random_rows(available.n_rois, n_rois, rng))
        result = decompose(chosen, reason, params["n_components"])
        drawn = {"n_available": available.n_rois, "first_frame": bins.start, "seed": inputs.seed}
        return replace(result, columns={**result.columns, **drawn})
