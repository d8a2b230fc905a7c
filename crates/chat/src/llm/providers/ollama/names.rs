//! How Ollama names its models.

/// Whether two names mean the same model: `gemma3` is `gemma3:latest`.
pub(in crate::llm) fn same_model(one: &str, other: &str) -> bool {
    fn parts(name: &str) -> (&str, &str) {
        // A colon before the last slash belongs to a registry's port.
        match name.rsplit_once(':') {
            Some((base, tag)) if !tag.contains('/') => (base, tag),
            _ => (name, "latest"),
        }
    }
    parts(one) == parts(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_without_a_tag_is_its_latest() {
        assert!(same_model("gemma3", "gemma3:latest"));
        assert!(same_model("host:5000/gemma3", "host:5000/gemma3:latest"));
        assert!(!same_model("gemma3", "gemma3:1b"));
        assert!(!same_model("Gemma3", "gemma3"));
    }
}
