"""Prints an SROS 2 policy for the node: the topics and services of README.md's tables, which a test compares with it.

python scripts/sros2_policy.py > config/sros2/sap_policy.xml
python scripts/sros2_policy.py --namespace front --image /camera/image_raw > policy.xml
"""

from __future__ import annotations

import argparse
import re
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


def policy(readme: str, namespace: str = "sap", image: str = "image") -> str:
    """The policy, as XML.

    Args:
        readme: README.md's text.
        namespace: of the node.
        image: the topic that ``image`` is remapped to.
    """
    rows = {
        kind: [
            re.sub(r"^image(?=/|$)", image, name)
            for row in re.findall(rf"^\| {kind} (.*?) \|", readme, re.MULTILINE)
            for name in re.findall(r"`([^`]+)`", row)
        ]
        for kind in ("in", "out")
    }
    # README.md says of these: with the same suffixes as image.
    lenses = [name for name in rows["in"] if re.fullmatch("image_(front|back)", name)]
    rows["in"] += [f"{name}/{suffix}" for name in lenses for suffix in ("compressed", "ffmpeg")]
    (table,) = re.findall(r"^\| service \| type .*\n\|.*\n((?:\|.*\n)+)", readme, re.MULTILINE)
    services = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    root = ET.Element("policy", version="0.2.0")
    enclave = ET.SubElement(ET.SubElement(root, "enclaves"), "enclave", path=f"/{namespace}/sap")
    profiles = ET.SubElement(enclave, "profiles")
    profile = ET.SubElement(profiles, "profile", ns=f"/{namespace}", node="sap")
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
    parser.add_argument("--image", default="image", help="topic that image is remapped to")
    given = parser.parse_args()
    print(policy(README.read_text(), given.namespace.strip("/"), given.image), end="")


if __name__ == "__main__":
    main()
