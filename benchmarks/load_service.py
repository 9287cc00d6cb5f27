"""The service under load: every bound attacked at once, each figure beside its target.

    python benchmarks/load_service.py [--short] [--crops 10000] [--json benchmarks/results/load-service.json]

Starts `boothsam serve` with the starter model and default settings as a process of its own on a free port, with
captures in a folder that is removed afterwards; this process is the clients. Memory is the resident memory of the
server's whole process tree, summed, so that what two processes share counts twice. Everything that is sent is drawn and
seeded.

--short sends less and smaller photos (for CI: it looks for wrong answers; its times and its drift mean little).
Exit code 1 when an answer was wrong, whatever the times were; 2 when only a target was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load import measures, pictures
from load.report import Figure, document, quantile, table
from load.server import Server, serving


@dataclass(frozen=True)
class Plan:
    """How much is done. Sizes are names of pictures.SIZES_HW; box: of the crops under load, none: automatic."""

    bomb_rounds: int
    damaged: int
    full_size: str
    full_s: float
    flood_size: str
    flood: int
    crops: int
    warm_up: int
    sockets: int
    clicks: int
    box: str = ""


FULL = Plan(20, 500, "12 MP", 60.0, "24 MP", 100, 10_000, 500, 200, 200)
SHORT = Plan(2, 60, "2 MP", 2.0, "12 MP", 12, 50, 10, 200, 6, box="400,300,1200,900")
# So that the short run's warm-up fills the cache of embeddings, too; the full one keeps every default.
SHORT_SETTINGS = {"cache_bytes": str(32 << 20)}
QUEUE = 8


async def measure(server: Server, plan: Plan) -> dict[str, Any]:
    """All facts, by the name of the attack. The mild ones come first, so that they see a fresh server."""
    small, flood = pictures.jpeg("small"), pictures.jpeg(plan.flood_size)
    fields = {"box": plan.box} if plan.box else {}
    found: dict[str, Any] = {}
    for name, work in (
        ("click", measures.click_again(server, pictures.jpeg("2 MP"), plan.clicks)),
        ("idle", measures.among_idle(server, small, plan.sockets)),
        ("bombs", measures.send_bombs(server, pictures.bombs(), plan.bomb_rounds)),
        ("damaged", measures.send_damaged(server, pictures.damaged(plan.damaged))),
        ("full", measures.keep_full(server, pictures.jpeg(plan.full_size), QUEUE + 4, plan.full_s, fields)),
        ("flood", measures.flood(server, flood, plan.flood, fields)),
        ("soak", measures.soak(server, plan.crops, plan.warm_up)),
    ):
        found[name] = await work
        print(f"{name}: {summary(found[name])}", file=sys.stderr, flush=True)
    return found


def summary(facts: dict[str, Any]) -> str:
    """Facts without the long lists."""
    return json.dumps({name: value for name, value in facts.items() if not isinstance(value, list) or len(value) < 12})


def figures(found: dict[str, Any], plan: Plan) -> list[Figure]:
    """The table's rows. Raises ValueError where something could not be measured."""
    bombs, full, soak, click = found["bombs"], found["full"], found["soak"], found["click"]
    worst = max(bombs["bombs"].values(), key=lambda bomb: bomb["slowest_ms"])
    wrong = sum(len(facts["mistakes"]) for facts in found.values())
    sizes = [bomb["bytes"] for bomb in bombs["bombs"].values()]
    corpus = f"{len(sizes)} bombs of {min(sizes)} bytes to {max(sizes) / 2**20:.1f} MiB, {plan.bomb_rounds} times each"
    rejected, health = full["rejected_s"], full["health_s"]
    scaled = soak["drift_mib"] * 10_000 / plan.crops
    drift = "" if plan.crops == 10_000 else f"scaled from {soak['drift_mib']:g} MiB in {plan.crops} crops"
    taken = statistics.median(click["whole_ms"]), statistics.median(click["decoder_ms"])
    parts = f"whole {taken[0]:.1f}, decoder {taken[1]:.1f}, mask as PNG {statistics.median(click['file_ms']):.1f}"
    return [
        Figure("wrong answers in all of the below", wrong, "", 0),
        Figure("slowest refusal of a bomb", worst["slowest_ms"], "ms", 150, corpus),
        Figure("memory that the bombs took", bombs["extra_mib"], "MiB", 50),
        Figure("server errors over damaged images", len(found["damaged"]["mistakes"]), "", 0, f"{plan.damaged} images"),
        _ms("rejection with a full queue, p99", rejected, 50, f"{len(rejected)} rejections of {plan.full_size}"),
        _ms("/healthz under full load, p99", health, 100, f"{len(health)} requests"),
        Figure("/healthz under full load, slowest", round(1e3 * max(health), 1), "ms"),
        Figure(
            f"peak memory, {plan.flood} parallel {plan.flood_size} uploads", found["flood"]["peak_mib"], "MiB", 1430.5,
            f"{found['flood']['peak_pss_mib']} MiB with shared pages once; {found['flood']['before_mib']} before, "
            f"{found['flood']['after_mib']} after",
        ),
        Figure("memory growth per 10,000 crops", round(scaled, 1), "MiB", 19.1, drift),
        Figure(f"a crop beside {plan.sockets} idle sockets", round(found["idle"]["seconds"], 2), "s", 2),
        Figure("a click on a cached photo beyond decoder and mask file", round(statistics.median(click["rest_ms"]), 1),
               "ms", 5, f"median of {plan.clicks}, 2 MP; {parts}"),
    ]  # fmt: skip


def _ms(name: str, seconds: list[float], target: float, note: str) -> Figure:
    return Figure(name, round(1e3 * quantile(seconds, 0.99), 1), "ms", target, note)


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="for CI")
    parser.add_argument("--crops", type=int, help="crops of the memory growth's measurement, after a warm-up")
    parser.add_argument("--json", type=Path, help="write figures and facts there")
    options = parser.parse_args()
    plan = SHORT if options.short else FULL
    if options.crops:
        plan = Plan(**(vars(plan) | {"crops": options.crops}))
    load_before = os.getloadavg()[0]
    with serving(**(SHORT_SETTINGS if options.short else {})) as server:
        found = asyncio.run(measure(server, plan))
    rows = figures(found, plan)
    print(table(rows))
    if options.json:
        command = "python benchmarks/load_service.py" + (" --short" if options.short else "")
        command += f" --crops {options.crops}" if options.crops else ""
        for facts in found.values():  # of the long lists the figures are enough
            for name in [name for name, value in facts.items() if isinstance(value, list) and len(value) > 50]:
                facts[name] = {"count": len(facts[name]), "median": statistics.median(facts[name])}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(document(command, rows, load_before, plan=vars(plan), facts=found))
    if any(facts["mistakes"] for facts in found.values()):
        for name, facts in found.items():
            print(*(f"{name}: {mistake}" for mistake in facts["mistakes"][:10]), sep="\n", file=sys.stderr)
        return 1
    return 0 if all(one.met is not False for one in rows) else 2


if __name__ == "__main__":
    sys.exit(main())
