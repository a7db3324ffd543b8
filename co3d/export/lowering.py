"""From a graph of torch operators to an ONNX graph, node by node.

Only the operators that our networks are made of are known. Each becomes what runtimes recognise and
fuse, weights keep the names that they have in the module, so that graphs of one net can share them,
and nothing of the machine that made the file gets into it.
"""

import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.export.graph_signature import InputKind

TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.int64: TensorProto.INT64,
    torch.bool: TensorProto.BOOL,
}


class Graph:
    """ONNX nodes under construction; `constants` are the tensors that they refer to, by name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Tensor] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def add(self, kind: str, inputs: Sequence[str], name: str = "", **attributes) -> str:
        """Appends a node and names its result."""
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def constant(self, value: Any, dtype: torch.dtype | None = None) -> str:
        """The name of a tensor of numbers, int64 or as they are."""
        tensor = torch.as_tensor(value, dtype=dtype)
        facts = (str(tensor.dtype)[6:], *tensor.shape, "is", *tensor.flatten().tolist())
        name = "_".join(map(str, ("constant", *facts)))
        self.constants[name] = tensor
        return name


def lowered(module: nn.Module, args: tuple[Tensor, ...], inputs, outputs) -> Graph:
    """The graph of `module(*args)`, whose inputs and outputs get the given names.

    Raises:
        TypeError: for an operator that is not known, which no network of the zoo has.
    """
    program = torch.export.export(module, args, strict=False)
    with warnings.catch_warnings():  # torch 2.13 warns of its own code here
        warnings.simplefilter("ignore", FutureWarning)
        program = program.run_decompositions({})  # nothing is written in place then
    graph, values, known = Graph(), {}, {}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    names = iter(inputs)
    held = {**dict(program.state_dict), **program.constants}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            spec = specs[node.name]
            if spec.kind == InputKind.USER_INPUT:
                values[node] = next(names)
                graph.inputs.append(_info(values[node], node.meta["val"]))
            else:
                values[node] = spec.target
                graph.constants[spec.target] = held[spec.target]
        elif node.target is operator.getitem:
            values[node] = values[node.args[0]][node.args[1]]
        elif node.op == "call_function" and all(one in known for one in node.all_input_nodes):
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = node.target(*args, **kwargs)  # of numbers alone, such as torch.linspace
            if isinstance(known[node], Tensor):  # else a check
                values[node] = graph.constant(known[node])
        elif node.op == "call_function":
            values[node] = _lower(graph, node, values)
    results = program.graph.output_node().args[0]
    for name, node in zip(outputs, results, strict=True):
        graph.add("Identity", [values[node]], name)
        graph.outputs.append(_info(name, node.meta["val"]))
    _rename_results(graph)
    return graph


def _info(name: str, value: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TYPES[value.dtype], list(value.shape))


def _rename_results(graph: Graph) -> None:
    """Takes out the Identity before a result where a node of this graph can have its name."""
    makers = {node.output[0]: node for node in graph.nodes if node.op_type != "Identity"}
    new, kept = {}, []
    for node in graph.nodes:
        maker = makers.get(node.input[0]) if node.op_type == "Identity" else None
        if maker is not None and node.input[0] not in new:
            new[node.input[0]] = node.output[0]
        else:
            kept.append(node)
    for node in kept:
        for names in (node.input, node.output):
            renamed = [new.get(name, name) for name in names]
            del names[:]
            names.extend(renamed)
    graph.nodes = kept


def _lower(graph: Graph, node: torch.fx.Node, values: dict) -> str:
    rule = _RULES.get(str(node.target).removeprefix("aten.").split(".")[0])
    if rule is None:
        raise TypeError(f"expected operators with a form in ONNX, given {node.target}")
    schema = node.target._schema.arguments
    given = dict(zip((a.name for a in schema), node.args, strict=False)) | dict(node.kwargs)
    full = {a.name: given.get(a.name, a.default_value) for a in schema}
    translated = {key: _value(value, values) for key, value in full.items()}
    return rule(graph, node, translated)


def _value(value: Any, values: dict) -> Any:
    if isinstance(value, torch.fx.Node):
        return values[value]
    if isinstance(value, list | tuple):
        return [_value(one, values) for one in value]
    return value


def _unary(kind: str) -> Callable:
    return lambda graph, node, a: graph.add(kind, [a["self"]])


def _binary(kind: str) -> Callable:
    def rule(graph: Graph, node: torch.fx.Node, a: dict) -> str:
        other = a["other"]
        if not isinstance(other, str):
            other = graph.constant(other, _operand_type(node))
        return graph.add(kind, [a["self"], other])

    return rule


def _operand_type(node: torch.fx.Node) -> torch.dtype:
    return node.args[0].meta["val"].dtype


def _conv(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    inputs = [a["input"], a["weight"], *([a["bias"]] if a["bias"] else [])]
    return graph.add(
        *("Conv", inputs),
        kernel_shape=list(node.args[1].meta["val"].shape[2:]),
        strides=a["stride"],
        pads=a["padding"] * 2,
        dilations=a["dilation"],
        group=a["groups"],
    )


def _linear(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    inputs = [a["input"], a["weight"], *([a["bias"]] if a["bias"] else [])]
    return graph.add("Gemm", inputs, transB=1)


def _max_pool(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    return graph.add(
        *("MaxPool", [a["self"]]),
        kernel_shape=a["kernel_size"],
        strides=a["stride"] or a["kernel_size"],
        pads=a["padding"] * 2,
        dilations=a["dilation"],
    )


def _reduction(kind: str) -> Callable:
    def rule(graph: Graph, node: torch.fx.Node, a: dict) -> str:
        axes = graph.constant(a["dim"])
        return graph.add(kind, [a["self"], axes], keepdims=int(a["keepdim"] or False))

    return rule


def _global_mean(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    if set(a["output_size"]) != {1}:
        raise TypeError(f"expected a pool to size 1, given {a['output_size']}")
    return graph.add("ReduceMean", [a["self"], graph.constant([2, 3, 4])], keepdims=1)


def _silu(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    return graph.add("Mul", [a["self"], graph.add("Sigmoid", [a["self"]])])


def _reshape(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    shape = graph.constant(list(node.meta["val"].shape))
    return graph.add("Reshape", [a["self"], shape])


def _cat(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    return graph.add("Concat", a["tensors"], axis=a["dim"])


def _slice(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    start, end, step = a["start"] or 0, a["end"], a["step"]
    end = torch.iinfo(torch.int64).max if end is None else end
    bounds = [graph.constant([n]) for n in (start, end, a["dim"], step)]
    return graph.add("Slice", [a["self"], *bounds])


def _transpose(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    rank = node.meta["val"].ndim
    order = list(range(rank))
    i, j = a["dim0"], a["dim1"]
    order[i], order[j] = order[j], order[i]
    return graph.add("Transpose", [a["self"]], perm=order)


def _permute(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    return graph.add("Transpose", [a["self"]], perm=a["dims"])


def _same(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    return a["self"]  # where shapes are broadcast, ONNX does so too


def _select(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    return graph.add("Gather", [a["self"], graph.constant(a["index"])], axis=a["dim"])


def _index(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    *before, indices = a["indices"]
    if any(one is not None for one in before):
        raise TypeError("expected an index along one axis, given several")
    return graph.add("Gather", [a["self"], indices], axis=len(before))


def _where(graph: Graph, node: torch.fx.Node, a: dict) -> str:
    other = a["other"]
    if not isinstance(other, str):
        other = graph.constant(other, node.meta["val"].dtype)
    return graph.add("Where", [a["condition"], a["self"], other])


def _split(graph: Graph, node: torch.fx.Node, a: dict) -> list[str]:
    parts = [f"split_{len(graph.nodes)}_{n}" for n in range(len(node.meta["val"]))]
    sizes = graph.constant([part.shape[a["dim"]] for part in node.meta["val"]])
    graph.nodes.append(helper.make_node("Split", [a["self"], sizes], parts, axis=a["dim"]))
    return parts


_RULES: dict[str, Callable] = {
    **{"conv2d": _conv, "conv3d": _conv, "linear": _linear, "max_pool2d": _max_pool},
    **{
        "max_pool3d": _max_pool,
        "mean": _reduction("ReduceMean"),
        "sum": _reduction("ReduceSum"),
        "silu": _silu,
        "cat": _cat,
        "slice": _slice,
    },
    **{"flatten": _reshape, "view": _reshape, "reshape": _reshape, "unsqueeze": _reshape},
    **{"squeeze": _reshape, "unflatten": _reshape, "transpose": _transpose, "permute": _permute},
    **{"relu": _unary("Relu"), "sigmoid": _unary("Sigmoid"), "alias": _same, "expand": _same},
    **{"contiguous": _same, "clone": _same},  # a layout in memory is no part of a graph
    **{"add": _binary("Add"), "mul": _binary("Mul"), "div": _binary("Div"), "where": _where},
    **{"maximum": _binary("Max"), "minimum": _binary("Min"), "abs": _unary("Abs")},
    **{"matmul": _binary("MatMul"), "split": _split},
    **{
        "select": _select,
        "index": _index,
        "ge": _binary("GreaterOrEqual"),
        "adaptive_avg_pool3d": _global_mean,
    },
}
