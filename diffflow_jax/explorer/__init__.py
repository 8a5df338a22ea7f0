"""One HTML page with sliders, whose numbers are the library's."""
