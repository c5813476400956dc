"""Two models' kernels for the same problems side by side: judged twice, in both orders, and compared by the clock."""
