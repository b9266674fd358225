/**
 * The speaker: what the server sends goes into the playback worklet, and what was really played comes back.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  /** A recording of what was played (only with `record`) keeps the last 15 minutes. */
  const MAX_RECORDED_S = 900;

  class Speaker {
    /**
     * @param {object} on `playing(reply)` when a reply begins to sound, `played(reply, ms)` about five times a second
     *   and when it ends, `silent()` when nothing sounds any more
     */
    constructor(context, on, { record = false } = {}) {
      this.context = context;
      this.on = on;
      this.reply = null; // whose audio arrives
      this.refused = null; // a reply the user stopped here, whose audio may still be on its way
      this.sounding = null; // the reply that is being heard
      this.counts = { underruns: 0, dropped: 0 };
      this.recorded = [];
      this.recordedSamples = 0;
      this.node = new AudioWorkletNode(context, "ahoy-playback", {
        numberOfInputs: 0,
        outputChannelCount: [1],
        processorOptions: { record },
      });
      this.meter = new AnalyserNode(context, { fftSize: 1024 });
      this.window = new Float32Array(this.meter.fftSize);
      this.node.connect(this.meter).connect(context.destination);
      this.node.port.onmessage = ({ data }) => this.take(data);
    }

    /** The audio that follows belongs to this reply. */
    begin(reply) {
      this.reply = reply;
      this.refused = null;
      this.node.port.postMessage({ type: "resume" });
    }

    add(samples) {
      if (this.reply === null || this.reply === this.refused) return;
      this.node.port.postMessage({ type: "audio", reply: this.reply, samples }, [samples.buffer]);
    }

    end(reply) {
      this.node.port.postMessage({ type: "end", reply });
    }

    /** Silence at once. */
    clear() {
      this.node.port.postMessage({ type: "clear" });
    }

    /** Silence at once, before the server knows; what it still sends of this reply is not played. */
    refuse() {
      this.refused = this.reply;
      this.clear();
    }

    hold() {
      this.node.port.postMessage({ type: "hold" });
    }

    resume() {
      this.node.port.postMessage({ type: "resume" });
    }

    /** How loud it is now: root mean square, 0 to 1. */
    get level() {
      if (this.sounding === null) return 0;
      this.meter.getFloatTimeDomainData(this.window);
      let sum = 0;
      for (const value of this.window) sum += value * value;
      return Math.sqrt(sum / this.window.length);
    }

    take(message) {
      if (message.type === "playing") {
        this.sounding = message.reply;
        this.on.playing(message.reply);
      } else if (message.type === "played") {
        // Rendered is not heard yet: the device plays it this much later.
        const ahead = 1000 * (this.context.outputLatency || this.context.baseLatency || 0);
        this.on.played(message.reply, Math.max(0, message.played_ms - ahead));
      } else if (message.type === "finished") {
        this.on.played(message.reply, message.played_ms);
        if (this.sounding !== message.reply) return;
        this.sounding = null;
        this.on.silent(message.reply);
      } else if (message.type === "counts") {
        this.counts = { underruns: message.underruns, dropped: message.dropped };
      } else if (message.type === "recorded") this.keep(message.samples);
    }

    keep(samples) {
      this.recorded.push(samples);
      this.recordedSamples += samples.length;
      while (this.recordedSamples > MAX_RECORDED_S * this.context.sampleRate) {
        this.recordedSamples -= this.recorded.shift().length;
      }
    }

    /** Everything that was rendered since the page was opened: {rate_hz, pcm16 (base64, little-endian, mono)}. */
    recording() {
      const pcm = new DataView(new ArrayBuffer(2 * this.recordedSamples));
      let at = 0;
      for (const block of this.recorded) {
        for (const value of block) {
          pcm.setInt16(at, Math.round(Math.max(-1, Math.min(1, value)) * 32767), true);
          at += 2;
        }
      }
      const bytes = new Uint8Array(pcm.buffer);
      let text = "";
      for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
      return { rate_hz: this.context.sampleRate, pcm16: btoa(text) };
    }
  }

  globalThis.Ahoy.Speaker = Speaker;
}
