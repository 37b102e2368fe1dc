"""Upstream tables of the schema ``lab``: subjects and the dictionary of brain areas."""

import datajoint as dj

schema = dj.Schema()


@schema
class Subject(dj.Manual):
    """An animal."""

    definition = """
    # animals
    subject_id : int32  # institution 6 digit animal id
    """


@schema
class BrainArea(dj.Lookup):
    """The dictionary of brain areas."""

    definition = """
    # brain areas
    brain_area : varchar(32)
    ---
    brain_area_description=null : varchar(1000)
    """
