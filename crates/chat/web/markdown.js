// Turns a model's Markdown into nodes that cannot run anything: raw HTML stays text, and what is left is sanitised.

import { Marked } from './vendor/marked-18.2.1/marked.esm.js';
import DOMPurify from './vendor/dompurify-3.4.18/purify.es.mjs';
import { copyText, el, icon } from './dom.js';

const TAGS = 'a blockquote br code del em h1 h2 h3 h4 h5 h6 hr input li ol p pre span strong table tbody td th thead tr ul';
const RULES = {
  ALLOWED_TAGS: TAGS.split(' '),
  ALLOWED_ATTR: ['href', 'title', 'class', 'align', 'start', 'type', 'checked', 'disabled'],
  // What is not an address is not held against the rule for addresses.
  ADD_URI_SAFE_ATTR: ['align', 'start', 'type'],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
/** Longer code is shown without colours, so that it never holds up the page. */
const COLOURED_CHARACTERS = 60_000;

/** Formulas in TeX: `\(...\)`, `\[...\]`, `$$...$$`, and `$...$` by Pandoc's rule, so that prices are none. No blank line inside. */
const FORMULA = /\\\((?:(?!\n\s*\n)[^])+?\\\)|\\\[(?:(?!\n\s*\n)[^])+?\\\]|\$\$(?:(?!\n\s*\n)[^])+?\$\$|(?<![\\$])\$(?![\s$])(?:\\.|[^\\$\n])*?(?<!\s)\$(?![\d$])/;
const FORMULA_HERE = new RegExp(`^(?:${FORMULA.source})`);
const FORMULA_LINES = /^ {0,3}(\\\[(?:(?!\n\s*\n)[^])+?\\\]|\$\$(?:(?!\n\s*\n)[^])+?\$\$)[ \t]*(?:\n|$)/;

let highlighter = null;

const marked = new Marked({
  gfm: true,
  // Formulas are shown as they were written: Markdown would take their `_`, `*` and `\` for its own.
  extensions: [
    {
      name: 'formulaLines',
      level: 'block',
      start: (text) => text.match(/^ {0,3}(?:\\\[|\$\$)/m)?.index,
      tokenizer: (text) => {
        const found = FORMULA_LINES.exec(text);
        return found ? { type: 'formulaLines', raw: found[0], text: found[1] } : undefined;
      },
      renderer: ({ text }) => `<p class="formula">${escape(text)}</p>`,
    },
    {
      name: 'formula',
      level: 'inline',
      start: (text) => text.match(FORMULA)?.index,
      tokenizer: (text) => {
        const found = FORMULA_HERE.exec(text);
        return found ? { type: 'formula', raw: found[0] } : undefined;
      },
      renderer: ({ raw }) => escape(raw),
    },
  ],
  hooks: { emStrongMask: (text) => text.replace(new RegExp(FORMULA, 'g'), (formula) => 'a'.repeat(formula.length)) },
  renderer: {
    html: ({ text }) => escape(text),
    // Pictures would be requests to elsewhere, with whatever their address tells: they become links.
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    code: ({ text, lang }) => {
      const language = (lang ?? '').match(/^[\w+#.-]{1,30}/)?.[0] ?? '';
      return `<pre><code class="language-${escape(language)}">${escape(text)}</code></pre>`;
    },
  },
});

function escape(text) {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;').replaceAll("'", '&#39;');
}

/** The text's blocks (paragraphs, lists, code …), each of which can be shown by itself. */
function blocksOf(text) {
  return marked.lexer(text).filter((block) => block.type !== 'space');
}

function nodesOf(block) {
  const fragment = DOMPurify.sanitize(marked.parser([block]), RULES);
  // Each block by its first letter; nested blocks go with it.
  for (const part of fragment.children) part.dir = 'auto';
  for (const link of fragment.querySelectorAll('a')) {
    link.target = '_blank';
    link.rel = 'noopener noreferrer nofollow';
  }
  for (const table of fragment.querySelectorAll('table')) {
    const frame = el('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Table' });
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const box of fragment.querySelectorAll('input')) {
    box.replaceWith(el('span', { class: 'task', role: 'img', 'aria-label': box.checked ? 'Done' : 'To do' }, box.checked ? '☑' : '☐'));
  }
  for (const pre of fragment.querySelectorAll('pre')) frameCode(pre);
  return fragment;
}

function frameCode(pre) {
  const code = pre.querySelector('code') ?? pre;
  const language = [...code.classList].find((name) => name.startsWith('language-'))?.slice(9) ?? '';
  const label = el('span', { class: 'copy-label' }, 'Copy');
  const copy = el('button', { type: 'button', class: 'text-button', 'aria-label': 'Copy code' }, icon('copy'), label);
  copy.addEventListener('click', async () => {
    label.textContent = (await copyText(code.textContent.replace(/\n$/, ''))) ? 'Copied' : 'Not copied';
    setTimeout(() => (label.textContent = 'Copy'), 1500);
  });
  const frame = el('div', { class: 'code' }, el('div', { class: 'code-head' }, el('span', {}, language || 'text'), copy));
  pre.replaceWith(frame);
  pre.dir = 'ltr';
  pre.tabIndex = 0;
  pre.setAttribute('role', 'region');
  pre.setAttribute('aria-label', language ? `Code, ${language}` : 'Code');
  frame.append(pre);
  colour(code, language);
}

async function colour(code, language) {
  const text = code.textContent;
  if (!language || text.length > COLOURED_CHARACTERS) return;
  highlighter ??= import('./vendor/highlight-11.12.0/highlight.min.js').then((library) => (highlighter = library.default));
  const library = highlighter instanceof Promise ? await highlighter.catch(() => null) : highlighter;
  if (!library?.getLanguage(language)) return;
  const html = library.highlight(text, { language, ignoreIllegals: true }).value;
  const nodes = DOMPurify.sanitize(html, { ...RULES, ALLOWED_TAGS: ['span'], ALLOWED_ATTR: ['class'] });
  code.replaceChildren(nodes);
}

/** Shows a growing Markdown text in `home`: blocks that have not changed keep their nodes, so nothing jumps or loses its selection. */
export class MarkdownView {
  #home;
  #shown = [];

  constructor(home) {
    this.#home = home;
  }

  show(text) {
    const blocks = blocksOf(text);
    let same = 0;
    while (same < blocks.length && same < this.#shown.length && this.#shown[same].raw === blocks[same].raw) same += 1;
    // A list or paragraph that goes on keeps its place; only what follows the first difference is made anew.
    for (const old of this.#shown.splice(same)) old.nodes.forEach((node) => node.remove());
    for (const block of blocks.slice(same)) {
      const fragment = nodesOf(block);
      const nodes = [...fragment.childNodes];
      this.#home.append(fragment);
      this.#shown.push({ raw: block.raw, nodes });
    }
  }
}
