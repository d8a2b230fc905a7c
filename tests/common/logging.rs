//! Logging must not block serving: nobody may be reading the log.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tests::{Backend, PATIENCE, TestApp, eventually, free_port};

#[tokio::test]
async fn a_log_that_nobody_reads_stops_neither_requests_nor_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let ports: Vec<String> = (0..4).map(|_| format!("127.0.0.1:{}", free_port())).collect();
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.set_file_name("chatbot");
    // Both pipes stay open, and full, until the end of the test.
    let mut chatbot = Command::new(path)
        .env_clear()
        .envs([
            ("CHATBOT__STORE__URL", "memory:"),
            ("CHATBOT__AUTH__KEYS_DIR", folder.path().to_str().unwrap()),
            ("CHATBOT__AUTH__LISTEN", &ports[0]),
            ("CHATBOT__AUTH__ADMIN_LISTEN", &ports[1]),
            ("CHATBOT__CHAT__LISTEN", &ports[2]),
            ("CHATBOT__CHAT__ADMIN_LISTEN", &ports[3]),
            ("CHATBOT__SERVER__DRAIN_TIMEOUT", "0s"),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let client = reqwest::Client::new();
    let get = async |address: &str, path: &str| {
        let request = client.get(format!("http://{address}{path}"));
        request.timeout(Duration::from_secs(5)).send().await
    };
    eventually(PATIENCE, "the service answers", || async {
        get(&ports[2], "/livez").await.ok().map(drop)
    })
    .await;
    for _ in 0..250 {
        let several = (0..50).map(|_| get(&ports[2], "/nowhere"));
        for answer in futures_util::future::join_all(several).await {
            assert_eq!(answer.unwrap().status(), 404);
        }
    }
    let metrics = get(&ports[3], "/metrics").await.unwrap().text().await.unwrap();
    let dropped =
        metrics.lines().find_map(|line| line.strip_prefix("log_lines_dropped_total ")).unwrap();
    assert!(dropped.parse::<u64>().unwrap() > 0, "{dropped}");

    let pid = Pid::from_raw(i32::try_from(chatbot.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let ended = eventually(PATIENCE, "the process ends", || {
        std::future::ready(chatbot.try_wait().unwrap())
    });
    assert_eq!(ended.await.code(), Some(0));
}

#[tokio::test]
async fn a_store_that_refuses_us_is_named_in_the_log_and_in_readyz() {
    let app = TestApp::start(Backend::Redis).await;
    let redis = app.redis().address();
    for (url, reason) in [
        (format!("redis://nobody:canary-password@{redis}/0"), "refuses our user name or password"),
        (format!("redis://{redis}/99999"), "no database of that number"),
    ] {
        let chat = app.spawn_chat_on(url);
        let admin = chat.address("chat", true).await;
        chat.log_line(&["not ready"]).await;
        let url = format!("http://{admin}/readyz");
        let ready = reqwest::get(url).await.unwrap().text().await.unwrap();
        assert!(ready.contains(reason), "{ready}");
        let log = chat.log_text();
        assert!(!log.contains("canary") && !ready.contains("127.0.0.1"), "{log}");
    }
}
