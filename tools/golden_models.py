"""The models that make_golden.py makes beside those of its own file: a config as it is published, and where transformers
lacks the family the config of one of its models that computes the same, with what its tensors are called instead.

Sizes are the smallest in which groups of 32 columns fit and in which a mistake shows: heads of q and k differ in number,
head_dim is not the rotated part, windows are shorter than the text.
"""
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 256, "vocab_size": 96}
COMMON = {"attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.02,
          "use_cache": True, "torch_dtype": "bfloat16"}


def config(architecture, model_type, **changes):
    return {"architectures": [architecture], "model_type": model_type, **COMMON, **changes}


def like_llama(architecture, model_type, **changes):
    return config(architecture, model_type, **{**SIZES, "hidden_act": "silu", "rms_norm_eps": 1e-3, "rope_theta": 10000.0,
                                               "tie_word_embeddings": False, **changes})


def with_layer_norms(architecture, model_type, eps, **changes):
    c = like_llama(architecture, model_type, **{eps: 2e-3, **changes})
    c.pop("rms_norm_eps")
    return c


class As:
    """A published model, and one of transformers' with the same numbers under other names. `renames` turns its names into
    the published ones, in order; names that become one are fused, their rows one after another or, with `kv_heads`, each
    kv head's together. `stacked`: all experts are published in one tensor, too.
    `mxfp4`: and in 4-bit floats. `others`: shapes of tensors of parts that are not the language."""

    def __init__(self, published, reference, renames, kv_heads=0, unit_head=False, alibi=False,
                 attention="eager", long=0, stacked=False, mxfp4=False, others=None):
        self.published, self.reference, self.renames, self.kv_heads = published, reference, renames, kv_heads
        self.unit_head, self.alibi, self.attention, self.long = unit_head, alibi, attention, long
        self.stacked, self.mxfp4, self.others = stacked, mxfp4, others or {}

    def name(self, reference_name):
        for old, new in self.renames:
            reference_name = reference_name.replace(old, new)
        return reference_name


LLAMA_AS = {"attention_bias": False, "mlp_bias": False}
FUSED = [("self_attn.q_proj", "self_attn.W_pack"), ("self_attn.k_proj", "self_attn.W_pack"),
         ("self_attn.v_proj", "self_attn.W_pack")]
TRANSFORMER = [("model.embed_tokens", "transformer.wte"), ("model.norm", "transformer.ln_f"),
               ("model.layers", "transformer.h"), ("input_layernorm", "ln_1"), ("post_attention_layernorm", "ln_2")]
QWEN1 = TRANSFORMER + [("self_attn.q_proj", "attn.c_attn"), ("self_attn.k_proj", "attn.c_attn"),
                       ("self_attn.v_proj", "attn.c_attn"), ("self_attn.o_proj", "attn.c_proj"),
                       ("mlp.gate_proj", "mlp.w2"), ("mlp.up_proj", "mlp.w1"), ("mlp.down_proj", "mlp.c_proj")]
EXAONE = TRANSFORMER + [("self_attn.o_proj", "attn.attention.out_proj"), ("self_attn", "attn.attention"),
                        ("mlp.gate_proj", "mlp.c_fc_0"), ("mlp.up_proj", "mlp.c_fc_1"), ("mlp.down_proj", "mlp.c_proj")]
INTERNLM2 = [("model.embed_tokens", "model.tok_embeddings"), ("lm_head", "output"), ("self_attn.q_proj", "attention.wqkv"),
             ("self_attn.k_proj", "attention.wqkv"), ("self_attn.v_proj", "attention.wqkv"),
             ("self_attn.o_proj", "attention.wo"), ("input_layernorm", "attention_norm"),
             ("post_attention_layernorm", "ffn_norm"), ("mlp.gate_proj", "feed_forward.w1"),
             ("mlp.up_proj", "feed_forward.w3"), ("mlp.down_proj", "feed_forward.w2")]
CHATGLM = [("model.embed_tokens", "transformer.embedding.word_embeddings"), ("model.norm", "transformer.encoder.final_layernorm"),
           ("lm_head", "transformer.output_layer"), ("model.layers", "transformer.encoder.layers"),
           ("self_attn.q_proj", "self_attention.query_key_value"), ("self_attn.k_proj", "self_attention.query_key_value"),
           ("self_attn.v_proj", "self_attention.query_key_value"), ("self_attn.o_proj", "self_attention.dense"),
           ("mlp.gate_up_proj", "mlp.dense_h_to_4h"), ("mlp.down_proj", "mlp.dense_4h_to_h")]
GPT = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "n_inner": None, "layer_norm_epsilon": 2e-3,
       "vocab_size": 96, "activation_function": "gelu_new", "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
FALCON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96, "layer_norm_epsilon": 2e-3,
          "hidden_dropout": 0.0, "max_position_embeddings": 256, "rope_theta": 10000.0}
GEMMA = {"head_dim": 16, "num_key_value_heads": 1, "hidden_activation": "gelu_pytorch_tanh"}


def chatglm():
    published = config("ChatGLMModel", "chatglm", add_bias_linear=False, add_qkv_bias=True,
                       apply_residual_connection_post_layernorm=False, ffn_hidden_size=64, hidden_size=32, kv_channels=16,
                       layernorm_epsilon=1e-3, multi_query_attention=True, multi_query_group_num=2, num_attention_heads=4,
                       num_layers=2, original_rope=True, padded_vocab_size=96, post_layer_norm=True, rmsnorm=True,
                       rope_ratio=5, seq_length=256, tie_word_embeddings=False)
    reference = like_llama("GlmForCausalLM", "glm", head_dim=16, attention_bias=True, partial_rotary_factor=0.5,
                           rope_theta=50000.0)
    return As(published, reference, CHATGLM)


def qwen1():
    published = config("QWenLMHeadModel", "qwen", hidden_size=32, intermediate_size=128, kv_channels=16,
                       layer_norm_epsilon=1e-3, max_position_embeddings=256, no_bias=True, num_attention_heads=2,
                       num_hidden_layers=2, rotary_emb_base=10000, rotary_pct=1.0, scale_attn_weights=True, seq_length=256,
                       tie_word_embeddings=False, use_dynamic_ntk=True, use_logn_attn=True, vocab_size=96)
    reference = like_llama("Qwen2ForCausalLM", "qwen2", num_attention_heads=2, num_key_value_heads=2)
    return As(published, reference, QWEN1)


def baichuan(alibi):
    sizes = {"num_attention_heads": 6, "num_key_value_heads": 6, "hidden_size": 96,
             "intermediate_size": 32, "num_hidden_layers": 1} if alibi else \
        {"num_key_value_heads": 4}
    published = like_llama("BaichuanForCausalLM", "baichuan", normalized_head=True, model_max_length=256, **sizes)
    published.pop("num_key_value_heads"), published.pop("rope_theta")
    if alibi:
        published.pop("max_position_embeddings")
    return As(published, like_llama("LlamaForCausalLM", "llama", **LLAMA_AS, **sizes), FUSED, unit_head=True, alibi=alibi)


def minicpm():
    published = like_llama("MiniCPMForCausalLM", "minicpm", scale_emb=12, scale_depth=1.4, dim_model_base=8)
    reference = like_llama("GraniteForCausalLM", "granite", **LLAMA_AS, embedding_multiplier=12,
                           residual_multiplier=1.4 / 2 ** 0.5, attention_multiplier=8 ** -0.5, logits_scaling=4)
    return As(published, reference, [])


def exaone():
    published = like_llama("ExaoneForCausalLM", "exaone", activation_function="silu", layer_norm_epsilon=1e-3, num_layers=2)
    published.pop("rms_norm_eps"), published.pop("hidden_act"), published.pop("num_hidden_layers")
    return As(published, like_llama("LlamaForCausalLM", "llama", **LLAMA_AS), EXAONE)


def internlm2():
    published = like_llama("InternLM2ForCausalLM", "internlm2", bias=False,
                           rope_scaling={"type": "dynamic", "factor": 2.0})
    return As(published, like_llama("LlamaForCausalLM", "llama", **LLAMA_AS), INTERNLM2, kv_heads=2)


def internlm3():
    published = like_llama("InternLM3ForCausalLM", "internlm3", head_dim=16, bias=False, qkv_bias=True)
    reference = like_llama("Qwen2ForCausalLM", "qwen2", head_dim=16)
    return As(published, reference, [])


def neox(**changes):
    published = with_layer_norms("GPTNeoXForCausalLM", "gpt_neox", "layer_norm_eps", hidden_dropout=0.0, **changes)
    return As(published, published, [("lm_head", "embed_out")])


def falcon_rw():
    # transformers' eager attention adds ALiBi twice, in the mask and to the scores
    published = config("FalconForCausalLM", "falcon", **FALCON, alibi=True, bias=True, multi_query=False, parallel_attn=False,
                       new_decoder_architecture=False)
    return As(published, published, [], attention="sdpa")


def long_context(scaling, positions=4096, family="llama", **changes):
    """Made for 4,096 positions by training, and checked at 8,200."""
    published = like_llama("Phi3ForCausalLM" if family == "phi3" else "LlamaForCausalLM", family, num_hidden_layers=1,
                           num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=positions,
                           rope_scaling=scaling, **changes)
    return As(published, published, [], attention="sdpa", long=8200)


def factors(last):
    return [1 + last * i / 7 for i in range(8)]


MIXTRAL = [("mlp.", "block_sparse_moe."), (".gate_proj.", ".w1."), (".up_proj.", ".w3."), (".down_proj.", ".w2.")]


def with_experts(architecture, model_type, **changes):
    """More experts than a token passes, of which some get few of the text's tokens."""
    return like_llama(architecture, model_type, **{"num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": False,
                                                   "output_router_logits": False, "router_aux_loss_coef": 0.001, **changes})


def qwen_moe(architecture, model_type, **changes):
    return with_experts(architecture, model_type, **{"moe_intermediate_size": 32, "decoder_sparse_step": 1,
                                                     "mlp_only_layers": [], "use_sliding_window": False,
                                                     "sliding_window": None, "max_window_layers": 2, **changes})


def qwen3_next():
    return qwen_moe("Qwen3NextForCausalLM", "qwen3_next", head_dim=16, attention_bias=False, norm_topk_prob=True,
                    num_hidden_layers=3, full_attention_interval=2, mlp_only_layers=[1], num_experts=4, shared_expert_intermediate_size=32,
                    partial_rotary_factor=0.25, linear_conv_kernel_dim=4, linear_key_head_dim=12, linear_value_head_dim=8,
                    linear_num_key_heads=2, linear_num_value_heads=4)


GROUPED = {"n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_group": 3, "topk_group": 2,
           "first_k_dense_replace": 1, "routed_scaling_factor": 1.5}
LATENT = {"num_key_value_heads": 4, "kv_lora_rank": 32, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 24,
          "attention_bias": False}
YARN_OF_DEEPSEEK = {"type": "yarn", "factor": 4, "original_max_position_embeddings": 64, "beta_fast": 4, "beta_slow": 1,
                    "mscale": 0.707, "mscale_all_dim": 0.707}


def deepseek(version, **changes):
    return like_llama(f"DeepseekV{version}ForCausalLM", f"deepseek_v{version}",
                      **{**GROUPED, **LATENT, "n_shared_experts": 2, "q_lora_rank": 32, "moe_layer_freq": 1,
                         "rope_scaling": YARN_OF_DEEPSEEK, **changes})


STACKED = [("router.weight", "router.layer.weight"), ("experts.gate_up_proj", "input_linear.weight"),
           ("experts.down_proj", "output_linear.weight")]


def granite_moe(architecture, model_type, **changes):
    published = with_experts(architecture, model_type, attention_bias=False, num_local_experts=5, intermediate_size=32,
                             embedding_multiplier=12.0, residual_multiplier=0.5, attention_multiplier=0.3, logits_scaling=2.0,
                             **changes)
    published.pop("num_experts"), published.pop("norm_topk_prob")
    return As(published, published, STACKED, stacked=True)


def gpt_oss(mxfp4):
    reference = like_llama("GptOssForCausalLM", "gpt_oss", head_dim=16, intermediate_size=32, num_local_experts=4,
                           num_experts_per_tok=2, attention_bias=True, sliding_window=12, swiglu_limit=1.0, rope_theta=150000,
                           layer_types=["sliding_attention", "full_attention"], output_router_logits=False,
                           rope_scaling={"rope_type": "yarn", "factor": 4.0, "beta_fast": 4.0, "beta_slow": 1.0,
                                         "truncate": False, "original_max_position_embeddings": 64})
    quantized = {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn",
                 "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}} if mxfp4 else {}
    return As({**reference, **quantized}, reference, [], stacked=True, mxfp4=mxfp4)


def seeing(published, reference, renames, others):
    """A language under a prefix, beside a part that sees, of which no more than some tensors are here."""
    return As(published, reference, renames, others=others)


def qwen2_vl():
    text = like_llama("Qwen2VLForConditionalGeneration", "qwen2_vl", use_sliding_window=False, sliding_window=None,
                      max_window_layers=2, rope_scaling={"type": "mrope", "mrope_section": [1, 1, 2]},
                      vision_config={"depth": 1, "embed_dim": 8})
    return seeing(text, like_llama("Qwen2ForCausalLM", "qwen2"), [],
                  {"visual.patch_embed.proj.weight": (8, 3, 2, 4, 4), "visual.blocks.0.attn.qkv.bias": (24,)})


def qwen3_vl():
    text = like_llama("Qwen3ForCausalLM", "qwen3", head_dim=16, attention_bias=False)
    nested = {**text, "model_type": "qwen3_vl_text", "rope_scaling": {"mrope_interleaved": True, "mrope_section": [3, 3, 2],
                                                                      "rope_type": "default"}}
    nested.pop("architectures")
    return seeing(config("Qwen3VLForConditionalGeneration", "qwen3_vl", text_config=nested, tie_word_embeddings=False), text,
                  [("model.", "model.language_model.")], {"model.visual.merger.linear_fc1.weight": (8, 8)})


def llava():
    text = like_llama("LlamaForCausalLM", "llama", **LLAMA_AS)
    return seeing(config("LlavaForConditionalGeneration", "llava", text_config=text, image_token_index=95), text,
                  [("model.", "language_model.model."), ("lm_head", "language_model.lm_head")],
                  {"vision_tower.vision_model.embeddings.position_embedding.weight": (5, 8),
                   "multi_modal_projector.linear_1.weight": (32, 8), "multi_modal_projector.linear_1.bias": (32,)})


def internvl():
    text = internlm2()
    inner = [(old, new) for old, new in INTERNLM2] + [("model.", "language_model.model."), ("output.", "language_model.output.")]
    published = config("InternVLChatModel", "internvl_chat", llm_config=text.published, downsample_ratio=0.5)
    return As(published, text.reference, inner, kv_heads=2,
              others={"vision_model.embeddings.class_embedding": (1, 1, 8), "mlp1.1.weight": (32, 8)})


def gemma3_vl():
    text = like_llama("Gemma3ForCausalLM", "gemma3_text", **GEMMA, num_hidden_layers=3, query_pre_attn_scalar=24, sliding_window=12,
                      sliding_window_pattern=3, rope_local_base_freq=10000.0, rope_scaling={"rope_type": "linear", "factor": 8.0},
                      attention_bias=False, attn_logit_softcapping=None, final_logit_softcapping=None, tie_word_embeddings=True)
    return seeing(config("Gemma3ForConditionalGeneration", "gemma3", text_config=text, image_token_index=95), text,
                  [("model.", "language_model.model.")],
                  {"vision_tower.vision_model.post_layernorm.weight": (8,),
                   "multi_modal_projector.mm_input_projection_weight": (8, 32)})


def qwen3_5():
    text = like_llama("Qwen3_5ForCausalLM", "qwen3_5_text", head_dim=16, attention_bias=False, attn_output_gate=True, num_hidden_layers=3,
                      layer_types=["linear_attention", "full_attention", "linear_attention"], linear_conv_kernel_dim=4,
                      linear_key_head_dim=8, linear_value_head_dim=16, linear_num_key_heads=4, linear_num_value_heads=4,
                      full_attention_interval=2, mlp_only_layers=[], mtp_num_hidden_layers=1, tie_word_embeddings=True,
                      rope_parameters={"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 0.25})
    text.pop("rope_theta")
    nested = {**text, "rope_parameters": {"mrope_interleaved": True, "mrope_section": [1, 1, 0], **text["rope_parameters"]}}
    nested.pop("architectures")
    return seeing(config("Qwen3_5ForConditionalGeneration", "qwen3_5", text_config=nested, tie_word_embeddings=True), text,
                  [("model.", "model.language_model.")],
                  {"model.visual.merger.linear_fc1.weight": (8, 8), "mtp.norm.weight": (32,)})


def qwen3_5_moe():
    text = with_experts("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", head_dim=16, attention_bias=False, attn_output_gate=True,
                        num_hidden_layers=2, layer_types=["linear_attention", "full_attention"], linear_conv_kernel_dim=4,
                        linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
                        full_attention_interval=2, num_experts=4, moe_intermediate_size=32, shared_expert_intermediate_size=32,
                        mlp_only_layers=[], mtp_num_hidden_layers=1,
                        rope_parameters={"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 0.25})
    for absent in ("rope_theta", "intermediate_size", "norm_topk_prob"):
        text.pop(absent)
    nested = {**text, "rope_parameters": {"mrope_interleaved": True, "mrope_section": [1, 1, 0], **text["rope_parameters"]}}
    nested.pop("architectures")
    published = config("Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe", text_config=nested, tie_word_embeddings=False)
    return As(published, text, [("model.", "model.language_model.")], stacked=True,
              others={"model.visual.merger.linear_fc1.weight": (8, 8), "mtp.norm.weight": (32,)})


def gemma4_text(**changes):
    text = like_llama("Gemma4ForCausalLM", "gemma4_text", **{
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32, "head_dim": 16, "global_head_dim": 32,
        "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "final_logit_softcapping": 3.0, "sliding_window": 12,
        "attention_k_eq_v": False, "enable_moe_block": False, "num_experts": None, "top_k_experts": None,
        "num_global_key_value_heads": None, "use_bidirectional_attention": None, "tie_word_embeddings": True,
        "vocab_size_per_layer_input": 96, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0,
        "use_double_wide_mlp": False, "rope_parameters": {
            "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 100.0, "rope_type": "proportional"},
            "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"}}, **changes})
    text.pop("rope_theta"), text.pop("hidden_act")
    return text


def gemma4():
    """Two blocks read keys of earlier ones, not of the first. Of those files have tensors that nothing reads."""
    text = gemma4_text(num_hidden_layers=5, hidden_size_per_layer_input=32, num_kv_shared_layers=2, use_double_wide_mlp=True,
                       layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention",
                                    "full_attention"])
    nested = {name: value for name, value in text.items() if name != "architectures"}
    return seeing(config("Gemma4ForConditionalGeneration", "gemma4", text_config=nested, tie_word_embeddings=True), text,
                  [("model.", "model.language_model.")],
                  {"model.language_model.layers.3.self_attn.k_proj.weight": (16, 32), "model.embed_vision.embedding_projection.weight": (32, 8),
                   "model.vision_tower.patch_embedder.input_proj.weight": (8, 12), "model.audio_tower.output_proj.bias": (8,)})


def gemma4_moe():
    text = gemma4_text(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, attention_k_eq_v=True,
                       num_global_key_value_heads=1, enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=32, intermediate_size=64,
                       layer_types=["sliding_attention", "full_attention"])
    return As(text, text, [], stacked=True)


def vila():
    text = like_llama("LlamaForCausalLM", "llama", **LLAMA_AS)
    return seeing(config("LlavaLlamaModel", "llava_llama", llm_cfg=text, mm_projector_cfg={"mm_projector_type": "mlp_downsample"}),
                  text, [("model.", "llm.model."), ("lm_head", "llm.lm_head")],
                  {"vision_tower.vision_tower.vision_model.post_layernorm.weight": (8,), "mm_projector.layers.1.weight": (32, 8)})


def mpt():
    return config("MPTForCausalLM", "mpt", d_model=32, n_heads=4, n_layers=2, max_seq_len=64, expansion_ratio=4, vocab_size=96,
                  no_bias=True, layer_norm_epsilon=2e-3, emb_pdrop=0.0, resid_pdrop=0.0, learned_pos_emb=True, logit_scale=None,
                  norm_type="low_precision_layernorm",
                  attn_config={"alibi": True, "alibi_bias_max": 8, "attn_pdrop": 0, "attn_type": "multihead_attention",
                               "clip_qkv": 2.0, "prefix_lm": False, "qk_ln": False, "softmax_scale": None})


def flamingo():
    inner = [(f".{part}", f".decoder_layer.{part}") for part in ("norm_1.", "norm_2.", "attn.", "ffn.")]
    return seeing(config("FlamingoForConditionalGeneration", "flamingo", text_config=mpt(), cross_attn_every_n_layers=2), mpt(),
                  [("transformer.", "lang_encoder.transformer."), *inner],
                  {"perceiver.latents": (4, 8), "vision_encoder.class_embedding": (8,),
                   "lang_encoder.transformer.blocks.1.gated_cross_attn_layer.attn_gate": (1,),
                   "lang_encoder.transformer.blocks.1.gated_cross_attn_layer.attn.to_q.weight": (8, 32)})


def mixtral():
    published = with_experts("MixtralForCausalLM", "mixtral", num_local_experts=5, intermediate_size=32,
                             sliding_window=None)
    published.pop("num_experts"), published.pop("norm_topk_prob")
    return As(published, published, MIXTRAL)


ORIGINAL = {"original_max_position_embeddings": 4096}
MODELS = {
    "long-linear": long_context({"rope_type": "linear", "factor": 4.0}, **LLAMA_AS),
    "long-dynamic": long_context({"rope_type": "dynamic", "factor": 4.0}, **LLAMA_AS),
    "long-llama3": long_context({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                 **ORIGINAL}, positions=32768, **LLAMA_AS),
    "long-yarn": long_context({"rope_type": "yarn", "factor": 4.0, **ORIGINAL}, **LLAMA_AS),
    "long-longrope": long_context({"type": "longrope", "short_factor": factors(0.1), "long_factor": factors(30)},
                                  positions=131072, family="phi3", sliding_window=None, embd_pdrop=0.0, resid_pdrop=0.0,
                                  **ORIGINAL),
    "ministral": like_llama("MinistralForCausalLM", "ministral", head_dim=16, sliding_window=12,
                            layer_types=["sliding_attention", "full_attention"]),
    "gemma": like_llama("GemmaForCausalLM", "gemma", **GEMMA, hidden_act="gelu", tie_word_embeddings=True),
    "gemma2": like_llama("Gemma2ForCausalLM", "gemma2", **GEMMA, num_hidden_layers=3, query_pre_attn_scalar=24, sliding_window=12,
                         attn_logit_softcapping=2.0, final_logit_softcapping=3.0, tie_word_embeddings=True),
    "phi3": like_llama("Phi3ForCausalLM", "phi3", sliding_window=11, original_max_position_embeddings=256,
                       embd_pdrop=0.0, resid_pdrop=0.0),
    "phi4": like_llama("Phi3ForCausalLM", "phi3", hidden_size=64, partial_rotary_factor=0.75, num_hidden_layers=1,
                       sliding_window=None, original_max_position_embeddings=256, embd_pdrop=0.0, resid_pdrop=0.0),
    "olmo": like_llama("OlmoForCausalLM", "olmo", clip_qkv=1.0, attention_bias=False),
    "olmo2": like_llama("Olmo2ForCausalLM", "olmo2", attention_bias=False),
    "olmo3": like_llama("Olmo3ForCausalLM", "olmo3", attention_bias=False, num_hidden_layers=3, sliding_window=12,
                        rope_theta=500000.0, layer_types=["sliding_attention", "sliding_attention", "full_attention"],
                        rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
                                      "beta_fast": 4.0, "beta_slow": 1.0, "attention_factor": 1.2}),
    "stablelm": with_layer_norms("StableLmForCausalLM", "stablelm", "layer_norm_eps", partial_rotary_factor=0.25,
                                 use_qkv_bias=True, qk_layernorm=False, use_parallel_residual=False),
    "stablelm-parallel": with_layer_norms("StableLmForCausalLM", "stablelm", "layer_norm_eps", partial_rotary_factor=0.5,
                                          use_qkv_bias=False, qk_layernorm=False, use_parallel_residual=True),
    "granite": like_llama("GraniteForCausalLM", "granite", **LLAMA_AS, embedding_multiplier=12.0, residual_multiplier=0.22,
                          attention_multiplier=0.3, logits_scaling=8.0),
    "smollm3": like_llama("SmolLM3ForCausalLM", "smollm3", **LLAMA_AS, num_hidden_layers=3, no_rope_layers=[1, 1, 0],
                          use_sliding_window=False, sliding_window=None, tie_word_embeddings=True),
    "cohere": with_layer_norms("CohereForCausalLM", "cohere", "layer_norm_eps", attention_bias=False, use_qk_norm=True,
                               logit_scale=0.0625, tie_word_embeddings=True),
    "cohere2": with_layer_norms("Cohere2ForCausalLM", "cohere2", "layer_norm_eps", attention_bias=False, logit_scale=0.25,
                                num_hidden_layers=3, sliding_window=12, tie_word_embeddings=True,
                                layer_types=["sliding_attention", "sliding_attention", "full_attention"]),
    "starcoder2": with_layer_norms("Starcoder2ForCausalLM", "starcoder2", "norm_epsilon", hidden_act="gelu_pytorch_tanh",
                                   use_bias=True, sliding_window=12, embedding_dropout=0.0, residual_dropout=0.0,
                                   tie_word_embeddings=True),
    "nemotron": with_layer_norms("NemotronForCausalLM", "nemotron", "norm_eps", **LLAMA_AS, hidden_act="relu2", head_dim=16,
                                 partial_rotary_factor=0.5),
    "glm": like_llama("GlmForCausalLM", "glm", head_dim=16, attention_bias=True, partial_rotary_factor=0.5),
    "glm4": like_llama("Glm4ForCausalLM", "glm4", head_dim=16, attention_bias=False, partial_rotary_factor=0.5),
    "mixtral": mixtral(),
    "qwen2-moe": qwen_moe("Qwen2MoeForCausalLM", "qwen2_moe", shared_expert_intermediate_size=64, intermediate_size=64),
    "qwen3-moe": qwen_moe("Qwen3MoeForCausalLM", "qwen3_moe", head_dim=16, attention_bias=False, norm_topk_prob=True,
                          num_hidden_layers=3, mlp_only_layers=[1], num_experts=5, num_experts_per_tok=3),
    "qwen3-next": qwen3_next(),
    "olmoe": with_experts("OlmoeForCausalLM", "olmoe", attention_bias=False, clip_qkv=None, intermediate_size=32),
    "granite-moe": granite_moe("GraniteMoeForCausalLM", "granitemoe"),
    "granite-moe-shared": granite_moe("GraniteMoeSharedForCausalLM", "granitemoeshared", shared_intermediate_size=64,
                                      tie_word_embeddings=True),
    "glm4-moe": like_llama("Glm4MoeForCausalLM", "glm4_moe", **GROUPED, head_dim=16, attention_bias=True,
                           use_qk_norm=True, partial_rotary_factor=0.5, n_shared_experts=1, norm_topk_prob=True),
    "deepseek2": deepseek(2, topk_method="group_limited_greedy", scoring_func="softmax", norm_topk_prob=False),
    "deepseek2-lite": deepseek(2, topk_method="greedy", scoring_func="softmax", norm_topk_prob=False, q_lora_rank=None,
                               n_group=1, topk_group=1, rope_scaling=None),
    "deepseek3": deepseek(3, topk_method="noaux_tc", scoring_func="sigmoid", norm_topk_prob=True),
    "minicpm3": like_llama("MiniCPM3ForCausalLM", "minicpm3", **LATENT, q_lora_rank=32, scale_emb=12, scale_depth=1.4,
                           dim_model_base=8, tie_word_embeddings=True,
                           rope_scaling={"type": "longrope", "short_factor": [1.0, 1.2, 1.5, 2.0], "long_factor":
                                         [1.0, 2.0, 4.0, 8.0], "original_max_position_embeddings": 256}),
    "gpt-oss": gpt_oss(False),
    "gpt-oss-mxfp4": gpt_oss(True),
    "qwen2-vl": qwen2_vl(),
    "qwen3-vl": qwen3_vl(),
    "llava": llava(),
    "internvl": internvl(),
    "gemma3-vl": gemma3_vl(),
    "qwen3-5": qwen3_5(),
    "qwen3-5-moe": qwen3_5_moe(),
    "gemma4": gemma4(),
    "gemma4-moe": gemma4_moe(),
    "vila": vila(),
    "flamingo": flamingo(),
    "chatglm": chatglm(),
    "exaone": exaone(),
    "minicpm": minicpm(),
    "internlm2": internlm2(),
    "internlm3": internlm3(),
    "baichuan": baichuan(False),
    "baichuan-alibi": baichuan(True),
    "qwen": qwen1(),
    "phi": with_layer_norms("PhiForCausalLM", "phi", "layer_norm_eps", hidden_act="gelu_new", num_key_value_heads=None,
                            partial_rotary_factor=0.5, qk_layernorm=False, embd_pdrop=0.0, resid_pdrop=0.0),
    "gpt2": config("GPT2LMHeadModel", "gpt2", **GPT),
    "gptj": config("GPTJForCausalLM", "gptj", **{**GPT, "n_embd": 64, "n_layer": 1, "rotary_dim": 8, "tie_word_embeddings": False}),
    "bigcode": config("GPTBigCodeForCausalLM", "gpt_bigcode", **{**GPT, "activation_function": "gelu_pytorch_tanh"},
                      multi_query=True),
    "bigcode-heads": config("GPTBigCodeForCausalLM", "gpt_bigcode", **{**GPT, "n_layer": 1, "activation_function": "gelu"},
                            multi_query=False),
    "neox": neox(hidden_act="gelu", rotary_pct=0.25, rotary_emb_base=10000, use_parallel_residual=True, attention_bias=True),
    "neox-sequential": neox(hidden_act="gelu_fast", rotary_pct=0.5, use_parallel_residual=False, num_hidden_layers=1),
    "falcon-7b": config("FalconForCausalLM", "falcon", **FALCON, alibi=False, bias=False, multi_query=True, parallel_attn=True,
                        new_decoder_architecture=False),
    "falcon-40b": config("FalconForCausalLM", "falcon", **FALCON, alibi=False, bias=False, num_kv_heads=2, parallel_attn=True,
                         new_decoder_architecture=True),
    "falcon-11b": config("FalconForCausalLM", "falcon", **FALCON, alibi=False, bias=False, num_kv_heads=2, parallel_attn=True,
                         new_decoder_architecture=True, num_ln_in_parallel_attn=1, ffn_hidden_size=96,
                         tie_word_embeddings=False),
    "falcon-rw": falcon_rw(),
    "opt": config("OPTForCausalLM", "opt", activation_function="relu", do_layer_norm_before=True, dropout=0.0, enable_bias=True,
                  ffn_dim=64, hidden_size=32, layerdrop=0.0, max_position_embeddings=64, num_attention_heads=4,
                  num_hidden_layers=2, vocab_size=96, word_embed_proj_dim=32, tie_word_embeddings=True),
    "bloom": config("BloomForCausalLM", "bloom", hidden_size=32, n_head=4, n_layer=2, layer_norm_epsilon=2e-3, vocab_size=96,
                    hidden_dropout=0.0, apply_residual_connection_post_layernorm=False),
    "mpt": mpt(),
}
