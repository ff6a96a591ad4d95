"""Tensors packed into streams of bytes: every bit comes back, and no byte of a stream is trusted."""

import json
import random
import tracemalloc
import zlib

import pytest
import torch
from torch import Tensor

from sslticket.errors import BadInput
from sslticket.storage.tensorfile import pack_tensors, unpack_tensors
from tests.fuzz.mutations import damaged


def some_tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    odd = torch.tensor([0.0, -0.0, 1e-45, 3.4e38, float("nan"), float("inf")])
    odd = torch.cat([odd, torch.tensor([0x7FC12345, 0x7F812345], dtype=torch.int32).view(torch.float32)])
    return {
        "kept/odd": odd,
        "kept/many": torch.randn(40, 30) * 0.05,
        "kept/half": torch.randn(50).half(),
        "kept/brain": torch.randn(5, 2).bfloat16(),
        "kept/double": torch.randn(9, dtype=torch.float64),
        "kept/none": torch.zeros(0),
        "gone/none": torch.zeros(0),
        "whole/scalar": torch.tensor(7),
        "whole/ones": torch.ones(300),
        "whole/small": torch.arange(-5, 5, dtype=torch.int16),
        "mask/a": torch.randint(0, 256, (500,), dtype=torch.uint8),
        "mask/b": torch.zeros(90, dtype=torch.uint8),
        "mask/c": torch.rand(70) < 0.3,
    }


def streams_of(told: object, tensors: object, **streams: bytes) -> dict[str, Tensor]:
    """Streams with a table of one's choice."""
    table = zlib.compress(json.dumps({"told": told, "tensors": tensors}).encode())
    return {
        name: torch.frombuffer(bytearray(data), dtype=torch.uint8) for name, data in {"table": table, **streams}.items()
    }


def test_every_bit_of_every_type_comes_back_in_memory_of_its_own() -> None:
    tensors = some_tensors()
    streams = pack_tensors({"order": ["a", 1]}, tensors)
    told, back = unpack_tensors(streams)
    assert told == {"order": ["a", 1]}
    assert list(back) == list(tensors)
    for name, value in tensors.items():
        assert (back[name].dtype, back[name].shape) == (value.dtype, value.shape)
        assert back[name].view(-1).view(torch.uint8).tolist() == value.view(-1).view(torch.uint8).tolist()
    assert len({value.untyped_storage().data_ptr() for value in back.values() if value.numel()}) == len(back) - 2


def test_the_same_tensors_give_the_same_bytes() -> None:
    one, two = (pack_tensors({}, some_tensors()) for _ in range(2))
    assert {name: stream.tolist() for name, stream in one.items()} == {n: stream.tolist() for n, stream in two.items()}


def test_floats_lie_with_their_bytes_apart_and_noise_is_left_as_it_is() -> None:
    values = torch.randn(3000)
    streams = pack_tensors({}, {"kept/a": values[:1000], "kept/b": values[1000:]})
    assert sorted(streams) == ["kept.F32.0", "kept.F32.1", "kept.F32.2", "kept.F32.3", "table"]
    assert streams["kept.F32.0"].tolist() == values.view(torch.uint8)[0::4].tolist()
    highest = zlib.decompress(streams["kept.F32.3"].numpy().tobytes())
    assert list(highest) == values.view(torch.uint8)[3::4].tolist()
    assert len(streams["kept.F32.3"]) < 1500


def test_streams_that_are_cut_grown_lost_or_doubled_are_refused() -> None:
    streams = pack_tensors({}, some_tensors())
    for name, stream in streams.items():
        for other in (stream[:-1], torch.cat([stream, stream[:1]]), stream[:0]):
            if len(other) != len(stream):
                with pytest.raises((ValueError, BadInput)):
                    unpack_tensors(streams | {name: other})
        with pytest.raises(ValueError, match=r"stored, but not both|no stream that tells"):
            unpack_tensors({each: value for each, value in streams.items() if each != name})
        with pytest.raises(ValueError, match="has the type"):
            unpack_tensors(streams | {name: stream.to(torch.int16)})
        with pytest.raises(ValueError, match="has the type"):
            unpack_tensors(streams | {name: stream[None]})
    with pytest.raises(ValueError, match=r"'spare' is listed or stored, but not both"):
        unpack_tensors(streams | {"spare": torch.zeros(3, dtype=torch.uint8)})


def test_damaged_streams_are_refused_or_hold_as_much_as_before() -> None:
    """Flipped bits of noise are for the hash to find; nothing else than a ValueError or a BadInput may come of them."""
    streams, rng, refused = pack_tensors({"order": []}, some_tensors()), random.Random(0), 0
    for _ in range(1500):
        name = rng.choice(list(streams))
        worse = torch.frombuffer(bytearray(damaged(streams[name].numpy().tobytes(), rng) or b"\0"), dtype=torch.uint8)
        try:
            told, tensors = unpack_tensors(streams | {name: worse})
        except (ValueError, BadInput) as error:
            refused += "\n" not in str(error)
            continue
        assert isinstance(told, dict)
        assert all(value.numel() < 10_000 for value in tensors.values())
    assert refused > 500


@pytest.mark.parametrize(
    "listed",
    [
        5,
        [],
        {"": ["F32", [1]]},
        {"kept/\x1b": ["F32", [1]]},
        {"kept/a": ["F32"]},
        {"kept/a": ["F32", [1], 2]},
        {"kept/a": ["C64", [1]]},
        {"kept/a": [["F32"], [1]]},
        {"kept/a": ["F32", [-1]]},
        {"kept/a": ["F32", [True]]},
        {"kept/a": ["F32", [False]]},
        {"kept/a": ["F32", [0, 4]]},
        {"kept/a": ["F32", [1.0]]},
        {"kept/a": ["F32", [2**62]]},
        {"kept/a": ["F32", [1] * 9]},
        {"kept/a": ["F32", 1]},
    ],
)
def test_a_table_that_describes_no_tensors_is_refused(listed: object) -> None:
    with pytest.raises(ValueError, match=r"table|named|described|type"):
        unpack_tensors(streams_of({}, listed))


@pytest.mark.parametrize(
    "table", [b"5", b"{}", b'{"told": {}}', b'{"told": [], "tensors": {}}', b'{"a": 1, "a": 2}', b"\xff"]
)
def test_a_table_that_is_none_is_refused_in_one_line(table: bytes) -> None:
    with pytest.raises((ValueError, BadInput)) as caught:
        unpack_tensors({"table": torch.frombuffer(bytearray(zlib.compress(table)), dtype=torch.uint8)})
    assert "\n" not in str(caught.value)


def test_truth_values_are_0_and_1() -> None:
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        unpack_tensors(streams_of({}, {"mask/a": ["BOOL", [3]]}, **{"mask.BOOL": b"\0\1\2"}))


def test_streams_that_would_fill_memory_are_refused_before_they_do() -> None:
    """300 kB that zlib blows up to 256 MB: as a table, as what the table lists, and as more than it lists."""
    bomb = zlib.compress(bytes(1 << 28), 6)
    huge = {"mask/a": ["U8", [1 << 28]]}
    cases = (
        (
            {"table": torch.frombuffer(bytearray(bomb), dtype=torch.uint8)},
            40,
            "does not end after the 16,777,216 bytes",
        ),
        (
            streams_of({}, huge, **{"mask.U8": bomb}),
            2,
            "268,435,456 bytes of tensors, and streams of this size hold",
        ),
        (streams_of({}, {"mask/a": ["U8", [9]]}, **{"mask.U8": bomb}), 2, "does not end after the 9 bytes"),
        (streams_of({}, {"mask/a": ["U8", [1 << 26]]}, **{"mask.U8": bomb[:500]}), 2, "does not end after"),
    )
    for streams, most, why in cases:
        tracemalloc.start()
        with pytest.raises(ValueError, match=why):
            unpack_tensors(streams)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most << 20, f"{peak:,} bytes were taken before: {why}"
