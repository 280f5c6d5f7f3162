"""The configuration of a training run; ``config/training/*.yaml`` are examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError


@dataclass
class Source:
    """A data set from which training samples are taken.

    Attributes:
        kind: ``panoramas`` (as `sap synth` writes them), ``photographs`` (SA-1B's format), ``videos``
            (DAVIS' format) or ``sav`` (SA-V's: mp4 and json).
        path: its folder; may begin with ``~``.
        ratio: its share of the samples, relative to the other sources' ratios.
        index: csv with columns ``name`` and ``split``; if set, only the names of ``split`` are used.
        split: see ``index``.
        leave_out: regular expression; names whose ``source`` in the index matches it are not used.
        credit: its entry in the model card: origin and licence.
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
        stage: ``views``: trains encoder and decoder on single views with prompts (a model from scratch).
            ``scan``: the SAP recipe: windows of views, with a frozen image encoder.
        model: the architecture, a name from `sap models`.
        init: initial weights: a safetensors file, ``own`` for the model's own weights, or empty for
            random ones.
        init_memory: other initial weights, given in the same way, for the memory (all but image encoder,
            prompt encoder and mask decoder), which takes longest to train.
        imagenet: the trunk starts from its ImageNet weights (sap-nano).
        sources: data sets, by any name.
        size: side of a view in pixels; 0 for the model's own.
        batch: samples per process and step; a sample is a window or a list of views.
        views: number of views in a sample of stage ``views``.
        smallest: single views: objects that cover less than this share of a view are not used.
        object_views: share of the single views of panoramas that are fitted to one object; the others are
            like the scan's.
        window: number of views in a window.
        objects: maximum number of objects in a view or window.
        view_share: stage ``scan``: share of samples that are single views, against forgetting.
        click_all: stage ``scan``: share of windows in which every view that sees the clicks of all
            objects is prompted with them, as in the scan; otherwise only the first view is.
        view_corrections: single views: maximum number of corrections after the first decoding; a sample
            gets 1 to this many.
        corrections: stage ``scan``: number of unclicked views that get a correction click, in half of the
            windows.
        scan_windows: whether views of panoramas are taken from the scan's loop; if false, they are crops
            of the panorama itself (the ablation `patches`).
        overlap: overlap of the scan's views (0 is the ablation without overlap).
        gate_from: stage ``scan``: share of the run after which masks of objects that are predicted to be
            absent are suppressed, as in SAM 2. Suppressed masks give the memory no gradient.
        iterations: number of steps.
        lr: learning rate of AdamW: a warm-up of ``warm_up`` steps, then a cosine decay to 2 %.
        encoder_lr_scale: stage ``views``: learning rate of the trunk, relative to ``lr``.
        decoder_lr_scale: learning rate of prompt encoder and mask decoder, relative to ``lr``: below 1 if
            they have been trained and the memory has not. The head that predicts whether the object is there
            always has ``lr``: in single views it always is.
        encoder_warm_up: stage ``views``: share of the run in which the trunk stays frozen.
        ema: decay of the averaged weights, which are validated and exported.
        kinds: share of each kind of prompt in single views.
        camera: whether single views are degraded like a camera's: exposure, colour, blur, noise, JPEG.
        loss: weights of the losses, see :class:`sap_ros.training.losses.LossWeights`.
        validation: data set (written by `sap synth`) on which the averaged weights are validated.
        workers: data loader processes per training process.
        precision: ``fp32`` or ``bf16`` (on a GPU).
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
    smallest: float = 0.002
    object_views: float = 0.6
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
    """Reads a configuration file; ``changes`` are ``key=value`` or ``sources.NAME.path=value``.

    Raises:
        ValueError: a key is unknown, or a value is missing or of the wrong type.
    """
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(TrainConfig),
            OmegaConf.load(path),
            # `KEY=` means an empty string; yaml would read it as null.
            OmegaConf.from_dotlist([c + "''" if c.endswith("=") else c for c in changes or []]),
        )
        config = OmegaConf.to_object(merged)
    except YAMLError as error:
        raise ValueError(f"{path} is not valid yaml: {' '.join(str(error).split())}") from error
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
            "init_memory is given and init is not; init_memory only replaces the memory weights of init"
        )
    if not any(source.ratio > 0 for source in config.sources.values()):
        raise ValueError("no source has a ratio above 0; there is nothing to train on")


def as_yaml(config: TrainConfig) -> str:
    """The whole configuration as yaml that :func:`read_config` reads."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))
