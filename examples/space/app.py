"""The page as a Space of the Hugging Face Hub, or behind any other proxy.

Variables of the Space, all optional: `BIGGAN_MODELS`, models as `biggan demo --model` takes them,
separated by spaces; `BIGGAN_LIMIT`, image requests per visitor and minute; `BIGGAN_ROOT_PATH`, the
path below which a proxy offers the page.
"""

import os
import sys

from biggan.cli import main

# Visitors reach a Space through proxies of its private network. Trusting them gives each visitor a
# limit of their own; anybody else's X-Forwarded-For is ignored.
PROXIES = ("127.0.0.1", "10.0.0.0/8", "172.16.0.0/12")

arguments = ["--host", "0.0.0.0", "--port", os.environ.get("PORT", "7860")]
arguments += ["--limit", os.environ.get("BIGGAN_LIMIT", "30")]
arguments += ["--root-path", os.environ.get("BIGGAN_ROOT_PATH", "")]
for proxy in PROXIES:
    arguments += ["--trusted-proxy", proxy]
for model in os.environ.get("BIGGAN_MODELS", "").split():
    arguments += ["--model", model]

if __name__ == "__main__":
    sys.argv = ["biggan", "demo", *arguments]
    main()
