"""Weights between two."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from sap_ros.training.average import average


def test_weights_lie_the_asked_share_of_the_way():
    before = {"a": torch.tensor([0.0, 2.0]).half(), "n": torch.tensor([1.0])}
    after = {"a": torch.tensor([1.0, 4.0]).half(), "n": torch.tensor([3.0])}
    found = average(before, after, 0.75)
    assert found["a"].dtype == torch.float16
    assert found["a"].tolist() == [0.75, 3.5]
    assert found["n"].tolist() == [2.5]


def test_two_architectures_have_no_mean():
    one = {"a": torch.zeros(2)}
    for other in ({"a": torch.zeros(3)}, {"b": torch.zeros(2)}):
        with pytest.raises(ValueError, match="two architectures"):
            average(one, other, 0.5)


def test_the_command_writes_a_file_and_says_a_share_that_is_none(tmp_path):
    files = [tmp_path / f"{name}.safetensors" for name in ("before", "after", "out")]
    for file, value in zip(files, (1.0, 2.0), strict=False):
        save_file({"a": torch.full((2,), value)}, file)
    command = [sys.executable, "-m", "sap_ros.training.average", *map(str, files[:2])]
    subprocess.run([*command, "0.5", str(files[2])], check=True)
    assert load_file(files[2])["a"].tolist() == [1.5, 1.5]
    done = subprocess.run([*command, "2", str(files[2])], capture_output=True, text=True)
    assert done.returncode == 2
    assert "must lie between 0 and 1" in done.stderr
