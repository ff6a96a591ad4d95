"""MATLAB's files, written by scipy or byte by byte."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from sslticket.data.datasets import binary_formats
from sslticket.errors import BadInput

PLACE = Path("some.mat")


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(name: bytes, kind: int, shape: tuple[int, ...], *content: bytes, order: str = "<") -> bytes:
    flags = element(6, struct.pack(f"{order}II", kind, 0), order)
    dims = element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return element(14, flags + dims + element(1, name, order) + b"".join(content), order)


def file(*variables: bytes, order: str = "<") -> bytes:
    return bytes(124) + (b"\0\1IM" if order == "<" else b"\1\0MI") + b"".join(variables)


def compressed(variable: bytes) -> bytes:
    data = zlib.compress(variable)
    return struct.pack("<II", 15, len(data)) + data


@pytest.mark.parametrize("compress", [False, True])
def test_what_scipy_wrote_comes_back(compress: bool) -> None:
    kinds = [("ID", "f8"), ("WNID", "O"), ("words", "O"), ("children", "O")]
    synsets = np.array([(1.0, "n01", "a thing", np.arange(3)), (2.0, "n02", "\u00e9", np.empty(0))], dtype=kinds)
    numbers = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    cells = np.array(["one", 2.5], dtype=object)
    written = io.BytesIO()
    content = {"synsets": synsets[:, None], "numbers": numbers, "cells": cells, "other": np.ones(9)}
    savemat(written, content, do_compression=compress)
    found = binary_formats.read_mat(written.getvalue(), ("synsets", "numbers", "cells"), PLACE)
    assert sorted(found) == ["cells", "numbers", "synsets"]
    np.testing.assert_array_equal(found["numbers"], numbers)
    assert found["numbers"].dtype == np.int16
    first, second = found["synsets"]
    assert (first["ID"].item(), first["WNID"], first["words"]) == (1, "n01", "a thing")
    assert first["children"].ravel().tolist() == [0, 1, 2]
    assert (second["WNID"], second["words"], second["children"].size) == ("n02", "\u00e9", 0)
    assert found["cells"][0] == "one"
    assert found["cells"][1].item() == 2.5


def test_the_other_order_of_bytes_is_read() -> None:
    values = np.array([[1, 2], [3, 4]], ">i4")
    variable = matrix(b"X", 12, (2, 2), element(5, values.tobytes("F"), ">"), order=">")
    np.testing.assert_array_equal(binary_formats.read_mat(file(variable, order=">"), "X", PLACE)["X"], values)


def test_whole_doubles_that_are_stored_as_bytes_are_doubles() -> None:
    found = binary_formats.read_mat(file(matrix(b"y", 6, (1, 3), element(2, b"\1\2\3"))), "y", PLACE)["y"]
    assert found.dtype == np.float64
    assert found.tolist() == [[1, 2, 3]]


DEEP = matrix(b"", 6, (1, 1), element(9, bytes(8)))
for _ in range(20):
    DEEP = matrix(b"", 1, (1, 1), DEEP)
FORGED = {
    "no file": b"",
    "level 7.3": bytes(124) + b"\0\2IM" + bytes(64),
    "a length beyond the end": file(struct.pack("<II", 14, 2**32 - 1)),
    "a shape beyond the data": file(matrix(b"X", 9, (32, 32, 3, 2**31 - 1), element(2, b"\1"))),
    "a shape that is negative": file(matrix(b"X", 9, (-1, 1), element(2, b"\1"))),
    "cells beyond the data": file(matrix(b"X", 1, (2**31 - 1, 2**31 - 1))),
    "a structure of no fields": file(
        matrix(b"X", 2, (2**31 - 1, 1), element(5, struct.pack("<i", 8)), element(1, b""))
    ),
    "cells in cells": file(matrix(b"X", 1, (1, 1), DEEP)),
    "a bomb": file(compressed(matrix(b"X", 9, (1, 10**8), element(2, bytes(10**8))))),
    "more than is told": file(compressed(matrix(b"X", 9, (1, 1), element(2, b"\1")) + bytes(8))),
    "a sparse array": file(matrix(b"X", 5, (1, 1), element(5, bytes(4)))),
}


@pytest.mark.parametrize("content", FORGED.values(), ids=FORGED)
def test_forged_files_are_refused_in_a_line(content: bytes) -> None:
    with pytest.raises(BadInput, match=r"some\.mat is truncated or damaged .*; download it again") as caught:
        binary_formats.read_mat(content, "X", PLACE)
    assert "\n" not in str(caught.value)


def test_a_file_cut_anywhere_lacks_the_variable_or_is_refused() -> None:
    whole = file(compressed(matrix(b"X", 9, (1, 100), element(2, bytes(range(100))))))
    for length in range(len(whole)):
        try:
            assert binary_formats.read_mat(whole[:length], "X", PLACE) == {}
        except BadInput:
            continue
