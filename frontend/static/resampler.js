/**
 * Changes the sample rate of a stream without clicks at block borders, for the microphone and for the speaker.
 *
 * The conversation is 16 kHz; an AudioContext runs at whatever the device likes (Firefox refuses anything else). The
 * ratio of two whole rates is a fraction up/down, so a polyphase filter hits every output sample exactly. The prototype
 * is a sinc under a Kaiser window: stop band -80 dB, its edge at half of the lower rate, so nothing folds back.
 * A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", 3rd ed., section 7.6 (window, transition width).
 *
 * Like every file in `Ahoy.audioCode` this one runs in two places: in the page, and inside the AudioWorklet, where
 * `worklets.js` takes the source text of the function. So it must not use anything outside of itself but `Ahoy`.
 */
"use strict";
globalThis.Ahoy ??= {};
(globalThis.Ahoy.audioCode ??= []).push(function resampler() {
  /** Zero crossings of the sinc on each side: 2 ms of delay at 16 kHz. */
  const CROSSINGS = 32;
  const STOP_BAND_DB = 80;
  const KAISER_BETA = 0.1102 * (STOP_BAND_DB - 8.7);
  /** Rates that share no useful divisor get this many filter phases, the nearest is taken. */
  const MAX_PHASES = 1024;
  /** The most samples one `push` may bring. */
  const MAX_BLOCK = 8192;

  class StreamResampler {
    /** @param {number} fromHz whole input rate; @param {number} toHz whole output rate */
    constructor(fromHz, toHz) {
      if (!(fromHz >= 3000 && toHz >= 3000)) throw new RangeError(`Cannot resample ${fromHz} Hz to ${toHz} Hz`);
      const divisor = gcd(Math.round(fromHz), Math.round(toHz));
      this.up = Math.round(toHz) / divisor;
      this.down = Math.round(fromHz) / divisor;
      this.phases = Math.min(this.up, MAX_PHASES);
      this.filter = this.up === this.down ? null : design(this.up, this.down, this.phases);
      this.taps = this.filter ? this.filter[0].length : 1;
      this.history = new Float32Array(this.taps + MAX_BLOCK);
      this.reset();
    }

    /** Forget the past: as if only silence had come so far. */
    reset() {
      this.history.fill(0);
      this.filled = this.taps - 1;
      this.position = 0; // of the next output sample, in 1/up of an input sample after history[taps - 1]
    }

    /** The most samples `push` can give for `count` input samples. */
    outputFor(count) {
      return Math.ceil(((count + 1) * this.up) / this.down) + 1;
    }

    /** How many input samples `push` needs to give `count` output samples. */
    inputFor(count) {
      if (count <= 0) return 0;
      const last = this.position + (count - 1) * this.down;
      return Math.max(0, Math.floor(last / this.up) + this.taps - this.filled);
    }

    /**
     * Take `count` samples of `input` and write what they give to `output`; what finds no room there comes next time.
     * @returns {number} samples written
     */
    push(input, count, output) {
      const { history, taps, up, down } = this;
      for (let i = 0; i < count; i += 1) history[this.filled + i] = input[i];
      this.filled += count;
      let written = 0;
      while (written < output.length) {
        const offset = Math.floor(this.position / up);
        if (offset + taps > this.filled) break;
        output[written] = this.at(offset, this.position - offset * up);
        written += 1;
        this.position += down;
      }
      const used = Math.min(Math.floor(this.position / up), this.filled);
      history.copyWithin(0, used, this.filled);
      this.filled -= used;
      this.position -= used * up;
      return written;
    }

    at(offset, phase) {
      const { history } = this;
      if (!this.filter) return history[offset];
      const taps = this.filter[Math.floor((phase * this.phases) / this.up)];
      let sum = 0;
      for (let i = 0; i < taps.length; i += 1) sum += taps[i] * history[offset + i];
      return sum;
    }
  }

  /** One row of taps for each phase, each row with a gain of exactly 1 at 0 Hz. */
  function design(up, down, phases) {
    const stretch = Math.max(1, down / up); // input samples per zero crossing
    const half = Math.ceil(CROSSINGS * stretch);
    const transition = (STOP_BAND_DB - 8) / (2.285 * 2 * Math.PI * 2 * CROSSINGS); // cycles per sample, lower rate
    const cutoff = (0.5 - transition / 2) / stretch; // cycles per input sample
    const rows = [];
    for (let phase = 0; phase < phases; phase += 1) {
      const row = new Float32Array(2 * half);
      let sum = 0;
      for (let i = 0; i < row.length; i += 1) {
        const at = i - (half - 1) - phase / phases;
        row[i] = 2 * cutoff * sinc(2 * cutoff * at) * kaiser(at / half);
        sum += row[i];
      }
      rows.push(row.map((tap) => tap / sum));
    }
    return rows;
  }

  const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
  const kaiser = (x) => (Math.abs(x) >= 1 ? 0 : bessel0(KAISER_BETA * Math.sqrt(1 - x * x)) / bessel0(KAISER_BETA));
  const gcd = (a, b) => (b ? gcd(b, a % b) : a);

  /** The modified Bessel function of the first kind and order 0, by its power series. */
  function bessel0(x) {
    let term = 1;
    let sum = 1;
    for (let k = 1; term > sum * 1e-12; k += 1) {
      term *= (x / (2 * k)) ** 2;
      sum += term;
    }
    return sum;
  }

  globalThis.Ahoy.StreamResampler = StreamResampler;
});
globalThis.Ahoy.audioCode.at(-1)();
