//! Where login is open, anybody can make any number of accounts: those that nobody uses any more leave nothing behind.

use tests::{Backend, PATIENCE, TestApp, eventually};

#[tokio::test]
async fn accounts_that_nobody_uses_any_more_are_gone_from_every_index() {
    let mut app = TestApp::start(Backend::Redis).await;
    for number in 0..20 {
        app.login(&format!("guest{number}")).await;
    }
    let alice = app.login("alice").await;
    // As if the guests' logins had ended long ago.
    let age = "for _, index in ipairs(redis.call('KEYS', 'a:idle:*')) do \
         for _, user in ipairs(redis.call('ZRANGE', index, 0, -1)) do if user:find('^guest') then \
         redis.call('ZADD', index, 'XX', 1, user) \
         redis.call('HSET', 'a:{' .. user .. '}:account', 'logins_end', 1) end end end";
    app.redis().cli(&["EVAL", age, "0"]).await;
    app.restart_auth().await;
    let left = async |name: &str| {
        let dump = app.redis().dump().await;
        let lines = dump.lines().filter(|line| {
            let key = line.split(' ').next().unwrap();
            let is_kept = key.starts_with("a:accounts:") || key.starts_with("a:idle:");
            (is_kept || key.ends_with(":account") || key.ends_with(":state")) && line.contains(name)
        });
        lines.count()
    };
    eventually(PATIENCE, "the guests are gone", || async {
        (left("guest").await == 0).then_some(())
    })
    .await;
    assert_eq!(left("alice").await, 4, "who is logged in stays");
    alice.get("/chat/sessions").await.expect(200);
}
