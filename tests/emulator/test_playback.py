"""The playback buffer, whatever comes and in whatever order."""

from app.emulator.playback import Gap, Playback
from hypothesis import given
from hypothesis import strategies as st

STEPS = st.lists(
    st.one_of(st.integers(1, 700).map(lambda n: ("put", n)), st.sampled_from([("mark", 0), ("clear", 0), ("take", 0)])),
    max_size=60,
)


@given(STEPS)
def test_each_byte_is_heard_once_or_cleared_and_no_mark_overtakes_what_is_before_it(
    steps: list[tuple[str, int]],
) -> None:
    buffer = Playback()
    put = heard = dropped = ticks = 0
    sent: list[tuple[str, int]] = []
    back: list[str] = []

    def reached(names: list[str]) -> None:
        for name in names:
            back.append(name)
            assert dict(sent)[name] <= heard + dropped

    for kind, size in [*steps, *[("take", 0)] * 300]:
        match kind:
            case "put":
                buffer.put(b"\x00" * size)
                put += size
            case "mark":
                sent.append((name := str(len(sent)), put))
                if buffer.mark(name):
                    reached([name])
            case "clear":
                lost, names = buffer.clear()
                dropped += lost
                reached(names)
            case _:
                audio, names = buffer.take(160, ticks * 20)
                reached(names)  # before this piece is heard
                heard += len(audio)
                ticks += 1
        assert buffer.waiting == put - heard - dropped
    assert heard + dropped == put
    assert back == [name for name, _ in sent], "every mark comes back once, in order"


def test_a_gap_says_how_long_nothing_was_there_and_what_the_server_had_said_of_it() -> None:
    buffer = Playback()
    buffer.put(b"\x00" * 200)  # 25 ms
    for tick in range(3):
        buffer.take(160, tick * 20)
    buffer.put(b"\x00" * 160)
    buffer.take(160, 60)
    assert buffer.gaps == [Gap(25, 60, "", cleared=False)]

    buffer.mark("end")
    buffer.take(160, 80)
    buffer.put(b"\x00" * 320)
    buffer.take(160, 100)
    assert buffer.gaps[1:] == [Gap(80, 100, "end", cleared=False)]

    buffer.clear()
    buffer.take(160, 120)
    buffer.put(b"\x00" * 160)
    buffer.take(160, 140)
    assert buffer.gaps[2:] == [Gap(120, 140, "", cleared=True)]
