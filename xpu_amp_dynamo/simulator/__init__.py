"""A simulated XPU in host memory: runs and shows the XPU path on machines without an Intel GPU."""
