"""Arithmetic on vectors of floats, as LLVM's text: what a kernel of fovea.models.tiles does with the numbers of a tile."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.float64]
LANES = 16  # floats of a vector of AVX-512, the widest there is
_TINY = 1e-9  # what is smaller is a 0 that rounding has left
# Added to a float of up to 2²² this leaves no room for a fraction: what is rounded lies in the lowest bits.
_ROUNDING = 1.5 * 2**23
_ROUNDING_BITS = 0x4B400000


class Vectors:
    """Lines of LLVM's text, each a value of `lanes` floats with a name of its own.

    With `has_bf16`, the CPU rounds to bfloat16 by an instruction; elsewhere LLVM would call a function that is not there.
    """

    def __init__(self, lanes: int, has_bf16: bool) -> None:
        self.lines: list[str] = []
        self._lanes, self._has_bf16 = lanes, has_bf16
        self._zero = "zeroinitializer" if lanes > 1 else "0.0"
        self._fma, self._absolute = (
            f"@llvm.{name}.v{lanes}f32" if lanes > 1 else f"@llvm.{name}.f32" for name in ("fma", "fabs")
        )
        kinds = ("float", "bfloat", "i32", "i16", "i8", "i1")
        many = (f"<{lanes} x {kind}>" if lanes > 1 else kind for kind in kinds)
        self._float, self._bfloat, self._words, self._halves, self._bytes, self._bits = many

    def declarations(self) -> str:
        """Of what the lines call."""
        return f"""declare {self._float} {self._fma}({", ".join([self._float] * 3)})
declare {self._float} {self._absolute}({self._float})"""

    def address(self, start: str, number: str, size: int) -> str:
        """Of the number `number` from `start` on, each of `size` bytes."""
        offset = self._line(f"mul i64 {number}, {size}")
        return self._line(f"getelementptr i8, ptr {start}, i64 {offset}")

    def load(self, address: str, half: bool) -> str:
        """The floats that lie there, with `half` as bfloat16."""
        if not half:
            return self._line(f"load {self._float}, ptr {address}, align 4")
        value = self._line(f"load {self._halves}, ptr {address}, align 2")
        wide = self._line(f"zext {self._halves} {value} to {self._words}")
        bits = self._line(f"shl {self._words} {wide}, {self._whole('i32', 16)}")
        return self._line(f"bitcast {self._words} {bits} to {self._float}")

    def load_everywhere(self, address: str) -> str:
        """The one float that lies there, in all lanes."""
        number = self._line(f"load float, ptr {address}, align 4")
        if self._lanes == 1:
            return number
        alone = self._line(f"insertelement {self._float} poison, float {number}, i32 0")
        return self._line(
            f"shufflevector {self._float} {alone}, {self._float} poison, <{self._lanes} x i32> zeroinitializer"
        )

    def store(self, value: str, address: str, half: bool) -> None:
        """Put them there, with `half` rounded to bfloat16, halves to even."""
        kind, align = (self._float, 4)
        if half and self._has_bf16:
            kind, align = self._bfloat, 2
            value = self._line(f"fptrunc {self._float} {value} to {kind}")
        elif half:
            kind, align = self._halves, 2
            words, upper = self._words, self._whole("i32", 16)
            bits = self._line(f"bitcast {self._float} {value} to {words}")
            shifted = self._line(f"lshr {words} {bits}, {upper}")
            odd = self._line(f"and {words} {shifted}, {self._whole('i32', 1)}")
            almost_half = self._line(f"add {words} {bits}, {self._whole('i32', 0x7FFF)}")
            rounded = self._line(f"add {words} {almost_half}, {odd}")
            upper_half = self._line(f"lshr {words} {rounded}, {upper}")
            value = self._line(f"trunc {words} {upper_half} to {kind}")
        self.lines.append(f"  store {kind} {value}, ptr {address}, align {align}")

    def store_integer(self, value: str, address: str, factor: str, signed: bool) -> None:
        """Put `value` times the float at `factor` there as a byte, rounded, of -127 to 127; unsigned, 128 more."""
        words, zero = self._words, 0 if signed else 128
        total = self.fma(value, self.load_everywhere(factor), self.constant(_ROUNDING))
        bits = self._line(f"bitcast {self._float} {total} to {words}")
        number = self._line(f"sub {words} {bits}, {self._whole('i32', _ROUNDING_BITS - zero)}")
        for compare, end in (("sgt", zero - 127), ("slt", zero + 127)):
            within = self._line(f"icmp {compare} {words} {number}, {self._whole('i32', end)}")
            number = self._select(within, words, number, self._whole("i32", end))
        self.store_bytes(self._line(f"trunc {words} {number} to {self._bytes}"), address)

    def keep_largest(self, value: str, address: str) -> None:
        """Where it is larger than the float that lies there, put the absolute value there."""
        size = self._line(f"call {self._float} {self._absolute}({self._float} {value})")
        known = self.load(address, half=False)
        greater = self._line(f"fcmp ogt {self._float} {size}, {known}")
        self.store(self._select(greater, self._float, size, known), address, half=False)

    def add(self, first: str, second: str) -> str:
        """Their sum."""
        return self._line(f"fadd {self._float} {first}, {second}")

    def subtract(self, first: str, second: str) -> str:
        """Their difference."""
        return self._line(f"fsub {self._float} {first}, {second}")

    def fma(self, first: str, second: str, third: str) -> str:
        """The product of the first two, plus the third."""
        kind = self._float
        return self._line(f"call {kind} {self._fma}({kind} {first}, {kind} {second}, {kind} {third})")

    def positive(self, sign: str, value: str) -> str:
        """`value` where `sign` is larger than 0 or no number, elsewhere 0."""
        above = self._line(f"fcmp ugt {self._float} {sign}, {self._zero}")
        return self._select(above, self._float, value, self._zero)

    def within(self, value: str, most: float) -> str:
        """The nearest to `value` from `-most` to `most`; what is no number stays so."""
        for compare, end in (("ogt", most), ("olt", -most)):
            beyond = self._line(f"fcmp {compare} {self._float} {value}, {self.constant(end)}")
            value = self._select(beyond, self._float, self.constant(end), value)
        return value

    def times(self, first: str, second: str) -> str:
        """Their product."""
        return self._line(f"fmul {self._float} {first}, {second}")

    def polynomial(self, value: str, coefficients: Sequence[float]) -> str:
        """Of the coefficients of `value` to the power of 0, 1 and so on."""
        total = self.constant(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            total = self.fma(value, total, self.constant(coefficient))
        return total

    def largest(self, values: Sequence[str]) -> tuple[str, str]:
        """Of several, number by number, and as a byte which it was; of equal ones the first."""
        best, which = values[0], self._whole("i8", 0)
        for number, value in enumerate(values[1:], start=1):
            greater = self._line(f"fcmp ogt {self._float} {value}, {best}")
            best = self._select(greater, self._float, value, best)
            which = self._select(greater, self._bytes, self._whole("i8", number), which)
        return best, which

    def only_where(self, which: str, number: int, value: str) -> str:
        """`value` where the byte is `number`, elsewhere 0."""
        alike = self._line(f"icmp eq {self._bytes} {which}, {self._whole('i8', number)}")
        return self._select(alike, self._float, value, self._zero)

    def load_bytes(self, address: str) -> str:
        """The bytes that lie there."""
        return self._line(f"load {self._bytes}, ptr {address}, align 1")

    def store_bytes(self, value: str, address: str) -> None:
        """Put them there."""
        self.lines.append(f"  store {self._bytes} {value}, ptr {address}, align 1")

    def both_sides(self, down: Matrix, across: Matrix, values: Sequence[Sequence[str]]) -> list[list[str]]:
        """`down` times the matrix of values times `acrossᵀ`."""
        columns = [self._times(down, column) for column in zip(*values, strict=True)]
        return [self._times(across, row) for row in zip(*columns, strict=True)]

    def _times(self, matrix: Matrix, values: Sequence[str]) -> list[str]:
        """A matrix times a vector; rows that differ in signs only, as those of opposite points do, share their work."""
        found: list[Any] = [None] * len(matrix)
        for number, row in enumerate(matrix):
            if found[number] is not None:
                continue
            for other in range(number + 1, len(matrix)):
                alike = np.abs(row - matrix[other]) < _TINY
                if found[other] is None and _are_opposite(row, matrix[other], alike):
                    same, opposite = self._sum(row * alike, values), self._sum(row * ~alike, values)
                    found[number] = self.add(same, opposite)
                    found[other] = self.subtract(same, opposite)
                    break
            else:
                found[number] = self._sum(row, values)
        return found

    def _sum(self, factors: Matrix, values: Sequence[str]) -> str:
        total = ""
        for factor, value in zip(factors.tolist(), values, strict=True):
            if abs(factor) < _TINY:
                continue
            constant = self.constant(factor)
            if not total:
                total = self._line(f"fmul {self._float} {value}, {constant}")
            else:
                total = self.fma(value, constant, total)
        return total

    def constant(self, value: float) -> str:
        """The same in all lanes."""
        # LLVM writes a float by the bits of the double of the same value.
        text = "0x" + struct.pack(">d", float(np.float32(value))).hex()
        return f"splat (float {text})" if self._lanes > 1 else text

    def _whole(self, kind: str, value: int) -> str:
        return f"splat ({kind} {value})" if self._lanes > 1 else str(value)

    def _select(self, bits: str, kind: str, then: str, otherwise: str) -> str:
        return self._line(f"select {self._bits} {bits}, {kind} {then}, {kind} {otherwise}")

    def _line(self, text: str) -> str:
        name = f"%v.{len(self.lines)}"
        self.lines.append(f"  {name} = {text}")
        return name


def _are_opposite(first: Matrix, second: Matrix, alike: NDArray[np.bool_]) -> bool:
    """Whether they differ in signs only, and are neither the same nor each other's negative."""
    if (np.abs(np.abs(first) - np.abs(second)) > _TINY).any():
        return False
    return bool((np.abs(first[alike]) > _TINY).any() and (np.abs(first[~alike]) > _TINY).any())
