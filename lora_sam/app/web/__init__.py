"""The page in a browser: the only place of the package that knows Gradio."""
