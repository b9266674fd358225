/**
 * What the conversation has cost, and what of: one line, and more when it is opened. Not there while nothing costs
 * anything. What all conversations of the day have cost is asked of the server, which tells it to those who may know.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  /** The day is asked for at most this often. */
  const DAY_EVERY_MS = 5_000;
  const WORK = { stt: "Understanding", llm: "Thinking", tts: "Voice" };

  class UsagePanel {
    /**
     * @param {HTMLDetailsElement} panel with `.conversation`, `.today` (with `.total` in it), `.models` (a list) and
     *   `.footnote` in it
     * @param {() => string|null} base where the server's API begins
     */
    constructor(panel, base) {
      Object.assign(this, { panel, base, askedMs: -Infinity, timer: 0, mayAsk: true });
    }

    /** @param {object|null} message `usage` of the protocol; null when a conversation begins */
    show(message) {
      if (!message) {
        clearTimeout(this.timer);
        this.mayAsk = true;
        this.showDay(null);
        this.panel.hidden = true;
        return;
      }
      const { money } = globalThis.Ahoy.words;
      const find = (part) => this.panel.querySelector(part);
      this.panel.hidden = message.conversation_usd === 0 && message.priced;
      find(".conversation").textContent = money(message.conversation_usd, message.priced);
      find(".models").replaceChildren(...message.services.map((used) => line(used)));
      find(".footnote").textContent = footnote(message);
      this.askDay();
    }

    askDay() {
      if (!this.mayAsk || this.panel.hidden) return;
      clearTimeout(this.timer);
      const waited = performance.now() - this.askedMs;
      this.timer = setTimeout(() => this.fetchDay(), Math.max(0, DAY_EVERY_MS - waited));
    }

    async fetchDay() {
      const base = this.base();
      if (!base) return;
      this.askedMs = performance.now();
      try {
        this.showDay((await new globalThis.Ahoy.ServerApi(base).ask("GET", "api/usage")).today);
      } catch {
        this.mayAsk = false; // not for us to know, or not there: the conversation's own line has to do
        this.showDay(null);
      }
    }

    showDay(day) {
      const today = this.panel.querySelector(".today");
      today.hidden = !day;
      if (day) today.querySelector(".total").textContent = globalThis.Ahoy.words.money(day.usd, day.priced);
    }
  }

  /** One model: what it does, what it is called, what it cost and for what. */
  function line(used) {
    const { money } = globalThis.Ahoy.words;
    const row = document.createElement("li");
    const where = used.service === "embedded" ? "on the server itself" : used.service;
    const parts = {
      name: WORK[used.capability] ?? used.capability,
      value: used.usd === 0 && used.priced ? "free" : money(used.usd, used.priced),
      about: [`${used.model}, ${where}`, ...amounts(used)].join(" · "),
    };
    for (const [kind, text] of Object.entries(parts)) {
      const part = document.createElement("span");
      part.className = kind;
      part.textContent = text;
      row.append(part);
    }
    return row;
  }

  function amounts(used) {
    const { count, money, speech } = globalThis.Ahoy.words;
    const told = [];
    if (used.input_tokens || used.output_tokens) {
      const cached = used.cached_tokens ? ` (${count(used.cached_tokens)} from its cache)` : "";
      told.push(`${count(used.input_tokens)} tokens read${cached}`, `${count(used.output_tokens)} written`);
    }
    if (used.audio_s) told.push(speech(used.audio_s));
    if (used.characters) told.push(`${count(used.characters)} characters`);
    if (used.given_up) {
      const cost = used.wasted_usd ? `, ${money(used.wasted_usd, true)}` : "";
      told.push(`${used.given_up} of ${used.requests} given up${cost}`);
    }
    return told;
  }

  function footnote({ priced, services }) {
    const said = [];
    if (!priced) said.push("No price is known for some of it: the server's PRICES can say it.");
    if (services.some(({ estimated }) => estimated)) said.push("Estimated in part.");
    if (services.some(({ given_up: givenUp }) => givenUp)) {
      said.push("Given up: begun too early, or interrupted; it is paid for all the same.");
    }
    return said.join(" ");
  }

  globalThis.Ahoy.UsagePanel = UsagePanel;
}
