"""Weights between those that a training started from and those that it came to.

    python -m sap_ros.training.average BEFORE.safetensors AFTER.safetensors 0.8 OUT.safetensors

Each weight is 0.2 of what it was and 0.8 of what it became. Between the two a network keeps most of what
either can do: M. Wortsman et al., "Robust fine-tuning of zero-shot models", arXiv 2109.01903.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


def average(before: dict[str, Tensor], after: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights by name, ``share`` of the way from ``before`` to ``after``, in ``before``'s types.

    Raises:
        ValueError: they are not of one architecture.
    """
    if {k: v.shape for k, v in before.items()} != {k: v.shape for k, v in after.items()}:
        raise ValueError("the weights are of two architectures; they have no mean")
    return {
        name: ((1 - share) * value.float() + share * after[name].float()).to(value.dtype)
        for name, value in before.items()
    }


def main() -> None:
    """Reads two files, writes a third."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("share", type=float, help="of AFTER, 0 to 1")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    if not 0 <= given.share <= 1:
        parser.error(f"the share is {given.share}; it must lie between 0 and 1")
    save_file(average(load_file(given.before), load_file(given.after), given.share), given.out)


if __name__ == "__main__":
    main()
