//! The start message for people: addresses, and commands to try.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    time::Duration,
};

use chat::llm::LlmService;
use common::{
    config::{LogFormat, LoginMode, ProviderKind, Settings},
    shutdown::Shutdown,
};

/// How often the state of the providers is polled.
const POLL: Duration = Duration::from_millis(100);

/// Prints the addresses and three commands to try, unless the log is for programs.
pub fn print(auth: SocketAddr, chat: SocketAddr, settings: &Settings) {
    if settings.telemetry.log_format == LogFormat::Json {
        return;
    }
    let password = match settings.auth.login {
        LoginMode::Open => "",
        LoginMode::Password => r#","password":"…""#,
    };
    let text = format!(
        r#"
  The chatbot runs.   Page: http://{chat}/   API: http://{chat}/docs and http://{auth}/docs

  Log in:     TOKEN=$(curl -s http://{auth}/auth/login -H 'Content-Type: application/json' -d '{{"user_id":"alice"{password}}}' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  Ask:        curl -s http://{chat}/chat/message -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"message":"Hello!"}}'
  Stream:     curl -sN 'http://{chat}/chat/message?stream=true' -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"message":"And again?"}}'

"#
    );
    write(&text);
}

/// Once it is known that no model server can be reached, prints the commands that change that.
pub fn announce_demo(llm: LlmService, settings: &Settings, shutdown: &Shutdown) {
    if settings.telemetry.log_format == LogFormat::Json {
        return;
    }
    let providers = settings.llm.providers.clone();
    let stopping = shutdown.stop_token();
    shutdown.spawn(stopping.run_until_cancelled_owned(async move {
        loop {
            let mut servers = llm.status();
            servers.retain(|status| status.provider != ProviderKind::Demo);
            if servers.iter().any(|status| status.up == Some(true)) {
                return;
            }
            if servers.iter().all(|status| status.up == Some(false)) {
                let text = without_models(&providers, llm.default_model());
                // A terminal or pipe that nobody reads must not block the thread that accepts connections.
                tokio::task::spawn_blocking(move || write(&text));
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }));
}

/// What happens to messages while no model server can be reached, and what to do about it.
fn without_models(providers: &[ProviderKind], model: &str) -> String {
    let has = |kind| providers.contains(&kind);
    let has_servers = providers.iter().any(|kind| *kind != ProviderKind::Demo);
    let state = match (has_servers, has(ProviderKind::Demo)) {
        (true, true) => {
            "No model server can be reached, so a built-in demo answers; it is no language model."
        }
        (true, false) => "No model server can be reached, so messages are refused until one runs.",
        (false, _) => "Only the built-in demo is among llm.providers; it is no language model.",
    };
    let advice = if has(ProviderKind::Ollama) {
        format!(
            "For a real one install\n  Ollama and run:\n\n      ollama serve\n      ollama pull {model}\n\n  It is found within seconds; nothing needs to be restarted."
        )
    } else if has_servers {
        "Check the base_url of\n  each provider (`chatbot check-config` prints them); a server that starts is found within seconds.".to_owned()
    } else {
        "For a real one add\n  ollama, openai or huggingface to CHATBOT__LLM__PROVIDERS.".to_owned()
    };
    format!("  {state} {advice}\n\n")
}

/// A closed pipe is no failure.
fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use common::config::ProviderKind::{Demo, Ollama, OpenAi};

    use super::without_models;

    #[test]
    fn the_demo_is_promised_only_where_it_answers() {
        let text = without_models(&[Ollama, Demo], "gemma3:1b");
        assert!(text.contains("built-in demo answers") && text.contains("ollama pull gemma3:1b"));
        let text = without_models(&[Ollama], "gemma3:1b");
        assert!(!text.contains("demo") && text.contains("ollama serve"), "{text}");
        let text = without_models(&[OpenAi], "m");
        assert!(!text.contains("demo") && !text.contains("ollama"), "{text}");
        assert!(without_models(&[Demo], "m").contains("Only the built-in demo"));
    }
}
