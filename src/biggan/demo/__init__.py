"""The web page: DeepMind's 2018 notebook as two tabs of sliders.

Importing it takes seconds and needs Gradio: `pip install 'biggan[demo]'`.
"""

from biggan.demo.page import build_page
from biggan.demo.server import serve

__all__ = ["build_page", "serve"]
