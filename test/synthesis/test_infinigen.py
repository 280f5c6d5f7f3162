"""InfiniGen's scenes: what can be tried without making one. Blender's part skips where there is no bpy.

In InfiniGen's environment: pytest -c /dev/null --noconftest test/synthesis/test_infinigen.py
"""

import math
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


def test_places_for_a_camera_are_free_apart_and_in_sight_of_the_first():
    bpy = pytest.importorskip("bpy")
    from sap_ros.synthesis.infinigen import _positions

    bpy.ops.wm.read_factory_settings(use_empty=True)
    # A room of 6 x 6 x 3 m, and a wall across it at x = 1.
    bpy.ops.mesh.primitive_cube_add(size=1, location=(0, 0, 1.5), scale=(6, 6, 3))
    bpy.ops.mesh.primitive_cube_add(size=1, location=(1, 0, 1.5), scale=(0.1, 6, 3))
    places = _positions((-1.0, 0.0, 1.5), 4, 0)
    assert len(places) == 4
    assert places[0] == (-1, 0, 1.5)
    for place in places[1:]:
        assert -3 < place[0] < 1 - 0.05
        assert abs(place[1]) < 3
    for place in places:
        assert all(math.dist(place, other) >= 0.5 for other in places if other != place)
    assert places == _positions((-1.0, 0.0, 1.5), 4, 0)


def test_a_place_without_room_is_the_only_one():
    bpy = pytest.importorskip("bpy")
    from sap_ros.synthesis.infinigen import _positions

    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.mesh.primitive_cube_add(size=0.8, location=(0, 0, 1))
    assert _positions((0.0, 0.0, 1.0), 4, 0) == [(0, 0, 1)]
