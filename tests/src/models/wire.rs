//! The two wires that a fake model server speaks: Ollama's own API and OpenAI's.

use serde_json::{Value, json};

/// Which API a fake model server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Ollama's `/api/chat`: a JSON line for each token.
    Ollama,
    /// `/v1/chat/completions`: server-sent events.
    OpenAi,
}

/// A model that a fake server has.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: String,
    /// Its own window in tokens.
    pub window: u32,
}

/// What was counted for one answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub prompt: usize,
    pub completion: usize,
}

const TIME: &str = "2026-01-02T03:04:05.123456789Z";

impl Wire {
    pub(super) fn chat_path(self) -> &'static str {
        match self {
            Wire::Ollama => "/api/chat",
            Wire::OpenAi => "/v1/chat/completions",
        }
    }

    pub(super) fn embed_path(self) -> &'static str {
        match self {
            Wire::Ollama => "/api/embed",
            Wire::OpenAi => "/v1/embeddings",
        }
    }

    /// The embeddings of inputs, each with its length and its first byte; those of `tenth` with what no float is exactly.
    pub(super) fn embeddings(self, body: &Value) -> String {
        let inputs = match &body["input"] {
            Value::Array(inputs) => inputs.clone(),
            one => vec![one.clone()],
        };
        let vector = |input: &Value| match input {
            Value::String(text) if text == "tenth" => json!([0.1, -3.4e-5, 16_777_217]),
            Value::String(text) => json!([text.len(), text.bytes().next(), 0.5]),
            other => json!([other.as_array().map_or(0, Vec::len), 0, 0.25]),
        };
        let vectors: Vec<Value> = inputs.iter().map(vector).collect();
        let tokens = 2 * vectors.len();
        let answer = match self {
            Wire::Ollama => {
                json!({"model": body["model"], "embeddings": vectors, "prompt_eval_count": tokens})
            }
            Wire::OpenAi => {
                let data = vectors.iter().enumerate();
                let data = data.map(|(index, vector)| json!({"object": "embedding", "index": index, "embedding": vector}));
                json!({"object": "list", "data": data.collect::<Vec<_>>(), "usage": {"prompt_tokens": tokens}})
            }
        };
        answer.to_string()
    }

    pub(super) fn stream_type(self) -> &'static str {
        match self {
            Wire::Ollama => "application/x-ndjson",
            Wire::OpenAi => "text/event-stream",
        }
    }

    pub(super) fn token(self, model: &str, text: &str) -> Vec<u8> {
        match self {
            Wire::Ollama => {
                self.line(&ollama(model, json!({"role": "assistant", "content": text}), false))
            }
            Wire::OpenAi => self.line(&chunk(model, json!({"content": text}), Value::Null)),
        }
    }

    pub(super) fn thinking(self, model: &str, text: &str) -> Vec<u8> {
        match self {
            Wire::Ollama => self.line(&ollama(
                model,
                json!({"role": "assistant", "content": "", "thinking": text}),
                false,
            )),
            Wire::OpenAi => {
                self.line(&chunk(model, json!({"reasoning_content": text}), Value::Null))
            }
        }
    }

    /// The call of that number within its answer: whole on Ollama's wire, in fragments on OpenAI's.
    pub(super) fn tool_call(
        self,
        model: &str,
        number: usize,
        name: &str,
        arguments: &Value,
    ) -> Vec<u8> {
        let id = format!("call_{name}_{number}");
        match self {
            Wire::Ollama => {
                let call = json!({"id": id, "function": {"index": 0, "name": name, "arguments": arguments}});
                let message = json!({"role": "assistant", "content": "", "tool_calls": [call]});
                self.line(&ollama(model, message, false))
            }
            Wire::OpenAi => {
                let text = arguments.to_string();
                let (head, tail) = text.split_at(text.len() / 2);
                let first = json!({"index": number, "id": id, "type": "function", "function": {"name": name, "arguments": head}});
                let second = json!({"index": number, "function": {"arguments": tail}});
                [first, second]
                    .into_iter()
                    .flat_map(|part| {
                        self.line(&chunk(model, json!({"tool_calls": [part]}), Value::Null))
                    })
                    .collect()
            }
        }
    }

    pub(super) fn done(self, model: &str, reason: &str, counts: Counts) -> Vec<u8> {
        match self {
            Wire::Ollama => {
                let mut last = ollama(model, json!({"role": "assistant", "content": ""}), true);
                last["done_reason"] = reason.into();
                last["total_duration"] = 1_000_000.into();
                last["prompt_eval_count"] = counts.prompt.into();
                last["eval_count"] = counts.completion.into();
                self.line(&last)
            }
            Wire::OpenAi => {
                let mut bytes = self.line(&chunk(model, json!({}), reason.into()));
                let mut usage = chunk(model, json!({}), Value::Null);
                usage["choices"] = json!([]);
                usage["usage"] = json!({
                    "prompt_tokens": counts.prompt, "completion_tokens": counts.completion,
                    "total_tokens": counts.prompt + counts.completion,
                });
                bytes.extend(self.line(&usage));
                bytes.extend(b"data: [DONE]\n\n");
                bytes
            }
        }
    }

    pub(super) fn error(self, text: &str) -> Vec<u8> {
        match self {
            Wire::Ollama => self.line(&json!({"error": text})),
            Wire::OpenAi => {
                self.line(&json!({"error": {"message": text, "type": "server_error", "code": 500}}))
            }
        }
    }

    fn line(self, value: &Value) -> Vec<u8> {
        match self {
            Wire::Ollama => format!("{value}\n").into_bytes(),
            Wire::OpenAi => format!("data: {value}\n\n").into_bytes(),
        }
    }

    /// What every other path answers: status and body.
    pub(super) fn other(
        self,
        method: &str,
        path: &str,
        body: &Value,
        models: &[Model],
    ) -> (u16, String) {
        let named = body["model"].as_str().unwrap_or_default();
        let found = models.iter().find(|model| {
            model.name.eq_ignore_ascii_case(named) || model.name == format!("{named}:latest")
        });
        let (status, value) = match (self, method, path) {
            (_, _, "/") => return (200, "Ollama is running".to_owned()),
            (Wire::Ollama, "GET", "/api/version") => (200, json!({"version": "0.34.0"})),
            (Wire::Ollama, "GET", "/api/tags") => {
                (200, json!({"models": models.iter().map(tag).collect::<Vec<_>>()}))
            }
            (Wire::Ollama, "GET", "/api/ps") => {
                (200, json!({"models": models.iter().map(tag).collect::<Vec<_>>()}))
            }
            (Wire::Ollama, "POST", "/api/show") => found.map_or_else(|| missing(named), show),
            (Wire::OpenAi, "GET", "/v1/models") => {
                let data: Vec<Value> = models.iter().map(listed).collect();
                (200, json!({"object": "list", "data": data}))
            }
            (Wire::OpenAi, _, "/health") => (200, json!({"status": "ok"})),
            _ => return (404, "404 page not found".to_owned()),
        };
        (status, value.to_string())
    }

    /// The refusal of a model that the server lacks.
    pub(super) fn unknown_model(self, name: &str) -> (u16, String) {
        match self {
            Wire::Ollama => {
                let (status, body) = missing(name);
                (status, body.to_string())
            }
            Wire::OpenAi => {
                let message = format!("The model `{name}` does not exist.");
                let error = json!({"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"});
                (404, json!({"error": error}).to_string())
            }
        }
    }
}

fn ollama(model: &str, message: Value, done: bool) -> Value {
    json!({"model": model, "created_at": TIME, "message": message, "done": done})
}

fn chunk(model: &str, delta: Value, finish: Value) -> Value {
    json!({
        "id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1_767_323_045, "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    })
}

fn tag(model: &Model) -> Value {
    // Another model, or the same with another window, has another digest.
    let start = u64::from(model.window) + 0x8648_f39d_aa8f;
    let digest = model
        .name
        .bytes()
        .fold(start, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    json!({
        "name": model.name, "model": model.name, "modified_at": TIME, "size": 815_319_791, "digest": format!("{digest:016x}"),
        "context_length": model.window,
        "details": {"format": "gguf", "family": "gemma3", "parameter_size": "1B", "quantization_level": "Q4_K_M"},
    })
}

fn show(model: &Model) -> (u16, Value) {
    let info = json!({"general.architecture": "gemma3", "gemma3.context_length": model.window});
    let capabilities = if model.name.contains("embed") {
        json!(["embedding"])
    } else if model.name.contains("plain") {
        json!(["completion"])
    } else {
        json!(["completion", "vision", "tools", "thinking"])
    };
    (
        200,
        json!({"model_info": info, "capabilities": capabilities, "details": {"family": "gemma3"}, "modified_at": TIME}),
    )
}

fn listed(model: &Model) -> Value {
    json!({"id": model.name, "object": "model", "created": 1, "owned_by": "fake", "max_model_len": model.window})
}

fn missing(name: &str) -> (u16, Value) {
    (404, json!({"error": format!("model '{name}' not found")}))
}
