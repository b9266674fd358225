"""The embedded language model, run for real with the small model."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from app.core.errors import ModelError, OverloadedError, ProviderError
from app.inference.store import ModelStore
from app.llm import llama
from app.llm.base import Message
from app.llm.llama import LlamaModel
from event_loop import counted_turns

SYSTEM = Message("system", "You are a helpful voice assistant. Answer in one or two short, plain sentences.")
STORY = [SYSTEM, Message("user", "Tell me a long story about a ship and its crew.")]
PARALLEL = 2
CONTEXT_TOKENS = 1024


def model_path() -> Path:
    store = ModelStore()
    if not store.present("smollm2-135m"):
        pytest.fail("the language model is not there: run `make models`")
    return store.path("smollm2-135m") / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
async def model() -> AsyncIterator[LlamaModel]:
    model = await asyncio.to_thread(LlamaModel, model_path(), context_tokens=CONTEXT_TOKENS, parallel=PARALLEL)
    yield model
    await model.close()


async def collect(model: LlamaModel, messages: list[Message], max_tokens: int = 60) -> list[str]:
    return [piece async for piece in model.reply(messages, max_tokens=max_tokens)]


async def test_a_reply_arrives_in_many_pieces_and_answers(model: LlamaModel) -> None:
    pieces = await collect(model, [SYSTEM, Message("user", "What is the capital of France?")])

    assert len(pieces) > 3
    assert "Paris" in "".join(pieces)


async def test_max_tokens_bounds_the_reply(model: LlamaModel) -> None:
    assert 1 <= len(await collect(model, STORY, max_tokens=7)) <= 7


async def test_the_event_loop_runs_on_while_the_model_works(model: LlamaModel) -> None:
    async with counted_turns() as turns:
        pieces = await collect(model, STORY, max_tokens=20)
    assert turns.count > 10 * len(pieces)


async def test_replies_are_made_side_by_side(model: LlamaModel) -> None:
    order: list[int] = []

    async def read(number: int) -> None:
        async for _ in model.reply(STORY, max_tokens=40):
            order.append(number)

    await asyncio.gather(read(0), read(1))

    switches = sum(a != b for a, b in itertools.pairwise(order))
    assert switches > 10  # one after the other would switch once


async def test_closing_a_reply_stops_it_within_a_few_tokens_and_leaves_the_other_unharmed(
    model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[int, int] = {}
    take = llama._Generation._take

    def counted(self: llama._Generation, chunk: object) -> bool:
        taken[id(self)] = taken.get(id(self), 0) + 1
        return take(self, chunk)

    monkeypatch.setattr(llama._Generation, "_take", counted)
    other = asyncio.create_task(collect(model, STORY, max_tokens=60))
    async with aclosing(model.reply(STORY, max_tokens=500)) as reply:
        for _ in range(5):
            assert await anext(reply)
    pieces = await other

    assert len(pieces) > 30
    assert min(taken.values()) < 40  # five pieces, progress of the prompt, and what was on its way


async def test_cancelling_the_reader_frees_the_slot(model: LlamaModel) -> None:
    readers = [asyncio.create_task(collect(model, STORY, max_tokens=900)) for _ in range(PARALLEL)]
    await asyncio.sleep(0.3)
    for reader in readers:
        reader.cancel()
    ended = await asyncio.gather(*readers, return_exceptions=True)

    assert all(isinstance(error, asyncio.CancelledError) for error in ended)
    assert await asyncio.wait_for(collect(model, STORY, max_tokens=5), 20)


async def test_a_long_prompt_is_given_up_while_it_is_being_read(
    model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    batches: list[int] = []
    take = llama._Generation._take

    def noting(self: llama._Generation, chunk: dict[str, dict[str, int]]) -> bool:
        if "prompt_progress" in chunk:
            batches.append(chunk["prompt_progress"]["total"])
            loop.call_soon_threadsafe(begun.set)
        return take(self, chunk)

    monkeypatch.setattr(llama._Generation, "_take", noting)
    long = [SYSTEM, Message("user", "Tell me about the sea and its ships. " * 80)]
    reader = asyncio.create_task(collect(model, long, max_tokens=5))
    await begun.wait()
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    await collect(model, STORY, max_tokens=20)

    assert len([total for total in batches if total > 600]) < 600 // llama.BATCH_TOKENS


async def test_too_many_replies_are_refused_and_the_others_are_served(
    model: LlamaModel,
) -> None:
    room = PARALLEL * (1 + llama.WAITING_PER_SLOT)
    readers = [asyncio.create_task(collect(model, STORY, max_tokens=4)) for _ in range(room + 3)]
    results = await asyncio.gather(*readers, return_exceptions=True)

    refused = [result for result in results if isinstance(result, OverloadedError)]
    served = [result for result in results if isinstance(result, list)]
    assert refused
    assert len(refused) + len(served) == room + 3
    assert all(served)


async def test_a_context_that_is_too_long_is_a_provider_error_that_says_so(model: LlamaModel) -> None:
    with pytest.raises(ProviderError, match=str(CONTEXT_TOKENS)) as caught:
        await collect(model, [SYSTEM, Message("user", "sea " * 2000)])
    assert caught.value.code == "context_too_long"
    assert "sea" not in caught.value.message


async def test_characters_of_several_tokens_arrive_whole(model: LlamaModel) -> None:
    examples = ["🎉🦜", "日本語", "🦜🎉🎉", "ñandú", "🏴‍☠️⛵"]
    history = [Message("system", "Repeat what the user says.")]
    for text in examples * 2:
        history += [Message("user", text), Message("assistant", text)]
    said = "".join(await collect(model, [*history, Message("user", "🎉🦜")], max_tokens=20))

    assert "\ufffd" not in said
    assert any(ord(character) > 0xFFFF for character in said)


async def test_a_warm_prompt_is_read_only_once(model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    cached: list[int] = []
    take = llama._Generation._take

    def noting(self: llama._Generation, chunk: dict[str, dict[str, int]]) -> bool:
        if "prompt_progress" in chunk:
            cached.append(chunk["prompt_progress"]["cache"])
        return take(self, chunk)

    monkeypatch.setattr(llama._Generation, "_take", noting)
    history = [SYSTEM, Message("user", "My boat is called Aurora."), Message("assistant", "What a lovely name!")]
    await model.warm(history)
    assert max(cached) == 0
    await collect(model, [*history, Message("user", "What is my boat called?")], max_tokens=5)
    assert max(cached) > 30


async def test_warming_never_fails(model: LlamaModel) -> None:
    await model.warm([Message("user", "sea " * 2000)])
    await model.close()
    await model.warm([SYSTEM])


async def test_closing_ends_replies_and_refuses_new_ones() -> None:
    model = await asyncio.to_thread(LlamaModel, model_path(), context_tokens=512, parallel=1)
    reader = asyncio.create_task(collect(model, STORY, max_tokens=400))
    await asyncio.sleep(0.3)
    await model.close()

    with pytest.raises(ProviderError, match="closed"):
        await reader
    with pytest.raises(ProviderError, match="closed"):
        await collect(model, STORY)
    await model.close()


async def test_a_file_that_is_no_model_is_explained(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(4000))
    for path in (broken, tmp_path / "missing.gguf"):
        with pytest.raises(ModelError, match=path.name):
            LlamaModel(path, context_tokens=512, parallel=1)


@pytest.mark.parametrize(
    "text",
    [
        "Well, the first words ever meant for a telephone were a hearty ahoy, and that still works today.",
        "Call +1 (500) 555-0006 at 12:45 on 2024-02-29; it costs $1,234.56!",
        "Internationalisation, incomprehensibilities & counterrevolutionaries",
        "Die Fußgängerübergänge in Österreich heißen Schutzwege.",
        "日本語で話してください。🎉🦜",
        "def main():\n    return {'a': [1, 2, 3]}\n",
    ],
)
async def test_the_count_is_not_below_the_models_own(model: LlamaModel, text: str) -> None:
    totals: list[int] = []
    for content in ("", text):
        answer = model._server.handle_chat_completions(
            {"messages": [{"role": "user", "content": f"x {content}"}], "max_tokens": 1}
        )
        totals.append(answer["usage"]["prompt_tokens"])
    assert totals[1] - totals[0] <= model.count_tokens(text) <= 3 * (totals[1] - totals[0])
