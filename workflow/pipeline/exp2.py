"""Upstream tables of the schema ``exp2``: sessions and their epochs."""

import datajoint as dj

from workflow.pipeline import lab

schema = dj.Schema()


@schema
class Session(dj.Manual):
    """One day's recording of one animal."""

    definition = """
    # recording sessions
    -> lab.Subject
    session : int16  # session number
    ---
    session_date : date
    """


@schema
class SessionEpochType(dj.Lookup):
    """What an epoch can be."""

    definition = """
    # kinds of epoch
    session_epoch_type : varchar(200)
    ---
    description="" : varchar(4000)
    """


@schema
class SessionEpoch(dj.Manual):
    """A part of a session with one kind of behaviour."""

    definition = """
    # parts of a session
    -> Session
    -> SessionEpochType
    session_epoch_number : int32
    ---
    session_epoch_start_time : float64  # s, relative to the start of the session
    session_epoch_end_time : float64  # s
    flag_photostim_epoch=null : float64  # 1 if the epoch has photostimulation
    """


@schema
class SessionEpochSomatotopy(dj.Manual):
    """Epochs of sensory mapping, which no computation uses."""

    definition = """
    # epochs of sensory mapping
    -> SessionEpoch
    ---
    sensory_stimulation_area="" : varchar(2000)
    """
