//! What may name a model.

/// Longest name of a model, in bytes.
pub const MODEL_NAME_MAX: usize = 256;

/// Whether a text may name a model: never a path that leads elsewhere, never an address. vLLM and llama-server name a model by
/// its path where they are told no other name.
pub fn is_model_name(name: &str) -> bool {
    let is_allowed = |c: u8| c.is_ascii_alphanumeric() || b"._:/@+-".contains(&c);
    let mut parts = name.strip_prefix('/').unwrap_or(name).split('/');
    (1..=MODEL_NAME_MAX).contains(&name.len())
        && name.bytes().all(is_allowed)
        && parts.all(|part| !matches!(part, "" | "." | ".."))
}
