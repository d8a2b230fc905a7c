//! The WebSocket: who may open one, what may be said on it, and how it is closed.

use std::time::Duration;

use serde_json::json;
use tests::{Answer, Backend, Gate, PATIENCE, Socket, TestApp, raw::Raw};

on_both_stores!(
    a_token_comes_in_a_header_a_frame_or_a_protocol,
    where_login_is_open_a_message_says_who_speaks,
    a_wrong_token_closes_with_4401,
    without_a_token_there_is_patience_for_five_seconds,
    foreign_origins_are_refused_at_the_handshake,
    too_many_sockets_close_with_4429,
    a_handshake_of_another_version_is_told_ours,
    a_ref_comes_back,
    two_messages_to_one_session_keep_their_order,
    an_expiring_token_is_announced_renewed_and_enforced,
);

pub(super) const SOON: Duration = Duration::from_secs(8);

async fn with_header(
    app: &TestApp,
    name: &'static str,
    value: String,
) -> Result<Socket, (u16, String)> {
    Socket::try_open(app.chat(0), &[(name, value)]).await
}

async fn a_token_comes_in_a_header_a_frame_or_a_protocol(on: Backend) {
    let app = TestApp::builder(on).set("auth.login", "password").without_waiting().start().await;
    app.wait_up().await;
    let somebody = app.stranger();
    let account = json!({"user_id": "alice", "password": "correct horse battery"});
    somebody.post("/auth/register", &account).await.expect(201);
    let token = somebody.post("/auth/login", &account).await.expect(200)["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let bad = json!({"message": " ", "ref": "r"});
    let mut by_header = Socket::open(app.chat(0), Some(&token)).await;
    let mut by_frame = Socket::open(app.chat(0), None).await;
    by_frame.send(&json!({"type": "auth", "token": token})).await;
    let answer = by_frame.of_type("auth").await;
    assert_eq!(answer["user_id"], "alice");
    assert!(!answer["expires_at"].is_null(), "{answer}");
    let protocols = format!("chat, {token}");
    let mut by_protocol = with_header(&app, "sec-websocket-protocol", protocols).await.unwrap();
    for socket in [&mut by_header, &mut by_frame, &mut by_protocol] {
        socket.send(&bad).await;
        assert_eq!(socket.with_ref("r").await["code"], "validation_failed");
    }
    let in_url = format!("/chat/ws?token={token}");
    let head = format!(
        "GET {in_url} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    );
    let mut raw = Raw::connect(app.chat(0)).await;
    raw.send(format!(
        "{head}sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ))
    .await;
    let reply = raw.read_reply().await;
    if reply.status == 101 {
        assert_eq!(raw.close_code(SOON).await, 4401, "a token in the URL is no token");
    }
    assert!(!app.logs().contains(&token), "a token is in the log");
}

async fn where_login_is_open_a_message_says_who_speaks(on: Backend) {
    let app = TestApp::start(on).await;
    let mut socket = app.stranger().socket().await;
    socket.send(&json!({"message": "hello", "user_id": "carol", "ref": "a"})).await;
    let start = socket.with_ref("a").await;
    assert_eq!((&start["type"], &start["user_id"]), (&json!("start"), &json!("carol")));
    socket.rest_of(start["message_id"].as_str().unwrap()).await.last().unwrap().expect_done("stop");
    socket.send(&json!({"message": "hello", "ref": "b"})).await;
    assert_eq!(socket.with_ref("b").await["code"], "missing_token");
    let dave = json!({"user_id": "dave", "password": "correct horse battery"});
    app.stranger().post("/auth/register", &dave).await.expect(201);
    socket.send(&json!({"message": "hello", "user_id": "dave", "ref": "c"})).await;
    assert_eq!(socket.with_ref("c").await["code"], "password_required");
    let carol = app.login("carol").await;
    assert_eq!(carol.history("default").await.len(), 2);
    let id = carol.history("default").await[1]["message_id"].as_str().unwrap().to_owned();
    let mut other = app.stranger().socket().await;
    other.send(&json!({"type": "resume", "message_id": id, "last_event_id": 0})).await;
    assert_eq!(other.of_type("error").await["type"], "error", "only turns that were started on it");
}

async fn a_wrong_token_closes_with_4401(on: Backend) {
    let app = TestApp::start(on).await;
    let forge = app.forge(&app.login("alice").await).await;
    for token in [
        "garbage".to_owned(),
        forge.by_a_stranger(),
        forge.unsigned("none"),
        forge.with("exp", 1_000_000_000),
    ] {
        match with_header(&app, "authorization", format!("Bearer {token}")).await {
            Ok(mut socket) => assert_eq!(socket.closed(SOON).await.code, 4401, "{token}"),
            Err((status, body)) => panic!("browsers cannot see a {status}: {body}"),
        }
        let mut socket = Socket::open(app.chat(0), None).await;
        socket.send(&json!({"type": "auth", "token": token})).await;
        assert_eq!(socket.closed(SOON).await.code, 4401, "{token}");
    }
}

async fn without_a_token_there_is_patience_for_five_seconds(on: Backend) {
    let app = TestApp::builder(on).set("auth.login", "password").without_waiting().start().await;
    app.wait_up().await;
    let mut silent = Socket::open(app.chat(0), None).await;
    let start = std::time::Instant::now();
    assert_eq!(silent.closed(SOON).await.code, 4401);
    assert!(start.elapsed() > Duration::from_secs(4), "{:?}", start.elapsed());
}

async fn foreign_origins_are_refused_at_the_handshake(on: Backend) {
    let app = TestApp::builder(on).set("chat.allowed_origins", "https://app.example").start().await;
    let own = app.chat(0);
    for good in
        [format!("http://{own}"), format!("https://{own}"), "https://app.example".to_owned()]
    {
        with_header(&app, "origin", good.clone())
            .await
            .unwrap_or_else(|refusal| panic!("{good}: {refusal:?}"));
    }
    let port = own.port();
    for bad in [
        "null".to_owned(),
        "https://evil.example".to_owned(),
        "https://app.example.evil.com".to_owned(),
        "http://app.example".to_owned(),
        "https://app.example:444".to_owned(),
        format!("http://127.0.0.1:{}", port - 1),
        format!("http://127.0.0.1.evil.com:{port}"),
    ] {
        let Err((status, body)) = with_header(&app, "origin", bad.clone()).await else {
            panic!("{bad} was let in")
        };
        assert_eq!(status, 403, "{bad}");
        assert!(body.contains("origin_refused"), "{bad}: {body}");
    }
}

async fn too_many_sockets_close_with_4429(on: Backend) {
    let app = TestApp::builder(on).set("chat.sockets_per_user", 2).start().await;
    let (alice, bob) = (app.login("alice").await, app.login("bob").await);
    let first = alice.socket().await;
    let mut second = alice.socket().await;
    assert_eq!(alice.socket().await.closed(SOON).await.code, 4429);
    let id = second.say("work", "hello").await;
    second.rest_of(&id).await;
    bob.socket().await.say("work", "hello").await;
    first.close().await;
    tests::eventually(PATIENCE, "a place is free", || async {
        let mut third = alice.socket().await;
        third.send(&json!({"message": " ", "ref": "r"})).await;
        let closed = tokio::time::timeout(Duration::from_millis(200), third.closed(PATIENCE)).await;
        closed.is_err().then_some(())
    })
    .await;
}

async fn a_handshake_of_another_version_is_told_ours(on: Backend) {
    let app = TestApp::start(on).await;
    let mut raw = Raw::connect(app.chat(0)).await;
    raw.send(
        "GET /chat/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 8\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    let reply = raw.read_reply().await;
    assert_eq!(reply.status, 400, "{}", reply.head);
    assert_eq!(reply.header("sec-websocket-version"), "13");
}

async fn a_ref_comes_back(on: Backend) {
    let app = TestApp::start(on).await;
    let mut socket = app.login("alice").await.socket().await;
    for reference in ["a", "ünï", "with space"] {
        socket.send(&json!({"message": "hello", "ref": reference})).await;
        assert_eq!(socket.with_ref(reference).await["type"], "start");
        socket.send(&json!({"message": "", "ref": reference})).await;
        assert_eq!(socket.with_ref(reference).await["code"], "validation_failed");
    }
    let nobodys = "qg7f86fs5h0f-1-9npy1bhb";
    for kind in ["cancel", "resume"] {
        for reference in [json!("r"), json!(7)] {
            let frame = json!({"type": kind, "message_id": nobodys, "ref": reference});
            socket.send(&frame).await;
            let refused = socket.of_type("error").await;
            assert_eq!(refused["ref"], reference, "{refused}");
        }
    }
    let too_long = "r".repeat(256);
    for kind in ["message", "cancel"] {
        let frame = json!({"type": kind, "message": "hello", "message_id": "x", "ref": too_long});
        socket.send(&frame).await;
        let refused = socket.of_type("error").await;
        assert_eq!(refused["errors"][0]["pointer"], "/ref", "{refused}");
    }
    for wrong in [json!(true), json!({"a": 1})] {
        socket.send(&json!({"message": "hello", "ref": wrong})).await;
        let refused = socket.of_type("error").await;
        let wanted = "Expected a text or a number.";
        assert_eq!(refused["errors"], json!([{"pointer": "/ref", "detail": wanted}]), "{refused}");
    }
}

async fn two_messages_to_one_session_keep_their_order(on: Backend) {
    let app = TestApp::start(on).await;
    let gate = Gate::new();
    app.model.answer_to("first", Answer::gated(["slow"], &gate));
    let alice = app.login("alice").await;
    let mut socket = alice.socket().await;
    socket.send(&json!({"message": "first", "ref": "1"})).await;
    socket.send(&json!({"message": "second", "ref": "2"})).await;
    let first = socket.with_ref("1").await;
    gate.open();
    let second = socket.with_ref("2").await;
    for start in [first, second] {
        socket
            .rest_of(start["message_id"].as_str().unwrap())
            .await
            .last()
            .unwrap()
            .expect_done("stop");
    }
    let texts: Vec<String> =
        alice.talk("default").await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["first", "slow", "second", "You said: second"]);
}

async fn an_expiring_token_is_announced_renewed_and_enforced(on: Backend) {
    let app = TestApp::builder(on).set("auth.access_ttl", "3s").start().await;
    let (alice, bob) = (app.login("alice").await, app.login("bob").await);
    let mut socket = alice.socket().await;
    assert_eq!(socket.of_type("auth").await["user_id"], "alice", "the notice 60 s before the end");
    let fresh = app.login("alice").await;
    socket.send(&json!({"type": "auth", "token": fresh.token()})).await;
    assert_eq!(socket.of_type("auth").await["user_id"], "alice");
    socket.send(&json!({"type": "auth", "token": bob.token()})).await;
    // At once, or when the token of the same user has been over for 30 s.
    let limit = Duration::from_secs(45);
    assert_eq!(socket.closed(limit).await.code, 4401, "only the same user may renew");
}
