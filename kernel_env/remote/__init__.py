"""Verification on other machines: `kernel-env serve` is one end, `RemoteVerifier` the other."""
