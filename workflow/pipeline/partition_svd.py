"""Singular value decomposition of consecutive blocks of an epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import datajoint as dj

from workflow.analysis.binning import bin_width, frames_per_bin
from workflow.analysis.partitions import partitions
from workflow.pipeline import exp2, img
from workflow.pipeline.computing import Key, ThreeSteps, insert_chunked
from workflow.pipeline.decomposition import (
    MIN_FRAMES,
    MIN_ROIS,
    MOST_COMPONENTS,
    PREPARATION_COLUMNS,
    SIZE_COLUMNS,
    Inputs,
    Result,
    check_preparation,
    decompose,
    fetch_inputs,
    store_parts,
)
from workflow.pipeline.epochs import with_traces
from workflow.pipeline.memory import Sized, decomposition_values
from workflow.pipeline.parameters import CheckedLookup, Row, at_least, at_most, one_of, problems
from workflow.pipeline.prepared import prepare, shortfall
from workflow.pipeline.traces import Activity

schema = dj.Schema()


@schema
class PartitionSVDParams(CheckedLookup):
    """How an epoch is cut and its activity prepared, and which recordings it applies to."""

    definition = f"""
    # cutting an epoch into blocks, and preparation of their activity
    partition_svd_params : varchar(32)
    ---
    {PREPARATION_COLUMNS}
    scheme : enum('quarters', 'blocks')  # if spont_only, halves or the first block; else the first two blocks
    block_frames : int32  # time bins in a block of the scheme blocks
    n_components : int32  # weights and time courses stored at most
    """
    contents: ClassVar = [
        ("mesoscope_quarters", "dff", "mesoscope", 0.0, 0.0, "quarters", 2500, 500),
        ("mesoscope_blocks", "dff", "mesoscope", 0.0, 0.0, "blocks", 2500, 500),
        ("other_0.2s_quarters", "dff", "other", 0.2, 0.0, "quarters", 2500, 500),
        ("other_0.2s_blocks", "dff", "other", 0.2, 0.0, "blocks", 2500, 500),
    ]

    @staticmethod
    def check(row: Row) -> str:
        """Require a scheme that exists, and blocks that can be decomposed."""
        return problems(
            check_preparation(row),
            one_of(row, "scheme", "quarters", "blocks"),
            at_least(row, "block_frames", MIN_FRAMES),
            at_least(row, "n_components", 1),
            at_most(row, "n_components", MOST_COMPONENTS),
        )


@dataclass(frozen=True)
class _Result:
    columns: dict[str, Any]
    first_frames: list[int]
    partitions: list[Result]


@schema
class PartitionSVD(Sized, ThreeSteps, dj.Computed):
    """Z = U S Vᵀ of all good ROIs in consecutive blocks of one epoch, normalised within each block."""

    definition = """
    # singular value decomposition of consecutive blocks of an epoch
    -> exp2.SessionEpoch
    -> PartitionSVDParams
    ---
    skip_reason="" : varchar(255)  # why no block was computed; empty = at least one was
    n_rois : int32  # good ROIs with traces; each block has its own N
    n_frames : int32  # time bins of the epoch; each block has its own T
    frame_rate : float64  # Hz
    bin_width : float64  # s, true width of a time bin
    n_partitions : int16  # blocks of full length
    code_commit="" : varchar(40)  # commit that computed this row
    """

    held_values = staticmethod(decomposition_values)

    class Partition(dj.Part):
        """One block."""

        definition = f"""
        # one block of the epoch
        -> master
        partition : int16  # from 0, in order of time
        ---
        {SIZE_COLUMNS}
        first_frame : int32  # time bin of the epoch, from 0, with which it begins
        k90=null : int32  # components that explain nine tenths of the variance
        singular_values=null : <blob>  # all of them, descending
        """

    class ROI(dj.Part):
        """The weights of one ROI in a block."""

        definition = """
        # weights of an ROI
        -> PartitionSVD.Partition
        -> img.ROI
        ---
        weights : <blob>  # row of U for the first k90 components, at most n_components, float32
        """

    class Component(dj.Part):
        """One component of a block in time."""

        definition = """
        # temporal components
        -> PartitionSVD.Partition
        component : int16  # 0 = largest
        ---
        time_course : <blob>  # row of Vᵀ, unit norm, float32
        """

    class UnusedROI(dj.Part):
        """An ROI that could not be normalised in a block."""

        definition = """
        # ROIs that were left out
        -> PartitionSVD.Partition
        -> img.ROI
        ---
        reason : varchar(64)
        """

    @property
    def key_source(self) -> Any:
        """Epochs of included animals with traces, each with the parameters of its recording."""
        return with_traces(PartitionSVDParams())

    def read(self, key: Key) -> Inputs:
        """Find the traces, fetch the parameters, and note which kind of epoch it is."""
        inputs = fetch_inputs(key, PartitionSVDParams())
        spontaneous = key["session_epoch_type"] == "spont_only"
        return replace(inputs, params={**inputs.params, "spontaneous": spontaneous})

    def compute(self, inputs: Inputs) -> _Result:
        """Cut, and decompose block by block."""
        activity, params = inputs.activity, inputs.params
        c = frames_per_bin(params["time_bin"], activity.frame_rate)
        n_rois, n_bins = len(activity.keys), activity.n_frames // c
        blocks = partitions(
            n_bins,
            params["scheme"],
            spontaneous=params["spontaneous"],
            block_frames=params["block_frames"],
        )
        results = [_decompose_block(activity.between(b.start * c, b.stop * c), params) for b in blocks]
        columns = {
            "skip_reason": _skip_reason(results, n_rois, n_bins),
            "n_rois": n_rois,
            "n_frames": n_bins,
            "frame_rate": activity.frame_rate,
            "bin_width": bin_width(params["time_bin"], activity.frame_rate),
            "n_partitions": len(blocks),
        }
        return _Result(columns, [block.start for block in blocks], results)

    def store(self, key: Key, result: _Result) -> None:
        """Insert the blocks and their decompositions."""
        insert_chunked(self, [{**key, **result.columns, "code_commit": self.code_commit}])
        for i, (start, block) in enumerate(zip(result.first_frames, result.partitions, strict=True)):
            place = {**key, "partition": i}
            insert_chunked(self.Partition, [{**place, **block.columns, "first_frame": start}])
            store_parts(self, place, block)


def _decompose_block(activity: Activity, params: Row) -> Result:
    prepared = prepare(activity, params["time_bin"], params["threshold"])
    return decompose(prepared, prepared.shortfall(MIN_ROIS, MIN_FRAMES), params["n_components"])


def _skip_reason(blocks: list[Result], n_rois: int, n_bins: int) -> str:
    """Say why the epoch has no result at all."""
    if not n_rois:
        return shortfall(0, 0, MIN_ROIS, MIN_FRAMES, n_given=0)
    if not blocks:
        return f"too short: {n_bins} time bin(s), not one block of full length"
    reasons = [str(block.columns["skip_reason"]) for block in blocks]
    return f"no block can be decomposed; the first: {reasons[0]}" if all(reasons) else ""
