// Functions for building the DOM. Text is always inserted as text, never as markup.

/**
 * An element. `props`: `on` (listeners by event), `class`, `data` (dataset), other names are attributes;
 * `true` is an empty attribute, `false`, `null` and `undefined` are none. Children are nodes or text.
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === 'data') {
      Object.assign(node.dataset, value);
    } else {
      node.setAttribute(name, value === true ? '' : value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const SVG = 'http://www.w3.org/2000/svg';

/** One of the icons that index.html defines; decoration only, so it is hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(SVG, 'use');
  use.setAttribute('href', `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows an icon and says its name to screen readers and on hover. */
export function iconButton(name, label, onClick, props = {}) {
  return el('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, on: { click: onClick }, ...props }, icon(name));
}

/** Puts text on the clipboard, also where the page was not opened over https; says whether it worked. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = el('textarea', { class: 'visually-hidden', 'aria-hidden': 'true', readonly: true });
    field.value = text;
    document.body.append(field);
    const focused = document.activeElement;
    field.select();
    const copied = document.execCommand('copy');
    field.remove();
    focused?.focus();
    return copied;
  }
}

/** Announces a text to screen readers without showing it. */
export function announce(text) {
  document.getElementById('announcer').textContent = text;
}
