"""Why a recording cannot be loaded."""


class SampleError(ValueError):
    """A recording cannot be loaded; the message is one line that names the input and the fix."""
