"""DataJoint computations on two-photon mesoscope recordings, run one round at a time."""

__version__ = "0.1.0"
