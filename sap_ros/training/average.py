"""Interpolates between the weights before and after a training run.

    python -m sap_ros.training.average BEFORE.safetensors AFTER.safetensors 0.8 OUT.safetensors

Each resulting weight is 0.2 times that of BEFORE plus 0.8 times that of AFTER. The interpolated network
keeps most of the abilities of both: M. Wortsman et al., "Robust fine-tuning of zero-shot models",
arXiv 2109.01903.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from sap_ros.places import write_whole


def average(before: dict[str, Tensor], after: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights by name, ``share`` of the way from ``before`` to ``after``, in ``before``'s types.

    Raises:
        ValueError: their architectures differ.
    """
    if {k: v.shape for k, v in before.items()} != {k: v.shape for k, v in after.items()}:
        raise ValueError("the weights are of two architectures; they cannot be averaged")
    return {
        name: ((1 - share) * value.float() + share * after[name].float()).to(value.dtype)
        for name, value in before.items()
    }


def main() -> None:
    """The command: reads two weight files and writes a third."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("share", type=float, help="share of AFTER, 0 to 1")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    if not 0 <= args.share <= 1:
        parser.error(f"the share is {args.share}; it must lie between 0 and 1")
    write_whole(args.out, save(average(load_file(args.before), load_file(args.after), args.share)))


if __name__ == "__main__":
    main()
