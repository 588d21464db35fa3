"""Parts that are found by themselves: a new file with a decorator is all that a new part needs.

Names and summaries are read from the source text, so that listing the parts imports none of them
(and so no torch); a part's module is imported when the part is first asked for.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fovea.errors import ConfigError, UnknownName

F = TypeVar("F", bound=Callable[..., Any])
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """One registered part: its public name, one sentence about it, and the module that defines it."""

    name: str
    summary: str
    module: str


class Registry:
    """All parts of one kind. An instance is the decorator that registers a function under its own name."""

    def __init__(self, decorator: str, kind: str, folder: str) -> None:
        self.kind = kind
        self._decorator = decorator
        self._folder = folder
        self._parts: dict[str, Callable[..., Any]] = {}
        self._entries: dict[str, Entry] | None = None

    def __call__(self, function: F) -> F:
        """Register `function` (underscores of its name become hyphens)."""
        name = public_name(function.__name__)
        known = self._scan().get(name)
        if known is not None and known.module != function.__module__:
            raise ConfigError(f"{self.kind} '{name}' of {function.__module__} stands already in {known.module}")
        self._parts[name] = function
        self._scan()[name] = Entry(name, _first_line(function.__doc__), function.__module__)
        return function

    def entries(self) -> list[Entry]:
        """Every part, by name."""
        return sorted(self._scan().values(), key=lambda entry: entry.name)

    def names(self) -> list[str]:
        """Every part's name, sorted."""
        return sorted(self._scan())

    def get(self, name: str) -> Callable[..., Any]:
        """The function registered under `name`. Raises UnknownName."""
        if name not in self._parts:
            entry = self._scan().get(name)
            if entry is None:
                raise UnknownName(self.kind, name, self.names())
            importlib.import_module(entry.module)
        return self._parts[name]

    def bind(self, spec: str, num_given: int = 0) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Read `name[:value][:option=value]...`; returns the function and its checked keyword options.

        The first `num_given` parameters are supplied by the caller, not by the spec. A function with `**options`
        also takes names that it does not declare; their values are read as Python's literals, else as text.
        """
        name, *words = spec.split(":")
        function = self.get(name)
        given = list(inspect.signature(function).parameters)[:num_given]
        parameters, is_open = _parameters(function, num_given)
        options: dict[str, Any] = {}
        for position, word in enumerate(words):
            key, equals, text = word.partition("=")
            if not equals:
                if position >= len(parameters):
                    raise ConfigError(f"{self.kind} '{name}' takes no value '{word}' in '{spec}'")
                key, text = parameters[position].name, word
            parameter = next((p for p in parameters if p.name == key), None)
            if parameter is None and is_open and key not in given:
                options[key] = _read_literal(text)
                continue
            if parameter is None:
                raise UnknownName(f"option of {self.kind} '{name}'", key, [p.name for p in parameters])
            options[key] = _read_value(text, parameter, spec)
        for parameter in parameters:
            if parameter.default is parameter.empty and parameter.name not in options:
                raise ConfigError(f"{self.kind} '{name}' needs a value: write {name}:{parameter.name}=...")
        return function, options

    def resolve(self, spec: str, num_given: int = 0) -> str:
        """`spec` with every option spelled out, so that it means the same after a default has changed."""
        function, options = self.bind(spec, num_given)
        values = {p.name: p.default for p in _parameters(function, num_given)[0]} | options
        return ":".join([spec.partition(":")[0], *(f"{name}={value}" for name, value in values.items())])

    def _scan(self) -> dict[str, Entry]:
        if self._entries is None:
            self._entries = {}
            for path in sorted((_PACKAGE / self._folder).glob("*.py")):
                module = ".".join(("fovea", *Path(self._folder).parts, path.stem))
                for node in ast.parse(path.read_text(encoding="utf-8")).body:
                    if isinstance(node, ast.FunctionDef) and self._marks(node):
                        name = public_name(node.name)
                        self._entries[name] = Entry(name, _first_line(ast.get_docstring(node)), module)
        return self._entries

    def _marks(self, node: ast.FunctionDef) -> bool:
        return any(isinstance(d, ast.Name) and d.id == self._decorator for d in node.decorator_list)


model = Registry("model", "model", "models")
source = Registry("source", "data set", "data/sources")
augmentation = Registry("augmentation", "augmentation", "augment")
recipe = Registry("recipe", "recipe", "recipes")
optimizer = Registry("optimizer", "optimizer", "optim")
schedule = Registry("schedule", "schedule", "optim")
REGISTRIES = {
    "recipes": recipe, "models": model, "data": source, "augmentations": augmentation,
    "optimizers": optimizer, "schedules": schedule,
}  # fmt: skip


def load_plugin(path: str | Path) -> None:
    """Run a Python file that registers parts of its own. It is code: run only what you trust."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no plugin file {path}")
    name = f"fovea_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file: a plugin's name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def public_name(name: str) -> str:
    """`fashion_mnist` in the code is `fashion-mnist` on the command line."""
    return name.replace("_", "-")


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n")[0].rstrip(".")


def _parameters(function: Callable[..., Any], num_given: int) -> tuple[list[inspect.Parameter], bool]:
    """The options that a part declares, and whether it takes others, too."""
    parameters = list(inspect.signature(function).parameters.values())[num_given:]
    declared = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    return declared, len(declared) < len(parameters)


def _read_literal(text: str) -> Any:
    """`0.1` is a number, `true` is True, `(1, 2)` a tuple, `avg` a text."""
    try:
        return ast.literal_eval(text.title() if text.lower() in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        return text


def _read_value(text: str, parameter: inspect.Parameter, spec: str) -> Any:
    wanted = parameter.annotation if isinstance(parameter.annotation, str) else parameter.annotation.__name__
    try:
        if wanted == "bool":
            return {"true": True, "false": False}[text.lower()]
        return {"int": int, "float": float}.get(wanted, str)(text)
    except (KeyError, ValueError):
        raise ConfigError(f"'{parameter.name}' in '{spec}' must be {wanted}, not '{text}'") from None
