/**
 * The telephone as the page sees it: whether the server can place calls, and the call that this page has placed.
 *
 * No DOM here. Everything there is to show is in `state`, which goes to `on.state(state)` after every change.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  /** The server asks Twilio, which may take its time. */
  const PLACING_MS = 30_000;
  const HANGING_UP_MS = 15_000;
  /** After hanging up the end comes within a second; when it does not, one may try again. */
  const ENDING_MS = 10_000;
  /** Where this tab remembers its call, so that a reloaded page can still hang up. */
  const CALL = "ahoy.call";

  class Telephone {
    /**
     * @param {() => string|null} base where the server's API begins at the moment
     * @param {object} on `state(state)`
     */
    constructor(base, on, storage = tryStorage()) {
      Object.assign(this, { base, on, storage, api: null, watch: null });
      this.state = {
        stage: "unknown", // asking, ready, closed (the server places no calls), trouble
        phone: null, // the server's answer to GET /api/phone
        trouble: null, // why that is not known: an ApiError
        locked: null, // the server wants its key: its message
        progress: null, // placing, going, over
        attempt: null, // {number, key, kept, unsure}: what was asked for; the key is kept while it may have been placed
        problem: null, // {error, about}: placing or ending went wrong
        call: null, // the server's latest picture of it
        seenMs: 0, // when that came, by performance.now()
        ending: false, // hanging up
        line: null, // an ApiError while the server cannot be reached during the call
        lost: null, // an ApiError when the end of the call was not seen
      };
    }

    get busy() {
      return ["placing", "going"].includes(this.state.progress);
    }

    /** Ask the server what its telephone can do. */
    async look() {
      if (this.busy || this.state.stage === "asking") return;
      const base = this.base();
      if (!base) {
        this.set({ stage: "trouble", trouble: new globalThis.Ahoy.ApiError("address") });
        return;
      }
      if (this.api?.base !== base) {
        this.api = new globalThis.Ahoy.ServerApi(base);
        this.set({ phone: null, stage: "unknown", locked: null, progress: null, attempt: null, problem: null, call: null });
      }
      const { api } = this;
      if (this.state.stage !== "ready") this.set({ stage: "asking" });
      try {
        const phone = await api.ask("GET", "api/phone");
        if (api === this.api) this.set({ phone, stage: phone.outbound ? "ready" : "closed", locked: null, trouble: null });
      } catch (error) {
        if (api !== this.api) return;
        if (error.status === 401) this.set({ stage: "unknown", locked: error.message });
        else this.set({ stage: "trouble", trouble: error, locked: null });
      }
    }

    /** The server's key, for whatever it was asked for. */
    unlock(key) {
      const { api, state } = this;
      api.key = key;
      this.set({ locked: null, problem: null });
      if (state.progress === "going") this.follow(state.call.sid);
      else this.look();
    }

    /**
     * Call the number, once: while it is being asked for, and while a call goes on, nothing happens. Asking again after
     * an answer that never came repeats the same request under the same key, so that the server cannot dial twice.
     */
    async place(number) {
      if (this.busy || !this.api) return;
      const { api } = this;
      const last = this.state.attempt;
      const again = Boolean(last?.kept) && last.number === number;
      const attempt = { number, key: again ? last.key : newKey(), kept: false, unsure: false };
      this.set({ attempt, progress: "placing", call: null, problem: null, ending: false, line: null, lost: null });
      try {
        const headers = { "Idempotency-Key": attempt.key };
        const call = await api.ask("POST", "api/call", { json: { number }, headers, timeoutMs: PLACING_MS });
        this.take(call);
      } catch (error) {
        const locked = error.status === 401 ? error.message : null;
        const unsure = mayHaveDialled(error);
        const kept = unsure || error.status >= 500; // where nothing was dialled the server takes the key once more
        const problem = { error, about: unsure ? "unsure" : "placing", stuck: unsure && again && error.status > 0 };
        this.set({ progress: null, ending: false, attempt: { ...attempt, kept, unsure }, locked, problem });
        return;
      }
      if (this.state.progress !== "going") return;
      this.follow(this.state.call.sid);
      if (this.state.ending) this.end();
    }

    /** The number is another one now: what went wrong with the last one no longer counts. */
    edited() {
      if (!this.busy && (this.state.attempt || this.state.problem)) this.set({ attempt: null, problem: null });
    }

    /** Whoever has found out that the call was not placed may let it be a new one. */
    placeAnew() {
      const { number } = this.state.attempt;
      this.edited();
      return this.place(number);
    }

    /** Hang up; a call that is just being asked for is hung up as soon as it is there. */
    hangUp() {
      if (!this.busy || this.state.ending) return;
      this.set({ ending: true, problem: null });
      if (this.state.progress === "going") this.end();
    }

    /** The call is over and seen: make room for the next. */
    clear() {
      if (!this.busy) this.set({ progress: null, call: null, lost: null, line: null, problem: null });
    }

    /** The end of the call was not seen: look for it once more. */
    watchAgain() {
      if (!this.state.lost) return;
      this.set({ progress: "going", lost: null, line: null });
      this.follow(this.state.call.sid);
    }

    /** A call that this tab placed before it was reloaded. */
    resume() {
      try {
        const { sid, base } = JSON.parse(this.storage?.getItem(CALL) ?? "{}");
        if (typeof sid !== "string" || typeof base !== "string") return;
        this.api = new globalThis.Ahoy.ServerApi(base);
        this.resuming = true;
        this.set({ progress: "going", call: { sid, to: "", status: "queued", captions: [], duration_s: 0 } });
        this.follow(sid);
      } catch {
        // Not ours, or not readable.
      }
    }

    async end() {
      const { api } = this;
      const { sid } = this.state.call;
      try {
        const call = await api.ask("DELETE", `api/call/${encodeURIComponent(sid)}`, { timeoutMs: HANGING_UP_MS });
        if (this.state.call?.sid === sid) this.take(call);
        setTimeout(() => this.notEnded(sid, new globalThis.Ahoy.ApiError("timeout")), ENDING_MS);
      } catch (error) {
        this.notEnded(sid, error);
      }
    }

    notEnded(sid, error) {
      if (this.state.call?.sid !== sid || !this.state.ending) return;
      if (error.status === 401) this.set({ ending: false, locked: error.message });
      else this.set({ ending: false, problem: { error, about: "ending" } });
    }

    follow(sid) {
      this.remember(sid);
      this.watch?.stop();
      this.watch = new globalThis.Ahoy.CallWatch(this.api, sid, {
        call: (call) => this.take(call),
        trouble: (error) => this.set({ line: error }),
        ended: (error) => this.unseen(error),
      });
    }

    /** The server's picture of the call; one that is older than its end is of no use. */
    take(call) {
      if (this.state.progress === "over") return;
      this.resuming = false;
      const over = globalThis.Ahoy.isFinal(call.status);
      const rest = over ? { ending: false, problem: null } : {};
      this.set({ call, seenMs: performance.now(), line: null, progress: over ? "over" : "going", ...rest });
      if (!over) return;
      this.watch?.stop();
      this.remember(null);
    }

    unseen(error) {
      if (error.status === 401) {
        this.set({ locked: error.message });
        return;
      }
      if (error.code !== "gone") this.remember(null);
      // After a reload nobody is waiting for a call of long ago.
      if (this.resuming) this.set({ progress: null, call: null });
      else this.set({ progress: "over", lost: error, ending: false, line: null });
      this.resuming = false;
    }

    remember(sid) {
      try {
        if (sid) this.storage?.setItem(CALL, JSON.stringify({ sid, base: this.api.base }));
        else this.storage?.removeItem(CALL);
      } catch {
        // Full or forbidden: then a reloaded page does not know its call.
      }
    }

    set(changes) {
      Object.assign(this.state, changes);
      this.on.state(this.state);
    }
  }

  /** No answer, or one of something between here and Twilio: the call may have been placed all the same. */
  function mayHaveDialled({ status, twilioCode }) {
    if (status === 0 || status === 409) return true; // 409: the first request with this key is not done
    return status >= 500 && status !== 503 && twilioCode === null;
  }

  /** crypto.randomUUID() is missing on plain http:// pages. */
  function newKey() {
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  function tryStorage() {
    try {
      return globalThis.sessionStorage;
    } catch {
      return null;
    }
  }

  globalThis.Ahoy.Telephone = Telephone;
}
