//! Rules between settings: what a binary needs, and what production refuses.

use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use super::{
    Binary, Durability, Environment, LoginMode, Provider, ProviderKind, Settings, StoreUrl,
};
use crate::clients::redis::address::RedisAddress;

/// A setting and what is wrong with it.
pub(super) type Broken = (&'static str, String);

pub(super) fn broken(settings: &Settings, binary: Binary) -> Vec<Broken> {
    let mut broken = Vec::new();
    needs(settings, binary, &mut broken);
    if binary != Binary::Auth {
        keys_of_providers(settings, &mut broken);
    }
    paths_of_providers(settings, &mut broken);
    bodies(settings, &mut broken);
    listeners(settings, binary, &mut broken);
    if settings.environment == Environment::Prod {
        production(settings, binary, &mut broken);
    }
    broken
}

fn needs(settings: &Settings, binary: Binary, broken: &mut Vec<Broken>) {
    if binary == Binary::Chat && settings.chat.auth_url.is_none() {
        let wrong = "it must be set; allowed: a URL such as http://auth:9001";
        broken.push(("chat.auth_url", wrong.to_owned()));
    }
    let own_store = !matches!(settings.store.url, StoreUrl::Redis(_));
    if own_store && binary != Binary::Chatbot {
        let wrong = "embedded: and memory: are for chatbot alone, since services share their store; allowed: redis://host:port/database, redis+cluster://…, redis+sentinel://…";
        broken.push(("store.url", wrong.to_owned()));
    }
    if own_store && settings.store.durability == Durability::Replicated {
        let wrong = "the embedded store has no replicas; allowed with it: local";
        broken.push(("store.durability", wrong.to_owned()));
    }
}

/// The public services that take no request without a key.
fn keys_of_providers(settings: &Settings, broken: &mut Vec<Broken>) {
    let llm = &settings.llm;
    let listed = |kind| llm.providers.contains(&kind);
    let asks = |provider: &Provider, host: &str| {
        provider.api_key.is_none() && provider.base_url.host_str() == Some(host)
    };
    if listed(ProviderKind::HuggingFace) && asks(&llm.huggingface, "router.huggingface.co") {
        let wrong = "huggingface is in llm.providers and needs a key; set HF_TOKEN, or take huggingface out of llm.providers";
        broken.push(("llm.huggingface.api_key", wrong.to_owned()));
    }
    if listed(ProviderKind::OpenAi) && asks(&llm.openai, "api.openai.com") {
        let wrong = "openai is in llm.providers and needs a key; set OPENAI_API_KEY, or llm.openai.base_url to a server of your own";
        broken.push(("llm.openai.api_key", wrong.to_owned()));
    }
}

/// Base URLs that hold a part of the path of an API: every turn would fail.
fn paths_of_providers(settings: &Settings, broken: &mut Vec<Broken>) {
    let llm = &settings.llm;
    let ollama = "Ollama's address without the path of an API, such as http://127.0.0.1:11434";
    let compatible =
        "the URL that clients of OpenAI's API are given, such as https://api.example.com/v1";
    let of_ollama =
        ["/api", "/v1", "/api/chat", "/api/generate", "/api/tags", "/chat/completions", "/models"];
    let of_openai = ["/chat/completions", "/completions", "/responses", "/models"];
    for (name, provider, ends, allowed) in [
        ("llm.ollama.base_url", &llm.ollama, &of_ollama[..], ollama),
        ("llm.openai.base_url", &llm.openai, &of_openai[..], compatible),
        ("llm.huggingface.base_url", &llm.huggingface, &of_openai[..], compatible),
    ] {
        let path = provider.base_url.path();
        if let Some(end) = ends.iter().find(|end| path.ends_with(*end)) {
            broken.push((name, format!("it ends in {end}; allowed: {allowed}")));
        }
    }
}

/// A body that no memory is allowed for would be refused for ever, as if others took it.
fn bodies(settings: &Settings, broken: &mut Vec<Broken>) {
    let most = settings.server.inference_body_limit;
    if settings.server.body_memory < most {
        let wrong = format!("it is below server.inference_body_limit; allowed: {most} or more");
        broken.push(("server.body_memory", wrong));
    }
}

/// Those of one process must differ. Of the other service's, which may run on another machine, only among themselves.
fn listeners(settings: &Settings, binary: Binary, broken: &mut Vec<Broken>) {
    let processes = match binary {
        Binary::Chatbot => vec![settings.listeners(binary)],
        _ => [Binary::Auth, Binary::Chat].map(|one| settings.listeners(one)).to_vec(),
    };
    for all in processes {
        for (n, (name, address)) in all.iter().enumerate() {
            let mut earlier = all.iter().take(n).filter(|_| address.port() != 0);
            if let Some((twin, _)) = earlier.find(|(_, other)| other == address) {
                let wrong = format!("{address} is also {twin}; each listener needs its own port");
                broken.push((name, wrong));
            }
        }
    }
}

fn production(settings: &Settings, binary: Binary, broken: &mut Vec<Broken>) {
    if settings.auth.login == LoginMode::Open {
        let wrong =
            "open login is refused in prod, since a name alone would log in; allowed: password";
        broken.push(("auth.login", wrong.to_owned()));
    }
    if let StoreUrl::Redis(url) = &settings.store.url
        && RedisAddress::parse(url.expose_secret())
            .is_ok_and(|address| address.password().is_some_and(is_guessable))
    {
        broken.push(("store.url", "its password is an example or too simple; allowed in prod: one of at least 8 characters that is made at random".to_owned()));
    }
    if binary != Binary::Chat {
        for key in readable_by_all(&settings.auth.keys_dir) {
            broken.push(("auth.keys_dir", format!("anybody on this machine can read the signing key {key:?}; allowed: mode 0600 (chmod 600)")));
        }
    }
}

/// Passwords that stand in examples, are short, or repeat one character.
fn is_guessable(password: &str) -> bool {
    const EXAMPLES: [&str; 12] = [
        "changeme",
        "change-me",
        "change_me",
        "password",
        "passw0rd",
        "password1",
        "example",
        "redispassword",
        "redis_password",
        "12345678",
        "your-password",
        "foobared",
    ];
    let lower = password.to_ascii_lowercase();
    let mut characters = lower.chars();
    let first = characters.next();
    password.chars().count() < 8
        || EXAMPLES.contains(&lower.as_str())
        || characters.all(|c| Some(c) == first)
}

/// The signing keys in a folder that every user of the machine may read. A folder that is not there has none.
fn readable_by_all(keys_dir: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let Ok(entries) = std::fs::read_dir(keys_dir) else { return Vec::new() };
    let mut keys: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pem"))
        .filter(|path| {
            std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
        })
        .collect();
    keys.sort();
    keys
}
