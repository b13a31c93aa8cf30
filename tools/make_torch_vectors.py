#!/usr/bin/env python3
"""Makes files as torch.save writes them of tests/formats/fixtures/llm-awq, which tools/make_format_vectors.py has packed.

    tools/make_torch_vectors.py          (needs torch and safetensors)

  tests/formats/fixtures/llm-awq-pt    the same tensors as the state dict of modules, as llm-awq saves a quantized model,
                                       beside the config.json of the float model
  tests/fuzz/corpus/torch              two small state dicts: of modules, and of views of one storage
"""
import json
import pathlib

import torch
from safetensors.torch import load_file

TESTS = pathlib.Path(__file__).parent.parent / "tests"


def module_of(tensors):
    """Modules with buffers of these names."""
    root = torch.nn.Module()
    for name, tensor in tensors.items():
        at = root
        *path, last = name.split(".")
        for part in path:
            if part not in at._modules:
                at.add_module(part, torch.nn.Module())
            at = at._modules[part]
        at.register_buffer(last, tensor)
    return root


def main():
    source = TESTS / "formats" / "fixtures" / "llm-awq"
    folder = source.parent / "llm-awq-pt"
    folder.mkdir(exist_ok=True)
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)  # in files of older programs
    torch.save(module_of(tensors).state_dict(), folder / "tiny-w4-g64-awq-v2.pt")
    config = json.loads((source / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    corpus = TESTS / "fuzz" / "corpus" / "torch"
    corpus.mkdir(exist_ok=True)
    small = {"a.qweight": torch.arange(8, dtype=torch.int16).reshape(2, 4), "a.scales": torch.ones(2, 2, dtype=torch.float16)}
    torch.save(module_of(small).state_dict(), corpus / "modules")
    whole = torch.arange(12, dtype=torch.float32)
    torch.save({"first": whole[:6].view(2, 3), "last": whole[6:], "ids": torch.tensor([1, 2])}, corpus / "views")


if __name__ == "__main__":
    main()
