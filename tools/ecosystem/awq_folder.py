"""AutoAWQ "GEMM" folders read and written with numpy, from the format's description alone: no line is shared with awq.

A linear layer X of N outputs and K inputs, in groups of g inputs, is
  X.qweight int32 [K, N / 8]     X.qzeros int32 [K / g, N / 8]     X.scales float [K / g, N]
  w[n, k] = (code[k, n] - zero[k / g, n]) * scale[k / g, n]
Nibble i (from the lowest bits) of word c holds column 8 c + ORDER[i].
"""
import json
import pathlib
import shutil

import numpy as np
import torch
from safetensors.torch import load_file, save_file

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
FIELDS = ("qweight", "qzeros", "scales")


def unpack(words, order=ORDER):
    """int32 [R, C / 8] -> codes uint8 [R, C]"""
    out = np.empty((words.shape[0], words.shape[1], 8), np.uint8)
    for nibble, column in enumerate(order):
        out[:, :, column] = (words.view(np.uint32) >> np.uint32(4 * nibble)) & 15
    return out.reshape(words.shape[0], -1)


def pack(codes, order=ORDER):
    columns = codes.reshape(codes.shape[0], -1, 8).astype(np.uint32)
    words = np.zeros(columns.shape[:2], np.uint32)
    for nibble, column in enumerate(order):
        words |= columns[:, :, column] << np.uint32(4 * nibble)
    return words.view(np.int32)


def read(folder):
    """config.json and every tensor of the shards that the folder's index names (or of model.safetensors)."""
    folder = pathlib.Path(folder)
    index = folder / "model.safetensors.index.json"
    shards = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    extra = {p.name for p in folder.glob("*.safetensors")} - set(shards)
    if extra:
        raise ValueError(f"{folder}: {extra} beside {shards}; vLLM would load it as weights")
    tensors = {}
    for shard in shards:
        tensors |= load_file(folder / shard)
    return json.loads((folder / "config.json").read_text()), tensors


def write(folder, config, tensors):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def decode_linear(qweight, qzeros, scales, group):
    """The float32 [N, K] matrix; (code - zero) * scale is rounded once."""
    codes, zeros = unpack(qweight.numpy()), unpack(qzeros.numpy())
    scales = scales.float().numpy()
    if not codes.shape[0] == zeros.shape[0] * group == scales.shape[0] * group or not codes.shape[1] == zeros.shape[1] == scales.shape[1]:
        raise ValueError(f"shapes disagree: codes {codes.shape}, zeros {zeros.shape}, scales {scales.shape}, group {group}")
    difference = codes.astype(np.float32) - np.repeat(zeros, group, 0).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray((difference * np.repeat(scales, group, 0)).T))


def decode(folder):
    """config without quantization_config, and float32 tensors under their usual names."""
    config, tensors = read(folder)
    quant = config.pop("quantization_config")
    expected = {"quant_method": "awq", "bits": 4, "zero_point": True, "version": "gemm"}
    if any(quant.get(k) != v for k, v in expected.items()):
        raise ValueError(f"{folder}: quantization_config is {quant}, expected {expected}")
    layers = sorted(k.removesuffix(".qweight") for k in tensors if k.endswith(".qweight"))
    missing = [k for i in range(config["num_hidden_layers"]) for k in block_linears(i) if k not in layers]
    if missing or len(layers) != 7 * config["num_hidden_layers"]:
        raise ValueError(f"{folder}: expected seven quantized layers a block, missing {missing}, got {len(layers)}")
    out = {}
    for layer in layers:
        parts = [tensors.pop(f"{layer}.{field}") for field in FIELDS]
        out[f"{layer}.weight"] = decode_linear(*parts, quant["group_size"])
    out |= {name: t.float() for name, t in tensors.items()}
    config.pop("dtype", None)
    return config | {"torch_dtype": "float32"}, out


def block_linears(i):
    block = f"model.layers.{i}."
    return [block + "self_attn." + p + "_proj" for p in "qkvo"] + [block + "mlp." + p + "_proj" for p in ("gate", "up", "down")]


def encode_linear(weight, group, order=ORDER):
    """Plain rounding: range extended to zero, float16 scales."""
    w = weight.float().numpy().reshape(weight.shape[0], -1, group)
    high, low = w.max(2).clip(min=0), w.min(2).clip(max=0)
    scales = np.maximum((high - low) / 15, 1e-5).astype(np.float16)
    zeros = np.clip(np.round(-low / scales.astype(np.float32)), 0, 15)
    codes = np.clip(np.round(w / scales.astype(np.float32)[:, :, None]) + zeros[:, :, None], 0, 15)
    return {"qweight": torch.from_numpy(pack(codes.reshape(weight.shape).T.astype(np.uint8), order)),
            "qzeros": torch.from_numpy(pack(zeros.T.astype(np.uint8), order)), "scales": torch.from_numpy(scales.T.copy())}


def encode(source, out, group):
    """An AutoAWQ folder of a float folder, by plain rounding."""
    config, tensors = read_float(source)
    for i in range(config["num_hidden_layers"]):
        for layer in block_linears(i):
            for field, t in encode_linear(tensors.pop(f"{layer}.weight"), group).items():
                tensors[f"{layer}.{field}"] = t
    config.pop("dtype", None)
    config |= {"torch_dtype": "float16", "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True,
                                                                 "version": "gemm", "modules_to_not_convert": None}}
    write(out, config, {k: t.half() if t.is_floating_point() else t for k, t in tensors.items()})


def read_float(folder):
    return json.loads((pathlib.Path(folder) / "config.json").read_text()), load_file(pathlib.Path(folder) / "model.safetensors")


def with_natural_nibbles(folder, out):
    """A copy whose words hold columns 0 to 7 in order: loads, and must be seen to be wrong."""
    config, tensors = read(folder)
    swapped = {k: torch.from_numpy(pack(unpack(t.numpy()), range(8))) if k.endswith(("qweight", "qzeros")) else t for k, t in tensors.items()}
    write(out, config, swapped)


def with_doubled_scales(folder, out):
    """A whole copy, with the scales of one layer twice as large: loads, and must be seen to be wrong."""
    shutil.copytree(folder, out)
    config, tensors = read(folder)
    tensors["model.layers.0.mlp.down_proj.scales"] *= 2
    write(out, config, tensors)


def without_one_tensor(folder, out):
    """A copy that lacks the scales of one layer: a loader must not take it."""
    config, tensors = read(folder)
    del tensors["model.layers.0.mlp.up_proj.scales"]
    write(out, config, tensors)


def only_weights(folder, out):
    """The float folder without anything but config.json and model.safetensors."""
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(pathlib.Path(folder) / name, out)
