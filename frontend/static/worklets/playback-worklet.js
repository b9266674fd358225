/**
 * The speaker's end: pulls 16 kHz samples from a PlaybackQueue, brings them to the context's rate, and tells the page
 * what was really played.
 *
 * In: {type: "audio", reply, samples (Int16Array)}, {type: "end", reply}, {type: "clear"}, {type: "hold"},
 * {type: "resume"}. Out: {type: "playing", reply}, {type: "played", reply, played_ms} five times a second,
 * {type: "finished", reply, played_ms} at a reply's end or when it is cleared, {type: "counts", underruns, dropped}
 * with it, and with `record` {type: "recorded", samples (Float32Array)} of everything that was rendered.
 */
"use strict";
globalThis.Ahoy ??= {};
(globalThis.Ahoy.audioCode ??= []).push(function playbackWorklet() {
  if (typeof registerProcessor === "undefined") return;
  const RATE_HZ = 16000;
  const REPORT_SAMPLES = RATE_HZ / 5;
  const RECORD_FRAMES = 8192;
  const SAMPLES_PER_MS = RATE_HZ / 1000;

  class PlaybackProcessor extends AudioWorkletProcessor {
    constructor({ processorOptions }) {
      super();
      this.queue = new globalThis.Ahoy.PlaybackQueue();
      this.resampler = new globalThis.Ahoy.StreamResampler(RATE_HZ, sampleRate);
      this.input = new Float32Array(8192);
      this.sincePlayed = 0;
      this.announced = null; // the segment the page was told is playing
      this.record = processorOptions.record ? { samples: new Float32Array(RECORD_FRAMES), filled: 0 } : null;
      this.port.onmessage = ({ data }) => this.take(data);
    }

    take(message) {
      if (message.type === "audio") this.queue.add(message.reply, message.samples);
      else if (message.type === "end") this.queue.end(message.reply);
      else if (message.type === "clear") this.queue.clear();
      else if (message.type === "hold") this.queue.held = true;
      else if (message.type === "resume") this.queue.held = false;
      this.tellFinished();
    }

    process(_inputs, outputs) {
      const [output] = outputs[0];
      const count = this.resampler.inputFor(output.length);
      const wasPlaying = this.queue.playing;
      this.queue.read(this.input, count);
      this.resampler.push(this.input, count, output);
      for (let channel = 1; channel < outputs[0].length; channel += 1) outputs[0][channel].set(output);
      this.report(count, wasPlaying);
      if (this.record) this.keep(output);
      return true;
    }

    report(count, wasPlaying) {
      this.tellFinished();
      const { current, playing } = this.queue;
      if (playing && current !== this.announced) {
        this.announced = current;
        this.sincePlayed = 0;
        this.port.postMessage({ type: "playing", reply: current.reply });
      }
      this.sincePlayed += count;
      const dry = wasPlaying && !playing && current;
      if (dry || (playing && this.sincePlayed >= REPORT_SAMPLES)) {
        this.sincePlayed = 0;
        this.port.postMessage({ type: "played", reply: current.reply, played_ms: current.played / SAMPLES_PER_MS });
      }
    }

    tellFinished() {
      while (this.queue.finished.length) {
        const { reply, played } = this.queue.finished.shift();
        this.port.postMessage({ type: "finished", reply, played_ms: played / SAMPLES_PER_MS });
        this.port.postMessage({ type: "counts", underruns: this.queue.underruns, dropped: this.queue.dropped });
      }
    }

    keep(output) {
      const { record } = this;
      if (record.filled + output.length > RECORD_FRAMES) {
        this.port.postMessage({ type: "recorded", samples: record.samples.slice(0, record.filled) });
        record.filled = 0;
      }
      record.samples.set(output, record.filled);
      record.filled += output.length;
    }
  }

  registerProcessor("ahoy-playback", PlaybackProcessor);
});
globalThis.Ahoy.audioCode.at(-1)();
