/**
 * The call panel: a drawer with the number to call, then the call itself; and the button in the header that opens it and
 * shows how the call stands while the drawer is closed.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  const TICK_MS = 250;

  class CallPanel {
    /**
     * @param {HTMLDialogElement} dialog @param {HTMLButtonElement} opener in the header
     * @param {HTMLElement} news hidden, polite: how the call stands, for a screen reader while the drawer is closed
     * @param {object} about `base()` where the server's API begins, `foreign()` its name if it is not the page's own
     */
    constructor({ dialog, opener, news }, about) {
      const find = (id) => dialog.querySelector(`#${id}`);
      Object.assign(this, { dialog, opener, news, foreign: about.foreign, find, seen: true });
      this.form = find("call-form");
      this.number = this.form.elements.number;
      this.captions = new globalThis.Ahoy.CallCaptions({
        list: find("call-captions"),
        scroller: find("call-scroller"),
        log: find("call-log"),
      });
      this.telephone = new globalThis.Ahoy.Telephone(about.base, { state: (state) => this.show(state) });
      this.listen();
      this.telephone.resume();
      this.show(this.telephone.state);
    }

    listen() {
      const { dialog, find, telephone } = this;
      this.opener.addEventListener("click", () => this.open());
      find("call-close").addEventListener("click", () => dialog.close());
      dialog.addEventListener("click", (event) => {
        if (event.target === dialog) dialog.close(); // the backdrop
      });
      dialog.addEventListener("close", () => this.closed());
      this.number.addEventListener("input", () => {
        telephone.edited();
        this.tried = false;
        this.checkNumber();
      });
      this.form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.call();
      });
      find("key-form").addEventListener("submit", (event) => {
        event.preventDefault();
        this.giveKey();
      });
      find("call-look").addEventListener("click", () => telephone.look());
      find("call-anew").addEventListener("click", () => telephone.placeAnew());
      find("hang-up").addEventListener("click", () => telephone.hangUp());
      find("call-again").addEventListener("click", () => this.again());
      find("call-another").addEventListener("click", () => this.another());
    }

    open() {
      this.dialog.showModal();
      this.telephone.look();
      this.show(this.telephone.state);
      this.focusFirst();
    }

    /** The call goes on; one that is over has been seen. */
    closed() {
      this.seen = true;
      this.find("key-form").reset();
      this.telephone.clear();
      this.show(this.telephone.state);
    }

    call() {
      this.tried = true;
      if (this.checkNumber()) this.telephone.place(this.number.value.trim());
      else this.number.focus();
    }

    again() {
      const { lost, call, attempt } = this.telephone.state;
      if (lost?.code === "gone") this.telephone.watchAgain();
      else this.telephone.place(attempt?.number ?? call.to);
    }

    another() {
      this.telephone.clear();
      this.telephone.look();
      this.number.select();
    }

    giveKey() {
      const field = this.find("key-form").elements.key;
      const key = field.value.trim();
      field.value = "";
      this.keyGiven = true;
      // What is not in ASCII cannot be in a header, and so is no key.
      if (/^[\x21-\x7e]+$/.test(key)) this.telephone.unlock(key);
      else this.refuseKey(key ? "The key has characters that no key has. Copy it once more." : "Write the server’s key.");
    }

    refuseKey(text) {
      this.find("key-hint").textContent = text;
      this.find("key-hint").classList.add("wrong");
      this.find("key-form").elements.key.focus();
    }

    /** What is wrong with the number, or where it is. True when it can be sent. */
    checkNumber() {
      const { callWords, phoneNumber } = globalThis.Ahoy;
      const phone = this.telephone.state.phone ?? {};
      const { wrong, short, country, outside } = phoneNumber.look(this.number.value, phone);
      const kind = wrong ?? (short && this.tried ? "short" : null);
      const hint = this.find("number-hint");
      const text = kind ? callWords.wrong(kind, phone) : country ? callWords.country(country) : "";
      if (hint.textContent !== text) hint.textContent = text;
      hint.classList.toggle("wrong", Boolean(kind));
      this.number.setAttribute("aria-invalid", String(Boolean(kind)));
      this.find("allowed-hint").classList.toggle("doubt", outside);
      return !wrong && !short;
    }

    show(state) {
      const view = state.progress ? "call" : state.stage === "ready" || (state.phone?.outbound && state.locked) ? "number" : "none";
      this.view = view;
      if (state.progress === "over" && !this.dialog.open && this.going) this.seen = false;
      this.going = this.telephone.busy;
      this.showKey(state);
      this.showClosed(state, view);
      this.showProblem(state);
      this.form.hidden = view !== "number" || state.locked !== null;
      this.find("call-view").hidden = view !== "call";
      if (view === "call") this.showCall(state);
      else this.captions.clear();
      if (view === "number") this.showNumber(state);
      this.showOpener(state);
      this.tick();
      const step = `${view} ${state.progress} ${state.locked !== null}`;
      if (step === this.step) return;
      this.step = step;
      if (this.dialog.open) this.focusFirst();
    }

    showNumber({ phone, attempt }) {
      const allowed = globalThis.Ahoy.callWords.allowed(phone.allowed);
      this.find("allowed-hint").textContent = allowed;
      this.find("call-go").querySelector(".text").textContent = attempt?.unsure ? "Try again" : "Call";
      this.checkNumber();
    }

    showKey({ locked }) {
      const form = this.find("key-form");
      if (form.hidden === (locked === null)) return;
      form.hidden = locked === null;
      const hint = this.find("key-hint");
      hint.textContent = locked ?? "";
      hint.classList.toggle("wrong", Boolean(this.keyGiven)); // to be asked for it first is no mistake
    }

    showClosed({ stage, phone, trouble, locked }, view) {
      const box = this.find("call-closed");
      const asking = view === "none" && (stage === "asking" || stage === "unknown") && locked === null;
      this.find("call-asking").hidden = !asking;
      box.hidden = view !== "none" || asking || locked !== null;
      if (box.hidden) return;
      const { title, text, action } = globalThis.Ahoy.callWords.closed({ stage, phone, trouble }, this.foreign());
      box.querySelector(".title").textContent = title;
      box.querySelector(".text").textContent = text;
      this.find("call-look").textContent = action;
    }

    showProblem({ problem, locked }) {
      const box = this.find("call-problem");
      box.hidden = !problem || locked !== null;
      if (box.hidden) return;
      const { title, text } = globalThis.Ahoy.callWords.problem(problem);
      this.find("call-anew").hidden = !problem.stuck;
      box.querySelector(".title").textContent = title;
      box.querySelector(".text").textContent = text;
    }

    showCall(state) {
      const { callWords, phoneNumber } = globalThis.Ahoy;
      const { title, hint, tone } = callWords.status(state);
      const { call, attempt, lost, ending } = state;
      const over = state.progress === "over";
      this.find("call-view").dataset.tone = tone;
      this.find("call-number").textContent = phoneNumber.forReading(call?.to || attempt?.number || "");
      this.find("call-status").textContent = title;
      this.find("call-hint").textContent = hint;
      if (call) this.captions.show(call.captions ?? []);
      else this.captions.clear();
      this.find("call-scroller").hidden = !call?.captions?.length;
      const hangUp = this.find("hang-up");
      hangUp.hidden = over;
      hangUp.setAttribute("aria-disabled", String(ending)); // not disabled: that would lose the focus
      hangUp.querySelector(".text").textContent = ending ? "Hanging up…" : "Hang up";
      this.find("call-after").hidden = !over;
      this.find("call-again").querySelector(".text").textContent = lost?.code === "gone" ? "Look again" : "Call again";
      this.say(`${title}. ${hint}`.trim());
    }

    /** The button in the header: an icon, and during a call how it stands. */
    showOpener(state) {
      const { opener } = this;
      const shown = Boolean(state.progress) && (this.telephone.busy || !this.seen);
      const words = shown ? globalThis.Ahoy.callWords.status(state) : null;
      opener.dataset.tone = words?.tone ?? "";
      opener.querySelector(".text").hidden = !shown;
      this.short = words?.short ?? "";
      name(this.find("call-close"), this.telephone.busy ? "Close; the call goes on" : "Close the call panel");
      name(opener, words ? `Phone call: ${words.title}. Show it` : "Call a phone");
    }

    /** The time that the call has lasted, counted on from the server's last word. */
    tick() {
      const { call, seenMs, progress, line, lost } = this.telephone.state;
      const talking = progress === "going" && call.status === "in-progress";
      if (talking && !this.timer) this.timer = setInterval(() => this.tick(), TICK_MS);
      if (!talking) {
        clearInterval(this.timer);
        this.timer = null;
      }
      const since = talking && !line ? (performance.now() - seenMs) / 1000 : 0;
      const shown = talking || (progress === "over" && call.duration_s > 0 && !lost);
      const time = shown ? globalThis.Ahoy.callWords.clock(call.duration_s + since) : "";
      write(this.find("call-time"), time);
      write(this.opener.querySelector(".text"), talking && !this.telephone.state.ending ? time : this.short);
    }

    /** Read out how the call stands, where it can be heard: a modal drawer silences the rest of the page. */
    say(text) {
      const [here, there] = this.dialog.open ? [this.find("call-news"), this.news] : [this.news, this.find("call-news")];
      if (text === this.said) return;
      this.said = text;
      here.textContent = text;
      there.textContent = "";
    }

    focusFirst() {
      const { state } = this.telephone;
      if (state.locked !== null) this.find("key-form").elements.key.focus();
      else if (this.view === "number" && state.problem) this.find("call-go").focus();
      else if (this.view === "number") this.number.select();
      else if (this.view === "call") this.find(state.progress === "over" ? "call-again" : "hang-up").focus();
    }
  }

  function name(button, text) {
    if (button.title === text) return;
    button.setAttribute("aria-label", text);
    button.title = text;
  }

  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  globalThis.Ahoy.CallPanel = CallPanel;
}
