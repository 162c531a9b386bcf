"""Serves the backend: gunicorn takes `app`, `python _wsgi.py` listens at port 9090."""

from __future__ import annotations

from label_studio_ml.api import init_app
from model import TunedSam

app = init_app(model_class=TunedSam)

if __name__ == "__main__":
    app.run(host="0.0.0.0", port=9090)
