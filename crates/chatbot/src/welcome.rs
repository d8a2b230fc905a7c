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
    let stopping = shutdown.stop_token();
    shutdown.spawn(stopping.run_until_cancelled_owned(async move {
        loop {
            let others: Vec<_> =
                llm.status().into_iter().filter(|status| status.provider != ProviderKind::Demo).collect();
            if others.iter().any(|status| status.up == Some(true)) {
                return;
            }
            if others.iter().all(|status| status.up == Some(false)) {
                let model = llm.default_model();
                write(&format!(
                    "  No model server can be reached, so a built-in demo answers; it is no language model. For a real one install\n  Ollama and run:\n\n      ollama serve\n      ollama pull {model}\n\n  It is found within seconds; nothing needs to be restarted.\n\n"
                ));
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }));
}

/// A closed pipe is no failure.
fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
