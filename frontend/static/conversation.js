/**
 * The conversation as the page sees it: brings line, microphone and speaker together and keeps the state to be shown.
 *
 * No DOM here. What there is to show goes to `on`: `state(state)`, `level(0..1)` of the user, `caption(kind, message)`,
 * `latency(message)`, `usage(message)` or null when a conversation begins, `offer(ready)`, `notice(key)` with a key of
 * words.notices or null to take it back, and `problem(error message)`.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  /** After a pause without a transcript this long, it was no speech. */
  const PAUSE_MS = 1500;
  /** In half duplex the microphone stays closed this long after the last sound: the room still rings. */
  const ROOM_MS = 250;
  const MAX_PENDING_TEXTS = 5;
  /** When the microphone takes this long, the browser is asking the user for it. */
  const ASKING_AFTER_MS = 600;

  class Conversation {
    constructor(preferences, on, { record = false } = {}) {
      const { Connection, Microphone } = globalThis.Ahoy;
      this.preferences = preferences;
      this.on = on;
      this.record = record;
      this.state = {
        phase: "idle", // connecting, live, reconnecting, ended
        activity: "listening", // hearing, thinking, speaking
        microphone: "off", // asking, on, denied, none, busy, insecure, unplugged
        muted: false,
        halfDuplex: preferences.get("halfDuplex"),
        attempt: 0,
        why: null, // the line is down, or the conversation has ended
        again: false, // it was live before
      };
      this.sent = { frames: 0, silent_frames: 0 };
      this.pending = []; // typed before the line was up
      this.microphone = new Microphone({
        frame: (samples, level) => this.heard(samples, level),
        lost: () => this.withoutMicrophone("unplugged"),
      });
      this.connection = new Connection({
        phase: (phase, detail) => this.phase(phase, detail),
        ready: (message) => this.on.offer(message),
        start: (again) => this.startMessage(again),
        message: (message) => this.message(message),
        audio: (samples) => this.speaker?.add(samples),
      });
    }

    get running() {
      return ["connecting", "live", "reconnecting"].includes(this.state.phase);
    }

    /** Begin to talk; call it from a click or a key. `typing` starts without the microphone and without a greeting. */
    async start({ typing = false } = {}) {
      if (this.running) return;
      const url = globalThis.Ahoy.address.serverUrl(this.preferences.get("server"));
      if (!url) {
        this.phase("ended", { why: "address" });
        return;
      }
      this.typing = typing;
      this.set({ phase: "connecting", muted: false, why: null, attempt: 0, again: false });
      this.microphone.mute(false);
      try {
        await this.openSound();
      } catch {
        this.phase("ended", { why: "audio" });
        return;
      }
      if (!this.running) return; // ended while the browser was asked
      if (!this.speaker) this.on.notice("insecure");
      this.microphoneSettled = typing ? Promise.resolve() : this.openMicrophone();
      this.connection.open(url);
    }

    end() {
      if (this.running) this.connection.end();
    }

    /** Say it in writing. Starts a conversation if there is none. */
    type(text) {
      if (this.connection.send({ type: "text", text })) {
        this.speaker?.refuse();
        return;
      }
      this.pending = [...this.pending, text].slice(-MAX_PENDING_TEXTS);
      if (!this.running) this.start({ typing: true });
    }

    /** Stop the answer. */
    interrupt() {
      if (this.state.phase !== "live") return;
      this.speaker?.refuse();
      this.connection.send({ type: "interrupt" });
    }

    /** Mute or unmute; without a microphone, try to get one. */
    async toggleMicrophone() {
      if (!this.running) return;
      if (this.state.microphone !== "on") {
        await this.openMicrophone();
        this.connection.send({ type: "mute", muted: this.quiet });
        return;
      }
      const muted = !this.state.muted;
      this.microphone.mute(muted);
      this.connection.send({ type: "mute", muted });
      this.set({ muted });
      this.on.level(0);
    }

    /** The chosen microphone, or the half-duplex switch, has changed. */
    async preferencesChanged(name) {
      if (name === "halfDuplex") this.set({ halfDuplex: this.preferences.get("halfDuplex") });
      if (name === "microphone" && this.microphone.isOpen) await this.openMicrophone();
    }

    /** A device came or went: if the microphone was lost, it may be back. */
    async devicesChanged() {
      if (this.running && this.state.microphone === "unplugged") await this.toggleMicrophone();
    }

    get quiet() {
      return this.state.muted || this.state.microphone !== "on";
    }

    get sounding() {
      return (this.speaker?.sounding ?? null) !== null;
    }

    async openSound() {
      if (!this.context) {
        // The device's own rate: the worklets resample, because browsers do not all mix rates.
        this.context = new AudioContext({ latencyHint: "interactive" });
        // Browsers hide it, like the microphone, from http pages of other machines: then there is text only.
        if (!this.context.audioWorklet) return;
        await globalThis.Ahoy.addWorklets(this.context);
        this.speaker = new globalThis.Ahoy.Speaker(
          this.context,
          {
            playing: () => this.set({ activity: "speaking" }),
            played: (reply, ms) => this.connection.send({ type: "playback", reply, played_ms: ms }),
            silent: () => this.silent(),
          },
          { record: this.record },
        );
      }
      await this.context.resume();
    }

    async openMicrophone() {
      const asking = setTimeout(() => this.set({ microphone: "asking" }), ASKING_AFTER_MS);
      try {
        await this.microphone.open(this.context, this.preferences.get("microphone"));
      } catch (error) {
        clearTimeout(asking);
        this.withoutMicrophone(error.kind ?? "busy");
        return;
      }
      clearTimeout(asking);
      if (!this.running) {
        this.microphone.close();
        return;
      }
      this.set({ microphone: "on" });
      this.on.notice(null);
    }

    withoutMicrophone(kind) {
      this.set({ microphone: kind });
      this.on.level(0);
      if (!this.running) return;
      this.connection.send({ type: "mute", muted: true });
      this.on.notice(kind);
    }

    async startMessage(again) {
      await this.microphoneSettled;
      const message = { greeting: !again && !this.typing };
      for (const name of ["voice", "language"]) {
        const value = this.preferences.get(name);
        if (value && this.on.isOffered(name, value)) message[name] = value;
      }
      return message;
    }

    heard(samples, level) {
      const { muted, activity, halfDuplex } = this.state;
      if (muted || this.state.phase !== "live") return;
      if (activity === "speaking") this.soundedAt = performance.now();
      const closed = halfDuplex && performance.now() - (this.soundedAt ?? -ROOM_MS) < ROOM_MS;
      if (closed) samples.fill(0); // silence keeps the server's clock running
      this.sent.frames += 1;
      this.sent.silent_frames += closed ? 1 : 0;
      this.on.level(closed ? 0 : level);
      this.connection.sendAudio(samples);
    }

    phase(phase, detail) {
      this.set({ phase, activity: "listening", attempt: 0, why: null, ...detail });
      if (phase === "reconnecting") this.speaker?.clear();
      if (phase === "live") {
        if (this.quiet) this.connection.send({ type: "mute", muted: true });
        for (const text of this.pending.splice(0)) this.connection.send({ type: "text", text });
      }
      if (phase !== "ended") return;
      this.pending = [];
      this.speaker?.clear();
      this.microphone.close();
      this.set({ microphone: "off", muted: false });
      this.on.level(0);
    }

    message(message) {
      const show = () => this.on.caption(message.type, message);
      const does = {
        started: () => {
          show();
          this.on.usage(null);
        },
        "speech.started": () => this.set({ activity: "hearing" }),
        "speech.stopped": () => this.paused(),
        "transcript.partial": show,
        "transcript.final": () => {
          show();
          if (message.text) this.set({ activity: "thinking" });
          else this.rest(); // it was a noise, not words
        },
        "turn.reopened": () => {
          show();
          this.set({ activity: "hearing" });
        },
        "reply.text": show,
        "reply.rewritten": show,
        "reply.done": () => {
          show();
          if (!this.sounding && this.state.activity !== "hearing") this.set({ activity: "listening" });
        },
        "audio.start": () => this.speaker?.begin(message.reply),
        "audio.end": () => this.speaker?.end(message.reply),
        "audio.hold": () => this.speaker?.hold(),
        "audio.resume": () => this.speaker?.resume(),
        clear: () => this.speaker?.clear(),
        latency: () => message.turn > 0 && this.on.latency(message), // a greeting answers nobody
        usage: () => this.on.usage(message),
        error: () => this.on.problem(message),
      }[message.type];
      does?.();
    }

    paused() {
      clearTimeout(this.pause);
      this.pause = setTimeout(() => {
        if (this.state.activity === "hearing") this.rest();
      }, PAUSE_MS);
    }

    /** A reply ended: listening again, unless the user speaks or the next answer is already being made. */
    silent() {
      if (this.state.activity === "speaking") this.set({ activity: "listening" });
    }

    rest() {
      this.set({ activity: this.sounding ? "speaking" : "listening" });
    }

    set(changes) {
      Object.assign(this.state, changes);
      if (changes.activity === "hearing") clearTimeout(this.pause);
      this.on.state(this.state);
    }
  }

  globalThis.Ahoy.Conversation = Conversation;
}
