// The login form: a user id, with a password where one is needed, or a new account.

import { serverSettings } from './login.js';

export class Entrance {
  #login;
  #form = document.getElementById('entrance-form');
  #user = document.getElementById('user');
  #password = document.getElementById('password');
  #passwordRow = document.getElementById('password-row');
  #submit = document.getElementById('enter');
  #switch = document.getElementById('switch');
  #title = document.getElementById('entrance-title');
  #trouble = document.getElementById('entrance-trouble');
  #hint = document.getElementById('entrance-hint');
  #registering = false;
  #open = false;
  /** Whether an account can be created here: not offered before the server has said so. */
  #registrable = false;

  constructor(login) {
    this.#login = login;
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#enter();
    });
    this.#switch.addEventListener('click', () => {
      this.#registering = !this.#registering;
      this.#say('');
      this.#draw();
      (this.#user.value ? this.#password : this.#user).focus();
    });
  }

  /** Shows the form, with a reason where there is one. */
  async show(reason = '') {
    this.#registering = false;
    this.#password.value = '';
    this.#say(reason);
    this.#draw();
    this.#user.focus();
    const { login, registration } = await serverSettings();
    this.#open = login === 'open';
    this.#registrable = registration === 'open';
    this.#draw();
  }

  async #enter() {
    const user = this.#user.value.trim();
    if (user === '') return this.#say('Type a user id first.');
    this.#submit.disabled = true;
    this.#say('');
    try {
      if (this.#registering) await this.#login.register(user, this.#password.value);
      else await this.#login.enter(user, this.#password.value);
      this.#password.value = '';
    } catch (problem) {
      this.#refused(problem);
    } finally {
      this.#submit.disabled = false;
    }
    return undefined;
  }

  #refused(problem) {
    if (problem.code === 'registration_closed') {
      this.#registrable = false;
      this.#registering = false;
      this.#password.value = '';
      this.#draw();
    }
    if (problem.code === 'password_required') {
      this.#open = false;
      this.#draw();
      this.#password.focus();
      return this.#say('This account has a password. Please type it.');
    }
    return this.#say(`${problem.message}. ${problem.detail}`);
  }

  #draw() {
    const withPassword = this.#registering || !this.#open;
    this.#title.textContent = this.#registering ? 'Create an account' : 'Welcome';
    this.#hint.textContent = this.#registering ? 'Choose a user id and a password.' : this.#open ? 'Choose a user id to begin.' : 'Log in to go on.';
    this.#passwordRow.hidden = !withPassword;
    this.#password.required = withPassword;
    this.#password.autocomplete = this.#registering ? 'new-password' : 'current-password';
    this.#submit.textContent = this.#registering ? 'Create account' : 'Continue';
    this.#switch.hidden = !this.#registrable;
    this.#switch.textContent = this.#registering ? 'I have an account' : 'Create an account with a password';
  }

  #say(words) {
    this.#trouble.textContent = words;
    this.#trouble.hidden = words === '';
  }
}
