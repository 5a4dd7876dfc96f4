"""A batch that is ended at random moments, by each of four signals, and started again: is what it leaves always whole, and nothing lost?

`python -m benchmarks.kills [N]`, by default 50 times, which takes about twenty minutes. Nothing is measured; it stops at the first fault.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.batch import REPRODUCE, profile_of, project
from maskutils.batch import plan

RUNS, LONGEST = 20, 40.0  # notebooks, and the seconds after which the last signal comes
KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)


def main(times: int) -> None:
    """End a batch so often; print what each left."""
    random.seed(0)
    with TemporaryDirectory() as folder:
        os.environ["MASKUTILS_ROOT"] = folder  # of the batch too
        profile = profile_of(folder, project(Path(folder), RUNS, "import time; time.sleep(1)"))
        command = [sys.executable, *REPRODUCE, profile]
        for number in range(times):
            before = done(profile)
            kind, after = KINDS[number % len(KINDS)], random.uniform(0, LONGEST)
            batch = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                batch.wait(after)
            except subprocess.TimeoutExpired:
                batch.send_signal(kind)
            code, now = batch.wait(60), done(profile)
            ended(folder)
            print(
                f"{number + 1}: {kind.name} after {after:.1f} s: exit code {code}, {len(now)} of {RUNS} done",
                flush=True,
            )
            assert before.items() <= now.items(), "a run that was done was done again"
            if len(now) == RUNS:
                for run in now:
                    plan.state_file(profile, run).unlink()
        subprocess.run(command, check=True)


def done(profile: str) -> dict[str, bytes]:
    """The states of the runs that are done; what is there of others must be nothing, or whole."""
    reasons = {run.id: plan.why(profile, run) for run in plan.make_plan(profile)}
    assert set(reasons.values()) <= {"", "not run yet"}, reasons
    return {run: plan.state_file(profile, run).read_bytes() for run, why in reasons.items() if not why}


def ended(folder: str) -> None:
    """Wait until no process of the batch in `folder` is left, which has that in its environment."""
    for _ in range(600):
        left = [
            pid
            for pid in os.listdir("/proc")
            if pid.isdigit() and int(pid) != os.getpid() and folder in _environment(pid)
        ]
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(f"processes are left: {left}")


def _environment(pid: str) -> str:
    try:
        return Path("/proc", pid, "environ").read_text(errors="replace")
    except OSError:  # it has ended, or is another user's
        return ""


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
