/**
 * The microphone: permission, choice of device, frames of 20 ms at 16 kHz, and noticing when it goes away.
 */
"use strict";
globalThis.Ahoy ??= {};
{
  /** Why there is no microphone: kind is denied, none, busy or insecure (keys of words.notices). */
  class MicrophoneError extends Error {
    constructor(kind, cause) {
      super(`microphone: ${kind}`, { cause });
      this.kind = kind;
    }
  }

  class Microphone {
    /** @param {object} on `frame(samples: Int16Array, level: 0..1)` and `lost()` when the device goes away */
    constructor(on) {
      this.on = on;
      this.stream = null;
      this.muted = false;
    }

    get isOpen() {
      return this.stream !== null;
    }

    /**
     * Ask for the microphone and start sending frames. `deviceId` may be empty for the default one.
     * Throws MicrophoneError.
     */
    async open(context, deviceId) {
      this.close();
      const stream = await request(deviceId);
      const [track] = stream.getAudioTracks();
      track.enabled = !this.muted;
      track.onended = () => {
        if (this.stream !== stream) return;
        this.close();
        this.on.lost();
      };
      this.stream = stream;
      this.source = context.createMediaStreamSource(stream);
      this.node = new AudioWorkletNode(context, "ahoy-capture", { numberOfInputs: 1, numberOfOutputs: 0 });
      this.node.port.onmessage = ({ data }) => this.on.frame(data.samples, data.level);
      this.source.connect(this.node);
    }

    /** Muted, the browser itself gives silence: nothing said reaches the page. */
    mute(muted) {
      this.muted = muted;
      for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = !muted;
    }

    close() {
      const { stream, source, node } = this;
      this.stream = this.source = this.node = null;
      if (node) node.port.onmessage = null;
      source?.disconnect();
      node?.disconnect();
      for (const track of stream?.getTracks() ?? []) track.stop();
    }
  }

  async function request(deviceId) {
    const devices = globalThis.navigator.mediaDevices;
    if (!devices) throw new MicrophoneError("insecure");
    const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: { ideal: 1 } };
    try {
      return await devices.getUserMedia({ audio: deviceId ? { ...audio, deviceId: { ideal: deviceId } } : audio });
    } catch (error) {
      throw new MicrophoneError(kindOf(error), error);
    }
  }

  /** https://www.w3.org/TR/mediacapture-streams/#dom-mediadevices-getusermedia names the errors. */
  function kindOf(error) {
    if (error.name === "NotAllowedError" || error.name === "SecurityError") return "denied";
    if (error.name === "NotFoundError" || error.name === "OverconstrainedError") return "none";
    return "busy";
  }

  /** The microphones to choose from: [{id, label}]. Names are known only once a microphone was allowed. */
  async function microphones() {
    const all = (await globalThis.navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
    return all
      .filter(({ kind, deviceId, label }) => kind === "audioinput" && deviceId && deviceId !== "default" && label)
      .map(({ deviceId, label }) => ({ id: deviceId, label }));
  }

  Object.assign(globalThis.Ahoy, { Microphone, MicrophoneError, microphones });
}
