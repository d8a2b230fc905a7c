//! Many people log in at once: memory stays bounded, and the process answers.

use futures_util::{StreamExt, future::join_all, stream};
use serde_json::json;
use tests::{Backend, Client, TestApp};

/// How many log in at once.
const CROWD: usize = 64;
const MIB: u64 = 1024 * 1024;

fn account(number: usize) -> serde_json::Value {
    json!({"user_id": format!("user{number}"), "password": format!("quiet-harbour-{number}")})
}

/// A call from an address of its own: one address may register twenty in a minute.
async fn call(somebody: &Client, path: &str, number: usize) -> tests::Reply {
    let request = somebody
        .request(reqwest::Method::POST, path)
        .header("x-forwarded-for", format!("10.0.0.{number}"))
        .json(&account(number));
    somebody.fetch(request).await
}

#[tokio::test]
async fn sixty_four_logins_at_once_take_bounded_memory_and_are_all_answered() {
    let app =
        TestApp::builder(Backend::Redis).set("server.trusted_proxies", "127.0.0.1").start().await;
    let somebody = app.stranger().at_auth();
    let base = app.auth_process().memory();
    let made = stream::iter(0..CROWD).map(|number| call(&somebody, "/auth/register", number));
    let made: Vec<_> = made.buffer_unordered(2).collect().await;
    assert!(made.iter().all(|reply| reply.status == 201), "{made:?}");
    let (logins, lives) = tokio::join!(
        join_all((0..CROWD).map(|number| call(&somebody, "/auth/login", number))),
        join_all((0..20).map(|_| somebody.get("/livez"))),
    );
    for reply in &logins {
        let put_off = reply.status == 503 && !reply.header("retry-after").is_empty();
        assert!(reply.status == 200 || put_off, "{reply:?}");
    }
    assert!(logins.iter().any(|reply| reply.status == 200));
    assert!(lives.iter().all(|reply| reply.status == 200));
    let permits = u64::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    let (peak, most) = (app.auth_process().peak_memory(), base + (19 * permits + 64) * MIB);
    assert!(peak <= most, "{} of {} MiB", peak / MIB, most / MIB);
}
