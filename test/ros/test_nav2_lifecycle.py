"""The node as Nav2's lifecycle manager drives it: the manager's own sequence of service calls, over DDS.

The manager is C++ and not installed here; its calls are those of nav2_lifecycle_manager in Jazzy (1.3)
and Kilted (1.4): it waits for get_state, and after each change_state asks get_state for the state that it
expects. It looks at get_state only, not at the answer of change_state. With bond_timeout 0.0 it
makes no bond.
"""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("sap_ros.msg", reason="the messages are not built: make build")

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState

EXECUTABLE = Path(__file__).parents[2] / "scripts" / "sap_node"

# The manager's timeouts, in s: for a service to appear, and for get_state to answer (in Jazzy).
_APPEAR, _GET_STATE = 5.0, 2.0
# change_state is waited for without end; a test is not.
_CHANGE_STATE = 20.0

_EXPECTED = {
    Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
    Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: State.PRIMARY_STATE_FINALIZED,
}


class Manager:
    """Does to one node what the lifecycle manager does to each in its ``node_names``."""

    def __init__(self, node, name):
        self._node = node
        self._change = node.create_client(ChangeState, f"{name}/change_state")
        self._state = node.create_client(GetState, f"{name}/get_state")
        assert self._state.wait_for_service(30.0)

    def _call(self, client, request, seconds):
        assert client.wait_for_service(_APPEAR)
        answer = client.call_async(request)
        rclpy.spin_until_future_complete(self._node, answer, timeout_sec=seconds)
        assert answer.done(), f"{client.srv_name} did not answer within {seconds} s"
        return answer.result()

    def change(self, *transitions):
        """Whether all transitions led where the manager expects; it stops at the first that did not."""
        for transition in transitions:
            request = ChangeState.Request(transition=Transition(id=transition))
            self._call(self._change, request, _CHANGE_STATE)
            state = self._call(self._state, GetState.Request(), _GET_STATE).current_state.id
            if state != _EXPECTED[transition]:
                return False
        return True

    def startup(self):
        return self.change(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)

    def pause(self):
        return self.change(Transition.TRANSITION_DEACTIVATE)

    def resume(self):
        return self.change(Transition.TRANSITION_ACTIVATE)

    def reset(self):
        return self.change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)

    def shutdown(self):
        return self.reset() and self.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)


@contextmanager
def managed(*parameters):
    """A process of the node, a manager of it, and the manager's node."""
    command = [sys.executable, str(EXECUTABLE), "--ros-args", "-r", "__ns:=/sap"]
    for parameter in parameters:
        command += ["-p", parameter]
    process = subprocess.Popen(command, env=os.environ)
    rclpy.init()
    node = rclpy.create_node("lifecycle_manager")
    try:
        yield process, Manager(node, "/sap/sap"), node
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(20)


def test_the_managers_commands():
    """STARTUP, PAUSE, RESUME, RESET, STARTUP again and SHUTDOWN of ManageLifecycleNodes."""
    with managed() as (process, manager, node):
        assert manager.startup()
        assert node.count_subscribers("/sap/image") == 1
        assert manager.pause()
        assert manager.resume()
        assert manager.reset()
        assert manager.startup()
        assert manager.shutdown()
        # The process stays, as those of Nav2 do, until it gets a signal.
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.parametrize("parameter", ["model:=sam9", "checkpoint:=/none.pt"])
def test_the_manager_sees_that_the_node_did_not_come_up(parameter):
    """Configuring fails, or activating: the manager aborts its bring-up, and the node stays."""
    with managed(parameter) as (process, manager, _):
        assert not manager.startup()
        assert process.poll() is None


def test_a_transition_that_the_state_does_not_have_is_refused():
    """A second STARTUP configures nodes that are inactive already."""
    with managed() as (process, manager, _):
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        assert manager.startup()
        assert process.poll() is None
