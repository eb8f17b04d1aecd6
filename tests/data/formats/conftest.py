"""Every format written a second time, from its description alone: events are rows (t, x, y, p)."""

import io
import struct
import zipfile
import zlib
from collections import namedtuple

import numpy as np
import pytest

from rheobase.data import data_root

Layout = namedtuple("Layout", "suffix format pack")


def pack_atis(rows):
    return b"".join(struct.pack(">BBBH", x, y, p << 7 | t >> 16, t & 0xFFFF) for t, x, y, p in rows)


def pack_aedat1(rows):
    """Addresses of DVS128, x from right to left, bit 0 for OFF."""
    events = b"".join(struct.pack(">Hi", y << 8 | (127 - x) << 1 | (not p), t) for t, x, y, p in rows)
    return b"#!AER-DAT1.0\r\n# some text\r\n" + events


def pack_aedat2(rows):
    """Addresses of DAVIS240, x from right to left, bit 11 for ON."""
    events = b"".join(struct.pack(">Ii", y << 22 | (239 - x) << 12 | p << 11, t) for t, x, y, p in rows)
    return b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n#End Of ASCII Header\r\n" + events


def pack_cochlea(rows):
    return b"".join(struct.pack(">HI", x << 1 | (not p), t) for t, x, y, p in rows)


def packet_aedat3(rows, kind=1, overflow=0, valid=1):
    head = struct.pack("<hhiiiiii", kind, 1, 8, 4, overflow, len(rows), len(rows), len(rows))
    return head + b"".join(struct.pack("<Ii", x << 17 | y << 2 | p << 1 | valid, t) for t, x, y, p in rows)


def pack_aedat3(rows):
    half = len(rows) // 2
    head = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
    return head + packet_aedat3(rows[:half]) + packet_aedat3(rows[:1], kind=0) + packet_aedat3(rows[half:])


def flatbuffer(identifier, fields, tail):
    """A size-prefixed FlatBuffer whose root has fields of (bytes, alignment) or None, and the bytes they point at."""
    table, offsets = b"\0\0\0\0", []
    for value in fields:
        offsets.append(0 if value is None else len(table))
        table += b"" if value is None else value
    vtable = struct.pack(f"<HH{len(fields)}H", 4 + 2 * len(fields), len(table), *offsets)
    vtable += b"\0" * (-len(vtable) % 4)
    root = 8 + len(vtable)
    body = struct.pack("<I", root) + identifier + vtable + struct.pack("<i", len(vtable)) + table[4:] + tail
    return struct.pack("<I", len(body)) + body


def packet_aedat4(rows):
    """One vector, 4 bytes behind the field that points at it."""
    events = b"".join(struct.pack("<qhhB3x", *row) for row in rows)
    return flatbuffer(b"EVTS", [struct.pack("<I", 4)], struct.pack("<I", len(rows)) + events)


def pack_aedat4(rows, compression=1, sides=(34, 34), table_at=-1):
    sizes = "<attr key='sizeX'>{}</attr><attr key='sizeY'>{}</attr>".format(*sides) if sides else ""
    other = "<node name='3'><attr key='typeIdentifier'>IMUS</attr></node>"
    events = f"<node name='5'><attr key='typeIdentifier'>EVTS</attr><node name='info'>{sizes}</node></node>"
    text = f"<dv version='2.0'><node name='outInfo'>{other}{events}</node></dv>".encode()
    fields = [struct.pack("<i", compression), struct.pack("<q", table_at), struct.pack("<I", 4)]
    data = b"#!AER-DAT4.0\r\n" + flatbuffer(b"IOHE", fields, struct.pack("<I", len(text)) + text)
    half = len(rows) // 2
    for stream, content in ((5, packet_aedat4(rows[:half])), (3, b"other"), (5, packet_aedat4(rows[half:]))):
        if compression in (1, 2):
            content = pytest.importorskip("lz4.frame").compress(content)
        elif compression in (3, 4):
            content = pytest.importorskip("zstandard").compress(content)
        data += struct.pack("<ii", stream, len(content)) + content
    return data


def pack_dat(rows, version=2):
    head = f"% Data file containing CD events.\n% Version {version}\n% Date 2020-01-01 00:00:00\n".encode()
    high = {1: (9, 17), 2: (14, 28)}[version]
    events = b"".join(struct.pack("<II", t & 0xFFFFFFFF, x | y << high[0] | p << high[1]) for t, x, y, p in rows)
    return head + b"\x0c\x08" + events


def pack_evt2(rows):
    words, high = [], None
    for t, x, y, p in rows:
        if t >> 6 != high:
            high = t >> 6
            words.append(8 << 28 | high & 0xFFFFFFF)
        words.append(p << 28 | (t & 63) << 22 | x << 11 | y)
    return b"% evt 2.0\n% width 34\n% height 34\n% end\n" + struct.pack(f"<{len(words)}I", *words)


def pack_evt3(rows):
    words = []
    for t, x, y, p in rows:
        words += [8 << 12 | t >> 12 & 0xFFF, 6 << 12 | t & 0xFFF, y, 2 << 12 | p << 11 | x]
    return b"% format EVT3;height=34;width=34\n% end\n" + struct.pack(f"<{len(words)}H", *words)


def archive(**arrays):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array)
            file.writestr(f"{name}.npy", member.getvalue())
    return buffer.getvalue()


def pack_npz(rows):
    t, x, y, p = (np.array(column, np.int32) for column in zip(*rows, strict=True))
    return archive(t=t, x=x, y=y, p=p, sensor=np.array([34, 34]), unit=np.array("us"))


def pack_npy(rows):
    buffer = io.BytesIO()
    kind = [("p", "u1"), ("y", "<i2"), ("t", "<u4"), ("x", "<i2")]
    np.save(buffer, np.array([(p, y, t, x) for t, x, y, p in rows], kind))
    return buffer.getvalue()


def pack_csv(rows):
    return ("x,y,pol,time\n" + "".join(f"{x},{y},{p},{t}\n" for t, x, y, p in rows)).encode()


def pack_txt(rows):
    return "".join(f"{t * 1e-6:.6f} {x} {y} {p}\n" for t, x, y, p in rows).encode()


def pack_hdf5(rows):
    h5py = pytest.importorskip("h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, column in zip("txyp", zip(*rows, strict=True), strict=True):
            file[f"events/{name}"] = np.array(column, np.int32)
    return buffer.getvalue()


def element(kind, content):
    return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def pack_matlab(rows, packed=True):
    """A column per event; only taxels below 10 x 10."""
    train = np.zeros((101, len(rows)))
    for column, (t, x, y, p) in enumerate(rows):
        train[10 * y + x, column], train[100, column] = 1 if p else -1, t * 1e-6
    flags, sizes = struct.pack("<II", 6, 0), struct.pack("<ii", *train.shape)
    content = element(6, flags) + element(5, sizes) + element(1, b"spiketrain") + element(9, train.tobytes("F"))
    matrix = element(14, content)
    matrix = struct.pack("<II", 15, len(zlib.compress(matrix))) + zlib.compress(matrix) if packed else matrix
    return b"MATLAB 5.0 MAT-file, made by hand".ljust(124) + b"\0\x01IM" + matrix


LAYOUTS = {
    "aedat1": Layout(".aedat", None, pack_aedat1),
    "aedat2": Layout(".aedat", None, pack_aedat2),
    "aedat3": Layout(".aedat", None, pack_aedat3),
    "aedat4-plain": Layout(".aedat4", None, lambda rows: pack_aedat4(rows, 0)),
    "aedat4-lz4": Layout(".aedat4", None, lambda rows: pack_aedat4(rows, 1)),
    "aedat4-zstandard": Layout(".aedat4", None, lambda rows: pack_aedat4(rows, 3)),
    "atis": Layout(".bin", None, pack_atis),
    "cochlea": Layout(".aedat", "cochlea", pack_cochlea),
    "csv": Layout(".csv", None, pack_csv),
    "dat": Layout(".dat", None, pack_dat),
    "evt2": Layout(".raw", None, pack_evt2),
    "evt3": Layout(".raw", None, pack_evt3),
    "hdf5": Layout(".h5", None, pack_hdf5),
    "matlab": Layout(".mat", None, pack_matlab),
    "npy": Layout(".npy", None, pack_npy),
    "npz": Layout(".npz", None, pack_npz),
    "txt": Layout(".txt", None, pack_txt),
}


@pytest.fixture(scope="session")
def rows():
    """Forty events on 10 x 10, which every format can hold."""
    random = np.random.default_rng(0)
    times = np.sort(random.integers(0, 5000, 40))
    rest = [*random.integers(0, 10, (2, 40)), random.integers(0, 2, 40)]
    return [tuple(map(int, row)) for row in zip(times, *rest, strict=True)]


@pytest.fixture(scope="session")
def real():
    """The path of a shared file of real events, by name."""

    def find(name):
        path = data_root() / name
        if not path.is_file():
            pytest.skip(f"{name} is not below RHEOBASE_DATA")
        return path

    return find


def columns(events):
    return [(int(t), int(x), int(y), int(p)) for t, x, y, p in events.array.tolist()]
