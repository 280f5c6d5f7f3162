"""The configuration of a training run; ``config/training/*.yaml`` are examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError


@dataclass
class Source:
    """A data set that samples are drawn from.

    Attributes:
        kind: ``panoramas`` (as `sap synth` writes them), ``photographs`` (SA-1B's format), ``videos``
            (DAVIS' format) or ``sav`` (SA-V's: mp4 and json).
        path: its folder; may begin with ``~``.
        ratio: its share of the samples, against the other sources' ratios.
        index: csv with ``name`` and ``split``; with it, only the names of ``split`` are taken.
        split: see ``index``.
        leave_out: regular expression; names whose ``source`` in the index matches it are not taken.
        credit: what the model card says of it: where it is from, and its licence.
    """

    kind: str
    path: str
    ratio: float = 1.0
    index: str = ""
    split: str = "train"
    leave_out: str = ""
    credit: str = ""


@dataclass
class TrainConfig:
    """A training run.

    Attributes:
        stage: ``views``: single views with prompts, encoder and decoder (for a model from scratch).
            ``scan``: the SAP recipe; windows of views, the image encoder frozen.
        model: which architecture, a name of `sap models`.
        init: weights to start from: a safetensors file, ``own`` for the model's own weights, or
            nothing, for random ones.
        init_memory: weights that memory (all but image encoder, prompt encoder and mask decoder) starts
            from in their place, in the same way: learning to remember takes longest.
        imagenet: the trunk starts from its ImageNet weights (sap-nano).
        sources: data sets, by any name.
        size: side of a view; 0 for the model's own.
        batch: samples a process and step: windows, or lists of views.
        views: views in a sample of stage ``views``.
        window: views in a window.
        objects: at most, a view or window.
        view_share: stage ``scan``: share of samples that are single views, against forgetting.
        click_all: stage ``scan``: share of windows whose click is given to all views that see it,
            as the scan does; else to the first alone.
        view_corrections: single views: most corrections after the first decoding, 1 to so many.
        corrections: stage ``scan``: later views of a window that get a correction click.
        scan_windows: views of panoramas come from the scan's loop; false: from crops of the
            panorama itself (the ablation `patches`).
        overlap: of the scan's views (0 is the ablation without overlap).
        gate_from: stage ``scan``: share of the run after which masks of objects that are held to be
            absent are cut off, as SAM 2 does; before, memory could not learn from them.
        iterations: steps.
        lr: of AdamW; a warm-up of ``warm_up`` steps, then a cosine down to 2 %.
        encoder_lr_scale: stage ``views``: the trunk's lr against ``lr``.
        decoder_lr_scale: the prompt encoder's and mask decoder's lr against ``lr``: below 1 where they
            are trained and memory is not.
        encoder_warm_up: stage ``views``: share of the run for which the trunk stays frozen.
        ema: decay of the averaged weights, which are the ones that are validated and exported.
        kinds: shares of the kinds of prompt in single views.
        camera: single views get what a panorama's camera does: exposure, noise, blur, JPEG.
        loss: weights of the losses, see :class:`sap_ros.training.losses.LossWeights`.
        validation: data set (as `sap synth` writes it) that the averaged weights are tried on.
        workers: processes that make samples, for each training process.
        precision: ``fp32`` or ``bf16`` (a GPU's).
    """

    stage: str
    model: str
    sources: dict[str, Source]
    init: str = ""
    init_memory: str = ""
    imagenet: bool = False
    size: int = 0
    batch: int = 1
    views: int = 16
    window: int = 8
    objects: int = 6
    view_share: float = 0.25
    click_all: float = 0.5
    view_corrections: int = 0
    corrections: int = 1
    scan_windows: bool = True
    overlap: float = 0.5
    gate_from: float = 0.4
    iterations: int = 1000
    lr: float = 2e-4
    warm_up: int = 50
    encoder_lr_scale: float = 0.25
    decoder_lr_scale: float = 1.0
    encoder_warm_up: float = 0.2
    weight_decay: float = 0.05
    clip: float = 1.0
    ema: float = 0.999
    kinds: dict[str, float] = field(
        default_factory=lambda: {"click": 0.6, "clicks": 0.2, "box": 0.2}
    )
    camera: bool = False
    loss: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    save_every: float = 120.0  # s
    log_every: int = 20  # steps
    picture_every: int = 200  # steps
    validation: str = ""
    validate_every: int = 500  # steps
    validation_panoramas: int = 8
    workers: int = 1
    precision: str = "fp32"


def read_config(path: Path, changes: list[str] | None = None) -> TrainConfig:
    """A configuration file, with changes as ``key=value`` or ``sources.NAME.path=value``.

    Raises:
        ValueError: a key that does not exist, or a value of another type, or a missing one.
    """
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(TrainConfig),
            OmegaConf.load(path),
            # `KEY=` is the empty text, where yaml has nothing.
            OmegaConf.from_dotlist([c + "''" if c.endswith("=") else c for c in changes or []]),
        )
        config = OmegaConf.to_object(merged)
    except YAMLError as error:
        raise ValueError(f"{path} is no yaml: {' '.join(str(error).split())}") from error
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise ValueError(f"{path}: {where}{str(error).splitlines()[0]}") from error
    assert isinstance(config, TrainConfig)
    _check(config)
    return config


def _check(config: TrainConfig) -> None:
    for name, value, known in (
        ("stage", config.stage, ("views", "scan")),
        ("precision", config.precision, ("fp32", "bf16")),
        *(
            ("kind", source.kind, ("panoramas", "photographs", "videos", "sav"))
            for source in config.sources.values()
        ),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
    if config.init_memory and not config.init:
        raise ValueError(
            "init_memory is given and init is not; memory alone is not begun from weights"
        )
    if not any(source.ratio > 0 for source in config.sources.values()):
        raise ValueError("no source has a ratio above 0; there is nothing to train on")


def as_yaml(config: TrainConfig) -> str:
    """The whole configuration, as a file that :func:`read_config` reads."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))
