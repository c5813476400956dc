"""Compiles candidates' C++ in trusted hands, once per content."""

from kernel_env.builder.service import Builder, BuildRequest, BuildResult

__all__ = ["BuildRequest", "BuildResult", "Builder"]
