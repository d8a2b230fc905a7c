//! `max_concurrency` over two instances: how many requests the model server sees at once, who is next, and what an instance or a store that
//! goes away changes.

use std::time::{Duration, Instant};

use tests::{
    Answer, Backend, Builder, ChatRequest, Client, Event, EventStream, Gate, PATIENCE,
    RedisOptions, TestApp, completion_of, eventually,
};
use tokio::task::JoinSet;

fn two(limit: usize) -> Builder {
    TestApp::builder(Backend::Redis)
        .chats(2)
        .set("llm.ollama.concurrency_scope", "shared")
        .set("llm.ollama.max_concurrency", limit)
}

/// The most requests that the model server worked on at the same time.
fn most_at_once(chats: &[ChatRequest]) -> usize {
    let runs_at = |at: Instant| {
        let runs = |chat: &&ChatRequest| {
            chat.arrived <= at && chat.ended.is_none_or(|(ended, _)| ended > at)
        };
        chats.iter().filter(runs).count()
    };
    chats.iter().map(|chat| runs_at(chat.arrived)).max().unwrap_or_default()
}

/// Begins a turn that waits for its slot, and gives the position that it is told first.
async fn waits(client: &Client, session: &str, message: &str) -> (EventStream, u64) {
    let mut stream = client.stream(session, message).await;
    stream.started().await;
    let event = stream.next().await.unwrap();
    (stream, told_position(&event).unwrap_or_else(|| panic!("it waits: {event:?}")))
}

fn told_position(event: &Event) -> Option<u64> {
    (event.kind == "queued").then(|| event.data["position"].as_u64().unwrap())
}

/// Asks many times on both instances, as several users, and waits for all answers.
async fn ask_on_both(app: &TestApp, users: &[Client], times: usize) {
    let mut asking = JoinSet::new();
    for number in 0..times {
        let client = users[number % users.len()].at(app.chat(number / users.len() % 2));
        asking.spawn(async move {
            if number % 3 == 0 {
                client
                    .post("/v1/chat/completions", &completion_of("hello", false))
                    .await
                    .expect(200);
            } else {
                client.send(&format!("s{number}"), "hello").await.expect(200);
            }
        });
    }
    asking.join_all().await;
}

#[tokio::test]
async fn the_model_server_never_sees_more_at_once_than_the_limit() {
    let app = two(3).start().await;
    app.model.usually(Answer::paced(["one ", "two"], Duration::from_millis(20)));
    let users = [app.login("alice").await, app.login("bob").await, app.login("carol").await];
    let begun = Instant::now();
    ask_on_both(&app, &users, 120).await;
    let chats = app.model.chats();
    assert_eq!((chats.len(), most_at_once(&chats)), (120, 3));
    // Each takes 40 ms: a slot that comes free is taken soon, also by the other instance.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    for instance in 0..2 {
        for gauge in ["llm_queued", "llm_running"] {
            eventually(PATIENCE, &format!("{gauge} is back at 0"), || async {
                (app.measured(instance, gauge, "").await == 0.0).then_some(())
            })
            .await;
        }
    }
    eventually(PATIENCE, "no instance has an entry", || async {
        (!app.redis().dump().await.contains("\"load\"")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn many_waiting_on_one_instance_do_not_delay_another_users_one_on_another() {
    let app = two(1).start().await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["done"], &gate));
    let (alice, bob) = (app.login("alice").await, app.login("bob").await.at(app.chat(1)));
    let mut first = alice.stream("first", "from alice").await;
    first.started().await;
    app.model.wait_chats(1).await;
    let mut waiting = Vec::new();
    for number in 0..6 {
        let (stream, position) = waits(&alice, &format!("s{number}"), "from alice").await;
        assert_eq!(position, number);
        waiting.push(stream);
    }
    let (bobs, position) = waits(&bob, "work", "from bob").await;
    assert_eq!(position, 0, "alice has one running");
    waiting.push(bobs);
    gate.release(1);
    app.model.wait_chats(2).await;
    assert_eq!(app.model.chats()[1].last_message(), "from bob");
    gate.open();
    first.ending().await.expect_done("stop");
    for mut stream in waiting {
        let events = stream.rest().await;
        events.last().unwrap().expect_done("stop");
        let told: Vec<_> = events.iter().filter_map(told_position).collect();
        assert!(told.last().is_none_or(|last| *last == 0), "positions end at 0: {told:?}");
    }
    assert_eq!(most_at_once(&app.model.chats()), 1);
}

#[tokio::test]
async fn waiting_instances_ask_the_store_a_few_times_a_second() {
    let app = two(1).start().await;
    app.model.usually(Answer::new().hang());
    let alice = app.login("alice").await;
    let _first = alice.stream("first", "hello").await;
    app.model.wait_chats(1).await;
    let mut streams = Vec::new();
    for number in 0..10 {
        let there = alice.at(app.chat(number % 2));
        streams.push(waits(&there, &format!("s{number}"), "hello").await);
    }
    let reads = async || {
        let stats = app.redis().cli(&["INFO", "commandstats"]).await;
        let stats = format!("{stats:?}");
        let calls = stats.split("cmdstat_hgetall:calls=").nth(1).unwrap();
        calls.split(',').next().unwrap().parse::<u32>().unwrap()
    };
    let before = reads().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let reads = reads().await - before;
    assert!((3..120).contains(&reads), "{reads} reads in 3 s");
}

#[tokio::test]
async fn the_slots_of_a_killed_instance_come_back_within_the_lease() {
    let app = two(2).set("chat.lease", "2s").start().await;
    app.model.answer_to("endless", Answer::partial(["one "]).hang());
    let (alice, carol) = (app.login("alice").await, app.login("carol").await);
    let bob = app.login("bob").await.at(app.chat(1));
    let mut held = Vec::new();
    for number in 0..2 {
        held.push(alice.stream(&format!("s{number}"), "endless").await);
    }
    app.model.wait_chats(2).await;
    // These would be next: they have nothing running.
    for number in 0..2 {
        held.push(waits(&carol, &format!("s{number}"), "endless").await.0);
    }
    let mut bobs = Vec::new();
    for number in 0..4 {
        bobs.push(waits(&bob, &format!("s{number}"), "hello").await.0);
    }
    app.chat_process(0).kill();
    let killed = Instant::now();
    for mut stream in bobs {
        stream.ending().await.expect_done("stop");
    }
    assert!(killed.elapsed() < Duration::from_secs(4), "{:?}", killed.elapsed());
    assert_eq!(app.model.chats().len(), 6);
}

#[tokio::test]
async fn a_stop_gives_slots_back_at_once() {
    let app = two(1).set("chat.lease", "60s").set("server.drain_timeout", "1s").start().await;
    app.model.answer_to("endless", Answer::partial(["one "]).hang());
    let (alice, bob) = (app.login("alice").await, app.login("bob").await.at(app.chat(1)));
    let mut endless = alice.stream("work", "endless").await;
    endless.started().await;
    app.model.wait_chats(1).await;
    let (mut stream, _) = waits(&bob, "work", "hello").await;
    app.chat_process(0).terminate();
    stream.ending().await.expect_done("stop");
    endless.ending().await.expect_error(503, "interrupted");
}

/// While the store is away each instance has its own limit; afterwards all share again.
async fn an_outage_stops_no_answer(gone: impl AsyncFn(&TestApp), back: impl AsyncFn(&TestApp)) {
    let durable = RedisOptions { durable: true, ..RedisOptions::default() };
    let app = two(1).redis(durable).set("chat.lease", "2s").start().await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["done"], &gate));
    let (alice, bob) = (app.login("alice").await, app.login("bob").await.at(app.chat(1)));
    let mut streams = vec![alice.stream("work", "from alice").await];
    app.model.wait_chats(1).await;
    for number in 0..2 {
        streams.push(waits(&bob, &format!("s{number}"), "from bob").await.0);
    }
    gone(&app).await;
    app.model.wait_chats(2).await;
    assert_eq!(app.model.chats()[1].last_message(), "from bob");
    gate.release(2);
    app.model.wait_chats(3).await;
    assert_eq!(most_at_once(&app.model.chats()), 2, "one on each instance");
    back(&app).await;
    gate.open();
    for mut stream in streams {
        stream.ending().await.expect_done("stop");
    }
    eventually(PATIENCE, "the limit is shared again", || async {
        let logs = app.logs();
        let count = |text| logs.matches(text).count();
        (count("is shared again") == count("holds for this instance alone")).then_some(())
    })
    .await;
    let before = app.model.chats().len();
    app.model.usually(Answer::paced(["done"], Duration::from_millis(20)));
    ask_on_both(&app, &[alice, bob], 20).await;
    let chats = app.model.chats();
    assert_eq!((chats.len() - before, most_at_once(&chats[before..])), (20, 1));
}

#[tokio::test]
async fn a_frozen_store_stops_no_answer() {
    an_outage_stops_no_answer(async |app| app.redis().freeze(), async |app| app.redis().thaw())
        .await;
}

#[tokio::test]
async fn a_store_that_dies_stops_no_answer() {
    an_outage_stops_no_answer(
        async |app| app.redis().kill(),
        async |app| app.redis().restart().await,
    )
    .await;
}
