"""Prints an SROS 2 policy for the node: the topics and services of README.md's tables, which a test compares with it.

python scripts/sros2_policy.py > config/sros2/sap_policy.xml
python scripts/sros2_policy.py --namespace front -r image:=/camera/image_raw -r points:=/lidar/points > policy.xml
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

README = Path(__file__).resolve().parents[1] / "README.md"
#: What every lifecycle node has, and what tf2_ros adds.
PUBLISHED = ["/parameter_events", "/rosout", "/tf", "/tf_static", "~/transition_event"]
SUBSCRIBED = ["/clock", "/parameter_events", "/tf", "/tf_static"]
SERVED = [
    *(f"~/{name}" for name in ("describe_parameters", "get_parameter_types", "get_parameters")),
    *(f"~/{name}" for name in ("list_parameters", "set_parameters", "set_parameters_atomically")),
    "~/get_type_description",
    *(f"~/{name}" for name in ("change_state", "get_state", "get_available_states")),
    *(f"~/{name}" for name in ("get_available_transitions", "get_transition_graph")),
    "tf2_frames",
]


def policy(readme: str, namespace: str = "sap", remapped: Mapping[str, str] | None = None) -> str:
    """The policy, as XML.

    Args:
        readme: README.md's text.
        namespace: of the node.
        remapped: by topic, what it is remapped to; ``compressed`` and ``ffmpeg`` follow their images.

    Raises:
        ValueError: there is no such topic.
    """
    rows = {
        kind: [
            name
            for row in re.findall(rf"^\| {kind} (.*?) \|", readme, re.MULTILINE)
            for name in re.findall(r"`([^`]+)`", row)
        ]
        for kind in ("in", "out")
    }
    # README.md says of these: with the same suffixes as image.
    lenses = [name for name in rows["in"] if re.fullmatch("image_(front|back)", name)]
    rows["in"] += [f"{name}/{suffix}" for name in lenses for suffix in ("compressed", "ffmpeg")]
    for topic, other in (remapped or {}).items():
        if topic not in rows["in"] + rows["out"]:
            raise ValueError(f"{topic} is not a topic of README.md's table")
        names = rf"^{re.escape(topic)}(?=$|/(?:compressed|ffmpeg)$)"
        rows = {kind: [re.sub(names, other, name) for name in rows[kind]] for kind in rows}
    (table,) = re.findall(r"^\| service \| type .*\n\|.*\n((?:\|.*\n)+)", readme, re.MULTILINE)
    services = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    ns = f"/{namespace.strip('/')}"
    root = ET.Element("policy", version="0.2.0")
    enclave = ET.SubElement(
        ET.SubElement(root, "enclaves"), "enclave", path=f"{ns.rstrip('/')}/sap"
    )
    profiles = ET.SubElement(enclave, "profiles")
    profile = ET.SubElement(profiles, "profile", ns=ns, node="sap")
    for kind, right, names in (
        ("topic", "publish", [*rows["out"], *PUBLISHED]),
        ("topic", "subscribe", [*rows["in"], *SUBSCRIBED]),
        ("service", "reply", [*services, *SERVED]),
    ):
        group = ET.SubElement(profile, f"{kind}s", {right: "ALLOW"})
        for name in sorted(names):
            ET.SubElement(group, kind).text = name
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--namespace", default="sap", help="namespace of the node (default: sap)")
    parser.add_argument(
        "-r",
        dest="remapped",
        metavar="TOPIC:=OTHER",
        action="append",
        default=[],
        help="a topic of the node that is remapped, as for the node",
    )
    given = parser.parse_args()
    if wrong := [text for text in given.remapped if ":=" not in text]:
        parser.error(f"-r {wrong[0]}: it must be TOPIC:=OTHER")
    remapped = dict(text.split(":=", 1) for text in given.remapped)
    try:
        print(policy(README.read_text(), given.namespace, remapped), end="")
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
