"""Request images from a running `biggan demo` through its HTTP API. Needs neither torch nor biggan.

python examples/api_client.py [ADDRESS] [OUT_FOLDER]
"""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path


def get(address: str, what: str, **settings: object) -> bytes:
    """Send a request. Settings that are left out have the defaults of the page.

    Raises:
        ValueError: The request was refused; the message is the server's.
    """
    url = f"{address}/api/{what}?{urllib.parse.urlencode(settings)}"
    try:
        with urllib.request.urlopen(url) as reply:
            return reply.read()
    except urllib.error.HTTPError as error:
        raise ValueError(json.load(error)["detail"]) from None


def main() -> None:
    """Write three PNG files, then show the answer to a mistake."""
    address = sys.argv[1] if sys.argv[1:] else "http://127.0.0.1:7860"
    out = Path(*sys.argv[2:3])
    out.mkdir(parents=True, exist_ok=True)

    print("models:", ", ".join(json.loads(get(address, "models"))))
    names = [entry["name"] for entry in json.loads(get(address, "classes"))]
    first, last = names[0], names[-1]

    (out / "samples.png").write_bytes(get(address, "sample", category=first, num=10, seed=3))
    path = get(address, "interpolate", category_a=first, category_b=last, steps=8)
    (out / "path.png").write_bytes(path)
    (out / "sweep.png").write_bytes(get(address, "sweep", category=last, noise="hub"))

    try:
        get(address, "sample", truncation=7)
    except ValueError as error:
        print("refused:", error)


if __name__ == "__main__":
    main()
