"""Packed weights come back bit by bit, in the bytes that the layout says; another reader follows the page alone."""

import json
import math
import struct
import zlib

import pytest
import torch
from torch import nn

import rheobase as rb
from rheobase.lab.compress.packed import KEY, Packed, load_packed, save_packed

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
WHOLE = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
DTYPES = [*FLOATS, *WHOLE, torch.bool, torch.complex64, torch.complex128]


def same(a, b):
    """Whether two tensors hold the same bits."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    if not a.numel():
        return True
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)))


def drawn(dtype, size, zeros, distinct):
    """Any bits of a format, so many of them zero, of so few different values (0: as they come)."""
    bits = torch.randint(0, 256, (max(1, distinct or math.prod(size)), dtype.itemsize), dtype=torch.uint8)
    if dtype == torch.bool:
        bits &= 1
    values = bits.view(dtype)[:, 0]
    x = values[torch.randint(0, len(values), (math.prod(size),))]
    x = x.view(torch.uint8).view(-1, dtype.itemsize)
    x = x * (torch.rand(len(x), 1) >= zeros)
    return x.view(dtype).reshape(size)


def read(data):
    """The tensors' words and shapes, by the page of the format and Python alone."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    listing = json.loads(header.pop("__metadata__")["rheobase.packed"])
    assert listing["version"] == 1

    def stream(part, bits, count):
        number = int.from_bytes(part, "little")
        return [(number >> (k * bits)) & ((1 << bits) - 1) for k in range(count)]

    found = {}
    for name, row in listing["tensors"].items():
        assert header[name]["dtype"] == "U8"
        start, end = (8 + length + offset for offset in header[name]["data_offsets"])
        blob = data[start:end]
        *words, crc = row.split(" ")
        assert int(crc, 16) == zlib.crc32(f"{name} {' '.join(words)}\n".encode() + blob)
        dtype, shape, form, *numbers = words
        bits, entries, distinct = map(int, numbers)
        shape = [] if shape == "-" else [int(n) for n in shape.split(",")]
        size = getattr(torch, dtype).itemsize
        word = min(size, 8)
        N = math.prod(shape) * size // word
        index = {"dense": 0, "bitmap": (N + 7) // 8, "gaps4": (entries + 1) // 2, "gaps8": entries}[form]
        codebook, values = blob[index : index + distinct * word], blob[index + distinct * word :]
        if form == "dense":
            places = list(range(N))
        elif form == "bitmap":
            places = [k for k, one in enumerate(stream(blob[:index], 1, N)) if one]
        else:
            places, last = [], -1
            for gap in stream(blob[:index], int(form[4:]), entries):
                last += gap + 1
                places.append(last)
        entry = stream(values, bits, entries)
        if distinct:
            entry = [int.from_bytes(codebook[word * k : word * (k + 1)], "little") for k in entry]
        whole = [0] * N
        for place, value in zip(places, entry, strict=True):
            whole[place] = value
        found[name] = b"".join(value.to_bytes(word, "little") for value in whole)
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_bit_comes_back(dtype, tmp_path):
    tensors = {
        f"{size} {zeros} {distinct}": drawn(dtype, size, zeros, distinct)
        for size in [(), (7,), (40, 3, 3), (0, 4)]
        for zeros in (0.0, 0.5, 0.97, 1.0)
        for distinct in (0, 1, 3, 17, 300)
    }
    save_packed(tmp_path / "w", tensors)
    found = load_packed(tmp_path / "w")
    assert list(found) == list(tensors)
    assert all(same(found[name], tensors[name]) for name in tensors)
    independent = read((tmp_path / "w").read_bytes())
    for name, x in tensors.items():
        bits = x.reshape(-1).view(torch.uint8).numpy().tobytes() if x.numel() else b""
        assert independent[name] == bits


def test_all_forms_are_taken_and_read(tmp_path):
    x = torch.randn(4000)
    few = torch.tensor([-0.5, 0.5, 1.0])[torch.randint(0, 3, (4000,))]
    kept = {share: torch.rand(4000) < share for share in (1.0, 0.6, 0.15, 0.02)}
    pairs = [(share, name) for share in kept for name in ("x", "few")]
    tensors = {f"{share} {name}": torch.where(kept[share], {"x": x, "few": few}[name], 0.0) for share, name in pairs}
    forms = save_packed(tmp_path / "w", tensors)
    assert {name: (p.form, p.distinct) for name, p in forms.items()} == {
        "1.0 x": ("dense", 0),
        "1.0 few": ("dense", 3),
        "0.6 x": ("bitmap", 0),
        "0.6 few": ("dense", 4),
        "0.15 x": ("gaps4", 0),
        "0.15 few": ("gaps4", 4),
        "0.02 x": ("gaps8", 0),
        "0.02 few": ("gaps8", 4),
    }
    found = load_packed(tmp_path / "w")
    assert all(same(found[name], tensors[name]) for name in tensors)


def test_signed_zeros_nan_and_infinities_are_values(tmp_path):
    x = torch.tensor([0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e-45, 0.0])
    strange = torch.tensor([0x7FC00001, 0x7F800001, -1, 0], dtype=torch.int32).view(torch.float32)
    save_packed(tmp_path / "w", {"x": x, "strange": strange, "minus": torch.full((9,), -0.0)})
    found = load_packed(tmp_path / "w")
    assert same(found["x"], x)
    assert same(found["strange"], strange)
    assert found["minus"].signbit().all()


def at(size, values):
    x = torch.zeros(size)
    for place, value in values.items():
        x[place] = value
    return x


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        # 5 values of 4 bytes; a codebook of 5 and codes of 3 bits would take 20 + 2.
        (torch.arange(1.0, 6.0), Packed("dense", 32, 5, 5, 0, 0, 0, 20)),
        # Two values: 8 bytes and 16 bits.
        (torch.tensor([1.0, 2.0] * 8), Packed("dense", 1, 16, 16, 2, 0, 8, 2)),
        # One value: no bits. In fp16.
        (torch.full((3, 100), 2.0, dtype=torch.half), Packed("dense", 0, 300, 300, 1, 0, 2, 0)),
        # Every second of 64, all different: 8 bytes of bitmap; gaps of 4 bits would be 16.
        (
            torch.stack([torch.zeros(32), torch.arange(1.0, 33.0)], 1).view(-1),
            Packed("bitmap", 32, 64, 32, 0, 8, 0, 128),
        ),
        # 3 of 64: gaps 2, 15, 0 in two bytes.
        (at(64, {2: 1.0, 18: 2.0, 19: 3.0}), Packed("gaps4", 32, 64, 3, 0, 2, 0, 12)),
        # The same with one value.
        (at(64, {2: 1.0, 18: 1.0, 19: 1.0}), Packed("gaps4", 0, 64, 3, 1, 2, 4, 0)),
        # 16 zeros before the first: 4 bits need a filler, so 5 + 1 bytes; 8 bits need none, so 1 + 4.
        (at(400, {16: 1.0}), Packed("gaps8", 32, 400, 1, 0, 1, 0, 4)),
        # 256 zeros before the second: one filler of gap 255, then gap 0. Zero, 7 and 8 are 2 bits each.
        (at(2000, {0: 7.0, 257: 8.0}), Packed("gaps8", 32, 2000, 3, 0, 3, 0, 12)),
        (torch.zeros(1000), Packed("gaps4", 32, 1000, 0, 0, 0, 0, 0)),
        (torch.tensor(3.0), Packed("dense", 32, 1, 1, 0, 0, 0, 4)),
        (torch.zeros(0, 3), Packed("dense", 32, 0, 0, 0, 0, 0, 0)),
    ],
    ids=["raw", "codes", "one", "bitmap", "gaps4", "gaps4 codes", "gaps8", "filler", "zeros", "scalar", "nothing"],
)
def test_sizes_by_hand(x, expected, tmp_path):
    found = save_packed(tmp_path / "w", {"x": x})["x"]
    assert found == expected
    assert found.bytes == expected.index + expected.codebook + expected.values
    assert same(load_packed(tmp_path / "w")["x"], x)


def test_the_file_is_the_bytes_and_a_header(tmp_path):
    tensors = {"a": torch.randn(100, 30), "b": torch.randn(400).sign()}
    forms = save_packed(tmp_path / "w", tensors)
    data = (tmp_path / "w").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert len(data) == 8 + length + sum(p.bytes for p in forms.values())
    assert [p.bytes for p in forms.values()] == [12000, 8 + 50]
    save_packed(tmp_path / "again", tensors)
    assert (tmp_path / "again").read_bytes() == data


def test_a_whole_model_comes_back(tmp_path):
    model = rb.models.create_model("test_vanilla_resnet")
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(torch.rand_like(p) < 0.1).copy_(p.sign() * 0.25)
    forms = save_packed(tmp_path / "packed.safetensors", model.state_dict())
    assert forms["head.1.module.weight"].bits <= 2
    other = rb.models.create_model("test_vanilla_resnet")
    other.load_state_dict(load_packed(tmp_path / "packed.safetensors"))
    assert all(same(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True))


def test_views_and_other_orders_are_read_as_they_are(tmp_path):
    whole = torch.randn(4, 6, 5, 5)
    tensors = {"t": whole[0].transpose(0, 2), "last": whole.to(memory_format=torch.channels_last), "one": whole[1:2, 3]}
    tensors["conj"] = torch.randn(3, dtype=torch.complex64).conj()
    tensors["grad"] = nn.Parameter(whole)
    save_packed(tmp_path / "w", tensors)
    assert all(same(found, tensors[name].resolve_conj()) for name, found in load_packed(tmp_path / "w").items())


def test_what_cannot_be_written_is_said(tmp_path, untyped):
    for value in (torch.eye(3).to_sparse(), torch.empty(3, device="meta"), [1.0]):
        with pytest.raises(ValueError, match=r"'x' is a .*; expected a dense tensor with values"):
            save_packed(tmp_path / "w", {"x": value})
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        save_packed(tmp_path / "no" / "w", {})


def test_what_cannot_be_read_is_said(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "w"
    with pytest.raises(FileNotFoundError, match=r"there is no file .*w; save_packed writes one"):
        load_packed(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_packed(path)
    save_file({"x": torch.ones(3)}, path)
    with pytest.raises(ValueError, match=r"no 'rheobase.packed' in its metadata"):
        load_packed(path)
    save_file({}, path, {KEY: json.dumps({"version": 2, "tensors": {}})})
    with pytest.raises(ValueError, match="has version 2; this reads 1"):
        load_packed(path)
    for listing in ("", "[]", "{}", '{"version": 1, "tensors": 3}'):
        save_file({}, path, {KEY: listing})
        with pytest.raises(ValueError, match=r"the list of tensors in .* is damaged"):
            load_packed(path)
    save_file({}, path, {KEY: json.dumps({"version": 1, "tensors": {"x": "?"}})})
    with pytest.raises(ValueError, match="does not list what it holds: x"):
        load_packed(path)
    for row in ("?", "float32 3 dense 32 3 0"):
        save_file(
            {"x": torch.zeros(12, dtype=torch.uint8)}, path, {KEY: json.dumps({"version": 1, "tensors": {"x": row}})}
        )
        with pytest.raises(ValueError, match=r"'x' in .* is damaged"):
            load_packed(path)


def test_no_flipped_byte_goes_unnoticed(tmp_path):
    path, x = tmp_path / "w", {"x": torch.randn(8) * torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0]), "y": torch.ones(9)}
    save_packed(path, x)
    data = path.read_bytes()
    for place in range(len(data)):
        for flip in (1, 16):
            path.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
            try:
                found = load_packed(path)
            except ValueError:
                continue
            assert found.keys() == x.keys(), data[:place]
            assert all(same(found[name], x[name]) for name in x)  # a byte that means nothing, such as a blank
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError):
            load_packed(path)
