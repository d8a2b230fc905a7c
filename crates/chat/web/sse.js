// Reads server-sent events out of a fetch, as EventSource would, but also for POST and with our own headers.

/** A connection that says nothing for this long is dead: the server sends a comment every 15 s. */
const SILENCE_MS = 40_000;

/** Yields `{id, event, data}`; an unfinished event at the end is dropped. Throws when the connection breaks or falls silent. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let fields = {};
  try {
    for (;;) {
      const { value, done } = await withinSilence(reader.read());
      if (done) return;
      rest += value;
      // A carriage return at the very end may be half of a line's end.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line !== '') {
          field(fields, line);
        } else {
          if (fields.data !== undefined) yield { id: fields.id, event: fields.event ?? 'message', data: fields.data };
          fields = {};
        }
      }
    }
  } finally {
    drain(reader);
  }
}

/** Reads what little may be left, so that the connection can be used again; gives up on it after a second. */
async function drain(reader) {
  const timer = setTimeout(() => reader.cancel().catch(() => {}), 1000);
  try {
    while (!(await reader.read()).done);
  } catch {
    // It is broken, and gone already.
  } finally {
    clearTimeout(timer);
  }
}

function field(fields, line) {
  const colon = line.indexOf(':');
  if (colon === 0) return;
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
  if (name === 'data') fields.data = fields.data === undefined ? value : `${fields.data}\n${value}`;
  else if (name === 'id' || name === 'event') fields[name] = value;
}

function withinSilence(read) {
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('silent')), SILENCE_MS);
  });
  return Promise.race([read, silence]).finally(() => clearTimeout(timer));
}
