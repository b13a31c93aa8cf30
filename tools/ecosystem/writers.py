#!/usr/bin/env python3
"""Makes a model of a float folder with one program that is not awq, and says what that program itself reads of it.

usage: writers.py PROGRAM KIND SOURCE OUT EXPECTED.npz

PROGRAM KIND  mlx BITS-GROUP-DTYPE            mlx_lm.convert
              gguf TYPE                       gguf.quantize and GGUFWriter; SOURCE is a GGUF file, whose metadata is kept
              gguf copy                       SOURCE as it is, a file that llama.cpp's own quantizer wrote
              llama TYPE                      llama.cpp's quantizer; SOURCE is a GGUF file
              compressed-tensors BITS-STRATEGY-sym|asym   the compressors that llm-compressor saves a model with
              autoawq GROUP                   AutoAWQ's rounding and packing, without its search
              gptqmodel BITS-GROUP-sym|asym-v1|v2     GPTQModel's search on a few kB of text
OUT           the folder to make
EXPECTED.npz  each quantized matrix under its Hugging Face name as the program de-quantizes it: float32; float16 of AutoAWQ
"""
import os
import pathlib
import shutil
import sys

for name, value in {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}.items():
    os.environ.setdefault(name, value)
import numpy as np


def mlx(kind, source, out):
    import mlx.core as mx
    from mlx_lm import convert
    mx.set_default_device(mx.cpu)
    bits, group, dtype = kind.split("-")
    convert(str(source), str(out), quantize=True, q_group_size=int(group), q_bits=int(bits), dtype=dtype)
    tensors = mx.load(str(out / "model.safetensors"))
    floats = {k: v.astype(mx.float32) if mx.issubdtype(v.dtype, mx.floating) else v for k, v in tensors.items()}  # sums of 16 bits would be rounded
    bases = [k.removesuffix(".scales") for k in floats if k.endswith(".scales")]
    return {b + ".weight": np.array(mx.dequantize(floats[b + ".weight"], floats[b + ".scales"], floats[b + ".biases"], group_size=int(group), bits=int(bits)))
            for b in bases}


LAYERS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
          "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def hf_name(tensor):
    if tensor in ("token_embd.weight", "output.weight"):
        return {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight"}[tensor]
    parts = tensor.split(".")
    return f"model.layers.{parts[1]}.{LAYERS[parts[2]]}.weight" if parts[0] == "blk" and parts[2] in LAYERS and parts[3] == "weight" else None


def metadata(reader, key):
    field = reader.fields[key]
    return field.parts[field.data[0]]


def unpermuted(reader, tensor, weight):
    """Llama files have the two halves of a head of q and k interleaved."""
    import gguf
    arch = bytes(metadata(reader, gguf.Keys.General.ARCHITECTURE)).decode()
    part = tensor.split(".")[2] if tensor.startswith("blk.") else ""
    if arch != "llama" or part not in ("attn_q", "attn_k"):
        return weight
    heads = int(metadata(reader, f"llama.attention.head_count{'_kv' if part == 'attn_k' else ''}")[0])
    return weight.reshape(heads, weight.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def copy_metadata(reader, writer):
    import gguf
    for field in reader.fields.values():
        if field.name == gguf.Keys.General.ARCHITECTURE or field.name.startswith("GGUF."):
            continue  # the writer's own
        value = field.contents()
        writer.add_key_value(field.name, value, field.types[0], field.types[1] if len(field.types) > 1 else None)


def write_gguf(source, out, kind):
    import gguf
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, bytes(metadata(reader, gguf.Keys.General.ARCHITECTURE)).decode())
    copy_metadata(reader, writer)
    for t in reader.tensors:
        if len(t.shape) == 1:
            writer.add_tensor(t.name, np.array(t.data))
        else:
            writer.add_tensor(t.name, gguf.quantize(gguf.dequantize(t.data, t.tensor_type), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf(kind, source, out):
    import gguf
    out.mkdir(parents=True)
    file = out / "model.gguf"
    if kind == "copy":
        shutil.copy(source, file)
    else:
        write_gguf(source, file, gguf.GGMLQuantizationType[kind])
    return matrices(file)


def llama(kind, source, out):
    import llama_cpp
    out.mkdir(parents=True)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}"), 1, True  # SOURCE has no floats
    file = out / "model.gguf"
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(file), params):
        sys.exit(f"{source}: llama.cpp does not quantize it as {kind}")
    return matrices(file)


def matrices(file):
    import gguf
    reader = gguf.GGUFReader(file)
    return {hf_name(t.name): np.ascontiguousarray(unpermuted(reader, t.name, gguf.dequantize(t.data, t.tensor_type).astype(np.float32)))
            for t in reader.tensors if hf_name(t.name)}


def compressed_tensors(kind, source, out):
    import torch
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, apply_quantization_config
    from compressed_tensors.quantization.utils import calculate_qparams
    from transformers import AutoModelForCausalLM
    bits, strategy, symmetric = kind.split("-")
    args = QuantizationArgs(num_bits=int(bits), type="int", symmetric=symmetric == "sym", strategy="channel" if strategy == "channel" else "group",
                            group_size=None if strategy == "channel" else int(strategy))
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    apply_quantization_config(model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"]))
    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is None:
            continue
        w = module.weight.data
        groups = w.reshape(w.shape[0], -1, args.group_size or w.shape[1])
        scale, zero = calculate_qparams(groups.amin(2), groups.amax(2), args)
        module.weight_scale.data = scale.to(module.weight_scale.dtype)
        if zero is not None and hasattr(module, "weight_zero_point"):
            module.weight_zero_point.data = zero.to(module.weight_zero_point.dtype)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(out)
    compressor.update_config(out)
    shutil.copy(source / "tokenizer.json", out)
    compressor.decompress_model(model)
    return {name + ".weight": m.weight.detach().float().numpy() for name, m in model.named_modules() if getattr(m, "quantization_scheme", None) is not None}


def autoawq(kind, source, out):
    """As AutoAWQ does it after its search, on a CPU, for which it has no device of its own."""
    import awq.models.base as base
    import awq.modules.linear.gemm as gemm
    import torch
    from awq import AutoAWQForCausalLM
    from awq.quantize.quantizer import AwqQuantizer
    from awq.utils.module import get_named_linears, set_op_by_name
    from awq.utils.packing_utils import dequantize_gemm
    base.get_best_device = gemm.get_best_device = lambda: "cpu"
    model = AutoAWQForCausalLM.from_pretrained(str(source), torch_dtype=torch.float16, device_map={"": "cpu"})
    quantizer = AwqQuantizer.__new__(AwqQuantizer)  # its rounding reads these three
    quantizer.w_bit, quantizer.group_size, quantizer.zero_point = 4, int(kind), True
    expected = {}
    for i, block in enumerate(model.get_model_layers(model.model)):
        for name, linear in get_named_linears(block).items():
            linear.weight.data, scales, zeros = quantizer.pseudo_quantize_tensor(linear.weight.data)
            packed = gemm.WQLinear_GEMM.from_linear(linear, 4, int(kind), False, scales.t().contiguous(), zeros.t().contiguous())
            set_op_by_name(block, name, packed)
            expected[f"model.layers.{i}.{name}.weight"] = dequantize_gemm(packed.qweight, packed.qzeros, packed.scales, 4, int(kind)).t().contiguous().numpy()
    model.quant_config.q_group_size, model.quant_config.version = int(kind), "gemm"
    model.save_quantized(str(out))
    shutil.copy(source / "tokenizer.json", out)
    return expected


def gptqmodel(kind, source, out):
    os.environ["GPTQMODEL_CPU_WORKERS"] = "2"  # with one it does not start
    import torch
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
    bits, group, symmetric, version = kind.split("-")
    quant = QuantizeConfig(bits=int(bits), group_size=int(group), desc_act=False, sym=symmetric == "sym", format="gptq" if version == "v1" else "gptq_v2")
    model = GPTQModel.load(str(source), quant, device="cpu")
    text = pathlib.Path(__file__).read_text()
    model.quantize([text[i:i + 1200] for i in range(0, 4800, 1200)], batch_size=1)
    model.save(str(out))
    model = GPTQModel.load(str(out), device="cpu", backend=BACKEND.GPTQ_TORCH, dtype=torch.float16).model
    return {name + ".weight": m.dequantize_weight().t().contiguous().numpy() for name, m in model.named_modules() if hasattr(m, "dequantize_weight")}


def main():
    program, kind, source, out, expected = sys.argv[1:]
    write = {"mlx": mlx, "gguf": gguf, "llama": llama, "compressed-tensors": compressed_tensors, "autoawq": autoawq, "gptqmodel": gptqmodel}[program]
    np.savez(expected, **write(kind, pathlib.Path(source), pathlib.Path(out)))


if __name__ == "__main__":
    main()
