//! What operators run: the scripts and compose files of the repository.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn file(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// Runs a copy of `scripts/init.sh` beside a `.env`; gives whether it was content, what it said, and the `.env` afterwards.
fn init(before: Option<&str>, environment: &str) -> (bool, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let (script, env) = (folder.path().join("scripts/init.sh"), folder.path().join(".env"));
    std::fs::create_dir(folder.path().join("scripts")).unwrap();
    std::fs::copy(root().join("scripts/init.sh"), &script).unwrap();
    if let Some(before) = before {
        std::fs::write(&env, before).unwrap();
    }
    let run = Command::new("bash").arg(&script).arg(environment).output().unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    (run.status.success(), said, std::fs::read_to_string(&env).unwrap_or_default())
}

#[test]
fn the_environment_of_a_deployment_is_chosen_once() {
    for chosen in ["stg", "prod"] {
        let written = format!("ENVIRONMENT={chosen}\n");
        assert_eq!(init(None, chosen), (true, String::new(), written.clone()));
        assert_eq!(init(Some(&written), chosen), (true, String::new(), written));
    }
    // An open login never takes the place of passwords.
    for before in [
        "ENVIRONMENT=prod\n",
        "A=b\nENVIRONMENT=prod",
        "ENVIRONMENT=\"prod\"\r\n",
        "export ENVIRONMENT=prod\n",
        " ENVIRONMENT = prod\n",
    ] {
        let (is_well, said, after) = init(Some(before), "stg");
        assert!(!is_well && said.contains(".env says ENVIRONMENT="), "{before:?}: {said}");
        assert_eq!(after, before);
    }
    // What stands there already stays, whether its last line is ended or not.
    for before in ["CHAT_PORT=9012\n", "CHAT_PORT=9012"] {
        let after = "CHAT_PORT=9012\nENVIRONMENT=prod\n".to_owned();
        assert_eq!(init(Some(before), "prod"), (true, String::new(), after));
    }
    for wrong in ["", "dev", "production"] {
        let (is_well, said, after) = init(None, wrong);
        assert!(!is_well && said.contains("usage") && after.is_empty(), "{wrong}: {said}");
    }
}

/// The lines of a compose file's service, without comments.
fn service<'a>(compose: &'a str, name: &str) -> Vec<&'a str> {
    let head = format!("  {name}:");
    let lines = compose.lines().skip_while(|line| *line != head).skip(1);
    let body = lines.take_while(|line| line.is_empty() || line.starts_with("   "));
    body.filter(|line| !line.trim_start().starts_with('#')).collect()
}

#[test]
fn compose_does_not_start_without_an_environment_and_limits_memory() {
    let (whole, scaled) = (file("docker-compose.yml"), file("docker-compose.scale.yml"));
    // Every value of it refuses to be missing or empty; none has a default.
    for (compose, count) in [(&whole, 1), (&scaled, 1)] {
        let mentioned = compose.lines().filter(|line| line.contains("${ENVIRONMENT"));
        let mentioned: Vec<&str> = mentioned.collect();
        assert_eq!(mentioned.len(), count, "{mentioned:?}");
        assert!(mentioned.iter().all(|line| line.contains("${ENVIRONMENT:?")), "{mentioned:?}");
    }
    let settings = whole.split("x-settings: &settings").nth(1).unwrap();
    assert!(settings.split("services:").next().unwrap().contains("${ENVIRONMENT:?"));
    for name in ["auth", "chat"] {
        let own = service(&whole, name);
        assert!(own.iter().any(|line| line.trim() == "<<: *settings"), "{name}: {own:?}");
    }
    for (compose, names) in
        [(&whole, &["redis", "auth", "chat"][..]), (&scaled, &["chat-2", "nginx"])]
    {
        for name in names {
            let own = service(compose, name);
            let limited = own.iter().any(|line| line.trim_start().starts_with("mem_limit:"));
            assert!(limited, "{name}: {own:?}");
        }
    }
}

/// `auth` believes the addresses that the instances of `chat` report, and knows these by their own.
#[test]
fn the_instances_of_the_scaled_deployment_are_those_that_auth_trusts() {
    let (whole, scaled) = (file("docker-compose.yml"), file("docker-compose.scale.yml"));
    let trusted = service(&whole, "auth").join("\n");
    let nginx = file("deploy/compose/nginx.conf");
    for (compose, name) in [(&whole, "chat"), (&scaled, "chat-2")] {
        let own = service(compose, name).join("\n");
        let address = own.split("ipv4_address: \"").nth(1).unwrap().split('"').next().unwrap();
        assert!(trusted.contains(address), "{name} has {address}: {trusted}");
        assert!(nginx.contains(&format!("{name}:9002")), "{name}: {nginx}");
    }
}
