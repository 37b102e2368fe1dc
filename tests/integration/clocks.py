"""A clock that is wrong, for every Python that finds this text as its ``sitecustomize.py``."""

SLOW_CLOCK = """
import datetime, time
seconds, real = time.time, datetime.datetime
time.time = lambda: seconds() - 7200
def now(cls, tz=None):
    return cls.fromtimestamp(time.time(), tz)
def utcnow(cls):
    return now(cls, datetime.timezone.utc).replace(tzinfo=None)
slow = {"now": classmethod(now), "utcnow": classmethod(utcnow), "__slots__": ()}  # as large as the real one
datetime.datetime = type("datetime.datetime", (real,), slow)  # its name is part of what repr() says
"""
