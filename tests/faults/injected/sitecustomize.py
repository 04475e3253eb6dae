"""Python loads this before anything else in a worker under test: see faults.injection."""

import sys

if "stream.worker" in sys.orig_argv:
    from faults.injection import install

    install()
