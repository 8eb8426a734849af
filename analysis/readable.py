"""A formula in the words of the file it came from: Python over the names of the columns.

Polars prints an expression with every operand in brackets of its own; a reader wants what was written. Of
expressions used here the text is valid Python again, and gives the same expression; what is not known is left as Polars
prints it.
"""

import re

import polars as pl

_BINARY = ("**", "//", "==", "!=", "<=", ">=", "&", "|", "+", "-", "*", "/", "%", "<", ">")
_LOOSE, _SUM, _PRODUCT, _ATOM = range(4)
_STRENGTH = dict.fromkeys(("+", "-"), _SUM) | dict.fromkeys(("*", "/", "//", "%"), _PRODUCT)
_CONSTANT = re.compile(r"(?:dyn (?:int|float): )?(-?\d[\d.]*(?:e[+-]?\d+)?|[A-Za-z]\w*)")
_NAME = re.compile(r"\w+(?:\.\w+)*")
_HORIZONTAL = re.compile(r"(?:(?:max|min|sum|mean|any|all)_horizontal|coalesce)$")


_SPELT = {"strict_cast": ("cast", ""), "clip_min": ("clip", ""), "clip_max": ("clip", "upper_bound=")}


def readable(formula: pl.Expr) -> str:
    """The formula as one would write it.

    Example:
        >>> readable((pl.col("dg_dg") / pl.col("d_d")).sqrt())
        '(dg_dg / d_d).sqrt()'
    """
    return _read(formula)[0]


def factor(formula: pl.Expr) -> str:
    """The formula as one would write it in a product.

    Example:
        >>> factor(pl.col("gx_gx") + pl.col("gy_gy"))
        '(gx_gx + gy_gy)'
    """
    return _held(*_read(formula))


def _read(formula: pl.Expr) -> tuple[str, int]:
    """The text, and how strongly it holds together."""
    printed = str(formula)
    try:
        reader = _Reader(printed)
        found = reader.expression()
    except (ValueError, IndexError):
        return printed, _ATOM
    return found if reader.at == len(printed) else (printed, _ATOM)


class _Reader:
    """Reads what Polars prints from left to right; each part comes back with how strongly it holds together."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def expression(self) -> tuple[str, int]:
        start = self._start()
        while self._sees("."):
            start = self._call(*start)
        return start

    def _start(self) -> tuple[str, int]:
        for begin, read in (('col("', self._column), ("[(", self._binary), (".when(", self._when)):
            if self._sees(begin):
                return read()
        found = _CONSTANT.match(self.text, self.at)
        if found is None:
            raise ValueError(self.text[self.at :])
        self.at = found.end()
        return {"null": "None", "true": "True", "false": "False"}.get(found[1], found[1]), _ATOM

    def _column(self) -> tuple[str, int]:
        self._take('col("')
        end = self.text.index('")', self.at)
        name, self.at = self.text[self.at : end], end + 2
        return name, _ATOM

    def _binary(self) -> tuple[str, int]:
        self._take("[(")
        left, left_strength = self.expression()
        self._take(") ")
        operator = next(o for o in _BINARY if self._sees(o + " ("))
        self._take(operator + " (")
        right, right_strength = self.expression()
        self._take(")]")
        strength = _STRENGTH.get(operator, _LOOSE)
        left = left if left_strength >= max(strength, _SUM) else f"({left})"
        right = right if right_strength > max(strength, _SUM) else f"({right})"
        return f"{left} {operator} {right}", strength

    def _when(self) -> tuple[str, int]:
        text = ""
        for word in ("when", "then", "otherwise"):
            self._take(f".{word}(")
            text += f"{'.' * bool(text)}{word}({self.expression()[0]})"
            self._take(")")
        return text, _ATOM

    def _call(self, of: str, strength: int) -> tuple[str, int]:
        self._take(".")
        found = _NAME.match(self.text, self.at)
        if found is None:
            raise ValueError(self.text[self.at :])
        name, self.at = found[0], found.end()
        arguments = self._arguments()
        if name == "negate":
            return (f"-{of}" if strength == _ATOM and not of.startswith("-") else f"-({of})"), _PRODUCT
        if name == "not":
            return f"~{_held(of, strength)}", _PRODUCT
        if name == "pow" and len(arguments) == 1:
            return f"{_held(of, strength)} ** {arguments[0]}", _PRODUCT
        if _HORIZONTAL.match(name):
            return f"{name}({', '.join([of, *arguments])})", _ATOM
        if name == "sort" and arguments in (["asc"], ["desc"]):
            arguments = ["descending=True"] * (arguments == ["desc"])
        name, first = _SPELT.get(name, (name, ""))
        return f"{_held(of, strength)}.{name}({first}{', '.join(arguments)})", _ATOM

    def _arguments(self) -> list[str]:
        self._take("(")
        listed = self._sees("[")
        if listed and not self._sees("[("):
            self._take("[")
        found = []
        while not self._sees("]") and not self._sees(")"):
            if self._sees(", "):
                self._take(", ")
            found.append(self.expression()[0])
        if listed and self._sees("]"):
            self._take("]")
        self._take(")")
        return found

    def _sees(self, begin: str) -> bool:
        return self.text.startswith(begin, self.at)

    def _take(self, expected: str) -> None:
        if not self._sees(expected):
            raise ValueError(f"{expected!r} at {self.at} of {self.text!r}")
        self.at += len(expected)


def _held(text: str, strength: int) -> str:
    return text if strength == _ATOM and not text.startswith("-") else f"({text})"
