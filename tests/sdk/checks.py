"""What the checks of all Python SDKs share: each function named `check_…` is a claim."""

import sys
import time
import traceback


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def run(name, check):
    start = time.monotonic()
    try:
        check()
    except Exception:
        print("FAILED", name, traceback.format_exc(), flush=True)
        return False
    print(f"ok {name} {time.monotonic() - start:.1f}s", flush=True)
    return True


def checks_of(module):
    return {name: check for name, check in module.items() if name.startswith("check_")}


def run_all(module):
    """Runs them one after another."""
    sys.exit(0 if all([run(name, check) for name, check in checks_of(module).items()]) else 1)
