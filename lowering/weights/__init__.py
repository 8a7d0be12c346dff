"""The second moment: casts of weights become inputs of the graph, which its caller keeps."""
