"""Hydra's configuration groups; `kernel-env eval` composes them."""
