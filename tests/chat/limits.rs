//! What a message may be: sizes, characters, members, and whose it is.

use serde_json::{Value, json};
use tests::{Backend, TestApp};

on_both_stores!(
    a_message_has_a_size_and_characters,
    the_longest_message_is_a_setting,
    a_wrong_value_is_named_by_a_pointer,
    an_unknown_or_doubled_member_is_refused,
    a_body_in_another_users_name_is_refused,
    text_comes_back_byte_for_byte,
    values_by_which_others_say_off_mean_that_on_every_wire,
);

async fn a_message_has_a_size_and_characters(on: Backend) {
    let app = TestApp::builder(on).set("llm.ollama.context_window", 200_000).start().await;
    app.model.have(&[("gemma3:1b", 200_000)]);
    let alice = app.login("alice").await;
    for bad in
        ["", " ", "\n\t \u{a0}\u{2003}", "a\u{0}b", &"x".repeat(131_073), &"ü".repeat(131_073)]
    {
        alice.send("work", bad).await.names(&["/message"]);
    }
    alice.get("/chat/sessions/work").await.problem(404, "session_not_found");
    let reply = alice.send("work", &"ü".repeat(131_072)).await;
    assert!(reply.status == 200 || reply.json()["code"] == "context_too_long", "{}", reply.text());
}

async fn the_longest_message_is_a_setting(on: Backend) {
    let app = TestApp::builder(on).set("chat.max_message_chars", 5).start().await;
    let alice = app.login("alice").await;
    alice.send("work", "üüüüü").await.expect(200);
    alice.send("work", "üüüüüü").await.names(&["/message"]);
    let mut socket = alice.socket().await;
    socket.send(&json!({"session_id": "work", "message": "123456", "ref": "r"})).await;
    let refused = socket.next().await;
    assert_eq!(refused["code"], "validation_failed", "{refused}");
    assert_eq!(alice.history("work").await.len(), 2);
}

async fn a_wrong_value_is_named_by_a_pointer(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({}), &["/message"]),
        (json!({"message": null}), &["/message"]),
        (json!({"message": 5}), &["/message"]),
        (json!({"message": ["x"]}), &["/message"]),
        (json!({"message": "x", "session_id": 5}), &["/session_id"]),
        (json!({"message": "x", "options": "hot"}), &["/options"]),
        (json!({"message": "x", "options": {"temperature": "hot"}}), &["/options/temperature"]),
        (json!({"message": "x", "options": {"temperature": 2.1}}), &["/options/temperature"]),
        (json!({"message": "x", "options": {"temperature": -0.1}}), &["/options/temperature"]),
        (json!({"message": "x", "options": {"top_p": 0}}), &["/options/top_p"]),
        (json!({"message": "x", "options": {"top_p": 1.1}}), &["/options/top_p"]),
        (json!({"message": "x", "options": {"top_k": -2}}), &["/options/top_k"]),
        (json!({"message": "x", "options": {"max_tokens": 0}}), &["/options/max_tokens"]),
        (json!({"message": "x", "options": {"max_tokens": -2}}), &["/options/max_tokens"]),
        (json!({"message": "x", "options": {"stop": [5]}}), &["/options/stop/0"]),
        (json!({"message": "x", "on_disconnect": "never"}), &["/on_disconnect"]),
        (json!({"message": "x", "on_disconnect": -1}), &["/on_disconnect"]),
    ];
    for (body, pointers) in cases {
        let reply = alice.post("/chat/message", &body).await;
        assert_eq!(reply.status, 422, "{body}: {}", reply.text());
        reply.names(pointers);
    }
    assert_eq!(app.model.chats().len(), 0);
    for name in ["", "../../x", "http://evil.example/x", "a b", "x\r\ny"] {
        let reply = alice.post("/chat/message", &json!({"message": "x", "model": name})).await;
        assert!(matches!(reply.status, 404 | 422), "{name}: {}", reply.text());
    }
}

async fn an_unknown_or_doubled_member_is_refused(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for body in [
        json!({"message": "x", "role": "system"}),
        json!({"message": "x", "options": {"warmth": 1}}),
    ] {
        alice.post("/chat/message", &body).await.problem(422, "validation_failed");
    }
    for twice in
        [r#"{"message":"a","message":"b"}"#, r#"{"message":"a","options":{"seed":1,"seed":2}}"#]
    {
        let reply = alice.post_bytes("/chat/message", twice).await;
        assert_eq!(reply.status, 400, "{twice}: {}", reply.text());
    }
}

async fn a_body_in_another_users_name_is_refused(on: Backend) {
    let app = TestApp::start(on).await;
    let (alice, bob) = (app.login("alice").await, app.login("bob").await);
    bob.say("work", "mine").await;
    let body = json!({"message": "x", "session_id": "work", "user_id": "bob"});
    for path in ["/chat/message", "/chat/message?stream=true"] {
        alice.post(path, &body).await.problem(403, "user_mismatch");
    }
    let mut socket = alice.socket().await;
    socket.send(&body).await;
    assert_eq!(socket.of_type("error").await["code"], "user_mismatch");
    let request = alice.request(reqwest::Method::GET, "/chat/sessions").header("x-user-id", "bob");
    assert_eq!(alice.fetch(request).await.expect(200)["sessions"], json!([]));
    assert_eq!(bob.history("work").await.len(), 2);
}

async fn text_comes_back_byte_for_byte(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let texts = [
        "cr\rlf\ncrlf\r\n\r\nend",
        "data: x\n\nevent: done\ndata: {}\n\n",
        "id: 7\nretry: 1\n: comment",
        "👩‍👩‍👧‍👦 \u{202e}rtl \u{200b} \u{feff}bom e\u{301} é \u{2028}\u{2029}",
        "</script><b>{{7*7}}${x}\u{1b}[31m\u{7f}\u{1}",
        "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n",
        "  leading and trailing  \n",
        "\u{10ffff}\u{fffd}\u{e000}",
    ];
    for (number, text) in texts.into_iter().enumerate() {
        let session = format!("s{number}");
        let wanted = format!("You said: {text}");
        assert_eq!(alice.say(&session, text).await, wanted);
        let mut stream = alice.stream(&session, text).await;
        stream.started().await;
        assert_eq!(tests::text_of(&stream.rest().await), wanted);
        let mut socket = alice.socket().await;
        let id = socket.say(&session, text).await;
        assert_eq!(tests::text_of(&socket.rest_of(&id).await), wanted);
        let talk = alice.talk(&session).await;
        assert_eq!(talk.len(), 6);
        assert!(talk.chunks(2).all(|pair| pair[0].1 == text && pair[1].1 == wanted), "{talk:?}");
        assert_eq!(app.model.asked(text).messages().len(), 5);
    }
    for line in app.logs().lines() {
        assert!(
            serde_json::from_str::<Value>(line).is_ok(),
            "a log line that is not JSON: {line:?}"
        );
    }
}

async fn values_by_which_others_say_off_mean_that_on_every_wire(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let off = [
        json!({"max_tokens": -1, "top_k": -1, "stop": ""}),
        json!({"max_tokens": -1.0, "top_k": 0, "stop": [""]}),
        json!({"top_k": 0.0, "stop": []}),
    ];
    let set = json!({"max_tokens": 16.0, "top_k": 40.0, "stop": ["", "x"]});
    let mut socket = alice.socket().await;
    for options in off.iter().chain([&set]) {
        let body = json!({"message": "hello", "session_id": "http", "options": options});
        alice.post("/chat/message", &body).await.expect(200);
        let frame = json!({"message": "hello", "session_id": "ws", "options": options, "ref": "r"});
        socket.send(&frame).await;
        let start = socket.with_ref("r").await;
        let id = start["message_id"].as_str().expect("it starts");
        socket.ending_of(id).await.expect_done("stop");
        let mut body = options.clone();
        body["messages"] = json!([{"role": "user", "content": "hello"}]);
        alice.post("/v1/chat/completions", &body).await.expect(200);
    }
    let chats = app.model.chats();
    let (off, set) = chats.split_at(9);
    for chat in off {
        let options = &chat.body["options"];
        assert!(options["top_k"].is_null() && options["stop"].is_null(), "{options}");
        assert!(options["num_predict"].as_u64() > Some(1000), "{options}");
    }
    assert_eq!(set.len(), 3);
    for chat in set {
        let options = &chat.body["options"];
        let sent = (&options["num_predict"], &options["top_k"], &options["stop"]);
        assert_eq!(sent, (&json!(16), &json!(40), &json!(["x"])));
    }
}
