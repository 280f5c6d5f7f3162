"""appearance: an object that is hidden is not said to be tracked."""

import numpy as np

from sap_ros.core import sphere
from sap_ros.core.appearance import appearance, similar
from sap_ros.core.instances import State
from sap_ros.core.model import load_model
from sap_ros.core.prompts import Prompt
from sap_ros.core.session import PanoramaSession
from sap_ros.synthesis.moving import MovingScene

SIZE = (512, 256)


def test_what_is_hidden_is_lost_and_what_is_seen_is_tracked():
    """Half of the panorama is covered after large steps; a mask beside an object is not the object."""
    scene, session = MovingScene(1), PanoramaSession(load_model())
    wrong, right, seen = 0, 0, 0
    for k in range(6):
        image, truth = scene.render(0.8 * k, SIZE)
        if k in (3, 4):
            image[:, 512:], truth[:, 512:] = (120, 118, 110), 0
        if k == 0:
            session.set_image(image)
            for i in range(1, 7):
                v, u = np.nonzero(truth == i)
                middle = sphere.pixel_to_direction(np.stack([u, v], -1) + 0.5, SIZE).mean(0)
                session.add_prompt(Prompt(i, middle[None], np.array([1])))
        else:
            session.next_image(image)
        found = session.segment()
        for thing in found.objects:
            one, other = found.labels == thing.object_id, truth == thing.object_id
            overlap = (one & other).sum() / max((one | other).sum(), 1)
            wrong += thing.state == State.TRACKED and overlap < 0.1
            if k and other.sum() > 50:
                seen, right = seen + 1, right + (overlap > 0.5)
    assert wrong <= 2
    assert right > 0.9 * seen


def test_the_same_mask_is_similar_and_its_inverse_is_not(panorama):
    model = load_model()
    view = np.ascontiguousarray(np.tile(panorama[:128, :128], (2, 2, 1)))
    view[100:160, 90:150] = (200, 40, 40)
    features = model.encode(view)
    logits = np.full((64, 64), -5.0, np.float32)
    logits[25:40, 23:38] = 5
    one = appearance(features, logits)
    assert one.shape == (256,)
    assert similar(one, one)
    assert not similar(one, -one)
    assert similar(one, None)
    assert appearance(features, np.full((64, 64), -5.0, np.float32)) is None
