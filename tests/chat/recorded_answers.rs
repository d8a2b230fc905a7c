//! What real model servers put on the wire, replayed through the door of `/v1`, whole and streamed.

use serde_json::Value;
use tests::{
    Answer, Backend, Client, Completion, FakeModel, TestApp, completion_of, fixture, text_of_chunks,
};

on_both_stores!(every_recorded_answer_reaches_a_caller_of_v1_as_it_was);

/// A recorded answer and what it says, in the words of `EXPECTED.tsv`.
struct Recorded {
    file: String,
    said: String,
    bytes: Vec<u8>,
}

impl Recorded {
    fn all() -> Vec<Self> {
        let table = String::from_utf8(fixture("EXPECTED.tsv")).unwrap();
        let row = |line: &str| {
            let (file, said) = line.split_once('\t').unwrap();
            Self { file: file.to_owned(), said: said.to_owned(), bytes: fixture(file) }
        };
        table.lines().skip(1).map(row).collect()
    }

    /// What it says to a caller of `/v1`: the same, with the failure's code in the place of its name.
    fn told(&self) -> String {
        let status = self.bytes.get(9..12).unwrap_or_default();
        // The caller made the request, and not we: what is wrong with it is said to be.
        let blames_caller = matches!(status, b"400" | b"422");
        let code = |name: &str| match name {
            "Failed" if blames_caller => Some("invalid_request"),
            "Failed" => Some("llm_failed"),
            "NotFound" => Some("model_not_found"),
            "Unavailable" | "Busy" => Some("llm_unavailable"),
            "ContextTooLong" => Some("context_too_long"),
            "UnsupportedByModel" => Some("unsupported_by_model"),
            _ => None,
        };
        let (before, last) = self.said.rsplit_once(' ').unwrap_or(("", &self.said));
        match code(last) {
            Some(code) => format!("{before} {code}").trim_start().to_owned(),
            // Where the server did not count, we estimate.
            None => self.said.trim_end_matches(" ?").to_owned(),
        }
    }
}

async fn every_recorded_answer_reaches_a_caller_of_v1_as_it_was(on: Backend) {
    for (provider, server, folders) in [
        ("ollama", FakeModel::ollama().await, &["ollama/"][..]),
        ("openai", FakeModel::openai().await, &["openai/", "llama-server/"]),
    ] {
        let app = TestApp::builder(on)
            .set("llm.providers", provider)
            .set(&format!("llm.{provider}.base_url"), server.url())
            .set(&format!("llm.{provider}.breaker_failures"), 0)
            // A server that says that it is busy or loading is asked again for as long as this.
            .set(&format!("llm.{provider}.first_token_timeout"), "1s")
            .start()
            .await;
        let alice = app.login("alice").await;
        let recorded = Recorded::all();
        let ours = |one: &&Recorded| folders.iter().any(|folder| one.file.starts_with(folder));
        let mut count = 0;
        for one in recorded.iter().filter(ours) {
            count += 1;
            for cut in [one.bytes.len(), 5] {
                server.answer_to(&one.file, Answer::recorded(&one.bytes, cut));
                let counted = !one.said.ends_with('?');
                let streamed = streamed(&alice, &one.file, counted).await;
                assert_eq!(streamed, one.told(), "{}, streamed", one.file);
                let whole = whole(&alice, &one.file, counted).await;
                // What failed has no text, where it is not streamed.
                let told = one.told();
                let failed =
                    told.rsplit(' ').next().filter(|_| whole.contains('_') && !whole.contains(' '));
                assert_eq!(whole, failed.unwrap_or(&told), "{}, whole", one.file);
            }
        }
        assert!(count >= 30, "{count} recorded answers of {provider}");
    }
}

async fn whole(client: &Client, message: &str, counted: bool) -> String {
    let reply = client.post("/v1/chat/completions", &completion_of(message, false)).await;
    let answer = reply.json();
    if reply.status != 200 {
        return answer["error"]["code"].as_str().unwrap().to_owned();
    }
    let choice = &answer["choices"][0];
    let said = &choice["message"];
    let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    let mut brief = Brief {
        thinking: text("reasoning_content"),
        text: text("content"),
        calls: calls(&said["tool_calls"]),
        ..Brief::default()
    };
    brief.end(&choice["finish_reason"], &answer["usage"], counted);
    brief.told()
}

async fn streamed(client: &Client, message: &str, counted: bool) -> String {
    let mut body = completion_of(message, true);
    body["stream_options"] = serde_json::json!({ "include_usage": true });
    let request = client.request(reqwest::Method::POST, "/v1/chat/completions");
    let response = request.json(&body).send().await.unwrap();
    if response.status() != 200 {
        let answer: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        return answer["error"]["code"].as_str().unwrap().to_owned();
    }
    let chunks = Completion::of(response).rest().await;
    let delta = |name: &str| -> String {
        let pieces = chunks.iter();
        pieces.filter_map(|chunk| chunk["choices"][0]["delta"][name].as_str()).collect()
    };
    let mut brief = Brief {
        thinking: delta("reasoning_content"),
        text: text_of_chunks(&chunks),
        ..Brief::default()
    };
    for chunk in &chunks {
        let choice = &chunk["choices"][0];
        brief.calls.extend(calls(&choice["delta"]["tool_calls"]));
        if let Some(code) = chunk["error"]["code"].as_str() {
            brief.ending = code.to_owned();
        }
    }
    let finish = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["finish_reason"])
        .find(|finish| finish.is_string());
    if let Some(finish) = finish {
        brief.end(finish, &chunks.last().unwrap()["usage"], counted);
    }
    brief.told()
}

fn calls(calls: &Value) -> Vec<String> {
    let call = |call: &Value| {
        let function = &call["function"];
        let text = |name: &str| function[name].as_str().unwrap();
        format!("{}({})", text("name"), text("arguments"))
    };
    calls.as_array().into_iter().flatten().map(call).collect()
}

/// What was told, in the words of `EXPECTED.tsv`.
#[derive(Default)]
struct Brief {
    thinking: String,
    text: String,
    calls: Vec<String>,
    ending: String,
}

impl Brief {
    fn end(&mut self, finish: &Value, usage: &Value, counted: bool) {
        let word = match finish.as_str().unwrap() {
            "stop" => "Stop",
            "length" => "Length",
            "tool_calls" => "ToolCalls",
            "content_filter" => "ContentFilter",
            other => panic!("no finish reason of theirs: {other}"),
        };
        let (prompt, completion) = (&usage["prompt_tokens"], &usage["completion_tokens"]);
        assert!(prompt.is_u64() && completion.is_u64(), "{usage}");
        self.ending = match counted {
            true => format!("{word} {prompt}+{completion}"),
            false => word.to_owned(),
        };
    }

    fn told(self) -> String {
        let mut told = Vec::new();
        for (name, text) in [("think", self.thinking), ("text", self.text)] {
            if !text.is_empty() {
                told.push(format!("{name}={text:?}"));
            }
        }
        told.extend(self.calls);
        told.push(self.ending);
        told.join(" ")
    }
}
