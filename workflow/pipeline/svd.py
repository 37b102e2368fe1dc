"""Singular value decomposition of the activity of many neurons."""

from __future__ import annotations

from typing import Any, ClassVar

import datajoint as dj

from workflow.pipeline import exp2, img
from workflow.pipeline.decomposition import (
    PREPARATION_COLUMNS,
    RESULT_COLUMNS,
    ROI_WEIGHTS,
    SIZE_COLUMNS,
    TIME_COURSES,
    UNUSED_ROIS,
    Decomposition,
    check_preparation,
)
from workflow.pipeline.epochs import with_traces
from workflow.pipeline.parameters import CheckedLookup

schema = dj.Schema()


@schema
class SVDParams(CheckedLookup):
    """How activity is prepared for the decomposition, and which recordings it applies to."""

    definition = f"""
    # preparation of activity for singular value decomposition
    svd_params : varchar(32)
    ---
    {PREPARATION_COLUMNS}
    """
    contents: ClassVar = [
        ("mesoscope", "dff", "mesoscope", 0.0, 0.0),
        ("other_0.2s", "dff", "other", 0.2, 0.0),
        ("other_0.5s", "dff", "other", 0.5, 0.0),
        ("other_1s", "dff", "other", 1.0, 0.0),
    ]

    check = staticmethod(check_preparation)


@schema
class PopulationSVD(Decomposition, dj.Computed):
    """Z = U S Vᵀ of all good ROIs of one epoch."""

    definition = f"""
    # singular value decomposition of the whole field of view in one epoch
    -> exp2.SessionEpoch
    -> SVDParams
    ---
    {SIZE_COLUMNS}{RESULT_COLUMNS}
    """
    params = SVDParams

    class ROI(dj.Part):
        """The weights of one ROI."""

        definition = ROI_WEIGHTS

    class Component(dj.Part):
        """One component in time."""

        definition = TIME_COURSES

    class UnusedROI(dj.Part):
        """An ROI that could not be normalised."""

        definition = UNUSED_ROIS

    @property
    def key_source(self) -> Any:
        """Epochs of included animals with traces, each with the parameters of its recording."""
        return with_traces(SVDParams())
