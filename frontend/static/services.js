/**
 * Who does the work: for recognition, language model and voice those who may be asked, in their order, how it stands
 * with each, and a test of all of them. In the settings; told to those who may know.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  /** Everybody is given some seconds, one after the other. */
  const TEST_MS = 180_000;
  const WORK = { stt: "Recognition", llm: "Language model", tts: "Voice" };
  const FIRST = { stt: "Words", llm: "First words", tts: "First sound" };
  const NAMES = { embedded: "Embedded model", scripted: "Scripted, for tests", openai: "OpenAI" };
  const REFUSED = {
    unauthorized: "Who does the work is shown to holders of the server’s API_KEY.",
    local_only: "Who does the work is shown on the server’s own computer, at http://localhost, or once API_KEY is set there and given here.",
  };

  class ServicesPanel {
    /**
     * @param {HTMLElement} section with `.about-chains`, `.chains`, `.result` (a live region), `.test` and `.unlock` (buttons) in it
     * @param {() => string|null} base where the server's API begins
     * @param {object} on `unlock()`: the user wants to give the server's key
     */
    constructor(section, base, on) {
      const [chains, about, result, test, unlock] = [".chains", ".about-chains", ".result", ".test", ".unlock"].map((part) => section.querySelector(part));
      Object.assign(this, { section, base, chains, about, result, button: test, unlock, api: null, listed: [], findings: [], testing: false });
      test.addEventListener("click", () => this.test());
      unlock.addEventListener("click", () => on.unlock());
    }

    /** Ask the server anew: the settings were opened, or the server is another one. */
    async look() {
      const base = this.base();
      if (this.testing && this.api?.base === base) return;
      if (this.api?.base !== base) {
        this.api = base && new globalThis.Ahoy.ServerApi(base);
        this.listed = [];
        this.section.hidden = true;
      }
      this.testing = false;
      this.findings = [];
      if (base) await this.list(this.api, "");
    }

    /** Try everybody, and say what happened. */
    async test() {
      if (this.testing) return;
      const { api } = this;
      this.testing = true;
      this.findings = [];
      this.show("Testing: this takes some seconds…");
      try {
        const { findings, age_s: ageS } = await api.ask("POST", "api/providers/check", { timeoutMs: TEST_MS });
        if (api !== this.api) return;
        this.testing = false;
        this.findings = findings;
        await this.list(api, outcome(findings, ageS));
      } catch (error) {
        if (api !== this.api) return;
        this.testing = false;
        this.refuse(error);
      }
    }

    async list(api, said) {
      try {
        const { providers } = await api.ask("GET", "api/providers");
        if (api !== this.api) return;
        this.listed = providers;
        this.show(said);
      } catch (error) {
        if (api === this.api) this.refuse(error);
      }
    }

    show(said) {
      this.section.hidden = false;
      this.unlock.hidden = true;
      this.button.hidden = this.chains.hidden = this.about.hidden = false;
      this.button.setAttribute("aria-disabled", String(this.testing)); // not disabled: that would lose the focus
      this.button.textContent = this.testing ? "Testing…" : "Test";
      this.result.textContent = said;
      const found = this.findings.length === this.listed.length ? this.findings : [];
      const rows = this.listed.map((one, index) => ({ capability: one.capability, row: line(one, found[index]) }));
      this.chains.replaceChildren(
        ...Object.keys(WORK).flatMap((capability) => {
          const own = rows.filter((one) => one.capability === capability).map(({ row }) => row);
          return own.length ? [chain(WORK[capability], own)] : [];
        }),
      );
    }

    /** What cannot be known is not shown; whoever could know it under another condition is told which. */
    refuse({ code, status, message }) {
      const said = REFUSED[code] ?? globalThis.Ahoy.callWords.trouble({ code, message });
      const told = [401, 403, 503].includes(status);
      if (!told && this.listed.length) {
        this.show(said);
        return;
      }
      this.listed = [];
      this.button.hidden = this.chains.hidden = this.about.hidden = true;
      this.unlock.hidden = status !== 401;
      this.section.hidden = !told; // an older server, or none at all, which the address above says
      this.result.textContent = said;
    }
  }

  /** Those who may do one work, the first one first. */
  function chain(title, rows) {
    const heading = made("h4", "work", title);
    const list = made("ol", "providers");
    list.setAttribute("aria-label", title);
    list.append(...rows);
    const part = made("div", "chain");
    part.append(heading, list);
    return part;
  }

  /** One of them: a mark, who it is, how it stands, and what the test has shown. */
  function line({ capability, provider, model, works, problem, asked }, finding) {
    const row = made("li", "provider");
    const good = finding ? finding.works : works;
    row.dataset.state = !good ? "fails" : asked ? "asked" : "waits";
    const who = made("span", "name", NAMES[provider] ?? provider);
    if (model) who.append(" ", made("span", "model", model));
    row.append(mark(good), who, made("span", "state", standing(works, asked, finding)));
    const about = finding ? told(capability, finding) : problem && (works ? `The last time: ${problem}` : problem);
    if (about) row.append(made("p", "about", about));
    return row;
  }

  function standing(works, asked, finding) {
    if (finding && !finding.works) return "fails";
    if (!works) return "left alone";
    return asked ? "in use" : "stands by";
  }

  function told(capability, { first_ms: firstMs, words }) {
    if (firstMs === null) return words;
    return `${FIRST[capability]} after ${globalThis.Ahoy.words.duration(firstMs)}. ${words}`;
  }

  function outcome(findings, ageS) {
    const failed = findings.filter(({ works }) => !works).length;
    const all = failed === 0 ? "All of them work." : failed === findings.length ? "None of them works." : `${failed} of ${findings.length} failed.`;
    return ageS < 1 ? all : `${all} That was tested ${Math.round(ageS)} s ago; a new test can be made every 10 s.`;
  }

  function mark(good) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("aria-hidden", "true");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    use.setAttribute("href", good ? "#i-check" : "#i-end");
    svg.append(use);
    return svg;
  }

  function made(tag, kind, text = "") {
    const element = document.createElement(tag);
    element.className = kind;
    element.textContent = text;
    return element;
  }

  globalThis.Ahoy.ServicesPanel = ServicesPanel;
}
