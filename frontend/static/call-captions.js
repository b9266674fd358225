/**
 * What was said on the phone: every picture of the call brings all its lines, and only what has changed is touched.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  const WHO = { caller: "On the phone", assistant: "Ahoy" };
  const MAX_SPOKEN = 10;
  /** So close to the end (px) counts as reading the newest line. */
  const NEAR_PX = 48;

  class CallCaptions {
    /** @param {HTMLOListElement} list @param {HTMLElement} scroller what scrolls @param {HTMLElement} log hidden, polite */
    constructor({ list, scroller, log }) {
      Object.assign(this, { list, scroller, log, finished: null });
      new ResizeObserver(() => this.near && this.follow()).observe(scroller);
      scroller.addEventListener("scroll", () => this.look(), { passive: true });
      this.near = true;
    }

    /** @param {{who: string, text: string, final: boolean}[]} captions all lines of the call, oldest first */
    show(captions) {
      captions.forEach((line, at) => this.draw(this.list.children[at] ?? this.grow(), line));
      while (this.list.children.length > captions.length) this.list.lastElementChild.remove();
      this.speak(captions.filter(({ final }) => final).map(({ who, text }) => `${WHO[who] ?? who}: ${text}`));
      if (this.near) this.follow();
    }

    /** The lines of another call will come. */
    clear() {
      this.list.replaceChildren();
      this.log.replaceChildren();
      this.finished = null;
      this.near = true;
    }

    grow() {
      const item = document.createElement("li");
      const [who, said] = ["span", "p"].map((name) => item.appendChild(document.createElement(name)));
      who.className = "who";
      said.className = "said";
      said.dir = "auto";
      this.list.append(item);
      return item;
    }

    draw(item, { who, text, final }) {
      const side = who === "caller" ? "user" : "assistant";
      const className = `line ${side}${final ? "" : side === "user" ? " partial" : " growing"}`;
      if (item.className !== className) item.className = className;
      const [label, said] = item.children;
      if (said.textContent !== text) said.textContent = text;
      const name = WHO[who] ?? who;
      if (label.textContent !== name) label.textContent = name;
    }

    /** A screen reader hears the lines that have become final since the last picture, not those still changing. */
    speak(finished) {
      const known = [...(this.finished ?? finished)];
      for (const line of finished) {
        const at = known.indexOf(line);
        if (at >= 0) known.splice(at, 1);
        else this.log.append(Object.assign(document.createElement("p"), { textContent: line }));
      }
      while (this.log.children.length > MAX_SPOKEN) this.log.firstElementChild.remove();
      this.finished = finished;
    }

    look() {
      const { scrollHeight, scrollTop, clientHeight } = this.scroller;
      this.near = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    }

    follow() {
      this.scroller.scrollTop = this.scroller.scrollHeight;
    }
  }

  globalThis.Ahoy.CallCaptions = CallCaptions;
}
