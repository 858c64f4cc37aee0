"""A server for what was trained: a queue before each model, OpenAI's shapes, limits, a guard, a page to try it on.

It knows predictors and generators as protocols and never imports prediction or training. FastAPI, uvicorn and
prometheus-client (extra `serve`) are imported here alone.
"""
