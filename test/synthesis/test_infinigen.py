"""InfiniGen's scenes: what can be tried without making one. Blender's part skips where there is no bpy.

In InfiniGen's environment: pytest --noconftest test/synthesis/test_infinigen.py
"""

import subprocess
import sys
from importlib.util import find_spec

import pytest


@pytest.mark.skipif(find_spec("infinigen") is not None, reason="infinigen is installed")
def test_without_infinigen_it_is_said_how_it_is_installed(tmp_path):
    command = [sys.executable, "-m", "sap_ros.cli", "synth", "infinigen", "--out", tmp_path / "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "requirements/infinigen.txt" in done.stderr


def test_an_object_is_all_that_a_factory_spawned():
    bpy = pytest.importorskip("bpy")
    from sap_ros.synthesis.infinigen import _number_objects

    bpy.ops.wm.read_factory_settings(use_empty=True)

    def add(name, parent=None):
        thing = bpy.data.objects.new(name, None)
        bpy.context.scene.collection.objects.link(thing)
        thing.parent = parent
        return thing

    group = add("unique_assets")
    chair = add("ChairFactory(12).spawn_asset(0)", group)
    leg = add("ChairFactory(12).leg", chair)
    other = add("ChairFactory(12).spawn_asset(1)", group)
    wall = add("dining-room_0/0.wall")
    names = _number_objects()
    assert leg.pass_index == chair.pass_index
    assert len({chair.pass_index, other.pass_index, 0}) == 3
    assert wall.pass_index == group.pass_index == 0
    assert names == {chair.pass_index: "chair", other.pass_index: "chair"}
