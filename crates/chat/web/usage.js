// Shows today's token usage in the sidebar.

import { el } from './dom.js';

const number = new Intl.NumberFormat();

/** Shows what `GET /chat/usage` says in `home`. */
export function showUsage(home, { today, quota }) {
  const tokens = today.prompt_tokens + today.completion_tokens;
  const words = `Today: ${number.format(tokens)} ${tokens === 1 ? 'token' : 'tokens'}`;
  const left = quota ? el('span', {}, `${number.format(quota.left)} of ${number.format(quota.tokens_per_day)} left`) : null;
  home.replaceChildren(...[el('span', {}, words), left].filter(Boolean));
  home.title = `${number.format(today.prompt_tokens)} read, ${number.format(today.completion_tokens)} written, in ${number.format(today.requests)} requests`;
}
