"""The public names of the library and the commands, from signatures and docstrings."""

import inspect
import re
from collections.abc import Iterator, Mapping

import co3d

from ...deploy import OptimizedClip, OptimizedStream, Runner, export
from ...measure import conversion
from ...measure.outputs import Scores, Step
from ...nn import ClipNet, Continual, StreamNet
from . import pages
from .markup import Html, code, page, text
from .source import Source

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises):$")
ENTRIES = ("Args", "Attributes", "Raises")  # sections that are lists
TYPES = {  # what public functions return or take, by the place of its class
    "co3d.nn": (ClipNet, Continual, StreamNet),
    "co3d.deploy": (OptimizedClip, OptimizedStream, Runner, export),
    "co3d.measure.conversion": (conversion.Report,),
    "co3d.measure.outputs": (Scores, Step),
}


def api(source: Source, commands: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """api.html.

    Args:
        commands: the help of each command by its name.
    """
    at = "api.html"
    public = {f"co3d.{name}": getattr(co3d, name) for name in co3d.__all__ if name != "report"}
    public["co3d.report"] = conversion.report
    public |= {f"{home}.{one.__name__}": one for home, some in TYPES.items() for one in some}
    entries = [_entry(name, value, public) for name, value in sorted(public.items())]
    helps = "".join(
        f'<h3 id="{name.replace(" ", "-")}"><code>co3d {name}</code></h3>\n'
        f"<pre>{text(said)}</pre>\n"
        for name, said in sorted(commands.items())
    )
    body = (
        f"<h1>API of co3d {co3d.__version__}</h1>\n"
        f"<p>What <code>import co3d</code> gives, then {_jump('commands', 'the commands')}.</p>\n"
        f"{_list(public)}{''.join(entries)}"
        f'<h2 id="commands">Commands</h2>\n{helps}'
    )
    yield at, page("API", body, at)


def _jump(anchor: str, words: str) -> str:
    return f'<a href="#{anchor}">{words}</a>'


def _list(public: Mapping[str, object]) -> str:
    jumps = (_jump(name, f"<code>{name.removeprefix('co3d.')}</code>") for name in sorted(public))
    return f"<p>{' · '.join(jumps)}</p>\n"


def _entry(name: str, value: object, public: Mapping[str, object]) -> str:
    parts = [f'<h2 id="{name}"><code>{name}</code></h2>\n', _signature(name, value), _doc(value)]
    if inspect.isclass(value):
        others = ((one, key) for key, one in public.items() if one is not value)
        bases = {one: key for one, key in others if inspect.isclass(one) and issubclass(value, one)}
        if bases:
            also = " and ".join(_jump(key, code(base.__name__)) for base, key in bases.items())
            parts.append(f"<p>Also what {also} has.</p>\n")
        parts += [_member(name, key, one) for key, one in _members(value, tuple(bases))]
    return "".join(parts)


def _members(cls: type, bases: tuple[type, ...]) -> Iterator[tuple[str, object]]:
    """Public methods and properties that say what they are, those of torch and `bases` left out."""
    for key, found in inspect.getmembers(cls):
        if key.startswith("_") and key != "__call__":
            continue
        shown = (callable(found) or isinstance(found, property)) and inspect.getdoc(found)
        home = next((base for base in cls.__mro__ if key in vars(base)), cls)
        known = any(issubclass(base, home) for base in bases)
        if shown and home.__module__.startswith("co3d.") and not known:
            yield key, found


def _member(name: str, key: str, value: object) -> str:
    title = f'<h3 id="{name}.{key}"><code>{key}</code></h3>\n'
    return title + _signature(key, value) + _doc(value)


def _signature(name: str, value: object) -> str:
    if isinstance(value, property) or not callable(value):
        return ""
    try:
        signature = inspect.signature(value)
    except ValueError:
        return ""
    if inspect.isclass(value):
        signature = signature.replace(return_annotation=inspect.Signature.empty)
    short = name.rpartition(".")[2]
    line = f"{short}{signature}"
    if len(line) > 80:
        several = [f"    {parameter}," for parameter in map(str, signature.parameters.values())]
        kinds = [p.kind for p in signature.parameters.values()]
        keyword = inspect.Parameter.KEYWORD_ONLY
        if keyword in kinds:
            several.insert(kinds.index(keyword), "    *,")
        after = signature.return_annotation
        after = "" if after is inspect.Signature.empty else f" -> {inspect.formatannotation(after)}"
        line = "\n".join([f"{short}(", *several, f"){after}"])
    return f"<pre>{text(_plain(line))}</pre>\n"


def _plain(signature: str) -> str:
    """Without the modules of types and with no address of an object."""
    return re.sub(r"\b(?:[a-z_][\w]*\.)+(?=[A-Z])", "", signature)


def _doc(value: object) -> Html:
    """A docstring as HTML: titles of sections become bold, their entries a list."""
    lines, section = [], ""
    for line in (inspect.getdoc(value) or "").splitlines():
        if found := SECTION.match(line):
            section = found[1]
            lines += ["", f"**{section}**", ""]
        elif section in ENTRIES and re.match(r"    \S", line):
            name, colon, rest = line.strip().partition(": ")
            named = colon and re.fullmatch(r"[\w*, ]+", name)
            lines.append(f"- `{name}`: {rest}" if named else f"- {line.strip()}")
        else:
            section = section if line.startswith(" ") or not line else ""
            lines.append(f"  {line.strip()}" if section in ENTRIES else line.strip())
    return pages.markdown("\n".join(lines))
