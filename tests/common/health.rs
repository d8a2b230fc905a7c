//! Health: alive, ready, and what is missing.

use tests::{Backend, TestApp};

on_both_stores!(
    health_is_told_at_both_doors,
    metrics_are_told_at_the_admin_door_alone,
    a_dead_model_server_does_not_gate
);

async fn health_is_told_at_both_doors(on: Backend) {
    let app = TestApp::start(on).await;
    let names = [("Chat", app.chat(0), app.chat_admin(0)), ("Auth", app.auth(), app.auth_admin())];
    for (name, public, admin) in names {
        for address in [public, admin] {
            let admin = app.stranger().at(address);
            let body = admin.get("/health").await.expect(200);
            assert_eq!(body["status"], "ok");
            assert_eq!(body["message"], format!("{name} service is running!"));
            admin.get("/livez").await.expect(200);
            admin.get("/readyz").await.expect(200);
        }
    }
}

async fn metrics_are_told_at_the_admin_door_alone(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice-in-metrics").await;
    alice.say("work-in-metrics", "hello").await;
    for path in ["/a-path-of-no-meaning", "/chat/sessions/work-in-metrics"] {
        alice.get(path).await;
    }
    for (public, admin) in [(app.chat(0), app.chat_admin(0)), (app.auth(), app.auth_admin())] {
        app.stranger().at(public).get("/metrics").await.problem(404, "not_found");
        let metrics = app.stranger().at(admin).get("/metrics").await;
        assert_eq!(metrics.status, 200);
        let text = metrics.text();
        assert!(text.contains("# TYPE"), "{text}");
        for label in ["alice-in-metrics", "work-in-metrics", "a-path-of-no-meaning"] {
            assert!(!text.contains(label), "{label} is a label");
        }
    }
}

async fn a_dead_model_server_does_not_gate(on: Backend) {
    let dead = format!("http://127.0.0.1:{}", tests::free_port());
    let app = TestApp::builder(on).set("llm.ollama.base_url", dead).without_waiting().start().await;
    app.wait_up().await;
    let ready = app.stranger().get("/readyz").await.expect(200);
    assert_eq!(ready["checks"]["llm"], "ollama: cannot be reached: no answer", "{ready}");
    // What the connection failed of is in the log.
    app.chat_process(0).log_line(&["did not list its models", "refused"]).await;
}
