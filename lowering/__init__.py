"""Graph in, graph out: lowers autocast into an FX graph as explicit casts. One pass a file."""
