/**
 * The ring around the button: one wave is the user's voice, the other the assistant's, so one sees who is speaking.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  /** Quieter than this is no level at all; 48 dB above it is full. */
  const FLOOR_DB = -54;
  const RANGE_DB = 48;
  const RISE = 0.5;
  const FALL = 0.1;
  const TURN = 2 * Math.PI;
  const STEPS = 120;
  /** The lines of a voice: how far out, how strong. */
  const ECHOES = [
    [1, 1],
    [0.66, 0.55],
    [0.33, 0.3],
  ];

  class LevelRing {
    /** @param {HTMLCanvasElement} canvas @param {() => {user, assistant, activity, live}} look asked for every picture */
    constructor(canvas, look) {
      this.canvas = canvas;
      this.look = look;
      this.shown = { user: 0, assistant: 0, thinking: 0 };
      this.calm = globalThis.matchMedia("(prefers-reduced-motion: reduce)");
      this.running = false;
      new ResizeObserver(() => this.fit()).observe(canvas);
      this.recolour();
    }

    /** Draw from now on; stops by itself when nothing is left to show. */
    run() {
      if (this.running) return;
      this.running = true;
      requestAnimationFrame((now) => this.frame(now));
    }

    /** The theme has changed. */
    recolour() {
      const style = getComputedStyle(document.documentElement);
      this.colours = Object.fromEntries(
        ["user", "assistant", "track"].map((name) => [name, style.getPropertyValue(`--ring-${name}`).trim()]),
      );
      if (this.context) this.draw(0);
    }

    fit() {
      const scale = globalThis.devicePixelRatio || 1;
      this.size = this.canvas.clientWidth;
      this.canvas.width = this.canvas.height = Math.round(this.size * scale);
      this.context = this.canvas.getContext("2d");
      this.context.scale(scale, scale);
      this.draw(0);
    }

    frame(now) {
      const { user, assistant, activity, live } = this.look();
      const { shown } = this;
      approach(shown, "user", live ? loudness(user) : 0);
      approach(shown, "assistant", live ? loudness(assistant) : 0);
      approach(shown, "thinking", live && activity === "thinking" ? 1 : 0);
      this.draw(now / 1000);
      this.running = live || shown.user + shown.assistant + shown.thinking > 0.01;
      if (this.running) requestAnimationFrame((next) => this.frame(next));
    }

    draw(time) {
      const { context, size, colours, shown } = this;
      if (!size) return;
      const middle = size / 2;
      const radius = size * 0.375;
      const reach = size * 0.1; // how far a full level goes out
      context.clearRect(0, 0, size, size);
      context.lineWidth = 2;
      context.strokeStyle = colours.track;
      context.beginPath();
      context.arc(middle, middle, radius, 0, TURN);
      context.stroke();
      const moving = this.calm.matches ? null : time;
      const userLouder = shown.user > shown.assistant;
      this.voice(colours.assistant, radius, reach, shown.assistant, moving, { lobes: 5, speed: -0.9, filled: !userLouder });
      this.voice(colours.user, radius, reach, shown.user, moving, { lobes: 4, speed: 1.1, filled: userLouder });
      if (shown.thinking > 0.01) this.arc(radius, shown.thinking, moving);
    }

    /** One voice: three lines that swell with its level, and a glow inside them when it is the louder one. */
    voice(colour, radius, reach, level, time, { lobes, speed, filled }) {
      if (level < 0.01) return;
      const { context } = this;
      context.strokeStyle = context.fillStyle = colour;
      for (const [share, alpha] of ECHOES) {
        this.wave(radius, reach * level * share, time === null ? null : time * speed + share, lobes);
        if (filled) {
          context.globalAlpha = 0.14 * alpha;
          context.fill();
        }
        context.globalAlpha = alpha * Math.min(1, 0.4 + level);
        context.lineWidth = 1.5 + 2.5 * level * alpha;
        context.stroke();
      }
      context.globalAlpha = 1;
    }

    /** The path of a closed line around the button; a circle when nothing should move. */
    wave(radius, reach, time, lobes) {
      const { context, size } = this;
      const middle = size / 2;
      context.beginPath();
      for (let step = 0; step <= STEPS; step += 1) {
        const angle = (step / STEPS) * TURN;
        const ripple =
          time === null ? 0 : 0.5 * Math.sin(lobes * angle + time * 3.1) + 0.5 * Math.sin((lobes - 2) * angle - time * 2.3);
        const out = radius + reach * (0.75 + 0.4 * ripple);
        context.lineTo(middle + out * Math.cos(angle), middle + out * Math.sin(angle));
      }
      context.closePath();
    }

    arc(radius, strength, time) {
      const { context, size, colours } = this;
      const from = time === null ? -TURN / 4 : time * 4;
      context.strokeStyle = colours.assistant;
      context.globalAlpha = strength;
      context.lineWidth = 4;
      context.lineCap = "round";
      context.beginPath();
      context.arc(size / 2, size / 2, radius, from, from + TURN * (time === null ? 1 : 0.28));
      context.stroke();
      context.globalAlpha = 1;
    }
  }

  function loudness(rms) {
    return Math.max(0, Math.min(1, (20 * Math.log10(rms + 1e-9) - FLOOR_DB) / RANGE_DB));
  }

  function approach(shown, name, target) {
    shown[name] += (target - shown[name]) * (target > shown[name] ? RISE : FALL);
  }

  globalThis.Ahoy.LevelRing = LevelRing;
}
