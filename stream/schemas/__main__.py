"""``python -m stream.schemas``: agree on the present schemas, after printing what that breaks."""

from __future__ import annotations

import sys

from stream.schemas import PUBLIC_TOPICS, PUBLISHED, publish, published, schema_of
from stream.schemas.compatibility import incompatibilities

for topic in PUBLIC_TOPICS:
    if (PUBLISHED / f"{topic}.json").exists():
        for problem in incompatibilities(published(topic), schema_of(topic)):
            sys.stderr.write(f"breaks {topic}: {problem}\n")
publish()
