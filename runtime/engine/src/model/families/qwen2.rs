use super::{Activation, Architecture, Folder, Rotation, Window};

/// Qwen 2 and 2.5: Llama with biases on queries, keys and values, and halves that turn together.
pub(super) const QWEN2: Architecture = Architecture {
    name: "qwen2",
    rotation: Rotation::Halves,
    biases: true,
    head_norms: false,
    post_norms: false,
    fused: false,
    activation: Activation::Silu,
    scaled_embedding: false,
    window: Window::No,
    wide_queries: None,
    folder: Folder {
        model_types: &["qwen2"],
        parts: &[
            ("input_layernorm.weight", "attn_norm.weight"),
            ("self_attn.q_proj.weight", "attn_q.weight"),
            ("self_attn.q_proj.bias", "attn_q.bias"),
            ("self_attn.k_proj.weight", "attn_k.weight"),
            ("self_attn.k_proj.bias", "attn_k.bias"),
            ("self_attn.v_proj.weight", "attn_v.weight"),
            ("self_attn.v_proj.bias", "attn_v.bias"),
            ("self_attn.o_proj.weight", "attn_output.weight"),
            ("post_attention_layernorm.weight", "ffn_norm.weight"),
            ("mlp.gate_proj.weight", "ffn_gate.weight"),
            ("mlp.up_proj.weight", "ffn_up.weight"),
            ("mlp.down_proj.weight", "ffn_down.weight"),
        ],
        reorders_heads: false,
        norms_plus_one: false,
    },
};
