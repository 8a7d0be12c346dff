"""Random float32 programs as Python source: what people write around products without a region in mind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from tests.programs.random_statements import (
    ARITHMETIC,
    COPIES,
    INDENT,
    OTHER_WRITES,
    REARRANGED,
    SIMPLE_WRITES,
    Draw,
    Writer,
    function_of,
)

# Expressions of square matrices that give a square matrix, so that any can follow any. All are continuous, so that an
# error of rounding stays one: no comparison, no argmax of a computed value.
LISTED = (
    "{a} @ {b} / 2",
    "torch.mm({a}, {b})",
    "torch.addmm({a}, {b}, {c}, beta=0.5)",
    "torch.bmm({a}[None], {b}[None])[0]",
    "torch.baddbmm({a}[None], {b}[None], {c}[None])[0]",
    "F.linear({a}, {b}, {c}[0])",
    "F.linear({a}, {b}).view(2, 2, 4).transpose(0, 1).reshape(4, 4)",
    "F.conv1d({a}[None], {b}[:, :, None])[0]",
    "F.conv2d({a}[None, None], {b}[:3, :3][None, None], padding=1)[0, 0]",
    "F.conv_transpose2d({a}[None, None], {b}[:3, :3][None, None], padding=1)[0, 0]",
    "F.scaled_dot_product_attention({a}[None, None], {b}[None, None], {c}[None, None])[0, 0]",
    "torch.einsum('ij,jk->ki', {a}, {b})",
    "torch.matmul({a}.view(2, 2, 4), {b}).view(4, 4)",
    "torch.log_softmax({a}, -1)",
    "F.cross_entropy({a}, target, reduction='none')[:, None] * {b}",
    "torch.fft.irfft(torch.fft.rfft({a}))",
    "torch.cat([{a}, {b}])[2:6]",
    "torch.stack([{a}, {b}]).sum(0)",
    "torch.cat([{a}[:2], {b}[2:]])",
    "torch.index_add({a}, 0, target, {b})",
    "torch.scatter_add({a}, 0, target[None], {b}[:1])",
    "torch.lerp({a}, {b}, 0.3)",
    "F.layer_norm({a}, (4,), {b}[0], {c}[1], eps=0.1)",
)
LAYOUT = (
    *REARRANGED,
    "{a}.t().contiguous()",
    *COPIES,
    "{a}.view(16).view(4, 4)",
    "{a}.diagonal().expand(4, 4)",
    "{a}.index_select(0, target)",
    "{a}[target]",
    "{a}.roll(1, 0)",
    "torch.as_strided({a}, (4, 4), (4, 1))",
    "{a}.repeat_interleave(2, 0)[1:5]",
)
POINTWISE = (
    *ARITHMETIC,
    "torch.where(mask, {a}, {b})",
    "torch.softmax({a}, -1)",
    "F.layer_norm({a}, (4,), eps=0.1)",
    "F.rms_norm({a}, (4,), eps=0.1)",
    "F.group_norm({a}[None], 2, eps=0.1)[0]",
    "F.gelu({a})",
    "torch.tanh({a})",
    "F.silu({a})",
    "F.relu({a})",
    "{a}.sum(0, keepdim=True) + {b}",
    "{a}.mean() * {b}",
    "{a}.amax(-1, keepdim=True) - {b}",
    "{a}.cumsum(0)",
    "{a}.clamp(-1, 1)",
    "F.dropout({a}, 0.5, training=False)",
    "torch.logsumexp({a}, -1, keepdim=True) * {b}",
    "{a}.abs().sqrt().add(1).log()",
    "{a}.double().sin().float()",
    "torch.linalg.vector_norm({a}, dim=-1, keepdim=True) * {b}",
    "torch.cdist({a}, {b}, p=1.0)",
    "torch.linalg.matrix_exp({a}.tanh())",
    "torch.linalg.qr({a}.tanh() + 5 * torch.eye(4))[1]",
    "torch.linalg.solve(torch.eye(4) * 4 + {a}.tanh(), {b})",
)
# What follows from a dtype that Python reads, and constants that half precision cannot hold.
DTYPES = (
    "{a}.masked_fill(mask, torch.finfo({a}.dtype).min).softmax(-1)",
    "torch.where(mask, {a}, torch.full_like({a}, torch.finfo({a}.dtype).min)).softmax(-1)",
    "torch.where(mask, {a}, torch.finfo({b}.dtype).min).softmax(-1)",
    "({a} + torch.zeros(4, 4, dtype={a}.dtype).masked_fill(mask, torch.finfo({a}.dtype).min)).softmax(-1)",
    "{a}.clamp(min=torch.finfo({a}.dtype).min, max=torch.finfo({a}.dtype).max)",
    "F.pad({a}, (0, 1), value=torch.finfo({a}.dtype).min).softmax(-1)[:, :4]",
    "{a}.masked_fill(mask, -1e9).log_softmax(-1).exp()",
    "{a}.masked_fill(mask, float('-inf')).amax(-1, keepdim=True).clamp(min=-1) * {b}",
    "torch.zeros(4, 4, dtype={a}.dtype) + {b}",
    "{a}.to({b}.dtype)",
    "{a}.type_as({b})",
    "torch.ones_like({a}) + {b}",
    "torch.zeros_like({a}, dtype={b}.dtype).add(0.5) @ {b}",
    "torch.full((4, 4), 0.3, dtype={a}.dtype) @ {b}",
    "{a}.new_ones(4, 4) @ {b}",
    "torch.empty_like({a}).copy_({b})",
    "torch.eye(4).to({a}) @ {b}",
    "torch.tensor(0.5, dtype={a}.dtype) * {b}",
)
SUBGRAPHS = (
    "cond(flag, one_branch, block, ({a}, {b}))",
    "checkpoint(block, {a}, {b}, use_reentrant=False)",
    "{a} @ checkpoint(block, {b}, {c}, use_reentrant=False)",
    "block({a}, {b})",
    "torch.mm({a}.detach(), {b}.detach(), out=torch.empty(4, 4))",
    "torch.add({a}.detach(), {b}.detach(), out=torch.empty(4, 4))",
)
# What does something else, or is refused, where a region computes the operands in lower precision.
FLOAT32_ONLY = (
    "({a} * 1e-30) * 1e30",
    "torch.minimum({a}, torch.full((4, 4), 1e30))",
    "({a} if {b}.dtype is torch.float32 else {b} * 100)",
    "{a} * (2.0 if {a}.dtype == {b}.dtype else 30.0)",
    "{a} * ({b}.dtype.itemsize / 4)",
    "{a} * torch.finfo({b}.dtype).bits / 32",
    "{a}.view(torch.int32).view(torch.float32)",
    "cond(flag, one_branch, other_branch, ({a}, {b}))",
    "cond(flag, other_branch, one_branch, ({a}, {b}))",
    "float32_scale({a}) * 0.5",
    "torch.ops.xpu_amp_programs.float32_scale({a}) + {b}",
)
IN_REGIONS = LISTED * 2 + LAYOUT + POINTWISE + DTYPES + SUBGRAPHS * 2
EXPRESSIONS = IN_REGIONS + FLOAT32_ONLY
WRITES = (
    *SIMPLE_WRITES,
    "{v}[:, positions] = {b}[:, :2]",
    "{v}[target] = {b}",
    "{v}[mask] = 0.5",
    "{v}.index_put_((positions,), {b}[:2], accumulate=True)",
    "{v}.masked_fill_(mask, -3.0)",
    "{v}.masked_scatter_(mask, {b})",
    "{v}.fill_diagonal_(1.0)",
    *OTHER_WRITES,
    "{v}.index_add_(0, target, {b})",
    "{v} += {b} @ {c} / 4",
    "torch._foreach_mul_([{v}], 0.5)",
    "torch._foreach_add_([{v}], [{b}])",
    "{v}.zero_().add_({b})",
    "torch.tanh_({v})",
)
WRITES_TO_INPUTS = (
    "{i}.add_({b}.detach())",
    "{i}.copy_({b}.detach() @ {c}.detach() / 4)",
    "{i}[0] = {b}[1].detach()",
    "{i}[:, positions] = {b}[:, :2].detach()",
    "{i}.t().mul_(0.5)",
    "{i}.lerp_({b}.detach(), 0.1)",
    "torch._foreach_add_([{i}], [{b}.detach()])",
    "torch.mm({b}.detach(), {c}.detach(), out={i})",
    "torch.ops.xpu_amp_programs.add_into({i}, {b}.detach())",
)
VIEWS = ("{v}.t()", "{v}[1:]", "{v}[:, :2]", "{v}.view(-1)[::2]", "{v}.detach()", "{v}.view(4, 4)", "{v}.unsqueeze(0)")
MATRICES = ("x", "y", "w", "u", "state")
WRITABLE = ("x", "state")
INPUTS = (*MATRICES, "target", "positions", "mask", "flag")


@torch.library.custom_op("xpu_amp_programs::float32_scale", mutates_args=())
def float32_scale(x: torch.Tensor) -> torch.Tensor:
    """Double a float32 tensor: an op that was written for one dtype."""
    if x.dtype is not torch.float32:
        raise TypeError(f"written for float32, got {x.dtype}")
    return x * 2


@float32_scale.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


float32_scale.register_autograd(lambda ctx, gradient: gradient * 2)


@torch.library.custom_op("xpu_amp_programs::add_into", mutates_args=("x",))
def add_into(x: torch.Tensor, y: torch.Tensor) -> None:
    """Add a tensor to another in place."""
    x += y


def block(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Two products with an activation between them."""
    return torch.tanh(a @ b) @ b / 2


def one_branch(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b).tanh()


def other_branch(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a * b + 1


def python_cond(flag: torch.Tensor, one: Callable, other: Callable, operands: tuple[torch.Tensor, ...]) -> Any:
    """Do what ``torch.cond`` does, uncompiled; the original compiles its branches."""
    return one(*operands) if flag else other(*operands)


def python_checkpoint(function: Callable, *operands: torch.Tensor, use_reentrant: bool) -> Any:
    """Do what checkpointing does but for the memory; it would compare a run with its recomputation."""
    return function(*operands)


@dataclass(frozen=True)
class Float32Program:
    """The source of a function of ``INPUTS``."""

    source: str

    def __str__(self) -> str:
        return self.source

    def function(self, compiled: bool = False) -> Callable[..., Any]:
        """Return the function; ``compiled`` says whether it is going to be captured."""
        return function_of(
            self.source,
            checkpoint=checkpoint if compiled else python_checkpoint,
            float32_scale=float32_scale,
            block=block,
            one_branch=one_branch,
            other_branch=other_branch,
            cond=torch.cond if compiled else python_cond,
        )


def inputs(device: str = "cpu") -> tuple[torch.Tensor, ...]:
    """Return the inputs: two of the matrices want gradients, one row of the mask hides everything."""
    generator = torch.Generator().manual_seed(0)
    x, y, w, u, state = (torch.randn(4, 4, generator=generator, device="cpu").to(device) / 2 for _ in MATRICES)
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool, device=device)
    indices = torch.tensor([1, 3, 0, 2], device=device), torch.tensor([2, 0], device=device)
    return x, y, w.requires_grad_(), u.requires_grad_(), state, *indices, mask, torch.tensor(True, device=device)


class _Float32Writer(Writer):
    """Writes statements, graph breaks among them if these are allowed, and what is returned."""

    def __init__(self, draw: Draw, breaks: bool, expressions: tuple[str, ...]) -> None:
        super().__init__(draw, MATRICES)
        self.breaks = breaks
        self.expressions = expressions

    def statement(self) -> None:
        """Write one assignment, write or graph break."""
        operands = self.operands()
        kind = self.draw(st.integers(0, 11))
        if kind == 0 and self.breaks:
            text = "torch._dynamo.graph_break()"
        elif kind == 1:
            text = self.draw(st.sampled_from(WRITES_TO_INPUTS))
            text = text.format(i=self.draw(st.sampled_from(WRITABLE)), **operands)
        elif kind in (2, 3) and self.own:
            text = self.write(WRITES, operands)
        else:
            text = self.assignment(self.expressions, operands)
        self.lines.append(INDENT + text)

    def results(self) -> str:
        """Choose what is returned: late values, views of values, which share memory with these."""
        names = self.names[-3:]
        views = self.draw(st.lists(st.sampled_from(VIEWS), max_size=2))
        return ", ".join([*names, *(view.format(v=self.operand()) for view in views)])


@st.composite
def float32_programs(
    draw: Draw, most: int = 15, breaks: bool = True, expressions: tuple[str, ...] = EXPRESSIONS
) -> Float32Program:
    """Draw a program of 5 to ``most`` statements."""
    writer = _Float32Writer(draw, breaks, expressions)
    writer.lines.append(f"{INDENT}v{len(MATRICES)} = {draw(st.sampled_from(('x', 'y')))} @ w")
    writer.names.append(f"v{len(MATRICES)}")
    for _ in range(draw(st.integers(4, most - 1))):
        writer.statement()
    head = f"def program({', '.join(INPUTS)}):"
    return Float32Program("\n".join([head, *writer.lines, f"{INDENT}return {writer.results()},", ""]))
