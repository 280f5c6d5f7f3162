"""The transforms that a bag has recorded on /tf and /tf_static, in place of TF in a replay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from sap_ros.engine.transforms import NoTransforms, Stamped, Transform, Transforms
from sap_ros.evaluation.bags import Bag
from sap_ros.messages import nanoseconds

_KIND = "tf2_msgs/msg/TFMessage"


@dataclass(frozen=True)
class _Edge:
    """A frame in its parent, over time.

    Attributes:
        parent: the parent frame.
        stamps: (N,) ascending, in ns.
        rotations: N rotations from the frame to its parent.
        translations: (N, 3) in m.
        static: whether it holds at all times.
    """

    parent: str
    stamps: np.ndarray
    rotations: Rotation
    translations: np.ndarray
    static: bool

    def at(self, stamp: int) -> Transform:
        """The transform to the parent at a time in ns, interpolated; 0: the last one.

        Raises:
            ValueError: the time is not within those that were recorded.
        """
        if self.static or stamp == 0:
            return Transform(self.rotations[-1].as_matrix(), self.translations[-1])
        first, last = int(self.stamps[0]), int(self.stamps[-1])
        if not first <= stamp <= last:
            raise ValueError(f"in {self.parent!r} it is recorded from {first} to {last} ns")
        after = int(np.searchsorted(self.stamps, stamp))
        if self.stamps[after] == stamp:
            return Transform(self.rotations[after].as_matrix(), self.translations[after])
        both = slice(after - 1, after + 1)
        low, high = (int(each) for each in self.stamps[both])
        share = (stamp - low) / (high - low)
        rotation = Slerp([0, 1], self.rotations[both])(share)
        start, end = self.translations[both]
        return Transform(rotation.as_matrix(), start + share * (end - start))


class RecordedTransforms:
    """Transforms along the tree of frames, interpolated in time as by TF.

    Args:
        edges: by frame, its transform to its parent.
    """

    def __init__(self, edges: dict[str, _Edge]) -> None:
        self._edges = edges

    def lookup(self, target: Stamped, source: Stamped, fixed_frame: str = "") -> Transform:
        """See :class:`sap_ros.engine.transforms.Transforms`."""
        to_id, from_id = target.frame_id, source.frame_id
        if not to_id or not from_id or (to_id == from_id and not fixed_frame):
            return Transform()
        if fixed_frame:
            first = self._between(fixed_frame, from_id, source.stamp)
            then = self._between(to_id, fixed_frame, target.stamp)
            return _chained(then, first)
        return self._between(to_id, from_id, source.stamp)

    def _between(self, to_id: str, from_id: str, stamp: int) -> Transform:
        """The transform from one frame to another at a time in ns."""
        up, down = self._ancestors(from_id), self._ancestors(to_id)
        common = next((frame for frame in up if frame in down), None)
        try:
            if common is None:
                raise ValueError("the bag's /tf and /tf_static do not connect them")
            source, target = (
                self._to_ancestor(chain[: chain.index(common)], stamp) for chain in (up, down)
            )
        except ValueError as error:
            raise ValueError(
                f"no transform from {from_id!r} to {to_id!r} at {stamp} ns: {error}"
            ) from error
        back = target.rotation.T
        return _chained(Transform(back, -back @ target.translation), source)

    def _ancestors(self, frame: str) -> list[str]:
        """A frame, its parent and so on to the root; a loop ends where it closes."""
        chain = [frame]
        while chain[-1] in self._edges and self._edges[chain[-1]].parent not in chain:
            chain.append(self._edges[chain[-1]].parent)
        return chain

    def _to_ancestor(self, chain: list[str], stamp: int) -> Transform:
        transform = Transform()
        for frame in chain:
            transform = _chained(self._edges[frame].at(stamp), transform)
        return transform


def _chained(then: Transform, first: Transform) -> Transform:
    return Transform(then.rotation @ first.rotation, then.points(first.translation))


def recorded_transforms(bag: Bag) -> Transforms:
    """The transforms of a bag; transforms with invalid values are left out."""
    found: dict[str, dict[int, tuple[list[float], list[float]]]] = {}
    parents: dict[str, tuple[str, bool]] = {}
    for topic, _, message in bag.messages(bag.of_kind([_KIND])):
        for each in message.transforms:
            q, t = each.transform.rotation, each.transform.translation
            quaternion, translation = [q.x, q.y, q.z, q.w], [t.x, t.y, t.z]
            if not np.isfinite([*quaternion, *translation]).all() or not any(quaternion):
                continue
            frame = each.child_frame_id.lstrip("/")
            parent = each.header.frame_id.lstrip("/"), topic.endswith("tf_static")
            if parents.get(frame) != parent:  # as in TF, the frame has moved to another parent
                parents[frame], found[frame] = parent, {}
            found[frame][nanoseconds(each.header.stamp)] = quaternion, translation
    if not found:
        return NoTransforms()
    edges = {}
    for frame, known in found.items():
        stamps = sorted(known)
        quaternions, translations = (np.array([known[s][k] for s in stamps]) for k in (0, 1))
        parent_id, static = parents[frame]
        edges[frame] = _Edge(
            parent_id,
            np.array(stamps, np.int64),
            Rotation.from_quat(quaternions),
            translations,
            static,
        )
    return RecordedTransforms(edges)
