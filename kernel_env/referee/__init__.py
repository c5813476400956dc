"""How a verdict is reached: a trusted referee process, and runners forked from a clean zygote that do all the running."""
