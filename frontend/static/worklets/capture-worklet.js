/**
 * The microphone's end: brings what the device gives to 16 kHz and hands the page 20 ms frames.
 *
 * Out: {samples (Int16Array of 320), level (root mean square, 0 to 1)}. In: nothing. A stereo microphone is averaged.
 */
"use strict";
globalThis.Ahoy ??= {};
(globalThis.Ahoy.audioCode ??= []).push(function captureWorklet() {
  if (typeof registerProcessor === "undefined") return;
  const RATE_HZ = 16000;
  const FRAME = 320;

  class CaptureProcessor extends AudioWorkletProcessor {
    constructor() {
      super();
      this.resampler = new globalThis.Ahoy.StreamResampler(sampleRate, RATE_HZ);
      this.mono = new Float32Array(2048);
      this.output = new Float32Array(this.resampler.outputFor(2048));
      this.frame = new Int16Array(FRAME);
      this.filled = 0;
      this.energy = 0;
    }

    process([channels]) {
      if (!channels.length) return true;
      const count = channels[0].length;
      for (let i = 0; i < count; i += 1) {
        let sum = 0;
        for (let channel = 0; channel < channels.length; channel += 1) sum += channels[channel][i];
        this.mono[i] = sum / channels.length;
      }
      const written = this.resampler.push(this.mono, count, this.output);
      for (let i = 0; i < written; i += 1) this.take(this.output[i]);
      return true;
    }

    take(value) {
      const sample = Math.max(-1, Math.min(1, value));
      this.energy += sample * sample;
      this.frame[this.filled] = Math.round(sample * 32767);
      this.filled += 1;
      if (this.filled < FRAME) return;
      const samples = this.frame.slice(); // handed over to the page: one small allocation each 20 ms
      this.port.postMessage({ samples, level: Math.sqrt(this.energy / FRAME) }, [samples.buffer]);
      this.filled = 0;
      this.energy = 0;
    }
  }

  registerProcessor("ahoy-capture", CaptureProcessor);
});
globalThis.Ahoy.audioCode.at(-1)();
