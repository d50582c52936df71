"""The Gradio demo: one file a tab; ``page.build`` puts them together and ``app.py`` launches it."""
