"""The model behind the service: loaded once, proven before it answers, run on one small pool of threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, TypeVar

import numpy as np
from boothsam.runtime.errors import BoothsamError
from boothsam.runtime.model import ImageEmbedding, Prompts, SamModel
from boothsam.runtime.store import find_model
from boothsam.runtime.transforms import Uint8Array
from boothsam.runtime.verify import GOLDEN, verify_golden
from boothsam.service.embeddings import EmbeddingCache, embedding_id
from boothsam.service.problems import ServiceProblem, problem
from boothsam.service.stages import Stages

log = logging.getLogger("boothsam.service")
T = TypeVar("T")
State = Literal["loading", "proving", "ready", "failed"]
IsGone = Callable[[], Awaitable[bool]]
Make = Callable[[bytes, IsGone], Coroutine[Any, Any, T]]


@dataclass
class _Flight:
    """One encode that several requests wait for; it ends early when all of them are gone.

    photo: the upload that all of them sent.
    """

    photo: bytes
    task: asyncio.Task[Any]
    waiting: list[IsGone] = field(default_factory=list)

    async def all_gone(self) -> bool:
        for is_gone in tuple(self.waiting):
            if not await is_gone():
                return False
        return True


class Inference:
    """Owns the model, its threads and the cached embeddings.

    State goes loading -> proving -> ready, or failed with a reason. Until ready, `need_ready` refuses.
    engine: what is known about the device's engines; `engine_building` keeps it up to date.
    """

    def __init__(
        self,
        *,
        model: str | Path | None = None,
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        in_flight: int = 1,
        cache_bytes: int = 128 << 20,
        cache_ttl_s: float = 900,
        photo_cache_bytes: int = 64 << 20,
        resize: str = "exact",
    ) -> None:
        self.state: State = "loading"
        self.reason = "the model is being loaded"
        self.proof: dict[str, Any] = {"golden": "pending"}
        self.engine: dict[str, Any] = {"state": "none", "progress": None}
        self.cache = EmbeddingCache(cache_bytes, cache_ttl_s, pixel_bytes=photo_cache_bytes)
        self._named = model
        self._options: dict[str, Any] = {
            "backend": backend,
            "precision": precision,
            "threads": threads,
            "resize": resize,
        }
        self._model: SamModel | None = None
        self._pool = ThreadPoolExecutor(in_flight, "inference")
        self._flights: dict[str, _Flight] = {}

    @property
    def model(self) -> SamModel:
        """The loaded model. Raises `not_ready` before it is."""
        if self._model is None:
            raise problem("not_ready", self.reason, headers={"Retry-After": "1"})
        return self._model

    def load(self) -> None:
        """Read, hash and load the graphs; blocks.

        Raises:
            BoothsamError: as `SamModel.load`; the service must not start then.
        """
        self._model = SamModel.load(self._named, **self._options)
        self.state, self.reason = "proving", "the golden answers are being compared"

    async def prove(self) -> None:
        """Warm up and ask the golden questions of the model's folder; ends in `ready` or `failed`, never raises."""
        try:
            await self.run(self._prove)
        except BoothsamError as error:
            self.state, self.reason = "failed", error.message
            log.error("not ready: %s", error)
        except Exception as error:
            self.state, self.reason = "failed", f"unexpected {type(error).__name__} while proving the model"
            log.exception("not ready")
        else:
            self.state, self.reason = "ready", self.model.reason

    def _prove(self) -> None:
        model, start = self.model, perf_counter()
        self._probe()
        folder = find_model(self._named)
        sidecars = sorted(path.name for path in (folder / "proof").glob("*.json"))
        if f"{GOLDEN}/golden.json" in model.manifest.files:
            report = verify_golden(model, folder)
            worst = min((case.mask_iou_min for case in report.cases), default=0.0)
            self.proof = {"golden": "passed" if report.passed else "failed", "cases": len(report.cases)}
            self.proof |= {"mask_iou_min": worst, "numerics": report.numerics, "sidecars": sidecars}
            report.require()
        else:
            self.proof = {"golden": "absent", "sidecars": sidecars}
        self.proof["seconds"] = round(perf_counter() - start, 3)

    def _probe(self) -> None:
        model = self.model
        embedding = model.encode(np.zeros((64, 64, 3), np.uint8))
        decoded = model.decode(embedding, Prompts.make([[32.0, 32.0]], [1]))
        embedding.close()
        if not np.isfinite(decoded.low_res_masks).all():
            raise BoothsamError("the model answers NaN or infinity", hint="boothsam doctor")

    async def probe(self) -> float:
        """Run one real inference, behind those that wait; its milliseconds. For the watchdog.

        Raises:
            BoothsamError: the model gave no finite answer.
        """
        start = perf_counter()
        await self.run(self._probe)
        return 1e3 * (perf_counter() - start)

    def need_ready(self) -> None:
        """Raises ServiceProblem `not_ready` unless ready."""
        if self.state != "ready":
            raise problem("not_ready", self.reason, "GET /readyz says why", headers={"Retry-After": "1"})

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run a blocking function on the pool.

        A caller that is cancelled waits for the thread to end: its place is not free before.
        """
        future = asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def key(self, photo_sha256: str) -> str:
        """The embedding's id for an upload."""
        return embedding_id(photo_sha256, self.model.manifest.key, self.model.precision, self.model.resize)

    def embed(self, key: str, image: Uint8Array, stages: Stages) -> tuple[ImageEmbedding, bool]:
        """The photo's embedding and whether it was cached; blocks, for use inside `run`."""
        with stages.time("embed"):
            return self.cache.get_or_make(key, lambda: self._encode(image))

    def _encode(self, image: Uint8Array) -> ImageEmbedding:
        frame, size_hw = self.model.preprocess(image)
        return self.model.encode_frame(frame, size_hw, (image.shape[0], image.shape[1]))

    def is_shared(self, key: str) -> bool:
        """Whether somebody's encode of this key is under way."""
        return key in self._flights

    async def share(self, key: str, photo: bytes, is_gone: IsGone, make: Make[T]) -> T:
        """Await `make` once for all requests that ask for the same key at the same time; the others take no place.

        key: names the photo's bytes, so that those of one request serve for all; no other copy is held here.
        make: gets them, and a function that says whether all who wait are gone. Its exception goes to every one of
        them, except that it found them all gone: who came just then makes it anew.
        """
        while True:
            flight = self._flights.get(key) or self._take_off(key, photo, make)
            photo = flight.photo
            flight.waiting.append(is_gone)
            try:
                result: T = await asyncio.shield(flight.task)
                return result
            except ServiceProblem as found:
                if found.code != "client_gone" or await is_gone():
                    raise
            finally:
                flight.waiting.remove(is_gone)
                if not flight.waiting and not flight.task.done():
                    self._land(key, flight)  # at once: nobody may join a flight that is being cancelled
                    flight.task.cancel()

    def _take_off(self, key: str, photo: bytes, make: Make[Any]) -> _Flight:
        async def everybody_gone() -> bool:
            return await flight.all_gone()

        flight = self._flights[key] = _Flight(photo, asyncio.create_task(make(photo, everybody_gone)))
        flight.task.add_done_callback(lambda _: self._land(key, flight))
        return flight

    def _land(self, key: str, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def close(self) -> None:
        """End the threads and free the model; waits for what runs."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.cache.clear()
        if self._model is not None:
            self._model.close()
            self._model = None
