//! Connections: who waits how long for whom, and how many there may be.

use std::time::{Duration, Instant};

use axum::{Router, routing::get};
use common::{
    http::{ConnectionLimits, RequestLimits},
    shutdown::Shutdown,
};
use tokio::{io::AsyncReadExt, time::sleep};

use crate::site::Site;

pub const HEAD: Duration = Duration::from_millis(300);

pub fn short() -> ConnectionLimits {
    ConnectionLimits {
        head: HEAD,
        idle: HEAD * 5,
        write_stall: HEAD * 2,
        ..ConnectionLimits::default()
    }
}

const GET_WHO: &[u8] = b"GET /who HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn the_limits_are_those_of_the_contract() {
    let limits = ConnectionLimits::default();
    let times = [limits.head, limits.idle, limits.write_stall];
    assert_eq!(times, [10, 75, 30].map(Duration::from_secs));
    assert_eq!((limits.max_connections, limits.max_connections_per_address), (10_000, 100));
    let limits = RequestLimits::default();
    assert_eq!((limits.uri, limits.header_bytes, limits.header_count), (8 * 1024, 32 * 1024, 64));
    assert_eq!(limits.body.bytes, 1024 * 1024);
    assert_eq!(limits.body.time, Duration::from_secs(15));
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let site = Site::with_limits(short()).await;
    let begun = Instant::now();
    assert!(site.connect().await.read_to_end().await.is_empty());
    assert!(begun.elapsed() >= HEAD && begun.elapsed() < HEAD * 4, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_dribbled_head_is_closed_however_often_a_byte_comes() {
    let site = Site::with_limits(short()).await;
    let raw = site.connect().await;
    let (mut reader, mut writer) = raw.0.into_split();
    let begun = Instant::now();
    let dribble = async {
        for byte in b"GET / HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'y')) {
            if tokio::io::AsyncWriteExt::write_all(&mut writer, &[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let mut rest = Vec::new();
    tokio::select! {
        () = dribble => {}
        _ = reader.read_to_end(&mut rest) => {}
    }
    assert!(begun.elapsed() < HEAD * 4, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn between_requests_a_connection_may_rest_longer_than_a_head_may_take() {
    let site = Site::with_limits(short()).await;
    let mut raw = site.connect().await;
    for _ in 0..2 {
        raw.send(GET_WHO).await;
        assert_eq!(raw.answer().await.status, 200);
        sleep(HEAD * 2).await;
    }
    // And not for ever.
    let begun = Instant::now();
    raw.read_to_end().await;
    assert!(begun.elapsed() < HEAD * 6, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_rest_is_counted_from_the_last_answers_end() {
    let slow = get(async || {
        sleep(HEAD / 3).await;
        "late"
    });
    let limits = ConnectionLimits {
        head: Duration::from_secs(60),
        idle: HEAD * 3,
        ..ConnectionLimits::default()
    };
    let router = Router::new().route("/slow", slow);
    let site = Site::serving(router, limits, Shutdown::new()).await;
    for requests in 1..=3 {
        let mut raw = site.connect().await;
        for _ in 0..requests {
            raw.send(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert_eq!(raw.answer().await.status, 200);
        }
        let begun = Instant::now();
        raw.read_to_end().await;
        let rested = begun.elapsed();
        assert!(rested > HEAD * 2 && rested < HEAD * 6, "{rested:?}");
    }
}

#[tokio::test]
async fn after_a_rest_a_dribbled_head_is_closed_as_at_first() {
    let site =
        Site::with_limits(ConnectionLimits { idle: Duration::from_secs(60), ..short() }).await;
    let mut raw = site.connect().await;
    raw.send(GET_WHO).await;
    raw.answer().await;
    raw.send(b"GET").await;
    let begun = Instant::now();
    raw.read_to_end().await;
    assert!(begun.elapsed() < HEAD * 4, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_head_begun_together_with_the_last_request_is_closed_as_any_other() {
    let idle = Duration::from_secs(60);
    let site = Site::with_limits(ConnectionLimits { idle, ..short() }).await;
    let post = |body: &str| {
        let length = format!("content-length: {}", body.len());
        format!(
            "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{length}\r\n\r\n{body}"
        )
    };
    let chunked = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                   transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let get = std::str::from_utf8(GET_WHO).unwrap();
    for whole in [get, &post("{}"), chunked] {
        let mut raw = site.connect().await;
        raw.send(format!("{whole}GET /wh").as_bytes()).await;
        raw.answer().await;
        let begun = Instant::now();
        raw.read_to_end().await;
        assert!(begun.elapsed() < HEAD * 4, "{whole}: {:?}", begun.elapsed());
        // And the same without it may rest.
        let mut raw = site.connect().await;
        raw.send(whole.as_bytes()).await;
        raw.answer().await;
        sleep(HEAD * 2).await;
        raw.send(GET_WHO).await;
        assert_eq!(raw.answer().await.status, 200, "{whole}");
    }
}

#[tokio::test]
async fn an_answer_may_take_longer_than_any_of_these() {
    let slow = get(async || {
        sleep(HEAD * 3).await;
        "at last"
    });
    let site = Site::serving(Router::new().route("/slow", slow), short(), Shutdown::new()).await;
    let answer = site.ask("GET /slow", &[]).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "at last"));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut() {
    let site = Site::with_limits(short()).await;
    let mut raw = site.connect().await;
    raw.send(b"GET /flood HTTP/1.1\r\nhost: a\r\n\r\n").await;
    sleep(HEAD * 5).await;
    let got = raw.read_to_end().await;
    assert!(got.len() < 200 * 1024 * 1024, "all of it came: {} bytes", got.len());
}

#[tokio::test]
async fn a_slow_reader_that_takes_something_is_served_to_the_end() {
    let site = Site::with_limits(short()).await;
    let mut raw = site.connect().await;
    raw.send(b"GET /flood HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let mut buffer = vec![0; 4 * 1024 * 1024];
    let mut total = 0;
    loop {
        match raw.0.read(&mut buffer).await.unwrap() {
            0 => break,
            n => total += n,
        }
        sleep(Duration::from_millis(1)).await;
    }
    assert!(total > 256 * 1024 * 1024, "{total}");
}

#[tokio::test]
async fn beyond_a_cap_connections_are_closed_at_once_and_room_comes_back() {
    for limits in [
        ConnectionLimits { max_connections_per_address: 2, ..ConnectionLimits::default() },
        ConnectionLimits { max_connections: 2, ..ConnectionLimits::default() },
    ] {
        let site = Site::with_limits(limits).await;
        let mut first = site.connect().await;
        let mut second = site.connect().await;
        for raw in [&mut first, &mut second] {
            raw.send(GET_WHO).await;
            assert_eq!(raw.answer().await.status, 200);
        }
        let begun = Instant::now();
        assert!(site.connect().await.read_to_end().await.is_empty());
        assert!(begun.elapsed() < Duration::from_secs(1));
        first.send(GET_WHO).await;
        assert_eq!(first.answer().await.status, 200);
        drop(second);
        let mut answered = 0;
        for _ in 0..100 {
            answered = site.ask("GET /who", &[]).await.status;
            if answered == 200 {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(answered, 200);
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_exempt_from_the_cap_of_one_address() {
    let limits = ConnectionLimits {
        max_connections_per_address: 1,
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..ConnectionLimits::default()
    };
    let site = Site::with_limits(limits).await;
    let mut raws = Vec::new();
    for _ in 0..3 {
        let mut raw = site.connect().await;
        raw.send(GET_WHO).await;
        assert_eq!(raw.answer().await.status, 200);
        raws.push(raw);
    }
}

#[tokio::test]
async fn a_refused_upload_gets_to_see_its_refusal() {
    let site = Site::open().await;
    let mut raw = site.connect().await;
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 8000000\r\n\r\n";
    raw.send(head.as_bytes()).await;
    for _ in 0..8 {
        raw.send(&vec![b' '; 1_000_000]).await;
    }
    let answer = raw.answer_then_end().await;
    answer.is_problem(413, "payload_too_large");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_refusal_before_the_body_was_read_keeps_the_connection_or_says_that_it_closes() {
    let site = Site::open().await;
    let head = |length: usize| {
        format!("POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n")
    };
    let mut raw = site.connect().await;
    for _ in 0..20 {
        raw.send(format!("{}{{}}", head(2)).as_bytes()).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (404, None));
    }
    for (length, sent) in [(10, "12345".to_owned()), (200_000, "x".repeat(1000))] {
        let mut raw = site.connect().await;
        raw.send(format!("{}{sent}", head(length)).as_bytes()).await;
        let answer = raw.answer().await;
        let connection = answer.header("connection");
        assert_eq!((answer.status, connection), (404, Some("close")), "{length}");
    }
    // The body is not asked for where the refusal needs none of it.
    let mut raw = site.connect().await;
    let expecting = head(2).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    raw.send(expecting.as_bytes()).await;
    let answer = raw.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (404, Some("close")));
}
