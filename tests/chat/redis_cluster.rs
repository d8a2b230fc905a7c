//! Two instances on a Redis Cluster whose master is killed under load; a Cluster and Sentinels that speak TLS.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_redis::{Certificates, RedisCluster, RedisServer, SentinelGroup};
use tests::{Backend, Client, PATIENCE, TestApp, eventually};

/// How long a failover may take, with a node timeout of 2 s.
const FAILOVER: Duration = Duration::from_secs(25);

/// A refusal may take a second, and what a busy machine needs on top of it.
const REFUSAL: Duration = Duration::from_secs(3);

/// One message, repeated under its key until it is answered; every refusal comes in time.
async fn say_until_answered(client: &Client, message: &str) {
    let body = json!({"session_id": "work", "message": message});
    let begun = Instant::now();
    loop {
        let call = Instant::now();
        let reply = client.send_once(message, &body).await;
        match reply.status {
            200 => return,
            503 => assert!(call.elapsed() < REFUSAL, "{:?}: {}", call.elapsed(), reply.text()),
            _ => panic!("{}: {}", reply.status, reply.text()),
        }
        assert!(begun.elapsed() < FAILOVER, "{}", reply.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_killed_master_costs_only_its_users_and_only_until_its_replica_serves() {
    let cluster = RedisCluster::start();
    let app =
        TestApp::builder(Backend::Redis).chats(2).set("store.url", cluster.url()).start().await;
    let mut users = Vec::new();
    for n in 0..12 {
        users.push(app.login(&format!("user-{n}")).await.at(app.chat(n % 2)));
    }
    for user in &users {
        user.say("work", "before").await;
    }
    cluster.wait_whole();
    let victim = cluster.master_of("c:{user-0}:0:sessions");
    victim.kill();
    let stranger = app.stranger();
    eventually(PATIENCE, "the service says that it is degraded", || async {
        let ready = stranger.get("/readyz").await;
        let is_degraded = ready.json()["checks"]["store"] == "degraded";
        (ready.status == 200 && is_degraded).then_some(())
    })
    .await;
    let turns = users.iter().map(|user| say_until_answered(user, "during"));
    futures_util::future::join_all(turns).await;
    for user in &users {
        let history = user.history("work").await;
        let asked: Vec<&Value> = history
            .iter()
            .filter(|message| message["role"] == "user")
            .map(|message| &message["content"])
            .collect();
        assert_eq!(asked, ["before", "during"], "{}", user.user());
        assert_eq!(history.len(), 4, "each has one answer");
    }
    victim.restart();
    eventually(FAILOVER, "all nodes answer", || async {
        (stranger.get("/readyz").await.json()["checks"]["store"] == "ok").then_some(())
    })
    .await;
}

/// Talks over TLS before and after the master is killed, once its replica has what was said, as `wait_whole` knows. What serves, and
/// where it is, the servers tell.
async fn talks_over_tls(
    url: String,
    certificates: &Certificates,
    master: &RedisServer,
    wait_whole: impl Fn(),
) {
    let authority = certificates.authority().display().to_string();
    let app = TestApp::builder(Backend::Redis).set("store.url", &url);
    let app = app.env("SSL_CERT_FILE", authority).start().await;
    let alice = app.login("alice").await;
    alice.say("work", "before").await;
    wait_whole();
    master.kill();
    say_until_answered(&alice, "during").await;
    assert_eq!(alice.history("work").await.len(), 4);
    let other = TestApp::builder(Backend::Redis).set("store.url", url).without_waiting();
    let unknown = other.start().await;
    eventually(PATIENCE, "who does not know the authority says so", || async {
        let ready = unknown.stranger().get("/readyz").await;
        ready.text().contains("the TLS connection fails").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cluster_and_its_failover_work_over_tls() {
    if Certificates::can_be_used() {
        let certificates = Certificates::default();
        let cluster = RedisCluster::start_tls(&certificates);
        let master = cluster.master_of("c:{alice}:0:sessions");
        talks_over_tls(cluster.tls_url(), &certificates, master, || cluster.wait_whole()).await;
    }
}

#[tokio::test]
async fn sentinels_and_their_failover_work_over_tls() {
    if Certificates::can_be_used() {
        let certificates = Certificates::default();
        let group = SentinelGroup::start_tls(&certificates);
        talks_over_tls(group.tls_url(), &certificates, group.master(), || group.wait_whole()).await;
    }
}
