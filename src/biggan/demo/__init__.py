"""The web page: forms with sliders, and the server that shows them.

Serving needs Gradio: `pip install 'biggan[demo]'`; importing it takes seconds.
"""
