"""Make the model folders vLLM serves; runs inside the engine's own environment (torch, transformers).

``python -m serving.engine.convert smollm2 GGUF OUT`` turns the quantised GGUF file into float32
safetensors, so that greedy answers do not depend on how many requests run beside them (in bfloat16 they
do). ``python -m serving.engine.convert tiny SMOLLM2 OUT`` writes a random two-layer Llama that shares
SmolLM2's tokenizer: it answers nonsense, quickly, and speaks the whole protocol. ``... cheap SMOLLM2 OUT``
leaves one of SmolLM2's 30 layers out: a second tier, a little cheaper and a little worse, under the same licence.
"""

# torch and transformers live in the engine's environment only.
# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONTEXT_TOKENS = 8192
# Counted from 0. Of all single layers the one whose loss costs least on a text that is no gold item.
LEFT_OUT = 17


# A base model has no chat format: it goes on with a text that looks like answered questions. The examples are invented
# and no gold item; an answer ends with its line.
GEMMA_TEMPLATE = (
    "{{ bos_token }}Question: What colour is a ripe lemon?\nAnswer: Yellow.\n\n"
    "Question: Parcels to Norway take 4 days. How long do they take?\nAnswer: 4 days.\n\n"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}Answer: {{ message['content'] | trim }}\n\n"
    "{% else %}{{ 'Question: ' if message['role'] == 'user' else '' }}{{ message['content'] | trim }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"
)


def convert_smollm2(gguf: Path, out: Path) -> None:
    """Dequantise ``gguf`` to float32 and save weights, tokenizer, chat template and configs in ``out``."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if not tokenizer.chat_template:
        raise SystemExit(f"{gguf} carries no chat template: this is not the instruct model")
    _save(_dequantised(gguf), tokenizer, out)


def convert_gemma(gguf: Path, out: Path) -> None:
    """The same for gemma-3-270m, a base model, with a template of examples and the end of the line as end of answer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.chat_template = GEMMA_TEMPLATE
    ends = [tokenizer.encode(text, add_special_tokens=False)[-1] for text in ("\n", "\n\n")]
    _save(_dequantised(gguf), tokenizer, out, [tokenizer.eos_token_id, *ends])


def _dequantised(gguf: Path) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    packed = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    config = packed.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # A fresh model holds plain parameters only; the loaded one remembers that it was quantised.
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(packed.state_dict())
    return model


def make_tiny(tokenizer_from: Path, out: Path) -> None:
    """Save a random Llama (2 layers, hidden 64, seed 0) with the tokenizer found in ``tokenizer_from``."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,  # the smallest head the CPU attention kernel takes
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    _save(LlamaForCausalLM(config).to(torch.float32), tokenizer, out)


def make_cheap(source: Path, out: Path) -> None:
    """Save the model in ``source`` (SmolLM2) without its layer `LEFT_OUT`, with the same tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    layers = model.model.layers
    del layers[LEFT_OUT]
    for number, layer in enumerate(layers):
        layer.self_attn.layer_idx = number
    model.config.num_hidden_layers = len(layers)
    if getattr(model.config, "layer_types", None):
        del model.config.layer_types[LEFT_OUT]
    _save(model, AutoTokenizer.from_pretrained(source), out)


def _save(model: PreTrainedModel, tokenizer: object, out: Path, ends: list[int] | None = None) -> None:
    from transformers import GenerationConfig

    # Without sampling defaults in the folder a request that names no temperature gets vLLM's own, 1.0,
    # on every model alike.
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,  # type: ignore[attr-defined]
        eos_token_id=ends or tokenizer.eos_token_id,  # type: ignore[attr-defined]
        pad_token_id=tokenizer.pad_token_id,  # type: ignore[attr-defined]
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)  # type: ignore[attr-defined]


if __name__ == "__main__":
    what, source, target = sys.argv[1:]
    makers = {"smollm2": convert_smollm2, "tiny": make_tiny, "cheap": make_cheap, "gemma": convert_gemma}
    makers[what](Path(source), Path(target))
