"""Numbers of the wire that are needed without it: reading it takes a quarter of a second."""

PORT = 8888
MAX_BATCH = 128
"""Requests in one `POST /batch_judge`."""
