"""An HTTP server for trained runs: a queue for each model, an OpenAI-compatible API, limits, a guard, a playground.

It knows classifiers and generators as protocols and never imports prediction or training. FastAPI, uvicorn and
prometheus-client (extra `serve`) are imported only here.
"""
