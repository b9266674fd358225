"""Smart Turn v3 (ONNX): hears from the last eight seconds whether the speaker has finished.

About 55 ms of one core for each question, so it is asked in pauses only. The model takes Whisper's log-mel of 8 s, with
silence in front when the turn is shorter, of a waveform brought to zero mean and unit variance.
"""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.audio.log_mel import log_mel
from app.core.errors import AudioFormatError, ModelError, ProviderError
from app.inference.worker import Worker

RATE_HZ = 16_000
LISTENS_S = 8
VARIANCE_FLOOR = 1e-7


class SmartTurnDetector:
    """Implements TurnDetector. Works in `worker`, else in a thread of its own. Loading blocks; raises ModelError when
    the file is not the model."""

    def __init__(self, model_path: Path, *, worker: Worker | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(model_path), options, providers=["CPUExecutionProvider"])
            self._score(np.zeros(RATE_HZ, np.int16))  # the first run is slower than the rest
        except Exception as error:
            raise ModelError(f"The turn model {model_path} cannot be loaded: {error}") from None
        self._worker = worker or Worker("turn")
        self._owns_worker = worker is None

    async def score(self, audio: NDArray[np.int16]) -> float:
        """The probability that the turn is complete; see TurnDetector."""
        if audio.dtype != np.int16 or audio.ndim != 1:
            raise AudioFormatError(f"Audio of type {audio.dtype} and shape {audio.shape} is not mono int16.")
        return await self._worker.run(lambda: self._score(audio))

    async def close(self) -> None:
        """End the thread, if it is the detector's own."""
        if self._owns_worker:
            self._worker.close()

    def _score(self, audio: NDArray[np.int16]) -> float:
        wanted = LISTENS_S * RATE_HZ
        samples = audio[-wanted:].astype(np.float32) / np.float32(32768)
        samples = np.pad(samples, (wanted - len(samples), 0))
        samples = (samples - samples.mean()) / np.sqrt(samples.var() + np.float32(VARIANCE_FLOOR))
        try:
            (probability,) = self._session.run(["logits"], {"input_features": log_mel(samples)[None]})
        except Exception as error:
            raise ProviderError(f"The turn model failed: {error}") from None
        return float(np.asarray(probability).ravel()[0])
