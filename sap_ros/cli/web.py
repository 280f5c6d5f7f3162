"""`sap web`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from sap_ros.cli.shared import CHECKPOINT, DEVICE, MODEL, STRATEGY, VIEW_SIZE, load_model_with_bar

if TYPE_CHECKING:
    from sap_ros.core.search import Strategy


def web(
    panoramas: Annotated[
        Path, typer.Argument(help="A panorama, or a folder of panoramas to label.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the labels; default: the folder of the panoramas.", show_default=False
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; 0.0.0.0: other machines can open the page, with a token."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port.")] = 8360,
    model: MODEL = "sap-nano",
    checkpoint: CHECKPOINT = None,
    device: DEVICE = "auto",
    strategy: STRATEGY = "auto",
    view_size: VIEW_SIZE = None,
) -> None:
    """Click on panoramas in a browser, and save masks and labels as a data set."""
    import asyncio

    from sap_ros.core.session import PanoramaSession
    from sap_ros.web.access import make_access
    from sap_ros.web.folder import PanoramaFolder
    from sap_ros.web.labelling import Labelling
    from sap_ros.web.server import serve
    from sap_ros.web.stills import Stills

    access = make_access(host, port)
    folder = PanoramaFolder(panoramas, out)
    session = PanoramaSession(
        load_model_with_bar(model, checkpoint, device, view_size),
        cast("Strategy", strategy),  # checked by the session
    )
    asyncio.run(serve(Stills(Labelling(folder, session)), access))
