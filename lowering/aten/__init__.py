"""The cast optimiser: passes over the ATen graphs, forward and backward, that Inductor is about to compile.

What every pass promises:

- It makes no memory shared that was not, among inputs and outputs, gradients included, and with what a backward keeps.
- It changes no strides of outputs, and none that an op behind it reads.
- It moves no read across a write.
- It looks at each node a bounded number of times and does not recurse: programs unroll loops into long graphs.

``replace`` refuses stand-ins for casts that would break these, on what ``memory`` knows of the graph; ``rebuild``
refuses to read again what is written. Tests run graphs on fake tensors before and after passes, ``verify``, in every
compilation of theirs too.
"""
