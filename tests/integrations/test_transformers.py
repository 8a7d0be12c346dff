"""transformers: the Trainer by both ways, generation with both caches, and a pipeline."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForCausalLM,
    CompileConfig,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    pipeline,
)

import xpu_amp_dynamo
from tests.integrations.models import VOCABULARY, llama, lowered_calls, sentences
from tests.integrations.trainer_arguments import trainer_arguments
from tests.support.comparison import relative_error
from tests.support.two_processes import run_in_two_processes
from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.integrations.accelerate import XpuAmpPlugin
from xpu_amp_dynamo.integrations.transformers import XpuAmpCallback

EAGER = {"inner_backend": "eager"}
# Linear layers and attention of two layers, and the head.
LISTED = 17
WAYS = ("callback", "compile")


def trained(folder, way, options=EAGER, **settings):
    """Train a Llama by a Trainer; return it, and the loss of each step."""
    model = llama()
    if way == "compile":
        model.compile(backend="xpu_amp", options=options)
    callbacks: list[TrainerCallback] = [XpuAmpCallback(XpuAmpPlugin(options))] if way == "callback" else []
    trainer = Trainer(model, trainer_arguments(folder, **settings), train_dataset=sentences(16), callbacks=callbacks)
    trainer.train()
    return trainer, torch.tensor([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Return the losses and the weights of training in float32."""
    trainer, losses = trained(tmp_path_factory.mktemp("float32"), None)
    return losses, trainer.model.state_dict()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"bf16": True}, {"activation_checkpointing": True}, {"bf16": True, "gradient_accumulation_steps": 2}],
    ids=lambda settings: "-".join(settings) or "float32",
)
def test_training(tmp_path, expected, way, settings):
    with xpu_amp_dynamo.record_lowerings() as reports:
        trainer, losses = trained(tmp_path, way, **settings)
    assert lowered_calls(reports) == LISTED
    if "gradient_accumulation_steps" not in settings:
        assert len(losses) == len(expected[0]) == 4
        assert 0 < relative_error(losses, expected[0]) < 0.001
        for name, weight in trainer.model.state_dict().items():
            assert weight.dtype is torch.float32
            assert relative_error(weight, expected[1][name]) < 0.001
    trainer.save_model(str(tmp_path))
    saved = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    assert set(saved) == set(expected[1])
    assert all(torch.equal(saved[name], weight) for name, weight in trainer.model.state_dict().items())


# Which the backend says once a process.
@pytest.mark.filterwarnings("ignore:.*GradScaler:UserWarning")
@pytest.mark.parametrize("way", WAYS)
def test_float16(tmp_path, expected, way):
    """By the options: the Trainer's own ``fp16`` is refused on CPUs."""
    with xpu_amp_dynamo.record_lowerings(details=True) as reports:
        _, losses = trained(tmp_path, way, {"dtype": torch.float16, **EAGER})
    assert torch.float16 in {cast.to_dtype for report in reports for cast in report.each_cast}
    assert 0 < relative_error(losses, expected[0]) < 0.0005


def test_two_processes(tmp_path):
    """The callback has DistributedDataParallel compiled with the model."""
    printed = run_in_two_processes("tests.integrations.trainer_in_processes", str(tmp_path))
    assert printed.count("as in float32") == 2


def test_evaluation_is_compiled_too_where_the_model_was(tmp_path):
    trainer, _ = trained(tmp_path, "compile")
    with xpu_amp_dynamo.record_lowerings() as reports:
        output = trainer.predict(sentences(4))
    assert lowered_calls(reports) == LISTED
    assert output.predictions.dtype == "float32"


def test_the_arguments_refuse_the_backend(tmp_path):
    """Why there is a callback; where this fails, the argument does the work."""
    with pytest.raises(ValueError, match="'XPU_AMP' is not a valid DynamoBackend"):
        Trainer(llama(), trainer_arguments(tmp_path, torch_compile_backend="xpu_amp"))


def test_two_backends_are_refused(tmp_path):
    with pytest.raises(InvalidOptionError, match="torch_compile_backend is 'eager'"):
        Trainer(llama(), trainer_arguments(tmp_path, torch_compile_backend="eager"), callbacks=[XpuAmpCallback()])


def test_a_callback_that_comes_too_late_is_refused(tmp_path):
    trainer = Trainer(llama(), trainer_arguments(tmp_path), train_dataset=sentences(4))
    trainer.add_callback(XpuAmpCallback())
    with pytest.raises(InvalidOptionError, match="came after its Trainer was made"):
        trainer.train()


def generated(model, **settings):
    """Return the tokens and the logits that a model generates greedily."""
    prompt = torch.randint(3, VOCABULARY, (2, 5), generator=torch.Generator().manual_seed(0))
    settings |= {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    output = model.generate(prompt, return_dict_in_generate=True, output_logits=True, **settings)
    return output.sequences, torch.stack(output.logits)


@pytest.mark.parametrize("cache", ["dynamic", "static", "static by CompileConfig"])
def test_generation(cache):
    tokens, logits = generated(llama().eval())
    settings: dict[str, Any] = {"cache_implementation": cache.split()[0]}
    model = llama().eval()
    if "by" in cache:
        # Its annotations leave no room for the None that torch.compile needs beside options.
        none: Any = None
        settings["compile_config"] = CompileConfig(backend="xpu_amp", mode=none, options=EAGER)
        # What is compiled on GPUs of each kind is on the CPU only if it is asked for.
        settings["compile_config"]._compile_all_devices = True
    else:
        model.compile(backend="xpu_amp", options=EAGER)
    with xpu_amp_dynamo.record_lowerings() as reports:
        found_tokens, found_logits = generated(model, **settings)
    assert {report.ops["lower_precision"] for report in reports} == {LISTED}
    assert torch.equal(found_tokens, tokens)
    assert found_logits.dtype is torch.float32
    assert 0 < relative_error(found_logits, logits) < 0.01


def test_pipeline():
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{number}": number for number in range(3, VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", bos_token="<s>")
    settings = {"max_new_tokens": 5, "do_sample": False, "return_full_text": False}
    expected = pipeline("text-generation", llama().eval(), tokenizer=fast)("w5 w6 w7", **settings)
    model = llama().eval()
    model.compile(backend="xpu_amp", options=EAGER)
    with xpu_amp_dynamo.record_lowerings() as reports:
        found = pipeline("text-generation", model, tokenizer=fast)("w5 w6 w7", **settings)
    assert found == expected
    assert lowered_calls(reports) >= LISTED
