"""Linear dynamical systems of the temporal components of the decompositions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import datajoint as dj
import numpy as np

from workflow.analysis.lds import FittedLDS, fit_lds, sorted_eigenvalues, time_constants
from workflow.analysis.lds_start import MIN_FRAMES_PER_SIGNAL
from workflow.pipeline import area_svd, svd
from workflow.pipeline.components import LONGEST_REASON, Components, fetch_components
from workflow.pipeline.computing import Key, ThreeSteps, insert_chunked
from workflow.pipeline.decomposition import MOST_TIME_COURSES, SIZE_COLUMNS
from workflow.pipeline.parameters import CheckedLookup, Row, at_least, at_most, problems
from workflow.pipeline.seeds import seed_for

schema = dj.Schema()

_MASTER = f"""
    ---
    {SIZE_COLUMNS}
    dynamics=null : <blob>  # A in x' = A x + w, latent × latent, per time bin
    loadings=null : <blob>  # C in y = C x + v, observed × latent
    state_noise=null : <blob>  # Q, covariance of w
    observation_noise=null : <blob>  # R, covariance of v
    initial_mean=null : <blob>  # of the latent state in the first time bin
    initial_covariance=null : <blob>
    log_likelihoods=null : <blob>  # of the start, and after each iteration
    seed : int64  # of the random part of the start
    code_commit="" : varchar(40)  # commit that computed this row
"""
_EIGENVALUE = """
    # eigenvalues of the dynamics
    -> master
    eigenvalue : int16  # 0 = largest modulus
    ---
    real_part : float64
    imaginary_part : float64
    unstable : bool  # modulus of 1 or more: does not decay
    time_constant=null : float64  # s, -bin_width / ln(modulus); NULL = does not decay
    frequency : float64  # Hz, of the rotation
"""


@schema
class LDSParams(CheckedLookup):
    """Sizes of the model, and how much data it takes."""

    definition = """
    # linear dynamical systems
    lds_params : varchar(32)
    ---
    n_observed : int16  # components, each times its singular value
    n_latent : int16
    iterations : int16  # of expectation maximisation
    min_frames : int32  # time bins that a whole field of view must have
    min_frames_area : int32  # time bins that a brain area must have
    seed : int32
    """
    contents: ClassVar = [("25_observed_20_latent", 25, 20, 30, 2500, 2000, 0)]

    @staticmethod
    def check(row: Row) -> str:
        """Require a model that can be fitted to data of the least length."""
        sizes = problems(
            at_least(row, "n_latent", 1),
            at_least(row, "n_observed", 1),
            at_most(row, "n_observed", MOST_TIME_COURSES),
            at_most(row, "n_latent", "n_observed"),
            at_least(row, "iterations", 1),
            at_least(row, "seed", 0),
        )
        if sizes:
            return sizes
        least = MIN_FRAMES_PER_SIGNAL * int(row["n_observed"]) + 1
        return problems(at_least(row, "min_frames", least), at_least(row, "min_frames_area", least))


@dataclass(frozen=True)
class _Inputs:
    components: Components
    params: dict[str, Any]
    min_frames: int
    seed: int

    @property
    def digest(self) -> str:
        """A hash of everything that was read."""
        return f"{self.components.digest} {sorted(self.params.items())!r} {self.seed}"


@dataclass(frozen=True)
class _Result:
    columns: dict[str, Any]
    fitted: FittedLDS | None


class _Systems(ThreeSteps):
    """What the systems of a whole field of view and of an area have in common."""

    decomposition: ClassVar[Any]
    #: The parameter that says how many time bins are needed.
    min_frames: ClassVar[str]

    def read(self, key: Key) -> _Inputs:
        """Fetch the first components and the parameters."""
        params = (LDSParams() & key).fetch1()
        components = fetch_components(self.decomposition, key, at_most=params["n_observed"])
        return _Inputs(components, params, params[self.min_frames], seed_for(key, params["seed"]))

    def compute(self, inputs: _Inputs) -> _Result:
        """Fit the system."""
        components, params = inputs.components, inputs.params
        reason, fitted = _shortfall(inputs), None
        if not reason:
            signals = components.time_courses * components.singular_values[:, None]
            try:
                fitted = fit_lds(
                    signals, params["n_latent"], iterations=params["iterations"], seed=inputs.seed
                )
            except np.linalg.LinAlgError as failure:  # says nothing new in the next round
                reason = f"the fit failed: {failure}"
        columns = {**components.columns, "skip_reason": reason[:LONGEST_REASON], "seed": inputs.seed}
        return _Result(columns, fitted)

    def store(self: Any, key: Key, result: _Result) -> None:
        """Insert the system and its eigenvalues."""
        row = {**key, **result.columns, "code_commit": self.code_commit}
        if result.fitted is None:
            self.insert1(row)
            return
        system = result.fitted.system
        self.insert1(
            {
                **row,
                "dynamics": system.A,
                "loadings": system.C,
                "state_noise": system.Q,
                "observation_noise": system.R,
                "initial_mean": system.initial_mean,
                "initial_covariance": system.initial_covariance,
                "log_likelihoods": result.fitted.log_likelihoods,
            }
        )
        found = sorted_eigenvalues(system.A)
        bin_width = result.columns["bin_width"]
        seconds = time_constants(found, bin_width)
        insert_chunked(
            self.Eigenvalue,
            (
                {
                    **key,
                    "eigenvalue": number,
                    "real_part": float(value.real),
                    "imaginary_part": float(value.imag),
                    "unstable": bool(np.isinf(tau)),
                    "time_constant": float(tau) if np.isfinite(tau) else None,
                    "frequency": float(abs(np.angle(value)) / (2 * np.pi * bin_width)),
                }
                for number, (value, tau) in enumerate(zip(found, seconds, strict=True))
            ),
        )


def _shortfall(inputs: _Inputs) -> str:
    """Say why there is too little to fit a system to."""
    columns, found = inputs.components.columns, len(inputs.components.time_courses)
    if columns["skip_reason"]:
        return str(columns["skip_reason"])
    if columns["n_frames"] < inputs.min_frames:
        return f"too short: {columns['n_frames']} time bin(s), needs {inputs.min_frames}"
    if found < inputs.params["n_observed"]:
        return f"too few components: {found}, needs {inputs.params['n_observed']}"
    return ""


@schema
class LDS(_Systems, dj.Computed):
    """The system of the components of a whole field of view."""

    definition = f"""
    # linear dynamical system of the whole field of view in one epoch
    -> svd.PopulationSVD
    -> LDSParams
    {_MASTER}
    """
    decomposition = svd.PopulationSVD
    min_frames = "min_frames"

    class Eigenvalue(dj.Part):
        """One eigenvalue of the dynamics."""

        definition = _EIGENVALUE


@schema
class AreaLDS(_Systems, dj.Computed):
    """The system of the components of a brain area."""

    definition = f"""
    # linear dynamical system of one brain area in one epoch
    -> area_svd.AreaSVD
    -> LDSParams
    {_MASTER}
    """
    decomposition = area_svd.AreaSVD
    min_frames = "min_frames_area"

    class Eigenvalue(dj.Part):
        """One eigenvalue of the dynamics."""

        definition = _EIGENVALUE
