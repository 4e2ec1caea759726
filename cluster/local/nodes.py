"""Print `ADDRESS STATE ID` of every node that a head's dashboard knows.

The token is in the file RAY_AUTH_TOKEN_PATH.

python cluster/local/nodes.py http://10.213.0.2:8265
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path


def nodes(dashboard_url: str, token: str) -> list[tuple[str, str, str]]:
    """Address, state (`ALIVE` or `DEAD`) and id of each node, from Ray's state API."""
    request = urllib.request.Request(
        f"{dashboard_url}/api/v0/nodes", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        rows = json.load(answer)["data"]["result"]["result"]
    return [(row["node_ip"], row["state"], row["node_id"]) for row in rows]


if __name__ == "__main__":
    secret = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text().strip()
    for row in nodes(sys.argv[1], secret):
        print(*row)
