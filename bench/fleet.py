"""A model, not a measurement: 100 machines with 16 workers each on one server, 20 ms away.

Machines, workers and the server are simulated event by event. What a key and a claim cost the server is
measured here, on both kinds of server, with the real worker; what they would cost on the far side of a slow
network follows from that:

- A worker sends so many statements per key, one after the other; each takes one round trip, and the server's
  time for it where it finds a free core (first come, first served).
- A supervisor claims ahead what its crew does in a quarter of a second, at most 512 keys, as ours does.
- Locks are not modelled beyond what they cost in the measurement with 16 workers; neither are disks of
  another speed, nor makes that ask the server for more than one insert, nor the searches for new keys and
  the heartbeats of 100 supervisors, which count whole queues: with many keys, they are the first to be felt.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, replace

from bench.populate import BACKENDS, ended, trivial
from bench.registry import Options, Row, benchmark

SEED = 4
MACHINES, WORKERS = 100, 16
ROUND_TRIP = 0.020  # s
CORES = 8  # of the server
SECONDS = 10.0  # simulated and counted, and five makes more
AHEAD_SECONDS, MOST_AHEAD = 0.25, 512  # as workflow.populate.supervisor has them
#: Statements of a worker per key: begin, insert, stamp, leave the queue, commit.
PER_KEY = 5


@dataclass(frozen=True)
class Fleet:
    """What is assumed."""

    make: float  # s per key, on the worker
    key_cost: float  # s of a server's core, for everything but the claim
    claim_cost: float  # s of a server's core per claimed key
    claim_trips: int  # statements of one claim
    cores: int = CORES
    machines: int = MACHINES
    trips: int = PER_KEY
    round_trip: float = ROUND_TRIP


@dataclass(frozen=True)
class Result:
    """Keys per second, and how busy the server's cores and the workers' makes were."""

    rate: float
    server: float
    workers: float


class _Simulation:
    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet, self.random = fleet, random.Random(seed)
        self.events: list[tuple[float, int, str, int, int]] = []
        self.serial = 0
        self.cores = [0.0] * fleet.cores
        self.busy = self.done = 0.0
        self.begin = 1.0 + 2 * fleet.make  # what happens before is not counted
        self.end = self.begin + SECONDS + 5 * fleet.make
        self.ready = [0] * fleet.machines
        self.idle: list[int] = [WORKERS] * fleet.machines
        self.claiming = [False] * fleet.machines
        per_key = fleet.make + fleet.trips * fleet.round_trip
        self.ahead = min(MOST_AHEAD, max(1, round(WORKERS * AHEAD_SECONDS / per_key)))

    def at(self, moment: float, what: str, machine: int, number: int = 0) -> None:
        self.serial += 1
        heapq.heappush(self.events, (moment, self.serial, what, machine, number))

    def serve(self, moment: float, cost: float) -> float:
        """When the server has done something that reaches it now."""
        cost *= self.random.expovariate(1.0)
        start = max(moment, heapq.heappop(self.cores))
        heapq.heappush(self.cores, start + cost)
        self.busy += cost if moment >= self.begin else 0.0
        return start + cost

    def provide(self, moment: float, machine: int) -> None:
        """Give ready keys to idle workers, and claim more when few are left."""
        fleet = self.fleet
        while self.idle[machine] and self.ready[machine]:
            self.idle[machine] -= 1
            self.ready[machine] -= 1
            self.at(
                moment + fleet.make * self.random.uniform(0.5, 1.5) + fleet.round_trip / 2, "key", machine
            )
        if not self.claiming[machine] and self.ready[machine] <= self.ahead // 2:
            self.claiming[machine] = True
            count = max(1, self.idle[machine] + self.ahead - self.ready[machine])
            self.at(moment + (fleet.claim_trips - 0.5) * fleet.round_trip, "claim", machine, count)

    def run(self) -> Result:
        fleet, half = self.fleet, self.fleet.round_trip / 2
        for machine in range(fleet.machines):  # they do not all start at once
            self.at(self.random.uniform(0, fleet.round_trip + fleet.make), "start", machine)
        while self.events and self.events[0][0] < self.end:
            moment, _, what, machine, number = heapq.heappop(self.events)
            if what == "claim":
                self.at(self.serve(moment, fleet.claim_cost * number) + half, "claimed", machine, number)
            elif what == "claimed":
                self.claiming[machine] = False
                self.ready[machine] += number
                self.provide(moment, machine)
            elif what == "key":  # a statement of a worker; number of them that are behind it
                back = self.serve(moment, fleet.key_cost / fleet.trips) + half
                last = number + 1 == fleet.trips
                self.at(back + (0 if last else half), "done" if last else "key", machine, number + 1)
            elif what == "done":
                self.done += moment >= self.begin
                self.idle[machine] += 1
                self.provide(moment, machine)
            else:
                self.provide(moment, machine)
        seconds, seats = self.end - self.begin, fleet.machines * WORKERS
        rate = self.done / seconds
        return Result(rate, min(1.0, self.busy / seconds / fleet.cores), rate * fleet.make / seats)


def simulate(fleet: Fleet, seed: int = SEED) -> Result:
    """Simulate a fleet for a while, starting with an endless queue."""
    return _Simulation(fleet, seed).run()


def _measured(backend: str) -> tuple[float, float]:
    """Server time per key of the worker with 16 workers, and per claimed key, both in seconds."""
    with trivial(backend) as pipeline:
        pipeline.enter(2000)
        pipeline.enqueue()
        used = pipeline.server.seconds()
        pipeline.work("Square", WORKERS)
        per_key = (pipeline.server.seconds() - used) / 2000
        pipeline.enter(20_000)
        pipeline.enqueue()
        used = pipeline.server.seconds()
        ended(pipeline.start("bench.queue_child", "claim"))
        per_claim = (pipeline.server.seconds() - used) / 20_000
    return max(per_key - per_claim, 1e-5), per_claim


@benchmark("populate-fleet-model")
def fleet_model(options: Options) -> list[Row]:
    """Where one server is saturated by 1600 workers, and what then helps."""
    rows = []
    for backend in BACKENDS:
        key_cost, claim_cost = _measured(backend)
        trips = {"mysql": 4, "postgresql": 1}[backend]
        first = Fleet(0.0, key_cost, claim_cost, trips)
        limit = CORES / (key_cost + claim_cost)
        longest = max(0.0, MACHINES * WORKERS / limit - PER_KEY * ROUND_TRIP)
        note = (
            f"; measured: {1000 * key_cost:.2f} ms of the server per key, {1000 * claim_cost:.2f} ms per "
            f"claimed key; assumed: {CORES} cores, {1000 * ROUND_TRIP:g} ms trips, {PER_KEY} statements "
            f"per key, seed {SEED}; the limit of {limit:.0f} keys/s is reached by makes shorter than "
            f"{longest:.2f} s; then more cores help, or longer makes, but not quicker or fewer round trips"
        )
        size = f"{backend}, {MACHINES} × {WORKERS}"
        for label, fleet in (
            *((f"makes of {make:g} s", replace(first, make=make)) for make in (0.0, 0.1, 1.0, 10.0)),
            ("0 s, 16 cores", replace(first, cores=2 * CORES)),
            ("0 s, 2 ms trips", replace(first, round_trip=0.002)),
            ("0 s, one trip per key", replace(first, trips=1)),
        ):
            result = simulate(fleet)
            loads = f"server {result.server:.0%} busy, workers {result.workers:.0%} of their time in make"
            rows.append(
                Row(
                    f"model: {label}",
                    size,
                    result.rate,
                    unit="keys/s",
                    note=loads + note,
                )
            )
            note = ""
    return rows
