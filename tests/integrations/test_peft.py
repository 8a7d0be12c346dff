"""peft: LoRA trained, merged, taken out again and merged for good, with the model compiled all the while."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

import xpu_amp_dynamo
from tests.integrations.models import llama, lowered_calls, sentences
from tests.support.comparison import relative_error

# peft 0.21.2 reads what transformers 5.23.0 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
BATCH = {name: torch.stack([row[name] for row in sentences(4)]) for name in ("input_ids", "labels")}


def adapted():
    """Return a Llama with an adapter that matters."""
    return with_adapter(llama())


def with_adapter(model):
    """Give a model the adapter."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def train(model):
    """Train the adapter for three steps; return the losses."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(3):
        loss = model(**BATCH).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses)


def logits(model):
    with torch.no_grad():
        return model(input_ids=BATCH["input_ids"]).logits


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_training_and_merging(inner_backend, tmp_path):
    """Each state of the weights, against the same in float32 that was never compiled."""
    plain, model = adapted(), adapted()
    model.compile(backend="xpu_amp", options={"inner_backend": inner_backend})
    with xpu_amp_dynamo.record_lowerings() as reports:
        losses = train(model)
    assert lowered_calls(reports) > 17
    assert 0 < relative_error(losses, train(plain)) < 0.001
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert all(model.get_parameter(name).grad is None for name in frozen)
    expected = logits(plain)
    model.eval(), plain.eval()
    assert 0 < relative_error(logits(model), expected) < 0.01
    model.merge_adapter()
    assert 0 < relative_error(logits(model), expected) < 0.01
    model.unmerge_adapter()
    assert 0 < relative_error(logits(model), expected) < 0.01
    with model.disable_adapter(), plain.disable_adapter():
        bare = logits(plain)
        assert relative_error(bare, expected) > 0.05
        assert 0 < relative_error(logits(model), bare) < 0.01
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(llama(), tmp_path).eval()
    # What bfloat16 training made of the adapter, run in float32.
    assert relative_error(logits(loaded), expected) < 0.005
    merged = model.merge_and_unload()
    merged.compile(backend="xpu_amp", options={"inner_backend": inner_backend})
    assert 0 < relative_error(logits(merged), expected) < 0.01
    assert set(merged.state_dict()) == set(llama().state_dict())


def test_the_base_compiled_before_the_adapter():
    """A model that ran compiled gets an adapter: the code compiled before does not serve it."""
    expected, base = logits(adapted().eval()), llama().eval()
    base.compile(backend="xpu_amp", options={"inner_backend": "eager"})
    assert relative_error(logits(base), expected) > 0.05
    assert 0 < relative_error(logits(with_adapter(base).eval()), expected) < 0.01
