use super::{Activation, Architecture, Folder, Rotation, Window};

/// Qwen 3: Llama whose queries and keys are normalised, head by head, before they are turned; halves turn together.
pub(super) const QWEN3: Architecture = Architecture {
    name: "qwen3",
    rotation: Rotation::Halves,
    biases: false,
    head_norms: true,
    post_norms: false,
    fused: false,
    activation: Activation::Silu,
    scaled_embedding: false,
    window: Window::No,
    wide_queries: None,
    folder: Folder {
        model_types: &["qwen3"],
        parts: &[
            ("input_layernorm.weight", "attn_norm.weight"),
            ("self_attn.q_proj.weight", "attn_q.weight"),
            ("self_attn.q_norm.weight", "attn_q_norm.weight"),
            ("self_attn.k_proj.weight", "attn_k.weight"),
            ("self_attn.k_norm.weight", "attn_k_norm.weight"),
            ("self_attn.v_proj.weight", "attn_v.weight"),
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
