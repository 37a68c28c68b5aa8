"""Child processes that can be interrupted, wherever the tests themselves were started."""

import signal


def heed_ctrl_c() -> None:
    """A `preexec_fn`: background jobs of a shell begin with SIGINT ignored, and pass that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
