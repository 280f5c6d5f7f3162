"""What a page may ask for, and what is refused."""

import json

import pytest

from sap_ros.web.commands import Box, Point, RemoveObject, Rename, Simple, parse, read_json

POINT = {"type": "point", "direction": [1, 0, 0.5], "positive": True, "object_id": 0, "stamp": "7"}


def test_commands_are_read():
    assert parse(POINT) == Point((1.0, 0.0, 0.5), True, 0, 7)
    box = {**POINT, "type": "box", "corners": [[1, 0.1, 0.1], [1, -0.1, -0.1]]}
    assert parse(box) == Box(((1.0, 0.1, 0.1), (1.0, -0.1, -0.1)), 0, 7)
    assert parse({"type": "remove", "object_id": 3}) == RemoveObject(3)
    renamed = parse({"type": "rename", "object_id": 3, "label": " red \n ball "})
    assert renamed == Rename(3, "red ball")
    assert [parse({"type": n}) for n in ("reset", "save")] == [Simple("reset"), Simple("save")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "format"}, "'format'"),
        ({"type": ["point"]}, "type is"),
        ({"direction": [1, 0]}, "three finite numbers"),
        ({"direction": [0, 0, 0]}, "not all 0"),
        ({"direction": [float("nan"), 0, 1]}, "three finite numbers"),
        ({"direction": [10**400, 0, 1]}, "three finite numbers"),
        ({"direction": [True, 0, 1]}, "three finite numbers"),
        ({"direction": "ahead"}, "'ahead'"),
        ({"positive": 1}, "true or false"),
        ({"object_id": -1}, "object_id is -1"),
        ({"object_id": 65535}, "object_id is 65535"),
        ({"object_id": True}, "object_id is True"),
        ({"stamp": 7}, "stamp is 7"),
        ({"stamp": "-7"}, "digits"),
        ({"stamp": "9" * 20}, "19 digits"),
        ({"type": "box", "corners": [[1, 0, 0]]}, "two directions"),
        ({"type": "remove"}, "object_id is 0"),
        ({"type": "rename", "object_id": 1, "label": "x" * 65}, "64 characters"),
    ],
)
def test_what_is_wrong_is_named(change, said):
    with pytest.raises(ValueError, match=said):
        parse({**POINT, **change})


@pytest.mark.parametrize("text", ["", "[1]", "7", "{", "[" * 100_000, json.dumps("x")])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(ValueError, match=r"message|Expecting|nested"):
        read_json(text)
