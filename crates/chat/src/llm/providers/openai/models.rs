//! The model list of an OpenAI-compatible server, in the dialects that there are.

use serde_json::Value;

use crate::llm::providers::{ModelInfo, lenient_json};

/// Where servers tell a model's window, the one that it is served with before the one that it was trained with:
/// llama-server, vLLM, then OpenRouter and others, Groq.
const WINDOWS: [&str; 4] = ["/meta/n_ctx", "/max_model_len", "/context_length", "/context_window"];

/// The models of a list; `None` where it is none. An entry without an id is left out.
pub(super) fn models(list: &Value) -> Option<Vec<ModelInfo>> {
    let entries = match list {
        // Together's has nothing around it.
        Value::Array(entries) => entries,
        _ => match list.get("data")? {
            Value::Array(entries) => entries,
            // Ollama's `/v1`, where nothing is installed.
            Value::Null if list.get("error").is_none() => return Some(Vec::new()),
            _ => return None,
        },
    };
    Some(entries.iter().filter_map(model).collect())
}

fn model(entry: &Value) -> Option<ModelInfo> {
    let id = entry.get("id")?.as_str().filter(|id| !id.is_empty())?;
    let told =
        |pointer: &&str| lenient_json::tokens(entry.pointer(pointer)?).filter(|size| *size > 0);
    let window = WINDOWS.iter().find_map(told);
    Some(ModelInfo {
        id: id.to_owned(),
        window: window.and_then(|size| u32::try_from(size).ok()),
        ..ModelInfo::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(list: Value) -> Option<Vec<(String, Option<u32>)>> {
        let models = models(&list)?.into_iter();
        Some(models.map(|model| (model.id, model.window)).collect())
    }

    fn one(id: &str, window: Option<u32>) -> Option<Vec<(String, Option<u32>)>> {
        Some(vec![(id.to_owned(), window)])
    }

    #[test]
    fn a_list_is_read_in_every_dialect() {
        let list = |entry: Value| read(json!({ "object": "list", "data": [entry] }));
        let vllm = json!({ "id": "/models/a", "max_model_len": 4096, "permission": [{}] });
        assert_eq!(list(vllm), one("/models/a", Some(4096)));
        let llama = json!({ "id": "a", "meta": { "n_ctx": 2048, "n_ctx_train": 131_072 } });
        assert_eq!(list(llama), one("a", Some(2048)));
        let both = json!({ "id": "a", "context_length": 8192, "context_window": 4096 });
        assert_eq!(list(both), one("a", Some(8192)));
        let together = json!([{ "id": "a/b", "context_length": 8192.0 }]);
        assert_eq!(read(together), one("a/b", Some(8192)));
        assert_eq!(read(json!({ "object": "list", "data": null })), Some(Vec::new()));
    }

    #[test]
    fn an_odd_entry_spoils_no_list() {
        let odd = json!({ "data": [null, 5, "a", {}, { "id": 7 }, { "id": "" }, { "name": "b" },
            { "id": "good", "max_model_len": "4096", "context_length": -1, "meta": "none" }] });
        assert_eq!(read(odd), one("good", None));
    }

    #[test]
    fn what_is_no_list_is_not_taken_for_an_empty_one() {
        for body in [
            json!({ "error": "Unexpected endpoint or method. (GET /models)" }),
            json!({ "error": {}, "data": null }),
            json!({ "data": {} }),
            json!(null),
            json!("ok"),
        ] {
            assert_eq!(read(body.clone()), None, "{body}");
        }
    }
}
