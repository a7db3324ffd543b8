"""What is public is documented; the API says what it takes, returns and raises."""

import ast
import importlib
import inspect
import pkgutil
import textwrap
from functools import cached_property

import co3d
from co3d.measure import conversion
from co3d.nn import ClipNet, StreamNet

NAMES = [module.name for module in pkgutil.walk_packages(co3d.__path__, "co3d.")]
MODULES = [co3d, *map(importlib.import_module, NAMES)]
API = [getattr(co3d, name) for name in co3d.__all__ if name != "report"]
API += [conversion.report, co3d.report.read, co3d.report.write, ClipNet, StreamNet]


def members(scope, module):
    """Public functions, classes, methods and properties of a module, and what documents them."""
    for name, value in vars(scope).items():
        if name.startswith("_") or getattr(value, "__module__", module) != module:
            continue
        if inspect.isclass(value):
            yield from members(value, module)
        if callable(value) or isinstance(value, (property, cached_property, classmethod)):
            # What overrides a documented method (such as torch's `forward`) says what that says.
            yield f"{module}: {scope.__name__}.{name}", inspect.getdoc(getattr(scope, name))


def test_everything_public_is_documented():
    silent = [module.__name__ for module in MODULES if not module.__doc__]
    for module in MODULES:
        silent += [name for name, text in members(module, module.__name__) if not text]
    assert not silent


def functions():
    """What a program calls: the functions of the API and the methods of its classes, with docs."""
    for thing in API:
        if not inspect.isclass(thing):
            yield thing, inspect.getdoc(thing)
            continue
        for name, function in inspect.getmembers(thing, inspect.isfunction):
            own = function.__code__.co_filename.startswith(co3d.__path__[0])  # not a dataclass's
            if own and name in ("__init__", "__post_init__"):
                yield function, inspect.getdoc(thing)
            elif own and (name == "__call__" or not name.startswith("_")):
                yield function, inspect.getdoc(function)


def test_the_api_is_annotated():
    for function, _ in functions():
        signature = inspect.signature(function)
        given = [
            parameter.annotation
            for name, parameter in signature.parameters.items()
            if name != "self"
        ]
        assert inspect.Signature.empty not in [*given, signature.return_annotation], function


def test_the_api_says_what_it_raises():
    silent = []
    for function, text in functions():
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        raises = any(isinstance(node, ast.Raise) and node.exc for node in ast.walk(tree))
        silent += [function.__qualname__] if raises and "Raises:" not in text else []
    assert not silent
