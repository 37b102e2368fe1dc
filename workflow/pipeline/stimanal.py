"""Upstream tables of the schema ``stimanal``: which animals are part of the study."""

import datajoint as dj

from workflow.pipeline import lab

schema = dj.Schema()


@schema
class MiceIncluded(dj.Manual):
    """Animals of the study; the others are left out of every computation."""

    definition = """
    # animals of the study
    -> lab.Subject
    """
