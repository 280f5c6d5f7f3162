"""The public face: what `from sap_ros import ...` gives, and what it does not import."""

import subprocess
import sys

import pytest

import sap_ros


def _run(code, folder):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import sap_ros",
        "from sap_ros import *",
    ],
)
def test_torch_comes_with_the_first_model(code, tmp_path):
    heavy = "('torch', 'sam2')"
    loaded = _run(f"{code}; import sys; print([m for m in {heavy} if m in sys.modules])", tmp_path)
    assert loaded.strip() == "[]"


def test_the_public_names_are_those_of_the_core(tmp_path):
    from sap_ros.core.loading import load_model
    from sap_ros.core.session import PanoramaSession

    assert sap_ros.PanoramaSession is PanoramaSession
    assert sap_ros.load_model is load_model
    assert set(sap_ros.__all__) <= set(dir(sap_ros))
    for name in sap_ros.__all__:
        assert getattr(sap_ros, name).__name__ == name
    with pytest.raises(AttributeError, match="'sap_ros' has no attribute 'Panorama'"):
        _ = sap_ros.Panorama


def test_modules_of_the_package_are_found_beside_the_public_names(tmp_path):
    """A lazy attribute must not hide a submodule, generated or not."""
    assert (
        _run(
            "import sap_ros.core.sphere, sap_ros; print(sap_ros.core.sphere.__name__)", tmp_path
        ).strip()
        == "sap_ros.core.sphere"
    )
