"""Singular value decomposition of the activity of one brain area."""

from __future__ import annotations

from typing import Any, ClassVar

import datajoint as dj

from workflow.pipeline import exp2, img, lab
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
from workflow.pipeline.epochs import area_keys
from workflow.pipeline.parameters import CheckedLookup

schema = dj.Schema()


@schema
class AreaSVDParams(CheckedLookup):
    """How the activity of an area is prepared for the decomposition, and which recordings it applies to."""

    definition = f"""
    # preparation of an area's activity for singular value decomposition
    area_svd_params : varchar(32)
    ---
    {PREPARATION_COLUMNS}
    """
    contents: ClassVar = [
        ("mesoscope", "dff", "mesoscope", 0.0, 0.0),
        ("mesoscope_1.5s", "dff", "mesoscope", 1.5, 0.0),
    ]
    check = staticmethod(check_preparation)


@schema
class AreaSVD(Decomposition, dj.Computed):
    """Z = U S Vᵀ of the good ROIs of one brain area in one epoch."""

    definition = f"""
    # singular value decomposition of one brain area in one epoch
    -> exp2.SessionEpoch
    -> lab.BrainArea
    -> AreaSVDParams
    ---
    {SIZE_COLUMNS}{RESULT_COLUMNS}
    """
    params = AreaSVDParams

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
        """Epochs of included animals and the areas that have good ROIs with traces in them."""
        return area_keys(AreaSVDParams())
