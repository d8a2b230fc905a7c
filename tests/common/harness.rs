//! The harness keeps its own promises: a test can only be believed if its tools can.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Answer, FakeModel, Gate, Mode, Proxy, Redis, RedisOptions, within};

async fn chat(model: &FakeModel, message: &str) -> reqwest::Response {
    let body = json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": message}]});
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.post(format!("{}/api/chat", model.url())).json(&body).send().await.unwrap()
}

#[tokio::test]
async fn a_fake_model_echoes_and_remembers() {
    let model = FakeModel::ollama().await;
    let text = chat(&model, "a b").await.text().await.unwrap();
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains(r#""content":"b""#) && text.contains(r#""done":true"#), "{text}");
    assert_eq!(model.asked("a b").messages(), [("user".to_owned(), "a b".to_owned())]);
}

#[tokio::test]
async fn a_fake_model_sees_its_client_leave_before_the_first_token() {
    let model = FakeModel::ollama().await;
    model.usually(Answer::new().hang());
    let left = tokio::time::timeout(Duration::from_millis(300), chat(&model, "x")).await;
    assert!(left.is_err(), "it hangs");
    let now = Instant::now();
    assert!(model.left_after("x", now, Duration::from_secs(5)).await < Duration::from_secs(1));
}

#[tokio::test]
async fn a_gate_holds_tokens_back_and_leaving_is_seen() {
    let (model, gate) = (FakeModel::ollama().await, Gate::new());
    model.usually(Answer::gated(["one", "two"], &gate));
    gate.release(1);
    let mut answer = chat(&model, "x").await;
    let first = within(Duration::from_secs(5), "a token", answer.chunk()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("one"));
    assert_eq!(model.open(), 1);
    let left = Instant::now();
    drop(answer);
    assert!(model.left_after("x", left, Duration::from_secs(5)).await < Duration::from_secs(1));
}

#[tokio::test]
async fn a_fake_model_resets_cuts_and_replays() {
    let model = FakeModel::ollama().await;
    model.next(Answer::partial(["x"]).reset());
    model.next(Answer::partial(["x"]).drop_connection());
    model.next(Answer::partial(["x"]).eof());
    model.next(Answer::recorded(&tests::fixture("ollama/01-chat-happy.http"), 1));
    assert!(chat(&model, "1").await.text().await.is_err());
    assert!(chat(&model, "2").await.text().await.is_err());
    assert!(chat(&model, "3").await.text().await.unwrap().ends_with("\"done\":false}\n"));
    assert!(chat(&model, "4").await.text().await.unwrap().contains("\"done\":true"));
}

#[tokio::test]
async fn a_killed_durable_redis_comes_back_with_its_data() {
    let redis = Redis::start_with(RedisOptions { durable: true, ..RedisOptions::default() }).await;
    redis.cli(&["SET", "k", "v"]).await;
    redis.kill();
    redis.restart().await;
    assert!(redis.dump().await.contains("k string v"));
}

#[tokio::test]
async fn a_frozen_wire_passes_nothing_until_it_thaws() {
    let model = FakeModel::ollama().await;
    let proxy = Proxy::to(model.address().to_string()).await;
    let client =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(300)).build().unwrap();
    let url = format!("http://{}/api/version", proxy.address());
    proxy.set(Mode::Freeze);
    assert!(client.get(&url).send().await.is_err());
    proxy.set(Mode::Pass);
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    proxy.set(Mode::Cut);
    assert!(client.get(&url).send().await.is_err());
}
