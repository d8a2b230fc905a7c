// The dialog that tells other clients how to use this service: their settings, ready to paste, with a key made on request.

import { announce, copyText, el } from './dom.js';

/** Stands in the settings until a key is made. */
const NO_KEY = 'YOUR_API_KEY';

/** The settings of each client, as docs/clients.md has them; `root` is the address of this page without a slash at its end. */
const CLIENTS = [
  ['Codex', 'In ~/.codex/config.toml; then set CHATBOT_KEY and start codex.', ({ root, key, model }) => `model = "${model}"
model_provider = "chatbot"
[model_providers.chatbot]
name = "chatbot"
base_url = "${root}/v1"
wire_api = "responses"
env_key = "CHATBOT_KEY"

# export CHATBOT_KEY=${key}`],
  ['Claude Code', 'In the shell that starts claude.', ({ root, key, model }) => `export ANTHROPIC_BASE_URL=${root}
export ANTHROPIC_AUTH_TOKEN=${key}
claude --model ${model}`],
  ['opencode', 'In opencode.json.', ({ root, key, model }) => JSON.stringify({
    provider: {
      chatbot: {
        npm: '@ai-sdk/openai-compatible',
        options: { baseURL: `${root}/v1`, apiKey: key },
        models: { [model]: {} },
      },
    },
    model: `chatbot/${model}`,
  }, null, 2)],
  ['Open WebUI', 'As an OpenAI connection in the admin settings, or in its environment.', ({ root, key }) => `OPENAI_API_BASE_URL=${root}/v1
OPENAI_API_KEY=${key}`],
  ['Clients of Ollama', 'Where a client has a field for a bearer token or a header; the ollama libraries read the first two lines.', ({ root, key }) => `OLLAMA_HOST=${root}
OLLAMA_API_KEY=${key}
Authorization: Bearer ${key}`],
  ['OpenAI SDKs', 'For Python; the JavaScript SDK calls them baseURL and apiKey.', ({ root, key, model }) => `from openai import OpenAI
client = OpenAI(base_url="${root}/v1", api_key="${key}")
print(client.responses.create(model="${model}", input="Hello!").output_text)`],
  ['Anthropic SDKs', 'For Python; the base URL is without /v1.', ({ root, key, model }) => `from anthropic import Anthropic
client = Anthropic(base_url="${root}", auth_token="${key}")
print(client.messages.create(model="${model}", max_tokens=1024, messages=[{"role": "user", "content": "Hello!"}]))`],
  ['llm', 'In extra-openai-models.yaml of its folder; the key by `llm keys set chatbot`.', ({ root, model }) => `- model_id: chatbot
  model_name: ${model}
  api_base: ${root}/v1
  api_key_name: chatbot`],
  ['curl', 'OpenAI’s chat completions.', ({ root, key, model }) => `curl ${root}/v1/chat/completions -H 'Authorization: Bearer ${key}' \\
  -H 'Content-Type: application/json' \\
  -d '{"model":"${model}","messages":[{"role":"user","content":"Hello!"}]}'`],
];

/** Shows the dialog; `model` is the one that stands in the settings. */
export function showConnect(api, model) {
  const settings = { root: new URL('.', location.href).href.replace(/[/#?]+$/, ''), key: NO_KEY, model };
  const list = el('div', { class: 'connect-list' });
  const draw = () => list.replaceChildren(...CLIENTS.map(([name, hint, text]) => client(name, hint, text(settings))));
  const note = el('p', { role: 'status' }, 'Other programs log in with an API key. It counts as you.');
  const make = el('button', { type: 'button', class: 'button' }, 'Make an API key');
  make.addEventListener('click', async () => {
    make.disabled = true;
    try {
      const made = await api.makeKey(`connect ${new Date().toISOString().slice(0, 10)}`);
      settings.key = made.key;
      note.textContent = 'The key stands in the settings below. It is shown this once: copy it now.';
      draw();
    } catch (problem) {
      make.disabled = false;
      note.textContent = `${problem.message}. ${problem.detail}`;
    }
  });
  const close = el('button', { type: 'button', class: 'button primary', on: { click: () => dialog.close() } }, 'Close');
  const dialog = el('dialog', { class: 'connect', 'aria-labelledby': 'connect-title' },
    el('h2', { id: 'connect-title' }, 'Connect other programs'), note, make, list, el('div', { class: 'dialog-actions' }, close));
  dialog.addEventListener('close', () => dialog.remove());
  draw();
  document.body.append(dialog);
  dialog.showModal();
}

function client(name, hint, text) {
  const copy = el('button', { type: 'button', class: 'text-button' }, 'Copy');
  copy.addEventListener('click', async () => announce((await copyText(text)) ? `Copied the settings of ${name}.` : 'It could not be copied.'));
  return el('details', {}, el('summary', {}, name), el('p', {}, hint), el('pre', {}, text), copy);
}
