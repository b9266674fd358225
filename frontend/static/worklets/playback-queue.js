/**
 * The queue between the network and the speaker, as plain code without an AudioWorklet around it, so it can be tested.
 *
 * All at 16 kHz, where one sample in is one sample heard. Whatever happens to the queue (runs dry, is cleared, is held)
 * changes a gain that moves in small steps, never the waveform: nothing clicks.
 */
"use strict";
globalThis.Ahoy ??= {};
(globalThis.Ahoy.audioCode ??= []).push(function playbackQueue() {
  const RATE_HZ = 16000;
  /** The server sends about 200 ms ahead; this is for a server that does not keep to it. */
  const CAPACITY = 20 * RATE_HZ;
  /** Over this many samples (5 ms) sound comes and goes. */
  const FADE = 80;
  /** After silence, wait until this much (60 ms) is there, or this long for it: a late packet is then not heard. */
  const START_SAMPLES = 960;
  /** While the user may be interrupting, the reply plays on at this gain, reached over 20 ms. */
  const HELD_GAIN = 0.2;
  const HOLD_STEP = 1 / 320;

  class PlaybackQueue {
    constructor() {
      this.ring = new Int16Array(CAPACITY);
      this.head = 0;
      this.size = 0;
      this.segments = []; // {reply, left, played, ended, cut}: the first is being played
      this.waited = 0;
      this.playing = false;
      this.held = false;
      this.fade = 0;
      this.volume = 1;
      this.dropped = 0; // samples that found no room
      this.underruns = 0; // times the queue ran dry in the middle of a reply
      this.finished = []; // {reply, played}: replies whose last sample was played or cleared, for the owner to take
    }

    /** Audio for `reply` (Int16Array) goes to the end of the queue. */
    add(reply, samples) {
      const room = Math.min(samples.length, CAPACITY - this.size);
      this.dropped += samples.length - room;
      let at = (this.head + this.size) % CAPACITY;
      for (let i = 0; i < room; i += 1) {
        this.ring[at] = samples[i];
        at = at + 1 === CAPACITY ? 0 : at + 1;
      }
      this.size += room;
      this.segmentOf(reply).left += room;
    }

    /** All audio of this reply has been added. */
    end(reply) {
      const segment = this.segments.find((one) => one.reply === reply && !one.cut);
      if (segment) segment.ended = true;
      this.drop();
    }

    /** Empty the queue. What sounds at this moment fades out over 5 ms; nothing else is heard. */
    clear() {
      const [first] = this.segments;
      this.held = false;
      if (!first) return;
      const keep = this.playing ? Math.min(first.left, FADE) : 0;
      for (const skipped of this.segments.slice(1)) this.finish(skipped);
      this.segments.length = 1;
      first.left = keep;
      first.cut = true;
      this.size = keep;
      this.drop();
    }

    /** Fill `output` (Float32Array) with the next `count` samples, silence where there are none. */
    read(output, count) {
      if (!this.playing && !this.mayStart(count)) {
        output.fill(0, 0, count);
        return;
      }
      for (let i = 0; i < count; i += 1) output[i] = this.size > 0 ? this.next() : 0;
    }

    /** The reply that is being played, or whose audio is expected: {reply, played (samples)}; null when silent. */
    get current() {
      return this.segments[0] ?? null;
    }

    next() {
      const [segment] = this.segments;
      const edge = segment.cut ? segment.left : this.size;
      this.fade = Math.min(this.fade + 1 / FADE, (edge - 1) / FADE, 1);
      const target = this.held ? HELD_GAIN : 1;
      this.volume += Math.max(-HOLD_STEP, Math.min(HOLD_STEP, target - this.volume));
      const sample = (this.ring[this.head] / 32768) * this.fade * this.volume;
      this.head = this.head + 1 === CAPACITY ? 0 : this.head + 1;
      this.size -= 1;
      segment.left -= 1;
      segment.played += 1;
      if (segment.left === 0) {
        if (!segment.ended && !segment.cut && this.size === 0) this.underruns += 1;
        this.drop();
      }
      if (this.size === 0) this.stop();
      return sample;
    }

    mayStart(count) {
      if (this.size === 0) return false;
      this.waited += count;
      this.playing = this.size >= START_SAMPLES || this.waited >= START_SAMPLES || this.segments[0].ended;
      return this.playing;
    }

    stop() {
      this.playing = false;
      this.waited = 0;
      this.fade = 0;
    }

    segmentOf(reply) {
      const last = this.segments.at(-1);
      if (last && last.reply === reply && !last.cut) return last;
      if (last && last.left > 0) last.ended = true;
      const segment = { reply, left: 0, played: 0, ended: false, cut: false };
      this.segments.push(segment);
      this.drop();
      return segment;
    }

    /** Let go of segments that are over: nothing left, and nothing more to come because the reply ended or was cut. */
    drop() {
      while (this.segments.length && this.segments[0].left === 0) {
        const [first] = this.segments;
        if (!first.ended && !first.cut && this.segments.length === 1) break;
        this.finish(this.segments.shift());
      }
      if (this.size === 0 && this.playing) this.stop();
    }

    finish(segment) {
      this.finished.push({ reply: segment.reply, played: segment.played });
    }
  }

  globalThis.Ahoy.PlaybackQueue = PlaybackQueue;
});
globalThis.Ahoy.audioCode.at(-1)();
