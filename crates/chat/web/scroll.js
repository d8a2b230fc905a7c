// Scrolls along with a growing answer, unless the user has scrolled up.

const NEAR = 48;

export class Follower {
  #pane;
  #jump;
  #following = true;

  /** `pane` scrolls, `content` grows, `jump` is the button back to the end. */
  constructor(pane, content, jump) {
    this.#pane = pane;
    this.#jump = jump;
    let last = 0;
    pane.addEventListener('scroll', () => {
      const up = pane.scrollTop < last;
      last = pane.scrollTop;
      if (this.#atEnd()) this.#following = true;
      else if (up) this.#following = false;
      this.#show();
    }, { passive: true });
    pane.addEventListener('wheel', (event) => {
      if (event.deltaY < 0 && pane.scrollHeight > pane.clientHeight) this.#following = false;
    }, { passive: true });
    jump.addEventListener('click', () => this.toEnd());
    const observer = new ResizeObserver(() => {
      if (this.#following) pane.scrollTop = pane.scrollHeight;
      this.#show();
    });
    observer.observe(content);
    observer.observe(pane);
  }

  toEnd() {
    this.#following = true;
    this.#pane.scrollTop = this.#pane.scrollHeight;
    this.#show();
  }

  /** Runs `change`, which puts something above what is read, without moving it. */
  keepPlace(change) {
    const below = this.#pane.scrollHeight - this.#pane.scrollTop;
    this.#following = false;
    change();
    this.#pane.scrollTop = this.#pane.scrollHeight - below;
  }

  #atEnd() {
    return this.#pane.scrollHeight - this.#pane.scrollTop - this.#pane.clientHeight < NEAR;
  }

  #show() {
    this.#jump.hidden = this.#following || this.#atEnd();
  }
}
