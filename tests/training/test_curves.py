"""Reading a run's log and drawing it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from boothsam.training.curves import draw_curves, read_log, smooth

COLUMNS = "step,loss,mask,box_single,box_best,click_best,click_top,second_single,score_error"


def test_gaps_are_left_out_of_the_mean() -> None:
    values = np.array([1.0, np.nan, 3.0, 5.0])
    np.testing.assert_allclose(smooth(values, 2), [1.0, 1.0, 3.0, 4.0])


def test_curves_of_two_logs_in_a_row(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        rows = [f"{k},{3 - k / 10},2,{k / 10},,{k / 20},{k / 30},,0.2" for k in range(1, 9)]
        (tmp_path / name).write_text("\n".join([COLUMNS, *rows]) + "\n")
    logs = [tmp_path / "a.csv", tmp_path / "b.csv"]
    assert len(read_log(logs)["loss"]) == 16
    assert np.isnan(read_log(logs)["box_best"]).all()
    draw_curves(logs, tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 5


def test_an_empty_log_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(COLUMNS + "\n")
    with pytest.raises(ValueError, match="hint:"):
        read_log([tmp_path / "log.csv"])
