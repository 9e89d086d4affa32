use super::{Activation, Architecture, Folder, Rotation, Window};

/// Llama 1 to 3, Mistral's first, SmolLM and many others.
///
/// ```text
/// x += out · attention(turn(q · norm(x)), turn(k · norm(x)), v · norm(x))
/// x += down · (silu(gate · norm(x)) * (up · norm(x)))
/// ```
///
/// GGUF reorders the rows of `q` and `k` so that neighbours turn together. Llama 3.1 and later divide their frequencies
/// by factors (`rope_freqs.weight`), which a folder gives as `rope_scaling` of type `llama3`.
pub(super) const LLAMA: Architecture = Architecture {
    name: "llama",
    rotation: Rotation::Neighbours,
    biases: false,
    head_norms: false,
    post_norms: false,
    fused: false,
    activation: Activation::Silu,
    scaled_embedding: false,
    window: Window::No,
    wide_queries: None,
    folder: Folder {
        model_types: &["llama"],
        parts: &[
            ("input_layernorm.weight", "attn_norm.weight"),
            ("self_attn.q_proj.weight", "attn_q.weight"),
            ("self_attn.k_proj.weight", "attn_k.weight"),
            ("self_attn.v_proj.weight", "attn_v.weight"),
            ("self_attn.o_proj.weight", "attn_output.weight"),
            ("post_attention_layernorm.weight", "ffn_norm.weight"),
            ("mlp.gate_proj.weight", "ffn_gate.weight"),
            ("mlp.up_proj.weight", "ffn_up.weight"),
            ("mlp.down_proj.weight", "ffn_down.weight"),
        ],
        reorders_heads: true,
        norms_plus_one: false,
    },
};
