/**
 * One message that stays until it is dismissed, done, or no longer true. Read out at once by a screen reader.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  class Notice {
    /** @param {HTMLElement} box with `.title`, `.text`, and the buttons `.action` and `.dismiss` */
    constructor(box) {
      this.box = box;
      this.title = box.querySelector(".title");
      this.text = box.querySelector(".text");
      this.button = box.querySelector(".action");
      this.button.addEventListener("click", () => {
        const { act } = this;
        this.hide();
        act?.();
      });
      box.querySelector(".dismiss").addEventListener("click", () => this.hide());
    }

    /** @param {string} about what it is about, so that it can be taken back; @param {Function} [act] of the button */
    show(about, { title, text, action }, act) {
      this.about = about;
      this.act = act;
      this.title.textContent = title;
      this.text.textContent = text;
      this.button.hidden = !action;
      this.button.textContent = action ?? "";
      this.box.hidden = false;
    }

    /** Take it back; with `about`, only if it is about that. */
    hide(about = this.about) {
      if (about !== this.about) return;
      this.box.hidden = true;
      this.act = null;
    }
  }

  globalThis.Ahoy.Notice = Notice;
}
