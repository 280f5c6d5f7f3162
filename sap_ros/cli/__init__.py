"""The `sap` command. Each subcommand imports its packages only when it runs, so that `sap --help` is fast."""

from __future__ import annotations

import sys

import typer

from sap_ros.cli.bench import bench
from sap_ros.cli.calibrate import calibrate
from sap_ros.cli.evaluate import app as evaluate
from sap_ros.cli.export import export
from sap_ros.cli.latency import latency
from sap_ros.cli.models import models
from sap_ros.cli.replay import bag, replay
from sap_ros.cli.segment import demo, segment
from sap_ros.cli.synth import synth
from sap_ros.cli.train import train
from sap_ros.cli.web import web
from sap_ros.missing import how_to_install
from sap_ros.places import explained

app = typer.Typer(
    help="Point at anything in a 360° panorama: masks and bearings with SAM 2.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (segment, models, web, demo, export, train, replay, latency, bag, calibrate, bench):
    app.command()(command)
app.add_typer(evaluate, name="eval")
app.add_typer(synth, name="synth")


def main() -> None:
    """Runs the command; invalid input or a missing package gives a one-line message and exit code 2."""
    try:
        app()
    except ModuleNotFoundError as error:
        typer.echo(f"sap: {how_to_install(error)}", err=True)
        sys.exit(2)
    except (ValueError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            reason = f"{error.filename}: {error.strerror}"
        typer.echo(f"sap: {reason}", err=True)
        sys.exit(2)
    except Exception as error:
        if not (reason := explained(error)):
            raise
        typer.echo(f"sap: {reason}", err=True)
        sys.exit(2)
