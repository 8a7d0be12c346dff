"""What passes are written with: values of nodes, kinds of calls, casts, runs on fake tensors."""
