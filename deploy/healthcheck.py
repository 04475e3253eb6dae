"""Exit 0 when each process of this container that answers says that it is ready, and one does.

The image's health check; Kubernetes asks each process by itself.
"""

import os
import sys
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

#: Those of encode, preference, neighbours and the edge, from the setting metrics_port on.
N_PORTS = 4


def ready(port: int) -> "bool | None":
    """Return what the process on a port says of itself; None when nobody listens there."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/ready", timeout=3):
            return True
    except HTTPError:
        return False
    except URLError as error:
        return None if isinstance(error.reason, ConnectionRefusedError) else False
    except OSError:  # it listens, and does not answer in time
        return False


def main() -> int:
    """Ask every port; what nobody listens on belongs to another container."""
    first = int(os.environ.get("PREFSTREAM_METRICS_PORT", "9464"))
    answers = [
        answer for port in range(first, first + N_PORTS) if (answer := ready(port)) is not None
    ]
    return 0 if answers and all(answers) else 1


if __name__ == "__main__":
    sys.exit(main())
