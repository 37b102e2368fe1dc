"""Upstream tables of the schema ``img``: imaging, regions of interest and their traces."""

import datajoint as dj

from workflow.pipeline import exp2, lab

schema = dj.Schema()


@schema
class Mesoscope(dj.Manual):
    """Sessions that were recorded on the mesoscope."""

    definition = """
    # sessions on the mesoscope
    -> exp2.Session
    """


@schema
class FOV(dj.Manual):
    """A field of view."""

    definition = """
    # fields of view
    -> exp2.Session
    fov_num : int32
    ---
    fov_name="" : varchar(200)
    fov_x_size=null : float64  # pixels
    fov_y_size=null : float64  # pixels
    imaging_frame_rate=null : float64  # Hz, superseded by that of FOVEpoch
    """


@schema
class FOVEpoch(dj.Imported):
    """How the field of view was imaged in one epoch."""

    definition = """
    # imaging of an epoch
    -> exp2.SessionEpoch
    ---
    imaging_frame_rate : float64  # Hz
    imaging_frame_rate_plane=null : float64  # Hz
    imaging_frame_rate_volume=null : float64  # Hz
    zoom=null : float64
    imaging_fov_deg=null : <blob>
    imaging_fov_um=null : <blob>
    """


@schema
class Plane(dj.Manual):
    """An imaging plane of a field of view."""

    definition = """
    # imaging planes
    -> FOV
    plane_num : int32
    channel_num : int32
    ---
    mean_img=null : <blob>
    mean_img_enhanced=null : <blob>
    """


@schema
class ROI(dj.Manual):
    """A region of interest: usually one neuron."""

    definition = """
    # regions of interest
    -> Plane
    roi_number : int32  # restarts in every session
    ---
    roi_number_uid=null : int32  # same neuron, same number across sessions
    roi_centroid_x=null : float64  # pixels
    roi_centroid_y=null : float64  # pixels
    roi_radius=null : float64  # pixels
    roi_x_pix=null : <blob>  # pixels
    roi_y_pix=null : <blob>  # pixels
    roi_pixel_weight=null : <blob>
    f_mean=null : float64
    f_median=null : float64
    """


@schema
class ROIBad(dj.Manual):
    """Regions of interest that are not cells."""

    definition = """
    # not a cell
    -> ROI
    """


@schema
class ROIBrainArea(dj.Manual):
    """The brain area that a region of interest lies in."""

    definition = """
    # brain area of a region of interest
    -> ROI
    -> lab.BrainArea
    """


@schema
class ROIdeltaF(dj.Imported):
    """Relative fluorescence of one region of interest in one epoch."""

    definition = """
    # dF/F traces
    -> exp2.SessionEpoch
    -> ROI
    ---
    dff_trace : <blob>  # dF/F, one value per frame
    """


@schema
class ROISpikes(dj.Imported):
    """Deconvolved activity of one region of interest in one epoch."""

    definition = """
    # deconvolved activity
    -> exp2.SessionEpoch
    -> ROI
    ---
    spikes_trace : <blob>  # one value per frame
    """
