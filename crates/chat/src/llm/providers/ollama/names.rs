//! How Ollama names its models.

/// Whether two names mean the same model: in any case, `:latest` and `library/` may be left out.
pub(in crate::llm) fn same_model(one: &str, other: &str) -> bool {
    fn parts(name: &str) -> (&str, &str) {
        let name = strip(strip(name, "registry.ollama.ai/"), "library/");
        // A colon before the last slash belongs to a registry's port.
        match name.rsplit_once(':') {
            Some((base, tag)) if !tag.contains('/') => (base, tag),
            _ => (name, "latest"),
        }
    }
    let ((base, tag), (other_base, other_tag)) = (parts(one), parts(other));
    base.eq_ignore_ascii_case(other_base) && tag.eq_ignore_ascii_case(other_tag)
}

fn strip<'a>(name: &'a str, prefix: &str) -> &'a str {
    match name.get(..prefix.len()) {
        Some(start) if start.eq_ignore_ascii_case(prefix) => {
            name.get(prefix.len()..).unwrap_or(name)
        }
        _ => name,
    }
}

/// Whether `ollama pull` gets a model of that name, as far as the name tells.
pub(in crate::llm) fn can_be_pulled(name: &str) -> bool {
    const ELSEWHERE: &str = "gpt-3 gpt-4 gpt-5 chatgpt o1 o3 o4 claude gemini text-embedding- dall-e \
        whisper- openai/ anthropic/ google/";
    let lower = name.to_ascii_lowercase();
    let is_cloud = lower.ends_with(":cloud") || lower.ends_with("-cloud");
    !is_cloud && !ELSEWHERE.split(' ').any(|prefix| lower.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_as_ollama_compares_them() {
        for name in [
            "gemma3",
            "GEMMA3",
            "gemma3:LATEST",
            "library/gemma3",
            "registry.ollama.ai/library/gemma3:latest",
        ] {
            assert!(same_model("gemma3:latest", name), "{name}");
        }
        assert!(same_model("host:5000/gemma3", "host:5000/gemma3:latest"));
        for name in ["gemma3:1b", "me/gemma3", "gemma", "library"] {
            assert!(!same_model("gemma3:latest", name), "{name}");
        }
    }

    #[test]
    fn models_of_others_cannot_be_pulled() {
        assert!(can_be_pulled("gemma3:1b") && can_be_pulled("gpt-oss:20b"));
        for name in [
            "gpt-oss:120b-cloud",
            "gpt-4o",
            "claude-sonnet-4",
            "qwen:cloud",
            "openai/gpt-4o-mini",
            "text-embedding-3-small",
        ] {
            assert!(!can_be_pulled(name), "{name}");
        }
    }
}
