use super::{Activation, Architecture, Folder, Rotation, Window};

/// Phi 3, 3.5 and 4 mini: Llama with fused projections, halves that turn together, and a window over all layers where the
/// file names one.
///
/// Long-context models have two lists of factors for their frequencies. The long one is taken for all positions whenever
/// the model's context is longer than the one it was first trained on, so that a token's place never changes its past.
pub(super) const PHI3: Architecture = Architecture {
    name: "phi3",
    rotation: Rotation::Halves,
    biases: false,
    head_norms: false,
    post_norms: false,
    fused: true,
    activation: Activation::Silu,
    scaled_embedding: false,
    window: Window::All,
    wide_queries: None,
    folder: Folder {
        model_types: &["phi3"],
        parts: &[
            ("input_layernorm.weight", "attn_norm.weight"),
            ("self_attn.qkv_proj.weight", "attn_qkv.weight"),
            ("self_attn.o_proj.weight", "attn_output.weight"),
            ("post_attention_layernorm.weight", "ffn_norm.weight"),
            ("mlp.gate_up_proj.weight", "ffn_up.weight"),
            ("mlp.down_proj.weight", "ffn_down.weight"),
        ],
        reorders_heads: false,
        norms_plus_one: false,
    },
};
