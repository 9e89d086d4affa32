use super::{Activation, Architecture, Folder, Rotation, Window};

/// Gemma 3, text.
///
/// ```text
/// x  = √width · embedding
/// x += norm(out · attention(turn(norm(q · norm(x))), turn(norm(k · norm(x))), v · norm(x)))
/// x += norm(down · (gelu(gate · norm(x)) * (up · norm(x))))
/// ```
///
/// Five of six layers see a window and turn by the base 10,000; each sixth sees all, and turns by the file's base and
/// scaling. Norms multiply by `1 + w`: GGUF stores the sum, a folder stores `w`. The 27B model, of 62 layers, divides its
/// queries by `√(width / heads)`.
pub(super) const GEMMA3: Architecture = Architecture {
    name: "gemma3",
    rotation: Rotation::Halves,
    biases: false,
    head_norms: true,
    post_norms: true,
    fused: false,
    activation: Activation::GeluTanh,
    scaled_embedding: true,
    window: Window::AllBut { each: 6, base: 10_000.0 },
    wide_queries: Some(62),
    folder: Folder {
        model_types: &["gemma3_text"],
        parts: &[
            ("input_layernorm.weight", "attn_norm.weight"),
            ("self_attn.q_proj.weight", "attn_q.weight"),
            ("self_attn.q_norm.weight", "attn_q_norm.weight"),
            ("self_attn.k_proj.weight", "attn_k.weight"),
            ("self_attn.k_norm.weight", "attn_k_norm.weight"),
            ("self_attn.v_proj.weight", "attn_v.weight"),
            ("self_attn.o_proj.weight", "attn_output.weight"),
            ("post_attention_layernorm.weight", "post_attention_norm.weight"),
            ("pre_feedforward_layernorm.weight", "ffn_norm.weight"),
            ("mlp.gate_proj.weight", "ffn_gate.weight"),
            ("mlp.up_proj.weight", "ffn_up.weight"),
            ("mlp.down_proj.weight", "ffn_down.weight"),
            ("post_feedforward_layernorm.weight", "post_ffw_norm.weight"),
        ],
        reorders_heads: false,
        norms_plus_one: true,
    },
};
