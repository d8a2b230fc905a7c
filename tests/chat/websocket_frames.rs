//! Frames that a WebSocket refuses: each has its error or its close code.

use super::websocket::SOON;
use serde_json::{Value, json};
use tests::{Backend, TestApp, raw::Raw};

on_both_stores!(
    a_bad_frame_gets_an_error_and_the_socket_stays,
    too_many_frames_close_with_1008,
    a_frame_too_large_closes_with_1009,
    frames_that_break_the_protocol_close_the_socket,
);

async fn a_bad_frame_gets_an_error_and_the_socket_stays(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let mut socket = alice.socket().await;
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for bad in ["", "x", "[]", "5", "null", r#"{"type":"dance"}"#, r#"{"type":"cancel"}"#, &deep] {
        socket.send_text(bad).await;
        let error = socket.of_type("error").await;
        assert!(
            error["code"].is_string() && error["id"].is_null() && error["message_id"].is_null(),
            "{error}"
        );
    }
    socket.send_bytes(b"\x00\x01").await;
    socket.of_type("error").await;
    socket.send_text(&format!("{}\n", json!({"message": "hello", "ref": "r"}))).await;
    let start: Value = socket.with_ref("r").await;
    assert_eq!(start["type"], "start");
    socket.rest_of(start["message_id"].as_str().unwrap()).await.last().unwrap().expect_done("stop");
    for _ in 0..20 {
        socket.send_text("x").await;
    }
    assert_eq!(socket.closed(SOON).await.code, 1008, "20 bad frames in a minute");
}

async fn too_many_frames_close_with_1008(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    // Good frames that cost nothing but their number: none of them counts as a bad one, and none as a request.
    for (first, allowed) in [(0x8a, 100), (0x89, 100)] {
        let mut raw = Raw::connect(app.chat(0)).await.upgrade(alice.token()).await;
        for _ in 0..allowed {
            raw.frame(first, true, b"x").await;
        }
        raw.frame(0x81, true, cancel().as_bytes()).await;
        assert_eq!(raw.close_code(SOON).await, 1008, "{first:#x}");
    }
    let mut socket = alice.socket().await;
    for _ in 0..100 {
        socket.send_text(&cancel()).await;
    }
    for _ in 0..100 {
        assert_eq!(socket.of_type("error").await["code"], "message_not_found");
    }
    socket.send_text(&cancel()).await;
    let closed = socket.closed(SOON).await;
    assert_eq!((closed.code, closed.reason.as_str()), (1008, "too many frames"));
}

/// A well-formed frame about an answer that nobody has.
fn cancel() -> String {
    json!({"type": "cancel", "message_id": "qg7f86fs5h0f-1-9npy1bhb"}).to_string()
}

async fn a_frame_too_large_closes_with_1009(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let mut socket = alice.socket().await;
    socket.send_text(&json!({"message": "x".repeat(65_536)}).to_string()).await;
    assert_eq!(socket.closed(SOON).await.code, 1009);
    for announced in [1 << 17, (1 << 63) - 1] {
        let mut raw = Raw::connect(app.chat(0)).await.upgrade(alice.token()).await;
        raw.send(tests::raw::frame(0x81, true, announced, b"x")).await;
        assert_eq!(raw.close_code(SOON).await, 1009, "announced {announced}");
    }
    let mut raw = Raw::connect(app.chat(0)).await.upgrade(alice.token()).await;
    raw.frame(0x01, true, b"{").await;
    for _ in 0..80 {
        raw.frame(0x00, true, &[b' '; 1024]).await;
    }
    let code = raw.close_code(SOON).await;
    assert!(matches!(code, 1008 | 1009), "a message that never ends: {code}");
}

async fn frames_that_break_the_protocol_close_the_socket(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let cases: [(u8, bool, &[u8], &[u16]); 8] = [
        (0x81, false, b"{}", &[1002]),
        (0xc1, true, b"{}", &[1002]),
        (0x83, true, b"{}", &[1002]),
        (0x80, true, b"{}", &[1002]),
        (0x89, true, &[0; 126], &[1002]),
        (0x09, true, b"x", &[1002]),
        (0x81, true, b"\xff\xfe", &[1007]),
        (0x88, true, &[0x03], &[1002, 1005, 1007]),
    ];
    for (first, masked, payload, codes) in cases {
        let mut raw = Raw::connect(app.chat(0)).await.upgrade(alice.token()).await;
        raw.frame(first, masked, payload).await;
        let code = raw.close_code(SOON).await;
        assert!(
            codes.contains(&code) || code == 0,
            "{first:#x} masked {masked}: closed with {code}"
        );
    }
    alice.say("work", "alive").await;
}
