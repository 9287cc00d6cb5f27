"""The short load run, for what no busy machine changes: no wrong answer, no bomb let in, memory within its bound."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_short_load_run_finds_no_wrong_answer(tmp_path: Path) -> None:
    record = tmp_path / "load.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "load_service.py"), "--short", "--json", str(record)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    # 2 says that a time was missed, which a busy machine explains.
    assert done.returncode in (0, 2), done.stderr
    found = json.loads(record.read_text())
    facts = found["facts"]
    assert [name for name, fact in facts.items() if fact["mistakes"]] == []
    assert all(bomb["status"] == 413 for bomb in facts["bombs"]["bombs"].values())
    assert set(facts["flood"]["answers"]) <= {"200", "429 queue_full", "503 deadline"}
    assert facts["full"]["answers"]["429 queue_full"] > 0
    assert sum(facts["damaged"]["answers"].values()) == found["plan"]["damaged"]
    assert facts["flood"]["peak_mib"] < 1430, "1.5 GB"
    assert "| figure | measured | target |" in done.stdout
