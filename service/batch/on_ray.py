"""The same predictor as actors of Ray Data, for more photos than one machine should do.

Every machine must see the photos and the output folder under the same paths. The actors write the pictures; the
driver, which is this process, writes the journal as the records come back.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from boothsam.runtime.errors import BackendUnavailable
from boothsam.service.batch.predictor import CannotGoOn, ModelChoice, Predictor, Record
from boothsam.service.batch.work import Work
from boothsam.service.console import need_extra

PHOTOS_A_TASK = 8  # records come back by the task: few enough to see progress, enough to hide Ray's own time


@dataclass(frozen=True)
class OnRay:
    """Runs work as Ray Data actors.

    address: of a cluster, or "local" to start one on this machine. actors, cpus_per_actor, gpus_per_actor: how many
    there are and what each reserves; fractions of a GPU share it. Without threads in `choice` an actor's network takes
    as many as the actor has CPUs.
    """

    choice: ModelChoice
    out: Path
    address: str = "local"
    actors: int = 1
    cpus_per_actor: float = 1.0
    gpus_per_actor: float = 0.0

    def __call__(self, works: Iterable[Work], stop: threading.Event) -> Iterator[Record]:
        """Records as their tasks end.

        Raises:
            BackendUnavailable: Ray is missing, the cluster does not answer, or an actor died. CannotGoOn: as of one.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with need_extra("ray", "--ray"):
            import ray
            import ray.data
        rows = [{"work": pickle.dumps(work)} for work in works]
        if not rows:
            return
        threads = self.choice.threads or max(1, int(self.cpus_per_actor))
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.WARNING)
        except Exception as error:  # Ray raises plain Exception where a node does not start
            raise BackendUnavailable(
                f"no Ray cluster at {self.address!r}: {str(error).splitlines()[0]}",
                hint="ray status; --ray local starts one on this machine",
            ) from None
        try:
            resources: Mapping[str, float] = cast(Any, ray).cluster_resources()
            self._check_room(resources)
            logging.getLogger("ray.data").setLevel(logging.WARNING)
            ray.data.DataContext.get_current().enable_progress_bars = False
            blocks = min(len(rows), max(self.actors, -(-len(rows) // PHOTOS_A_TASK)))
            dataset = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
                Predictor,
                fn_constructor_kwargs={"choice": replace(self.choice, threads=threads), "out": self.out},
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(size=self.actors),
                num_cpus=self.cpus_per_actor,
                num_gpus=self.gpus_per_actor,
            )
            for row in dataset.iter_rows():
                yield json.loads(row["record"])
                if stop.is_set():
                    break
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error.__cause__
            if isinstance(cause, CannotGoOn):
                raise cause from None
            lines = str(cause or error).strip().splitlines() or [type(error).__name__]
            raise BackendUnavailable(
                f"Ray gave up: {lines[-1]}", hint="ray status; see Ray's logs of the actor"
            ) from error
        finally:
            ray.shutdown()

    def _check_room(self, resources: Mapping[str, float]) -> None:
        """A local Ray never grows: an actor that does not fit would be waited for without end."""
        for name, wanted in (("CPU", self.cpus_per_actor), ("GPU", self.gpus_per_actor)):
            found = resources.get(name, 0.0)
            if self.address == "local" and wanted > found:
                raise BackendUnavailable(
                    f"an actor asks for {wanted:g} {name}, this machine has {found:g}",
                    hint=f"--{name.lower()}s-per-actor {found:g}",
                )
