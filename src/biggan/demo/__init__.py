"""Forms with sliders: as a web page with the server that shows it, and in notebooks.

Serving needs Gradio: `pip install 'biggan[demo]'`; importing it takes seconds. Notebooks need
ipywidgets: `pip install 'biggan[notebook]'`.
"""
