// Modal dialogs: a prompt for one line of text, and a confirmation.

import { el } from './dom.js';

/** Asks for a line of text; `null` when the user cancels. */
export function ask(title, label, value, maxLength) {
  const input = el('input', { id: 'dialog-input', type: 'text', dir: 'auto', maxlength: maxLength, autocomplete: 'off' });
  input.value = value;
  return show(title, [el('label', { for: 'dialog-input' }, label), input], 'Save', '', () => input.value.trim());
}

/** Asks for confirmation; `true` when the user confirms. */
export async function confirmed(title, text, action) {
  return (await show(title, [el('p', {}, text)], action, 'danger', () => true)) === true;
}

function show(title, content, action, kind, answer) {
  return new Promise((resolve) => {
    const cancel = el('button', { type: 'button', class: 'button', on: { click: () => dialog.close() } }, 'Cancel');
    const accept = el('button', { type: 'submit', class: `button primary ${kind}` }, action);
    const form = el('form', {}, el('h2', { id: 'dialog-title' }, title), ...content, el('div', { class: 'dialog-actions' }, cancel, accept));
    const dialog = el('dialog', { 'aria-labelledby': 'dialog-title' }, form);
    let given = null;
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      given = answer();
      dialog.close();
    });
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(given);
    });
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector('input')?.select();
  });
}
