def check_cpp(s: str, e: str) -> str | None:
    return None


def check_triton(s: str, e: str) -> str | None:
    return None
