"""The cast optimiser: passes over the ATen graphs, forward and backward, that Inductor is about to compile."""
