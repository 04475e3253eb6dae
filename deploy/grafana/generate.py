"""Write the dashboards that Grafana is given, and those of the chart, from their modules.

python -m deploy.grafana.generate    # in the repository's root; a test says when that is due
"""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.engineer import ENGINEER
from deploy.grafana.on_call import ON_CALL
from deploy.grafana.panels import Dashboard
from deploy.grafana.shop import SHOP

FOLDER = Path(__file__).parent / "dashboards"
#: By the name of its file; whoever looks first is on call.
DASHBOARDS: dict[str, Dashboard] = {
    "on-call.json": ON_CALL,
    "engineer.json": ENGINEER,
    "shop.json": SHOP,
}


def written(dashboard: Dashboard) -> str:
    """Return the text of a dashboard's file."""
    return json.dumps(dashboard.to_json(), indent=1) + "\n"


def main() -> None:
    """Write every file."""
    for name, dashboard in DASHBOARDS.items():
        (FOLDER / name).write_text(written(dashboard))


if __name__ == "__main__":
    main()
