/**
 * What was said, as a list that grows: partial words in a lighter hand, answers as they come, and what was cut off greyed.
 *
 * Text of the server only ever becomes text nodes. A screen reader hears finished lines, through a log of its own, not
 * every word that is still changing.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  const MAX_LINES = 200;
  const MAX_SPOKEN = 10;
  /** So close to the end (px) counts as reading the newest line. */
  const NEAR_PX = 64;

  class Captions {
    /**
     * @param {HTMLOListElement} list @param {HTMLElement} scroller what scrolls @param {HTMLElement} log hidden, polite
     * @param {HTMLButtonElement} latest brings the reader back to the newest line
     */
    constructor({ list, scroller, log, latest }) {
      Object.assign(this, { list, scroller, log, latest });
      this.lines = new Map(); // "user 3", "reply 4" of this connection
      this.reopened = new Set();
      this.following = true;
      this.pending = null; // the picture before which it will scroll
      this.reach = 0; // how far it could be scrolled when it was last at its end
      scroller.addEventListener("scroll", () => this.look(), { passive: true });
      latest.addEventListener("click", () => this.follow());
      new ResizeObserver(() => this.following && this.follow()).observe(scroller);
    }

    /** A message of the protocol that changes what is shown. */
    take(type, message) {
      if (type === "started") this.restart();
      else if (type === "transcript.partial") this.user(message, { final: false });
      else if (type === "transcript.final") this.user(message, { final: true });
      else if (type === "turn.reopened") this.reopen(message);
      else if (type === "reply.text") this.grow(message);
      else if (type === "reply.rewritten") this.rewrite(message);
      else if (type === "reply.done") this.close(message);
      if (this.following) this.followSoon();
    }

    /** Turns and replies are counted anew on every connection; the lines stay. */
    restart() {
      for (const line of this.lines.values()) line.item.classList.remove("partial", "growing");
      this.lines.clear();
      this.reopened.clear();
    }

    user({ turn, text }, { final }) {
      const line = this.line(`user ${turn}`, "user", "You");
      line.text.textContent = text;
      line.item.classList.toggle("partial", !final);
      if (!text.trim()) this.remove(`user ${turn}`);
      if (!final) return;
      this.reopened.delete(turn);
      if (text.trim()) this.speak(`You: ${text}`);
    }

    /** The turn goes on: its words may still change, and an answer to it that nobody heard was never given. */
    reopen({ turn }) {
      this.reopened.add(turn);
      this.lines.get(`user ${turn}`)?.item.classList.add("partial");
      for (const [name, line] of this.lines) if (line.unheardTurn === turn) this.remove(name);
    }

    grow({ reply, text }) {
      const line = this.line(`reply ${reply}`, "assistant", "Ahoy");
      line.text.append(text);
      line.item.classList.add("growing");
    }

    /** What was shown beyond this broke off and will not be said: something else follows. */
    rewrite({ reply, text }) {
      this.line(`reply ${reply}`, "assistant", "Ahoy").text.textContent = text;
    }

    close({ turn, reply, text, heard, interrupted }) {
      const name = `reply ${reply}`;
      if (!text.trim() || (interrupted && !heard && this.reopened.has(turn))) {
        this.remove(name);
        return;
      }
      const line = this.line(name, "assistant", "Ahoy");
      line.item.classList.remove("growing");
      if (!interrupted) {
        line.text.textContent = text;
        this.speak(`Ahoy: ${text}`);
        return;
      }
      const lost = element("span", "unheard");
      lost.append(element("span", "sr-only", " (interrupted; not heard: "), text.slice(heard.length));
      lost.append(element("span", "sr-only", ")"));
      line.text.replaceChildren(heard, lost);
      line.item.classList.add("interrupted");
      if (!heard) line.unheardTurn = turn;
      this.speak(`Ahoy, interrupted: ${heard}`);
    }

    line(name, side, who) {
      const known = this.lines.get(name);
      if (known) return known;
      const item = element("li", `line ${side}`);
      const text = element("p", "said");
      text.dir = "auto";
      item.append(element("span", "who", who), text);
      this.list.append(item);
      const line = { item, text };
      this.lines.set(name, line);
      this.trim();
      return line;
    }

    trim() {
      while (this.list.children.length > MAX_LINES) {
        const [oldest] = this.list.children;
        oldest.remove();
        for (const [name, { item }] of this.lines) if (item === oldest) this.lines.delete(name);
        this.reach = null; // the browser moves the rest up by the line that is gone
      }
    }

    remove(name) {
      this.lines.get(name)?.item.remove();
      this.lines.delete(name);
    }

    speak(text) {
      this.log.append(element("p", "", text));
      while (this.log.children.length > MAX_SPOKEN) this.log.firstElementChild.remove();
    }

    /** Lines that come and go move the text, or its end, as well: only without them it was the reader who scrolled. */
    look() {
      const { scrollHeight, scrollTop, clientHeight } = this.scroller;
      const reach = scrollHeight - clientHeight;
      if (reach - scrollTop < NEAR_PX) {
        this.following = true;
        this.reach = reach;
      } else if (reach === this.reach) this.following = false;
      this.latest.hidden = this.following;
    }

    /** Once for all that came since the last picture: to scroll is to lay the page out. */
    followSoon() {
      this.pending ??= requestAnimationFrame(() => {
        this.pending = null;
        if (this.following) this.follow();
      });
    }

    follow() {
      const { scroller } = this;
      scroller.scrollTop = scroller.scrollHeight;
      this.reach = scroller.scrollHeight - scroller.clientHeight;
      this.following = true;
      this.latest.hidden = true;
    }
  }

  function element(name, className, text = "") {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text) made.textContent = text;
    return made;
  }

  globalThis.Ahoy.Captions = Captions;
}
