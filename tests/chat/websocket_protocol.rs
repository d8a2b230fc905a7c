//! RFC 6455 frame by frame: what is allowed works, what is not closes the socket with the right code.

use std::time::Duration;

use serde_json::Value;
use tests::{
    Answer, Backend, Client, PATIENCE, TestApp,
    raw::{Raw, frame},
};

on_both_stores!(
    a_message_in_fragments_with_controls_between_is_one_message,
    every_ping_is_answered_with_its_own_words,
    a_close_is_answered_with_its_code,
    a_close_code_that_may_not_be_sent_is_1002,
    what_the_protocol_forbids_is_1002,
    text_that_is_no_utf8_is_1007,
    fragments_that_lead_nowhere_are_1008,
    a_close_in_the_middle_of_an_answer_cancels_it,
);

const SOON: Duration = Duration::from_secs(8);
const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const CONTINUES: u8 = 0x00;
const CONTINUES_LAST: u8 = 0x80;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const CLOSE: u8 = 0x88;

async fn open(client: &Client) -> Raw {
    Raw::connect(client.address()).await.upgrade(client.token()).await
}

/// The next JSON frame that is not about the token.
async fn next_json(raw: &mut Raw) -> Value {
    loop {
        let (opcode, payload) =
            tests::within(PATIENCE, "a frame", raw.read_frame()).await.expect("the socket is open");
        if opcode == 1 {
            return serde_json::from_slice(&payload).unwrap();
        }
    }
}

/// Sends these bytes on a socket of its own, and checks the code that it is closed with.
async fn is_closed_with(client: &Client, code: u16, what: &str, bytes: &[u8]) {
    let mut raw = open(client).await;
    raw.send(bytes).await;
    assert_eq!(raw.close_code(SOON).await, code, "{what}");
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, true, payload.len() as u64, payload)
}

fn close_with(code: u16, reason: &[u8]) -> Vec<u8> {
    masked(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

async fn a_message_in_fragments_with_controls_between_is_one_message(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let text = r#"{"message":"grüße €","ref":"r"}"#.as_bytes();
    for cut in 1..text.len() {
        let mut raw = open(&alice).await;
        raw.frame(TEXT_BEGINS, true, &text[..cut]).await;
        raw.frame(PING, true, b"between").await;
        raw.frame(CONTINUES, true, b"").await;
        raw.frame(PONG, true, b"unasked").await;
        raw.frame(CONTINUES_LAST, true, &text[cut..]).await;
        let (opcode, payload) = raw.read_frame().await.unwrap();
        assert_eq!((opcode, &payload[..]), (10, &b"between"[..]), "cut at {cut}");
        let start = next_json(&mut raw).await;
        assert_eq!((start["type"].as_str(), start["ref"].as_str()), (Some("start"), Some("r")));
    }
    let one_by_one: Vec<u8> = text.iter().flat_map(|byte| masked(CONTINUES, &[*byte])).collect();
    let mut raw = open(&alice).await;
    raw.frame(TEXT_BEGINS, true, b"").await;
    raw.send(one_by_one).await;
    raw.frame(CONTINUES_LAST, true, b"").await;
    assert_eq!(next_json(&mut raw).await["type"], "start");
}

async fn every_ping_is_answered_with_its_own_words(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let mut raw = open(&alice).await;
    for payload in [&b""[..], b"hello", b"\x00\xff\xfe\x80", &[b'x'; 125]] {
        raw.frame(PING, true, payload).await;
        assert_eq!(raw.read_frame().await.unwrap(), (10, payload.to_vec()));
    }
    // A frame need not arrive in one piece.
    for byte in masked(PING, b"slow") {
        raw.send([byte]).await;
    }
    assert_eq!(raw.read_frame().await.unwrap(), (10, b"slow".to_vec()));
}

async fn a_close_is_answered_with_its_code(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        is_closed_with(&alice, code, &format!("{code}"), &close_with(code, b"")).await;
    }
    is_closed_with(&alice, 1000, "with a reason", &close_with(1000, "grüße".as_bytes())).await;
    is_closed_with(&alice, 1000, "with the longest reason", &close_with(1000, &[b'x'; 123])).await;
    is_closed_with(&alice, 1005, "without a code", &masked(CLOSE, b"")).await;
    // What comes after a close is nobody's business.
    let and_more = [close_with(1000, b""), masked(TEXT, b"{}"), masked(PING, b"x")].concat();
    is_closed_with(&alice, 1000, "with frames behind it", &and_more).await;
    let mut raw = open(&alice).await;
    raw.send(close_with(1000, b"")).await;
    assert_eq!(raw.read_frame().await.unwrap().0, 8);
    assert!(raw.read_to_close(SOON).await.is_empty(), "then the connection ends");
}

async fn a_close_code_that_may_not_be_sent_is_1002(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        is_closed_with(&alice, 1002, &format!("{code}"), &close_with(code, b"")).await;
    }
    is_closed_with(&alice, 1002, "one byte", &masked(CLOSE, b"\x03")).await;
    is_closed_with(&alice, 1002, "126 bytes", &close_with(1000, &[b'x'; 124])).await;
    is_closed_with(&alice, 1007, "no UTF-8", &close_with(1000, b"\xff")).await;
}

async fn what_the_protocol_forbids_is_1002(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let unmasked = |first, payload: &[u8]| frame(first, false, payload.len() as u64, payload);
    let mut cases = vec![
        ("an unmasked text", unmasked(TEXT, b"{}")),
        ("an unmasked ping", unmasked(PING, b"x")),
        ("an unmasked close", unmasked(CLOSE, b"\x03\xe8")),
        ("a ping of 126 bytes", masked(PING, &[0; 126])),
        ("a pong of 126 bytes", masked(PONG, &[0; 126])),
        ("a ping in fragments", masked(0x09, b"x")),
        ("a close in fragments", masked(0x08, b"\x03\xe8")),
        ("a continuation of nothing", masked(CONTINUES_LAST, b"{}")),
        ("the same, not the last", masked(CONTINUES, b"{}")),
        (
            "a new message before the end of the last",
            [masked(TEXT_BEGINS, b"{"), masked(TEXT, b"{}")].concat(),
        ),
        (
            "a continuation after the end",
            [masked(TEXT_BEGINS, b"{"), masked(CONTINUES_LAST, b"}"), masked(CONTINUES_LAST, b"")]
                .concat(),
        ),
    ];
    for reserved in [0x10, 0x20, 0x40, 0x70] {
        cases.push(("a reserved bit on a text", masked(TEXT | reserved, b"{}")));
        cases.push(("a reserved bit on a ping", masked(PING | reserved, b"x")));
        cases.push(("a reserved bit on a close", masked(CLOSE | reserved, b"\x03\xe8")));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push(("a reserved opcode", masked(0x80 | opcode, b"")));
        cases.push(("a reserved opcode with a payload", masked(0x80 | opcode, b"x")));
    }
    for (what, bytes) in cases {
        is_closed_with(&alice, 1002, what, &bytes).await;
        let behind_a_good_one = [masked(PING, b"x"), bytes].concat();
        is_closed_with(&alice, 1002, &format!("{what}, behind a ping"), &behind_a_good_one).await;
    }
    alice.say("work", "alive").await;
}

async fn text_that_is_no_utf8_is_1007(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let cases: [(&str, &[u8]); 7] = [
        ("no UTF-8 at all", b"\xff\xfe"),
        ("a lone continuation", b"\"\x80\""),
        ("an overlong form", b"\xc0\xaf"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("past the last character", b"\xf4\x90\x80\x80"),
        ("a character cut off", b"\xe2\x82"),
        ("good text first", "{\"message\":\"grüße\"}\u{20ac}\0".as_bytes()),
    ];
    for (what, bytes) in &cases[..6] {
        is_closed_with(&alice, 1007, what, &masked(TEXT, bytes)).await;
        for cut in 0..bytes.len() {
            let split = [masked(TEXT_BEGINS, &bytes[..cut]), masked(CONTINUES_LAST, &bytes[cut..])]
                .concat();
            is_closed_with(&alice, 1007, &format!("{what}, split at {cut}"), &split).await;
        }
    }
    let mut raw = open(&alice).await;
    raw.frame(TEXT, true, cases[6].1).await;
    assert_eq!(next_json(&mut raw).await["type"], "error", "good UTF-8, if no good JSON");
}

async fn fragments_that_lead_nowhere_are_1008(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for (what, piece) in [("empty", &b""[..]), ("of one byte", b" ")] {
        let mut bytes = masked(TEXT_BEGINS, b"{");
        for _ in 0..10_000 {
            bytes.extend(masked(CONTINUES, piece));
        }
        is_closed_with(&alice, 1008, &format!("10,000 fragments, {what}"), &bytes).await;
    }
    let pings: Vec<u8> = (0..1000).flat_map(|_| masked(PING, b"x")).collect();
    is_closed_with(&alice, 1008, "1,000 pings", &pings).await;
    alice.say("work", "alive").await;
}

async fn a_close_in_the_middle_of_an_answer_cancels_it(on: Backend) {
    let app = TestApp::builder(on).set("chat.disconnect_grace", "0s").start().await;
    app.model.usually(Answer::partial(["half"]).hang());
    let alice = app.login("alice").await;
    for (session, ends) in [("close", Some(1000)), ("vanish", None)] {
        let mut raw = open(&alice).await;
        let message = format!(r#"{{"message":"count","session_id":"{session}"}}"#);
        raw.frame(TEXT, true, message.as_bytes()).await;
        while next_json(&mut raw).await["type"] != "token" {}
        if let Some(code) = ends {
            raw.send(close_with(code, b"")).await;
            assert_eq!(raw.close_code(SOON).await, code);
        }
        drop(raw);
        tests::eventually(PATIENCE, "the answer is kept as cancelled", || async {
            let history = alice.history(session).await;
            (history.len() == 2 && history[1]["finish_reason"] == "cancelled").then_some(())
        })
        .await;
    }
    app.model.wait_idle(PATIENCE).await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed() {
    let app = TestApp::start(Backend::Embedded).await;
    let alice = app.login("alice").await;
    let (mut deaf, mut polite) = (open(&alice).await, open(&alice).await);
    let start = std::time::Instant::now();
    let answering = async {
        loop {
            let frame = polite.read_frame().await;
            match frame {
                Some((9, payload)) => polite.frame(PONG, true, &payload).await,
                other => panic!("{other:?} after {:?}", start.elapsed()),
            }
        }
    };
    let code = tokio::select! {
        code = deaf.close_code(Duration::from_secs(60)) => code,
        () = answering => unreachable!("it answers until the other is closed"),
    };
    assert_eq!(code, 1008);
    let waited = start.elapsed().as_secs();
    assert!((38..50).contains(&waited), "{waited} s");
}
